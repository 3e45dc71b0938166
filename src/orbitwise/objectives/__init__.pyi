# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.objectives.denoiser import Denoiser as Denoiser
from orbitwise.objectives.denoiser import coordinate_scale as coordinate_scale
from orbitwise.objectives.denoising import Denoising as Denoising

__all__: list[str]
_WHERE: dict[str, str]
