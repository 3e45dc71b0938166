"""``ow.sample_conformers``: the command from Python. What costs time to import is imported when it
is called."""

from __future__ import annotations

import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orbitwise.errors import InputError
from orbitwise.methods.conformers.ensemble.ensemble import ConformerEnsemble

if TYPE_CHECKING:
    from rdkit import Chem


def sample_conformers(
    molecule: str | Path | Chem.Mol,
    *,
    minutes: float | None = None,
    out: str | Path | None = None,
    progress: bool = False,
    **options: Any,
) -> ConformerEnsemble:
    """A Boltzmann ensemble of a molecule: ``orbitwise conformers`` from Python.

    ``molecule``: a SMILES, a file of one molecule, or an RDKit molecule (its graph and
    stereochemistry; conformers are not used). ``minutes`` to spend at most (``budget`` of the
    command, 6 where None; it ends before where populations are known to ``precision``). ``out``:
    the folder of the run, which the same call resumes; a temporary one where None. ``options``: any
    other field of ``ConformersConfig``, as ``temperature=350, energy="xtb", seed=1``. ``progress``
    shows bars.

    Raises ``InputError`` for what cannot be used, an unknown option with the nearest name included,
    and ``EnergyError`` for a molecule without parameters. A search that has not converged is no
    error: see ``.converged`` and ``.warnings`` of the ensemble.

    >>> import orbitwise as ow
    >>> methanol = ow.sample_conformers("CO", minutes=0.05, n=50, processes=1)
    >>> methanol.positions.shape[1:], len(methanol.populations)
    ((6, 3), 1)
    """
    from rdkit import Chem

    from orbitwise.methods.conformers.many.request import Request

    if minutes is not None:
        if "budget" in options:
            raise InputError("minutes and budget are the same; give one of them")
        options["budget"] = minutes
    if isinstance(molecule, Chem.Mol):
        molecule = Chem.MolToSmiles(Chem.RemoveHs(molecule))

    with tempfile.TemporaryDirectory(prefix="orbitwise-") as temporary:
        folder = Path(temporary if out is None else out)
        asked = Request.of(str(molecule), charge=options.pop("charge", None), **_known(options))
        if asked.inputs.single is None:
            raise InputError(
                f"{molecule}: {len(asked.inputs.entries)} molecules; give one, or use"
                " orbitwise.methods.conformers.many.run.run_many"
            )
        asked = replace(asked, options={**asked.options, "out": folder})
        quiet = contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO())
        with quiet:
            asked.run()
        found = ConformerEnsemble.load(folder)
    return replace(found, folder=None) if out is None else found


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Without those that are the command's alone."""
    for name in ("jobs", "fast", "smiles"):
        if name in options:
            raise InputError(f"{name} is no option of sample_conformers")
    return options
