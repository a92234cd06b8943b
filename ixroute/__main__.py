"""`python -m ixroute` is `ixroute`."""

import sys

from ixroute.cli import main

sys.exit(main())
