"""`python -m tests.faults`: see `matrix`."""

import sys

if __name__ == "__main__":  # a child process imports this file, and shall not import all the rest
    from tests.faults.matrix import main

    sys.exit(main())
