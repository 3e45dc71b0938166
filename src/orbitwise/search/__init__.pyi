# The names that __init__.py loads on first use. Written by tests/stubs.py.
from orbitwise.search.annealing import Annealed as Annealed
from orbitwise.search.annealing import anneal as anneal
from orbitwise.search.base import Info as Info
from orbitwise.search.base import Kernel as Kernel
from orbitwise.search.base import State as State
from orbitwise.search.carry import Carried as Carried
from orbitwise.search.carry import carry as carry
from orbitwise.search.cycle import Cycle as Cycle
from orbitwise.search.explore import Explored as Explored
from orbitwise.search.explore import explore as explore
from orbitwise.search.hmc import HMC as HMC
from orbitwise.search.langevin import AdjustedLangevin as AdjustedLangevin
from orbitwise.search.langevin import Langevin as Langevin
from orbitwise.search.mala import MALA as MALA
from orbitwise.search.novelty import Coordinates as Coordinates
from orbitwise.search.novelty import Novelty as Novelty
from orbitwise.search.novelty import NoveltyEnergy as NoveltyEnergy
from orbitwise.search.novelty import PairHistogram as PairHistogram
from orbitwise.search.orbit_move import ApproximateOrbitMove as ApproximateOrbitMove
from orbitwise.search.orbit_move import OrbitMove as OrbitMove
from orbitwise.search.prior import GaussianPrior as GaussianPrior
from orbitwise.search.prior import Prior as Prior
from orbitwise.search.quench import minimise as minimise
from orbitwise.search.run import Trace as Trace
from orbitwise.search.run import run as run
from orbitwise.search.schedule import AnnealingPath as AnnealingPath
from orbitwise.search.schedule import Schedule as Schedule
from orbitwise.search.schedule import pilot as pilot
from orbitwise.search.tempering import ReplicaExchange as ReplicaExchange
from orbitwise.search.tempering import Tempered as Tempered
from orbitwise.search.tempering import geometric_ladder as geometric_ladder
from orbitwise.search.warmup import warmup as warmup

__all__: list[str]
_WHERE: dict[str, str]
