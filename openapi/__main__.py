"""`python -m openapi`: write docs/openapi.json, and all that is made of the same. `--check` only says what is stale."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from openapi import calls, document, editions, page, problems

FILES: Mapping[Path, Callable[[], str]] = {
    document.DOCUMENT: document.text,
    editions.CLIENTS: editions.clients_text,
    editions.FLAT: editions.flat_text,
    calls.POSTMAN: calls.postman_text,
    page.PAGE: page.text,
    problems.PAGE: problems.text,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if it is stale")
    options = parser.parse_args()
    stale = [file for file, text in FILES.items() if not file.exists() or file.read_text() != text()]
    for file in stale:
        if options.check:
            sys.stderr.write(f"docs/{file.name} is stale: run `make openapi`, and commit it.\n")
        else:
            file.write_text(FILES[file]())
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
