"""The only top-level package of the wheel: it starts the command line.

The wheel has the command line's modules in `modules/`, under the names that they have in a checkout. They come first on
the path of this process only, so no other program in the environment finds a package called `cli` or `webhook`.
"""

import sys
from pathlib import Path


def main() -> None:
    modules = Path(__file__).parent / "modules"
    if modules.exists():  # not in a checkout, where they are on the path already
        sys.path.insert(0, str(modules))
    from cli.__main__ import main as run

    run()
