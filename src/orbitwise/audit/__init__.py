"""How much of a model's loss is imperfect symmetry: the split of the loss, its course in training,
its landscape."""

from orbitwise.audit.batch import AuditBatch
from orbitwise.audit.dynamics import AuditedStep, AuditEvery, log_steps, read_audits
from orbitwise.audit.equivariance import audit_equivariance
from orbitwise.audit.estimate import Terms, loss_terms
from orbitwise.audit.landscape.conditioning import (
    Condition,
    Conditioning,
    condition_numbers,
    head_weight_deviation,
)
from orbitwise.audit.landscape.loss_surface import LossTerms
from orbitwise.audit.landscape.plane import Landscape, loss_landscape
from orbitwise.audit.landscape.spectrum import Spectrum, hessian_spectrum
from orbitwise.audit.losses import LOSSES
from orbitwise.audit.nodes import Enumerate, Haar, Quadrature, Shifts, nodes_for
from orbitwise.audit.orbit import Outputs, over_orbit
from orbitwise.audit.result import Audit, AuditReport, Estimate, GradientNorms

__all__ = [
    "LOSSES",
    "Audit",
    "AuditBatch",
    "AuditEvery",
    "AuditReport",
    "AuditedStep",
    "Condition",
    "Conditioning",
    "Enumerate",
    "Estimate",
    "GradientNorms",
    "Haar",
    "Landscape",
    "LossTerms",
    "Outputs",
    "Quadrature",
    "Shifts",
    "Spectrum",
    "Terms",
    "audit_equivariance",
    "condition_numbers",
    "head_weight_deviation",
    "hessian_spectrum",
    "log_steps",
    "loss_landscape",
    "loss_terms",
    "nodes_for",
    "over_orbit",
    "read_audits",
]
