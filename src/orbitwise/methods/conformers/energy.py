"""The molecule that `orbitwise conformers` is asked for, with its energy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch

from orbitwise.energies import Counted, RayEnergy
from orbitwise.errors import InputError
from orbitwise.methods.conformers.config import ConformersConfig
from orbitwise.methods.conformers.system import System
from orbitwise.molecules import MMFF94
from orbitwise.molecules.molecule import choose_isomer, parse_smiles, unspecified_stereo
from orbitwise.molecules.stereo.axes import possible_atropisomers
from orbitwise.training.device import device_for


def build_system(config: ConformersConfig) -> tuple[System, list[str]]:
    """Molecule and energy; warnings where the SMILES leaves stereochemistry open."""
    mol = parse_smiles(config.smiles)
    warnings = [
        f"The SMILES leaves stereochemistry open ({what}); one isomer was chosen by the seed and"
        " kept."
        for what in unspecified_stereo(mol)
    ]
    warnings += possible_atropisomers(mol)
    mol = choose_isomer(mol, config.seed)

    if config.workers > 1 and config.energy != "xtb":
        raise InputError(
            f"workers are for slow energies (xtb); {config.energy} needs none: it is batched"
        )

    if config.energy == "xtb":
        from orbitwise.energies.ase import xtb

        factory = partial(xtb, mol, temperature=config.temperature)
        energy = factory() if config.workers == 1 else RayEnergy(factory, config.workers)
        device, dtype = torch.device("cpu"), torch.float64
    else:
        variant = {"mmff94": "MMFF94", "mmff94s": "MMFF94s"}[config.energy]
        energy = MMFF94(mol, temperature=config.temperature, variant=variant)
        device = torch.device(device_for())
        dtype = torch.float32

    energy = Counted(energy.to(device=device, dtype=dtype))
    return System(mol, energy, config.temperature, device, dtype), warnings


@contextmanager
def opened(config: ConformersConfig) -> Iterator[tuple[System, list[str]]]:
    """``build_system``, with its workers stopped in the end."""
    system, warnings = build_system(config)
    try:
        yield system, warnings
    finally:
        if config.workers > 1:
            system.energy.inner.close()
