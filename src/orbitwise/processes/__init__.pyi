# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.processes.base import Process as Process
from orbitwise.processes.gaussian import GaussianProcess as GaussianProcess
from orbitwise.processes.harmonic import HarmonicProcess as HarmonicProcess
from orbitwise.processes.harmonic import Springs as Springs
from orbitwise.processes.sampling import Ancestral as Ancestral
from orbitwise.processes.sampling import Euler as Euler
from orbitwise.processes.sampling import Heun as Heun
from orbitwise.processes.sampling import Samples as Samples
from orbitwise.processes.sampling import edm_grid as edm_grid
from orbitwise.processes.sampling import sample as sample
from orbitwise.processes.sampling import snr_grid as snr_grid
from orbitwise.processes.sampling import uniform_grid as uniform_grid
from orbitwise.processes.von_mises import ProductMixture as ProductMixture
from orbitwise.processes.von_mises import VonMisesMixture as VonMisesMixture
from orbitwise.processes.von_mises_fit import fit_products as fit_products
from orbitwise.processes.von_mises_fit import fit_von_mises as fit_von_mises

__all__: list[str]
_WHERE: dict[str, str]
