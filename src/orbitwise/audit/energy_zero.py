"""A common zero of energies: two methods agree on it only up to a constant per element."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor

from orbitwise.audit import AuditBatch
from orbitwise.audit.subject import AuditSubject


def with_common_zero(subject: AuditSubject, seconds: float) -> tuple[AuditSubject, int]:
    """The subject with its reference energies moved to the zero of its model, and the answers that
    this took.

    A constant per element is fitted by least squares to the differences of the energies per atom in
    the poses of the file, on as many structures as ``seconds`` allow. Where there are fewer than
    two structures for every constant, nothing is moved, and a note says so.
    """
    if not subject.reference or "energy" not in subject.outputs:
        return subject, 0
    elements = torch.unique(torch.cat([batch.args[0].flatten() for batch in subject.batches]))
    begin, differences, rows = time.monotonic(), [], []
    for batch in subject.batches:
        if rows and time.monotonic() - begin > seconds:
            break
        energy = subject.model(batch.x, *batch.moved, *batch.args)["energy"]
        differences.append(energy.double() - batch.target["energy"].double())
        rows.append(_fractions(batch, elements))
    share, difference = torch.cat(rows), torch.cat(differences)
    rank = int(torch.linalg.matrix_rank(share))
    if len(share) < 2 * rank:
        note = (
            "There are too few structures to find the common zero of the energies: they are"
            " compared as they are."
        )
        return replace(subject, notes=(*subject.notes, note)), len(share)
    constants = torch.linalg.pinv(share) @ difference
    batches = [
        _moved(batch, (_fractions(batch, elements) @ constants)) for batch in subject.batches
    ]
    note = (
        "Reference energies and those of the calculator count from different zeros; a constant per"
        f" element, fitted to {len(share)} structures, is taken off before they are compared."
    )
    return replace(subject, batches=batches, notes=(*subject.notes, note)), len(share)


def _fractions(batch: AuditBatch, elements: Tensor) -> Tensor:
    """The share of every element in the atoms of each structure, ``(B, elements)``."""
    return (batch.args[0].unsqueeze(-1) == elements).double().mean(1)


def _moved(batch: AuditBatch, by: Tensor) -> AuditBatch:
    energy = batch.target["energy"]
    return replace(batch, target={**batch.target, "energy": energy + by.to(energy)})
