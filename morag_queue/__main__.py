"""Run the command line as `python -m morag_queue`."""

import sys

from .cli import main

sys.exit(main())
