"""Run every benchmark again, one after the other, and rebuild the tables and the figures of the
cards.

python benchmarks/run_all.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_A_BENCHMARK = {"cards.py", "molecules.py", "rows.py", "run_all.py", "tables.py"}


def main() -> int:
    failed = []
    for script in sorted(HERE.glob("*.py")):
        if script.name in NOT_A_BENCHMARK:
            continue
        print(f"== {script.name}", flush=True)
        if subprocess.run([sys.executable, str(script)], cwd=HERE.parent).returncode:
            failed.append(script.name)
    for script in ("tables.py", "cards.py"):
        subprocess.run([sys.executable, str(HERE / script)], cwd=HERE.parent, check=True)
    if failed:
        print("failed: " + ", ".join(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
