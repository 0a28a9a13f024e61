"""Run the command line as ``python -m lightning_cka.cli``."""

import sys

from lightning_cka.cli.entry_point import main

if __name__ == "__main__":
    sys.exit(main())
