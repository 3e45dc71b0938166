"""``python -m orbitwise``."""

import sys

from orbitwise.cli import main

sys.exit(main())
