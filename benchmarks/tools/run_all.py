"""Run every benchmark and check that it still runs, or measure everything again.

python -m benchmarks.tools.run_all            every script with --quick: minutes, nothing is kept
python -m benchmarks.tools.run_all --full     hours; then the pages, the cards and the figures
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.tools.places import ROOT

FOLDERS = ("speed", "quality", "references")
AFTERWARDS = ("tables", "cards", "sampler_figures")


def scripts() -> list[str]:
    """The modules of all benchmarks."""
    paths = [
        path.relative_to(ROOT).with_suffix("")
        for folder in FOLDERS
        for path in sorted((ROOT / "benchmarks" / folder).rglob("*.py"))
    ]
    return [".".join(path.parts) for path in paths]


def quick(module: str) -> bool:
    """Whether a script runs; its output is shown where it does not."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", module, "--quick"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = done.stdout.strip().splitlines()
    skipped = lines[0] if lines and lines[0].startswith("skipped") else ""
    outcome = "FAILED" if done.returncode else skipped or "runs"
    print(f"{module:52s} {time.monotonic() - begin:5.0f} s  {outcome}", flush=True)
    if done.returncode:
        print("\n".join(lines[-40:]), flush=True)
    return not done.returncode


def full(module: str) -> bool:
    print(f"== {module}", flush=True)
    return not subprocess.run([sys.executable, "-m", module], cwd=ROOT).returncode


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="measure everything again")
    begin, found = time.monotonic(), scripts()
    if parser.parse_args().full:
        well = [full(module) for module in found]
        for tool in AFTERWARDS:
            subprocess.run([sys.executable, "-m", f"benchmarks.tools.{tool}"], cwd=ROOT, check=True)
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            well = list(pool.map(quick, found))
    failed = [module for module, fine in zip(found, well, strict=True) if not fine]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime
    wall = time.monotonic() - begin
    print(f"{len(found)} scripts, {wall:.0f} s, {processor:.0f} s of processor time")
    if failed:
        print("failed: " + ", ".join(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
