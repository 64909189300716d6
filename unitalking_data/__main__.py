"""``python -m unitalking_data`` is the command ``unitalking-data``."""

import sys

from unitalking_data.cli import main

if __name__ == "__main__":
    sys.exit(main())
