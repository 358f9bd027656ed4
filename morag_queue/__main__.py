"""`python -m morag_queue`."""

import sys

from morag_queue.cli import main

sys.exit(main())
