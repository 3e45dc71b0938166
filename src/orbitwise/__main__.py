"""``python -m orbitwise``."""

import sys

from orbitwise.cli.app import main

sys.exit(main())
