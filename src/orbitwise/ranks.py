"""Which of the processes that share one command out this one is."""

from __future__ import annotations

import os

# what launchers call the number of a process
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def follows() -> bool:
    """Whether another process leads."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in RANKS)
