"""``python -m cmbprep`` is ``cmbprep``."""

import sys

from .cli.main import main

sys.exit(main())
