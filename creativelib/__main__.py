"""``python -m creativelib`` is ``creativelib``."""

import sys

from creativelib.cli import main

if __name__ == "__main__":
    sys.exit(main())
