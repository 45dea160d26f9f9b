"""`python -m photowalk` is `photowalk`."""

import sys

from photowalk.cli import main

sys.exit(main())
