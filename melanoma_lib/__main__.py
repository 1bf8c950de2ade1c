"""`python -m melanoma_lib` is `melanoma`; torchrun starts modules, not commands."""

import sys

from melanoma_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
