"""`python -m openapi`: write docs/openapi.json. `--check` only says whether it is as it has to be."""

import argparse
import sys

from openapi.document import DOCUMENT, text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if it is stale")
    options = parser.parse_args()
    made = text()
    if options.check:
        if DOCUMENT.exists() and DOCUMENT.read_text() == made:
            return 0
        sys.stderr.write(f"docs/{DOCUMENT.name} is stale: run `make openapi`, and commit it.\n")
        return 1
    DOCUMENT.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
