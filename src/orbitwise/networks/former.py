"""Weights of earlier versions: they find their places when they are read, and numbers that had no
effect are dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Former(nn.Module):
    """A module that had more parameters in an earlier version, all without effect.

    ``gone`` names them. A subclass that kept a part of one, or renamed some, overrides ``upgrade``.
    """

    gone: tuple[str, ...] = ()

    def upgrade(self, state: dict[str, Any], prefix: str) -> None:
        """Change the keys under ``prefix`` of an earlier version's ``state`` into those of this
        one, in place."""
        for name in self.gone:
            state.pop(prefix + name, None)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        self.upgrade(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def upgraded(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state``, keyed as the parameters of ``model`` were in an earlier version or are now, keyed
    as they are now."""
    found = dict(state)
    for name, module in model.named_modules():
        if isinstance(module, Former):
            module.upgrade(found, f"{name}." if name else "")
    return found
