"""`python -m sweep_operator.cli` is `scalingsweep`."""

import sys

from sweep_operator.cli import main

sys.exit(main())
