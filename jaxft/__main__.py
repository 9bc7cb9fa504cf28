"""`python -m jaxft` is `jaxft`."""

import sys

from jaxft.cli import main

sys.exit(main())
