"""docs/first-crm.md, typed command by command.

    REWRITE=1 pytest tests/integration/test_first_crm.py

writes what the commands say into the page.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.template import TEMPLATE
from tests.integration.conftest import CommandLine
from tests.integration.test_command_line_docs import BLOCK, REWRITE, SHOWN, Reader
from tests.stack import Stack

PAGE = TEMPLATE.parent / "docs/first-crm.md"
MASKED = {
    **SHOWN,
    r"req_[0-9a-f]{32}": "req_019b2e4f7c1d3a5b6c7d8e9f0a1b2c3d",
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "8f507cfc-9a3c-4697-b07a-ac58fc914c95",
}


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack(background=False) as stack:
        yield stack


class Newcomer(Reader):
    """Somebody who types what the page says, in an empty folder, beside a running bridge."""

    def _said(self, command: str) -> str:
        if command.startswith("crm-bridge "):
            said = super()._said(command)
        else:
            typed = command.replace("http://127.0.0.1:3000", self.stack.url)
            said = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=True).stdout
            said = said and said.rstrip("\n") + "\n"
        for pattern, shown in MASKED.items():
            said = re.sub(pattern, shown, said)
        return said


def test_the_page_does_what_it_says(
    stack: Stack, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    newcomer = Newcomer(stack, cli)

    def played(block: re.Match[str]) -> str:
        what, value, language, content = block.groups()
        if what == "file":
            (tmp_path / value).write_text(content.replace("http://127.0.0.1:3002", stack.illu.url))
        elif what:
            newcomer.happens(what, value)
        return block[0] if language != "console" else block[0].replace(content, newcomer.plays(content))

    text = PAGE.read_text()
    made = BLOCK.sub(played, text)
    if REWRITE:
        PAGE.write_text(made)
    else:
        assert made == text
    assert sorted(str(site["name"]) for site in stack.illu.sites) == [
        f"Shop {number}, Kitale" for number in (41, 42, 43)
    ]
    assert '"stored": 2, "repeated": 0, "quarantined": 1, "ignored": 0' in made
    assert '"stored": 0, "repeated": 3, "quarantined": 0, "ignored": 0' in made
