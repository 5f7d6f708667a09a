"""`python -m cptlib COMMAND …`: the same as `cptlib COMMAND …`."""

import sys

from cptlib.commands import main

if __name__ == "__main__":
    sys.exit(main())
