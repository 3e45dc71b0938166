"""Going around ``torch.compile``, without loading the compiler where nobody has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def outside_the_compiler(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, nothing of which is compiled: ``torch.compiler.disable``, which would import
    the compiler (a second), where that is loaded."""
    return disabled(function) if "torch._dynamo" in sys.modules else function


@cache
def disabled(function: Callable[P, R]) -> Callable[P, R]:
    found: Callable[P, R] = torch.compiler.disable(
        function, reason="the exact posterior looks at values"
    )
    return found
