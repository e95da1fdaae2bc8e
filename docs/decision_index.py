"""docs/decisions/README.md: the index of the decisions, which are one file each. `python -m docs` writes it."""

from pathlib import Path

FOLDER = Path(__file__).parent / "decisions"
PAGE = FOLDER / "README.md"
_INTRODUCTION = """\
# Decisions

The code shows how something is done. A decision says why, when it was made, and what was tried instead.
The newest is first.

A new decision is a file with the next number: its title, its date, and its reasons. `python -m docs` writes this index.
"""


def content() -> str:
    """Return what docs/decisions/README.md has to be."""
    by_date: dict[str, list[str]] = {}
    for file in sorted(FOLDER.glob("[0-9]*.md"), reverse=True):
        title, _, when, *_ = file.read_text().splitlines()
        by_date.setdefault(when[:10], []).append(f"* {file.name[:4]} [{title.removeprefix('# ')}]({file.name})")
    days = (f"\n## {date}\n\n" + "\n".join(lines) + "\n" for date, lines in by_date.items())
    return _INTRODUCTION + "".join(days)
