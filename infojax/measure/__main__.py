"""Runs `infojax.measure` as a command."""

import sys
import warnings

from infojax.measure import main

if __name__ == "__main__":
    if not sys.warnoptions:  # library warnings: the reports show what they are about, with reasons
        warnings.simplefilter("ignore")
    sys.exit(main())
