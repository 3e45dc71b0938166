"""What the search leaves, on disk and for the stages after it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from orbitwise.methods.conformers.exchange.columns import Columns, Round
from orbitwise.methods.conformers.exchange.pooled import Pooled
from orbitwise.metrics.multistate import multistate_log_weights
from orbitwise.molecules.search.mixture_move import MixtureMove
from orbitwise.runs.stages import Kept, Stage


@dataclass(frozen=True)
class Found(Kept):
    """What the search left, warm-up excluded: frames ``x: (S, C, N, 3)`` and ``energy: (S, C)`` of
    the target temperature in order of time, some of the hotter ones ``hot_x: (S', T-1, C, N, 3)``,
    ``hot_energy: (S', T-1, C)``; the step size at the target; rates in ``info``.

    ``columns``: where each shard stands, ``mixture``: its learned moves; both to go on from.
    """

    x: Tensor
    energy: Tensor
    step_size: float
    info: dict
    hot_x: Tensor | None = None
    hot_energy: Tensor | None = None
    columns: tuple[Columns, ...] = ()
    mixture: MixtureMove | None = None

    def stage(self) -> Stage:
        tensors = {"x": self.x, "energy": self.energy}
        if self.hot_x is not None:
            tensors |= {"hot_x": self.hot_x, "hot_energy": self.hot_energy}
        for k, columns in enumerate(self.columns):
            tensors |= {f"columns.{k}.{f.name}": getattr(columns, f.name) for f in fields(Columns)}
        if self.mixture is not None:
            tensors |= {f"mixture.{k}": v for k, v in self.mixture.tensors().items()}
        return Stage(tensors, {"step_size": self.step_size, "search": self.info})

    @classmethod
    def of(cls, stage: Stage) -> Self:
        tensors, info = stage.tensors, stage.info
        columns = [
            Columns(**{f.name: tensors[f"columns.{k}.{f.name}"] for f in fields(Columns)})
            for k in range(sum(name.endswith(".clock") for name in tensors))
        ]
        mixture = {k[8:]: v for k, v in tensors.items() if k.startswith("mixture.")}
        return cls(
            x=tensors["x"],
            energy=tensors["energy"],
            step_size=info["step_size"],
            info=info["search"],
            hot_x=tensors.get("hot_x"),
            hot_energy=tensors.get("hot_energy"),
            columns=tuple(columns),
            mixture=MixtureMove.from_tensors(mixture) if mixture else None,
        )

    @property
    def steps(self) -> int:
        """Steps made, warm-up included."""
        return self.info["steps"] + self.info.get("warm_steps", 0)

    @property
    def betas(self) -> Tensor:
        """Inverse temperatures ``(T,)`` relative to the target."""
        temperatures = torch.tensor(self.info["temperatures"], dtype=torch.float64)
        return temperatures[0] / temperatures

    @property
    def settled(self) -> Found:
        """The same without the first third of its frames: where the chains still come from is in
        no R-hat, as all of them come from there."""
        if not self.columns:
            return self
        rows = {"x": self.x, "energy": self.energy, "hot_x": self.hot_x}
        rows["hot_energy"] = self.hot_energy
        return replace(
            self,
            columns=(),
            **{k: None if v is None else v[len(v) // 3 :] for k, v in rows.items()},
        )

    def pooled(self) -> Pooled:
        """The settled frames of all temperatures as one weighted sample of the target."""
        if self.columns:
            return self.settled.pooled()
        columns = torch.arange(self.x.shape[1])

        def blocks(frames: int) -> Tensor:
            half = 2 * torch.arange(frames) // max(1, frames)  # two blocks a column
            return half[:, None] * len(columns) + columns

        parts, energies, owners = [self.x.flatten(0, 1)], [self.energy], [blocks(len(self.x))]
        if self.hot_x is not None and len(self.hot_x):
            parts += [x.flatten(0, 1) for x in self.hot_x.unbind(1)]
            energies += list(self.hot_energy.unbind(1))
            owners += [blocks(len(self.hot_x))] * self.hot_x.shape[1]
        betas = self.betas[: len(energies)]
        log_weights = multistate_log_weights([e.flatten() for e in energies], betas)
        return Pooled(
            x=torch.cat(parts),
            energy=torch.cat([e.flatten() for e in energies]),
            log_weight=torch.cat(log_weights),
            block=torch.cat([b.flatten() for b in owners]),
        )


def added(info: dict, rounds: list[Round], steps: int) -> dict:
    """Rates over the steps so far."""

    def mean(name: str) -> Tensor:
        return torch.stack([getattr(r, name) for r in rounds]).mean(0).double().cpu()

    made = info["steps"]
    tried = torch.tensor(info["swaps_tried"], dtype=torch.float64)
    swapped = tried * torch.tensor(info["swap_rate"], dtype=torch.float64) + mean("swaps")
    tried = tried + mean("swaps_tried")
    accepted = made * torch.tensor(info["acceptance"], dtype=torch.float64) + mean("accepted")
    return info | {
        "acceptance": (accepted / (made + steps)).tolist(),
        "swap_rate": (swapped / tried.clamp_min(1)).tolist(),
        "swaps_tried": tried.tolist(),
        "round_trips": sum(int(r.columns.round_trips.sum()) for r in rounds),
        "stereo_rejections": info["stereo_rejections"] + sum(r.refused for r in rounds),
        "steps": made + steps,
    }


def thinned(found: Found, factor: int) -> Found:
    """Every ``factor``-th frame: the frames that a run of this length keeps, however it was cut."""
    names = ("x", "energy", "hot_x", "hot_energy")
    rows = {name: getattr(found, name)[factor - 1 :: factor].clone() for name in names}
    return replace(
        found, **rows, info=found.info | {"frames_every": found.info["frames_every"] * factor}
    )
