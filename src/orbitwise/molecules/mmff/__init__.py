"""MMFF94 as a batched torch energy."""
