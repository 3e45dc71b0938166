"""File formats and SMILES to and from batches of points. Names load on first use."""

from importlib import import_module

# One line per name: name -> module inside this package.
_WHERE = {
    "PointBatch": "batch",
    "parse_smiles": "molecules",
    "unspecified_stereo": "molecules",
    "choose_isomer": "molecules",
    "embed": "molecules",
    "bond_orders": "molecules",
    "to_batch": "molecules",
    "from_batch": "molecules",
    "with_conformers": "molecules",
    "stereo_elements": "handedness",
    "relabel": "handedness",
    "perceive_bonds": "bonds",
    "Frames": "files",
    "read_molecule": "files",
    "read_extxyz": "files",
    "read_sdf": "files",
    "write_sdf": "files",
    "write_extxyz": "files",
}

__all__ = [*_WHERE]


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'orbitwise.data' has no attribute {name!r}")
    value = getattr(import_module(f"orbitwise.data.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
