"""The audit along a training: the same held-out items again and again, one line of ``audit.jsonl``
each time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from orbitwise.audit.batch import AuditBatch
from orbitwise.audit.equivariance import audit_equivariance
from orbitwise.audit.losses import Loss
from orbitwise.audit.nodes import Nodes
from orbitwise.audit.orbit import Outputs
from orbitwise.audit.result import Audit, Estimate, GradientNorms
from orbitwise.data.folder import replacing
from orbitwise.errors import InputError, OrbitwiseError
from orbitwise.groups.base import Group

NAME = "audit.jsonl"


class Moment(Protocol):
    """Where a training stands; ``training.Moment`` is one."""

    step: int
    seconds: float
    model: nn.Module
    ema: nn.Module


def log_steps(last: int, per_decade: int = 4) -> list[int]:
    """0, 10, and ``per_decade`` steps in every decade from there, evenly in the logarithm, up to
    ``last``, which is one of them; powers of ten always are."""
    if last < 0 or per_decade < 1:
        raise InputError(
            f"log_steps needs last >= 0 and per_decade >= 1, got {last} and {per_decade}"
        )
    count = math.ceil(per_decade * math.log10(max(last, 10)))
    steps = {round(10 ** (k / per_decade)) for k in range(per_decade, count + 1)}
    return sorted({0, last} | {step for step in steps if step < last})


@dataclass(frozen=True)
class AuditedStep:
    """One line of ``audit.jsonl``: the audit after ``step`` steps and ``seconds`` of training (this
    audit took ``audit_seconds``, which are not in them). ``rows`` per output and level;
    ``numbers``: what else was measured."""

    step: int
    seconds: float
    audit_seconds: float
    rows: tuple[Audit, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def total(self) -> Estimate:
        """Loss, mean over the levels."""
        return self._mean("total")

    @property
    def twirled(self) -> Estimate:
        return self._mean("twirled")

    @property
    def equivariance(self) -> Estimate:
        return self._mean("equivariance")

    @property
    def percent(self) -> Estimate:
        """Of the loss summed over the levels. Levels may share their items: the errors of the
        levels are added, an upper bound."""
        whole = sum(row.total.value for row in self.rows)
        if not whole > 0:
            return Estimate(math.nan, math.nan)
        share = sum(row.equivariance.value for row in self.rows) / whole
        error = sum(row.percent.error * row.total.value for row in self.rows) / whole
        return Estimate(100 * share, error)

    def _mean(self, term: str) -> Estimate:
        found = [getattr(row, term) for row in self.rows]
        return Estimate(
            sum(e.value for e in found) / len(found), sum(e.error for e in found) / len(found)
        )

    def line(self) -> str:
        """As JSON; numbers that are not finite become ``null``."""
        return json.dumps(_plain(asdict(self)))

    @classmethod
    def of_line(cls, text: str) -> AuditedStep:
        """From ``line``. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
        values = json.loads(text)
        rows = tuple(_audit(row) for row in values["rows"])
        numbers = {k: math.nan if v is None else v for k, v in values["numbers"].items()}
        return cls(
            **{**values, "rows": rows, "numbers": numbers, "warnings": tuple(values["warnings"])}
        )


def read_audits(path: str | Path) -> list[AuditedStep]:
    """The lines of an ``audit.jsonl``, or of the one in a run's folder; a line cut short by a kill
    is left out.

    Raises ``InputError`` where there is none.
    """
    path = Path(path) / NAME if Path(path).is_dir() else Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: no audits to read ({error.strerror}); train the run first"
        ) from None
    found = []
    for line in lines:
        try:
            found.append(AuditedStep.of_line(line))
        except (ValueError, KeyError, TypeError):
            continue
    return found


