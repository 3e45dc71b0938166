"""The published weights of AIMNet2, read from the package that carries them; none of its code
runs."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from orbitwise.errors import EnergyError

PACKAGE, FILE = "Auto3D", "models/aimnet2_wb97m-d3_0.jpt"
# What it was trained on: H, B, C, N, O, F, Si, P, S, Cl, As, Se, Br, I.
ELEMENTS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 53)


def weights_file() -> Path:
    """Where the installed package has them; ``MissingExtraError`` without it, ``EnergyError`` for a
    release of it without this file."""
    package = find_spec(PACKAGE)
    if package is None:
        import Auto3D  # noqa: F401  (is not there: the error names the extra)

    for folder in package.submodule_search_locations or ():
        if (path := Path(folder) / FILE).is_file():
            return path
    raise EnergyError(
        f"the installed {PACKAGE} has no {FILE}; install the release that has it: pip install"
        " 'orbitwise[dft]'"
    )


@cache
def weights(dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Every tensor by its name in the file, without gradients; read once per dtype and device."""
    if (dtype, device) != (torch.float32, torch.device("cpu")):
        read = weights(torch.float32, torch.device("cpu"))
        return {name: value.to(device, dtype) for name, value in read.items()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, the file's format
        archive = torch.jit.load(str(weights_file()), map_location="cpu")
    return {name: value.detach() for name, value in archive.state_dict().items()}
