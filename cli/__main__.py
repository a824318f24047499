"""`python -m snapcheck.cli` is `snapcheck`."""

import sys

from snapcheck.cli.app import main

sys.exit(main())