class AuditEvery:
    """``on_step`` of ``training.train``: audits the held-out ``batches`` at some steps into
    ``folder/audit.jsonl``.

    ``steps``: every so many steps, or a list of them (``log_steps``). The items are the same each
    time; the group elements too unless ``same_elements=False`` (common random numbers: what changes
    from audit to audit is the model). ``weights``: of the model as it trains (``last``) or the
    averaged ones. ``audited``: what is audited of a model, itself by default (a module that scales
    its output, say). ``numbers``: more to be measured of the model each time. ``group``, ``loss``,
    ``outputs``, ``nodes``, ``gradients`` and ``chunk`` are those of ``audit_equivariance``; give
    three or more batches per level for gradient norms with errors.

    After a resumption the lines up to that step stay and later ones, of a run that was killed, are
    dropped: no step stands there twice. Neither the model nor any random stream is changed. Raises
    ``InputError`` for impossible steps, ``OrbitwiseError`` where the file cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        group: Group,
        batches: Iterable[AuditBatch],
        *,
        steps: int | Collection[int],
        loss: str | Loss | Mapping[str, str | Loss] = "squared",
        outputs: Outputs = "vector",
        nodes: Nodes | None = None,
        gradients: bool = False,
        weights: Literal["last", "averaged"] = "last",
        same_elements: bool = True,
        seed: int = 0,
        audited: Callable[[nn.Module], Callable[..., Any]] | None = None,
        numbers: Mapping[str, Callable[[nn.Module], float]] | None = None,
        chunk: int | None = None,
    ):
        given = [steps] if isinstance(steps, int) else list(steps)
        if not given or min(given) < (1 if isinstance(steps, int) else 0):
            raise InputError(f"audits need a positive interval or a list of steps, got {steps!r}")
        if weights not in ("last", "averaged"):
            raise InputError(f"weights {weights!r} are none of 'last', 'averaged'")
        self.path = Path(folder) / NAME
        self.steps = steps if isinstance(steps, int) else frozenset(given)
        self.group, self.batches, self.weights = group, tuple(batches), weights
        self.loss, self.outputs, self.nodes, self.gradients = loss, outputs, nodes, gradients
        self.same_elements, self.seed, self.chunk = same_elements, seed, chunk
        self.audited, self.numbers = audited or (lambda model: model), dict(numbers or {})
        self._written: set[int] | None = None

    def due(self, step: int) -> bool:
        return step % self.steps == 0 if isinstance(self.steps, int) else step in self.steps

    def __call__(self, moment: Moment) -> None:
        if self._written is None:
            self._written = self._begin(moment.step)
        if self.due(moment.step) and moment.step not in self._written:
            self._append(self.audit(moment))
            self._written.add(moment.step)

    def audit(self, moment: Moment) -> AuditedStep:
        """The line of this moment, not yet written."""
        begin = time.monotonic()
        model = moment.model if self.weights == "last" else moment.ema
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        generator = torch.Generator(device).manual_seed(
            self.seed + (0 if self.same_elements else moment.step)
        )
        report = audit_equivariance(
            self.audited(model),
            self.group,
            [on_device(batch, device) for batch in self.batches],
            self.loss,
            outputs=self.outputs,
            nodes=self.nodes,
            gradients=self.gradients,
            generator=generator,
            chunk=self.chunk,
        )
        training = [m for m in model.modules() if m.training]

        with torch.no_grad():
            numbers = {name: float(measure(model.eval())) for name, measure in self.numbers.items()}
        for m in training:
            m.training = True
        taken = time.monotonic() - begin
        return AuditedStep(
            step=moment.step,
            seconds=moment.seconds,
            audit_seconds=taken,
            rows=tuple(report.rows),
            numbers=numbers,
            warnings=tuple(report.warnings),
        )

    def _begin(self, step: int) -> set[int]:
        """Keep the lines of this run up to ``step``; a run at step 0 is a new one."""
        found = read_audits(self.path) if step and self.path.exists() else []
        kept = {audit.step: audit for audit in found if audit.step <= step}
        self._write("".join(kept[k].line() + "\n" for k in sorted(kept)))
        return set(kept)

    def _append(self, audit: AuditedStep) -> None:
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(audit.line() + "\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def _write(self, text: str) -> None:
        try:
            with replacing(self.path, grows=True) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OrbitwiseError:
        return OrbitwiseError(
            f"cannot write the audits {self.path}: {error.strerror or error}. Free space or choose"
            " another folder."
        )


@dataclass(frozen=True)
class Course:
    """What a training's audits come to, in percent of the loss summed over the levels.

    ``first_below``: the first audited step under ``threshold`` percent (None: never),
    ``largest_after`` that step, ``smallest`` with its step, ``final``: the last audit.
    """

    threshold: float
    first_below: int | None
    largest_after: float | None
    smallest: float
    smallest_step: int
    final: Estimate
    final_step: int


def course(audits: Sequence[AuditedStep], threshold: float = 2.0, level: Any = None) -> Course:
    """The course of the percentage, of one ``level`` or of all. Raises ``InputError`` for an empty
    list."""
    if not audits:
        raise InputError("there are no audits: train the run first")
    values = [percent_of(audit, level) for audit in audits]
    low = next((k for k, v in enumerate(values) if v.value < threshold), None)
    least = min(range(len(values)), key=lambda k: values[k].value)
    return Course(
        threshold=threshold,
        first_below=None if low is None else audits[low].step,
        largest_after=None if low is None else max(v.value for v in values[low:]),
        smallest=values[least].value,
        smallest_step=audits[least].step,
        final=values[-1],
        final_step=audits[-1].step,
    )


def percent_of(audit: AuditedStep, level: Any = None) -> Estimate:
    """Of one level, or of the loss summed over all (``None``)."""
    return (
        audit.percent if level is None else next(r.percent for r in audit.rows if r.level == level)
    )


def on_device(batch: AuditBatch, device: torch.device) -> AuditBatch:
    """The batch on a device; what has no ``to`` stays as it is."""
    if batch.x.device == device:
        return batch

    def moved(value):
        return value.to(device) if hasattr(value, "to") else value

    target = batch.target
    return replace(
        batch,
        x=moved(batch.x),
        target=(
            {k: moved(v) for k, v in target.items()} if isinstance(target, dict) else moved(target)
        ),
        args=tuple(map(moved, batch.args)),
        mask=moved(batch.mask),
        moved=tuple(map(moved, batch.moved)),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _audit(row: Mapping[str, Any]) -> Audit:
    values = {
        k: _estimate(v) if isinstance(v, dict) and "error" in v else v for k, v in row.items()
    }
    if row["gradients"] is not None:
        norms = {k: _estimate(v) if isinstance(v, dict) else v for k, v in row["gradients"].items()}
        values["gradients"] = GradientNorms(**norms)
    return Audit(**values)


def _estimate(values: Mapping[str, float | None]) -> Estimate:
    return Estimate(*(math.nan if values[k] is None else values[k] for k in ("value", "error")))
