"""A package as if it were not installed."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

import pytest


def make_absent(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``import package`` fails until the test ends."""

    class Without(PathFinder):
        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            if fullname.partition(".")[0] == package:
                return None
            return super().find_spec(fullname, path, target)

    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(
        sys, "meta_path", [Without if f is PathFinder else f for f in sys.meta_path]
    )
