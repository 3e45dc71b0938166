"""The molecule that `orbitwise conformers` is asked for, with the energy that it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from rdkit import Chem

from orbitwise.energies import Counted, Energy, RayEnergy
from orbitwise.errors import InputError
from orbitwise.methods.conformers.system import System
from orbitwise.molecules import MMFF94
from orbitwise.molecules.molecule import choose_isomer, parse_smiles, unspecified_stereo
from orbitwise.molecules.stereo.axes import cumulenes, possible_atropisomers
from orbitwise.runs.named import Kind, check_factory, load_named, made_by
from orbitwise.training.device import device_for

if TYPE_CHECKING:  # which checks its energy here
    from orbitwise.methods.conformers.config import ConformersConfig

# Beside these there is ``package.module:function``.
BATCHED = ("mmff94", "mmff94s", "aimnet2")
NAMES = (*BATCHED, "xtb")
SOLVATED = ("xtb",)


def known_energy(name: str) -> str:
    """``name`` itself; ``InputError`` where it is no energy. ``package.module:function`` is taken
    as it is: it is looked for when the energy is built."""
    if name not in NAMES and ":" not in name:
        raise InputError(
            f"there is no energy {name!r}; choose {', '.join(NAMES)}, or package.module:function"
        )
    return name


def build_energy(
    mol: Chem.Mol,
    name: str,
    temperature: float = 300.0,
    solvent: str | None = None,
    workers: int = 1,
) -> Energy:
    """The energy ``name`` of ``mol`` in kT at ``temperature`` [K], for positions in Å.

    ``mmff94`` and ``mmff94s`` (force fields), ``aimnet2`` (a network near density-functional
    theory, extra ``dft``), ``xtb`` (GFN2-xTB, extra ``xtb``; ``solvent`` by ALPB), or
    ``package.module:function``, a module in the current folder included. ``function(mol,
    temperature)`` gets the RDKit molecule with its hydrogens and returns an
    ``orbitwise.energies.Energy`` in kT, or an ASE calculator (charge and multiplicity set), whose
    eV are converted here. ``workers`` above 1: that many processes share a slow energy out (xtb and
    named functions; extra ``ray``).

    Raises ``InputError`` for a name, function or solvent that cannot be used, ``EnergyError`` for a
    molecule without parameters, ``MissingExtraError`` naming the extra to install.
    """
    known_energy(name)
    if solvent is not None and name not in SOLVATED:
        kind = "a gas-phase energy" if name in NAMES else "built by its own function"
        raise InputError(
            f"{name} is {kind}: no solvent can be added to it; use --energy xtb with --solvent"
            f" {solvent}"
        )
    if workers > 1 and name in BATCHED:
        raise InputError(f"workers are for slow energies (xtb); {name} needs none: it is batched")
    factory = partial(one_process, mol, name, temperature, solvent)
    energy = factory()  # here first, so that a mistake is told as it is
    return energy if workers == 1 else RayEnergy(factory, workers)


def one_process(mol: Chem.Mol, name: str, temperature: float, solvent: str | None) -> Energy:
    """``build_energy`` without workers."""
    if name == "aimnet2":
        from orbitwise.molecules import AIMNet2

        return AIMNet2(mol, temperature)
    if name == "xtb":
        from orbitwise.energies.ase import xtb

        return xtb(mol, temperature=temperature, solvent=solvent)
    if name in NAMES:
        return MMFF94(mol, temperature, variant={"mmff94": "MMFF94", "mmff94s": "MMFF94s"}[name])
    return of_function(mol, name, temperature)


def of_function(mol: Chem.Mol, name: str, temperature: float) -> Energy:
    """What the function ``package.module:function`` makes of the molecule, as an energy of it."""
    what = "the energy"
    function: Callable[[Chem.Mol, float], Any] = load_named(name, what)
    if not callable(function):
        raise InputError(f"{what} {name}: it is no function but {type(function).__name__}")
    if getattr(name, "place", None) is not None:  # not what the user typed: it must say what it is
        from ase.calculators.calculator import BaseCalculator

        words = "an orbitwise Energy or an ASE calculator"
        check_factory(function, name, what, Kind(words, (Energy, BaseCalculator)))
    made = made_by(lambda: function(Chem.Mol(mol), temperature), name, what)

    if not isinstance(made, Energy):
        if not hasattr(made, "get_potential_energy"):
            raise InputError(
                f"{what} {name} returned {type(made).__name__}; function(mol, temperature) must"
                " return an orbitwise.energies.Energy in kT or an ASE calculator"
            )
        from orbitwise.energies.ase import ASEEnergy

        made = ASEEnergy([a.GetAtomicNum() for a in mol.GetAtoms()], made, temperature)

    if tuple(made.event_shape) != (mol.GetNumAtoms(), 3):
        raise InputError(
            f"{what} {name} is for points {tuple(made.event_shape)}; this molecule has"
            f" {mol.GetNumAtoms()} atoms with hydrogens: ({mol.GetNumAtoms()}, 3)"
        )
    if not made.zero_com:
        raise InputError(
            f"{what} {name} has zero_com = False: it changes when the molecule is moved as a whole;"
            " conformers need one that does not"
        )
    return made


def placed(energy: Energy, name: str) -> tuple[torch.device, torch.dtype]:
    """Where an energy is evaluated and in which precision: batched ones on the graphics card, if
    there is one, in single precision; other programs on the processor in double; a named function's
    where its tensors are."""
    if name in BATCHED:
        return torch.device(device_for()), torch.float32
    tensors = [t for t in (*energy.parameters(), *energy.buffers()) if t.is_floating_point()]
    return (
        (tensors[0].device, tensors[0].dtype) if tensors else (torch.device("cpu"), torch.float64)
    )


def zwitterion_warning(mol: Chem.Mol, solvent: str | None = None) -> str | None:
    """A warning where a molecule in the gas phase has charges of both signs apart from each other;
    neighbours (nitro groups, N-oxides, azides, ylides) are one group and no ions."""
    charge = {a.GetIdx(): a.GetFormalCharge() for a in mol.GetAtoms() if a.GetFormalCharge()}
    for bond in mol.GetBonds():
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if charge.get(i, 0) * charge.get(j, 0) < 0:
            cancelled = min(abs(charge[i]), abs(charge[j]))
            for k in (i, j):
                charge[k] -= cancelled if charge[k] > 0 else -cancelled
    left = {k: q for k, q in charge.items() if q}
    if solvent is not None or not left or min(left.values()) > 0 or max(left.values()) < 0:
        return None

    symbol = {a.GetIdx(): a.GetSymbol() for a in mol.GetAtoms()}
    ions = ", ".join(f"{symbol[k]}{'+' if q > 0 else '-'} (atom {k + 1})" for k, q in left.items())
    return (
        f"The molecule is a zwitterion ({ions}). In the gas phase its charges draw it together into"
        " conformers that it does not have in water, and a proton may want to move. For water use"
        " --energy xtb --solvent water; for the gas phase write the neutral form."
    )


def cumulene_warning(mol: Chem.Mol, energy: str) -> str | None:
    """A warning where MMFF94 is to know how the ends of a cumulene stand to each other: it has no
    torsions about linear atoms, so that they turn freely."""
    if not energy.startswith("mmff94") or not (found := cumulenes(mol)):
        return None
    chains = ", ".join("=".join(str(k + 1) for k in cumulene.atoms) for cumulene in found)
    return (
        f"MMFF94 has no term that holds the ends of a cumulene ({chains}) to each other: they turn"
        " freely, and conformers and populations that depend on it mean nothing. Use --energy"
        " aimnet2 or xtb."
    )


def build_system(config: ConformersConfig) -> tuple[System, list[str]]:
    """Molecule and energy; warnings where the SMILES leaves stereochemistry open, and for a
    zwitterion in the gas phase."""
    mol = parse_smiles(config.smiles)
    warnings = [
        f"The SMILES leaves stereochemistry open ({what}); one isomer was chosen by the seed and"
        " kept."
        for what in unspecified_stereo(mol)
    ]
    warnings += possible_atropisomers(mol)
    warnings += filter(None, [zwitterion_warning(mol, config.solvent)])
    mol = choose_isomer(mol, config.seed)

    energy = build_energy(mol, config.energy, config.temperature, config.solvent, config.workers)
    device, dtype = placed(energy, config.energy)
    energy = Counted(energy.to(device=device, dtype=dtype))
    return System(mol, energy, config.temperature, device, dtype), warnings


def above(config: ConformersConfig, system: System) -> System:
    """The same molecule, isomer and atoms as ``system`` with the energy of ``config``; evaluations
    are counted with the others, under the energy's name."""
    energy = build_energy(
        system.mol, config.energy, config.temperature, config.solvent, config.workers
    )
    device, dtype = placed(energy, config.energy)
    energy = energy.to(device=device, dtype=dtype)
    counted = Counted(energy, system.energy.counts, label=f" ({config.energy})")
    return System(system.mol, counted, config.temperature, device, dtype)


@contextmanager
def opened(config: ConformersConfig) -> Iterator[tuple[System, list[str]]]:
    """``build_system``, with its workers stopped in the end."""
    system, warnings = build_system(config)
    try:
        yield system, warnings
    finally:
        if config.workers > 1:
            system.energy.inner.close()
