"""RDKit's embeddings as they come, and its messages in a list instead of on the terminal."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import AllChem

from orbitwise.errors import InputError

_PATIENCE = 60  # seconds for one geometry, after which there is taken to be none


@contextlib.contextmanager
def captured_rdkit_log() -> Iterator[list[str]]:
    """Collect RDKit's messages of the block in a list instead of printing them."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(re.sub(r"^\[\d+:\d+:\d+\] ", "", record.getMessage()).strip())

    logger = logging.getLogger("rdkit")
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Collect()], False
    rdBase.LogToPythonLogger()
    try:
        yield messages
    finally:
        rdBase.LogToCppStreams()
        logger.handlers, logger.propagate = handlers, propagate


def run_etkdg(mol: Chem.Mol, n: int, seed: int) -> np.ndarray:
    """At most ``n`` embeddings ``(n, N, 3)`` in Å by ETKDGv3, at least one; ``InputError`` where
    RDKit finds none."""
    work = Chem.Mol(mol)
    work.RemoveAllConformers()
    parameters = AllChem.ETKDGv3()
    # RDKit seeds conformer i with (i + 1) times this number: 0 would make all of them the same
    parameters.randomSeed = 1 + int(seed) % 1_000_003
    parameters.clearConfs = True
    parameters.numThreads = 0  # all cores; the result does not depend on it
    if hasattr(parameters, "timeout"):  # younger than the oldest RDKit that is supported
        parameters.timeout = _PATIENCE
    for parameters.useRandomCoords in (False, True):
        with captured_rdkit_log() as log:
            AllChem.EmbedMultipleConfs(work, n, parameters)
        if any(
            "Interrupted" in line for line in log
        ):  # RDKit takes Ctrl-C for itself and returns nothing
            raise KeyboardInterrupt
        # the numbers that it returns name conformers that ran out of time, too
        if found := [conformer.GetPositions() for conformer in work.GetConformers()]:
            return np.array(found)
    raise InputError(
        "RDKit (ETKDGv3) finds no three-dimensional geometry for"
        f" {Chem.MolToSmiles(Chem.RemoveHs(mol))}; check the elements, and the stereochemistry for"
        " a combination that cannot exist in space"
    )


def as_conformer(positions: np.ndarray) -> Chem.Conformer:
    """Points ``(N, 3)`` in Å as RDKit holds them."""
    conformer = Chem.Conformer(len(positions))
    conformer.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
    conformer.Set3D(True)
    return conformer


def with_stereo_of(mol: Chem.Mol, positions: np.ndarray) -> Chem.Mol:
    """A copy of ``mol`` without conformers whose open centres and double bonds are those of the
    geometry ``(N, 3)``."""
    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    mol.AddConformer(as_conformer(positions), assignId=True)
    Chem.AssignStereochemistryFrom3D(mol)
    mol.RemoveAllConformers()
    return mol
