"""The blocks of commands in README.md and docs, and how each is tested.

A block is one of these:
* it has a title, which says why no test runs it: `bash title="Needs AWS"`. The reader sees the title;
* it is in a page whose blocks a test plays (`PLAYED`), or it is a command that another test runs (`STARTED`).
"""

import re
from collections.abc import Iterator
from textwrap import dedent
from typing import NamedTuple

from local.template import TEMPLATE

ROOT = TEMPLATE.parent
TITLES = frozenset(
    {"Needs AWS", "Needs the AWS CLI", "Needs Docker", "Needs the finished example", "Installs", "Takes minutes"}
)
"""Why no test runs a block."""
PLAYED = {
    ("README.md", "console"): "integration/test_local.py::test_a_pages_session_is_what_it_prints",
    ("docs/quickstart.md", "console"): "integration/test_local.py::test_a_pages_session_is_what_it_prints",
    (
        "docs/demo.md",
        "console",
    ): "integration/test_local.py::test_the_demo_goes_right_prints_what_the_pages_show_and_logs_no_secret",
    ("docs/command-line.md", "console"): "integration/test_command_line_docs.py::test_the_sessions_go_as_the_page_says",
    ("docs/first-crm.md", "console"): "integration/test_first_crm.py::test_the_page_does_what_it_says",
    ("docs/api.md", "bash"): "integration/test_page_commands.py::test_a_request_of_a_page_is_answered",
    ("docs/runbook/needs-review.md", "bash"): "integration/test_page_commands.py::test_a_request_of_a_page_is_answered",
    ("docs/console.md", "bash"): "integration/test_page_commands.py::test_a_command_of_a_page_works",
    ("docs/privacy.md", "bash"): "integration/test_page_commands.py::test_a_command_of_a_page_works",
    ("docs/rotate-keys.md", "bash"): "integration/test_page_commands.py::test_a_command_of_a_page_works",
    ("docs/troubleshooting.md", "bash"): "integration/test_page_commands.py::test_a_command_of_a_page_works",
    ("docs/vendors/egito.md", "bash"): "integration/test_page_commands.py::test_a_command_of_a_page_works",
}
"""By page and language: the test that plays all blocks without a title."""
STARTED = {
    "make run": "integration/test_local.py::test_the_banner_can_be_pasted",
    'export PATH="$PWD/.venv/bin:$PATH" CRM_BRIDGE_LOCAL=1': "integration/test_local.py::"
    "test_the_command_line_works_on_it_from_a_terminal_that_knows_nothing_of_it",
}
"""By block, on whichever page: the test that runs the same."""
_BLOCK = re.compile(r'^( *)```(\w+)(?: title="([^"]+)")?\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)
_COMMANDS = frozenset({"bash", "console", "sh"})


class Block(NamedTuple):
    page: str
    language: str
    title: str
    text: str


def blocks() -> Iterator[Block]:
    """Yield the blocks of commands of all pages."""
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        page = path.relative_to(ROOT).as_posix()
        for _, language, title, text in _BLOCK.findall(path.read_text()):
            if language in _COMMANDS:
                yield Block(page, language, title, dedent(text).strip())


def played(test: str) -> dict[str, list[str]]:
    """Return the blocks that a test has to play, by their page."""
    found: dict[str, list[str]] = {}
    for block in blocks():
        if not block.title and PLAYED.get((block.page, block.language), "").endswith(f"::{test}"):
            found.setdefault(block.page, []).append(block.text)
    return found
