"""``python -m hyperdrive``."""

import sys

from hyperdrive.cli import main

sys.exit(main())
