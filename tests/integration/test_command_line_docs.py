"""The sessions of docs/command-line.md, played one after the other.

    REWRITE=1 pytest tests/integration/test_command_line_docs.py

writes what the commands say into the page.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.events import KEY
from local.template import TEMPLATE
from local.vendors.simulator import Kind
from tests.integration.conftest import CommandLine
from tests.stack import Stack

PAGE = TEMPLATE.parent / "docs/command-line.md"
REWRITE = "REWRITE" in os.environ
BLOCK = re.compile(r"(?:<!-- (file|illu|minutes): ([\w.]+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
SHOWN = {
    r"crmb_[\w-]{43}": "crmb_…",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC": "2026-11-26 19:00:00 UTC",
    r"\b\d{4}-\d\d-\d\d\b(?! \d\d:)": "2027-11-26",
    r"\b\d{10}\b": "1795719600",
    r"in \d+ s, [\d,]+ a minute, at most \d+ MB": "in 1 s, 120 a minute, at most 80 MB",
    r"\b\d+ ms\b": "12 ms",
    r"127\.0\.0\.1:\d+": "127.0.0.1:3002",
    r"\bmoto\b": "ada ",
}
"""Texts that differ each time, and how the page shows them."""
LOG = r'^\{"(level|_aws)".*\n'
"""The log of the functions, which run in this process."""
A_HASH = "4c2e008ca1e3"
"""How the page shows the hash of a key. It is known by its place: a hash may be of digits only."""


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Asked over HTTP, because an answer's header tells AWS's time."""
    with Stack(background=False) as stack:
        yield stack


class Reader:
    """Somebody who types what the page says, in an empty folder."""

    def __init__(self, stack: Stack, cli: CommandLine) -> None:
        self.stack = stack
        self.cli = cli
        self.hashes: list[str] = []

    def happens(self, what: str, value: str) -> None:
        match what:
            case "illu":
                self.stack.illu.fail(Kind(value))
            case "minutes":
                self.stack.deliver_due(after=60 * int(value))

    def plays(self, session: str) -> str:
        """The session with what the commands say."""
        commands = re.findall(r"^\$ (.*)$", session, re.MULTILINE)
        return "".join(f"$ {command}\n{self._said(command)}" for command in commands)

    def _said(self, command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "crm-bridge":
            arguments = [self.hashes[-1] if one == A_HASH else one for one in arguments]
            result = self.cli(*arguments)
            said = result.err + re.sub(LOG, "", result.out, flags=re.MULTILINE)
            if key := re.search(r"crmb_[\w-]{43}", said):
                os.environ[KEY] = key[0]
        else:
            assert program == "cat"
            said = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
        self.hashes += re.findall(r"^ ([0-9a-f]{12}) ", said, re.MULTILINE)
        for made in self.hashes:
            said = said.replace(made, A_HASH)
        for pattern, shown in SHOWN.items():
            said = re.sub(pattern, shown, said)
        lines = [line.rstrip() for line in said.splitlines()]
        return "".join(f"{line}\n" for line in lines if line)


def test_the_sessions_go_as_the_page_says(
    stack: Stack, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRM_BRIDGE_URL", stack.url)
    monkeypatch.setenv(KEY, "")
    reader = Reader(stack, cli)
    text = PAGE.read_text()

    def played(block: re.Match[str]) -> str:
        what, value, language, content = block.groups()
        if what == "file":
            (tmp_path / value).write_text(content.replace("http://127.0.0.1:3002", stack.illu.url))
        elif what:
            reader.happens(what, value)
        if language != "console":
            return block[0]
        return block[0].replace(content, reader.plays(content))

    made = BLOCK.sub(played, text)
    if REWRITE:
        PAGE.write_text(made)
    else:
        assert made == text


def test_every_command_is_in_the_page() -> None:
    text = PAGE.read_text()
    commands = {
        "tenant": ("add", "schema", "set", "show", "remove", "key add", "key list", "key revoke"),
        "import": ("sites", "jobs", "key-links"),
        "operations": ("list", "show", "resolve", "retry"),
        "requests": ("acme",),
        "links": ("find", "export", "import", "check"),
        "mapping": ("try", "show", "diff", "set", "add-sample", "remove-sample"),
    }
    missing = [f"{group} {one}" for group, ones in commands.items() for one in ones if f"{group} {one}" not in text]
    assert missing == []
    assert all(f"crm-bridge {one} " in text for one in ("doctor", "forget", "send", "show", "tail"))
