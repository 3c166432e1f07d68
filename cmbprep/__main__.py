"""``python -m cmbprep`` is ``cmbprep``."""

import sys

from cmbprep.cli.main import main

sys.exit(main())
