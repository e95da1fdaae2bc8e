"""The commands of the README, run as a newcomer would run them."""

import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
import requests
from samtranslator.yaml_helper import yaml_parse
from typer.testing import CliRunner

import local.__main__
from cli.__main__ import app
from crm_bridge.storage.api_keys import new_api_key
from local import demo
from local.demo import LOG
from local.stack import DEMO_KEY
from local.template import TEMPLATE
from local.vendors.illu import IlluSimulator
from tests.conftest import NEVER_LOGGED
from tests.integration.conftest import SITE
from tests.integration.ministack import ministack
from tests.memory_aws import quick_stack
from tests.stack import Stack

ROOT = TEMPLATE.parent
README = (ROOT / "README.md").read_text()
PAGE = ROOT / "docs/demo.md"
"""`REWRITE=1` writes its transcript again."""


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


# ---------------------------------------------------------------- make demo


def test_the_demo_goes_right_prints_what_the_pages_show_and_logs_no_secret(tmp_path: Path) -> None:
    finished = run("local.demo", cwd=tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""
    printed = _lines(finished.stdout)
    assert max(map(len, printed)) <= 80
    if os.environ.get("REWRITE"):
        page = PAGE.read_text()
        PAGE.write_text(page.replace(_transcript(page), "\n".join(printed) + "\n"))
    assert printed == _lines(_transcript(PAGE.read_text()))
    beginning, dots, _ = _transcript(README).partition("...")
    assert dots
    assert printed[: len(_lines(beginning))] == _lines(beginning)
    log = (tmp_path / LOG).read_text()
    assert '"message":"operation"' in log
    assert [secret for secret in NEVER_LOGGED if secret in log] == []


def _transcript(page: str) -> str:
    found = re.search(r"\$ make demo\n(.*?)```", page, re.DOTALL)
    assert found
    return found[1]


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def test_the_demo_fails_when_illu_holds_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, *_ = yaml_parse(demo.STEPS.read_text())
    (tmp_path / "first.yaml").write_text(json.dumps([first]))
    monkeypatch.setattr(demo, "STEPS", tmp_path / "first.yaml")
    monkeypatch.setattr(demo, "Stack", lambda **_: quick_stack())
    real = IlluSimulator.add_site

    def twice(self: IlluSimulator, name: str, latitude: float, longitude: float, address: str) -> dict[str, object]:
        real(self, name, latitude, longitude, address)
        return real(self, name, latitude, longitude, address)

    monkeypatch.setattr(IlluSimulator, "add_site", twice)
    assert demo.main() == 1


# ---------------------------------------------------------------- make run


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def running(*options: str, home: Path, number: int) -> Iterator[tuple[str, list[str]]]:
    """`python -m local` until the signal `number`, which stops all of it: its banner, and what it prints on standard
    output, which is known in the end.
    """
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "local", *options],
        cwd=ROOT,
        env=os.environ | {"HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        banner, printed = "", list[str]()
        while "Log of the functions" not in banner and (line := process.stderr.readline()):
            banner += line
        try:
            yield banner, printed
        finally:
            process.send_signal(number)
            output, errors = process.communicate(timeout=30)
            printed.append(output)
    assert (process.returncode, errors.splitlines()) == (0, ["stopped"])
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(gateway_in(banner).rpartition(":")[2])))


def gateway_in(banner: str) -> str:
    found = re.search(r"gateway\s+(http://127.0.0.1:\d+)", banner)
    assert found, banner
    return found[1]


def post_site(url: str, key: str) -> requests.Response:
    return requests.post(f"{url}/sites", json=SITE, headers={"Authorization": f"Bearer {key}"}, timeout=30)


def test_the_command_line_works_on_it_from_a_terminal_that_knows_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sites.jsonl").write_text(json.dumps(SITE))
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"ticket_id": "T-1", "name": "Meter", "site_id": 4711}))
    link = {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1015, "external_id": "001"}
    (tmp_path / "links.jsonl").write_text(json.dumps(link))
    port = free_ports()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)}
    monkeypatch.chdir(tmp_path)
    with (
        running("--port", str(port), home=tmp_path, number=signal.SIGTERM) as (banner, _),
        patch.dict(os.environ, environment, clear=True),
    ):
        here = ["--local", "--port", str(port)]
        typed = [sys.executable, "-m", "cli", "doctor", "demo", *here]
        done = subprocess.run(typed, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for command, code in (
            ("import sites demo sites.jsonl --yes", 0),
            ("import jobs demo jobs.jsonl --yes", 0),
            ("import key-links demo links.jsonl --yes", 0),
            ("operations show demo T-1", 0),
            ("operations resolve op_00000000000000000000000000000000 discard --yes", 2),
        ):
            result = CliRunner().invoke(app, [*command.split(), *here])
            assert result.exit_code == code, f"{command}: {result.output}"
        exported = re.search(r"^  (export PATH=.* CRM_BRIDGE_LOCAL=1 .*)$", banner, re.MULTILINE)
        assert exported
        for command in ("operations show demo T-1", "send create_site sites.jsonl"):
            pasted = ["bash", "-c", f"{exported[1]}\n{sys.executable} -m cli {command}"]
            done = subprocess.run(pasted, env=environment, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


def free_ports() -> int:
    """The first of as many as the local stack takes."""
    for first in random.sample(range(20_000, 30_000, 10), 50):
        with ExitStack() as sockets, suppress(OSError):
            for port in range(first, first + 8):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no ports are free")


def test_the_banner_can_be_pasted(tmp_path: Path) -> None:
    with running("--port", "0", home=tmp_path, number=signal.SIGINT) as (banner, printed):
        commands = re.findall(r"^  curl .*?(?<!\\)\n", banner, re.DOTALL | re.MULTILINE)
        assert len(commands) == 8
        answers = [
            subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True).stdout
            for command in commands
        ]
    assert '"message":"operation"' in printed[0]  # the functions' log is on standard output
    assert json.loads(answers[0])["site_id"] == 4711
    assert json.loads(answers[1])["links"][0]["id"] == "4711"
    assert answers[2] == ""
    assert json.loads(answers[3])["state"] == "unconfirmed"
    assert [one["state"] for one in json.loads(answers[4])["operations"]] == ["unconfirmed"]
    assert json.loads(answers[5])["id"] == 77
    assert json.loads(answers[6])["status_name"] == "outage"
    assert len(json.loads(answers[7])["operations"]) == 4


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_a_pages_session_is_what_it_prints(page: str) -> None:
    session = re.findall(r"^\$ (curl .*)\n(\{.*\})$", (ROOT / page).read_text(), re.MULTILINE)
    assert len(session) == 2
    with Stack(background=False) as stack:
        for command, shown in session:
            typed = shlex.split(command.replace("http://127.0.0.1:3000", stack.url))
            answered = subprocess.run(typed, capture_output=True, text=True, timeout=30, check=True).stdout
            assert _without_time(answered) == _without_time(shown)


def _without_time(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:+]+", "TIME", text.strip())


def started(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """Call `python -m local` in this process, for what ends before anything is started."""
    monkeypatch.setattr(sys, "argv", ["local", *options])
    try:
        return local.__main__.main()
    except SystemExit as error:
        return int(error.code or 0)


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finished = run("local", "--port", str(port))
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert f"port {port} cannot be used by the gateway (Address already in use)" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "70000"], "give a number from 0 to 65529"),
        (["--port", "-1"], "--port"),
        (["--no-vendors"], "--no-vendors needs --tenant"),
        (["--port", "0", "--aws-endpoint", "nonsense"], "the AWS endpoint cannot be used"),
    ],
)
@pytest.mark.usefixtures("signals_as_before")
def test_an_option_that_cannot_be_used_is_said_without_a_traceback(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, *options) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),
        ("{", "is not a tenant"),
        ('{"illu": {"org_id": "x", "api_key": "hush-hush"}}', "illu.org_id"),
        ('{"ilu": {}}', "ilu"),
    ],
)
@pytest.mark.usefixtures("signals_as_before")
def test_a_tenant_file_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path,
    content: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "acme.json"
    if content is not None:
        path.write_text(content)
    assert started(monkeypatch, "--port", "0", "--tenant", str(path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "hush-hush" not in line


def test_a_tenant_of_ones_own_calls_the_vendor_that_it_names(tmp_path: Path) -> None:
    illu = IlluSimulator(org_id=5, api_key="illu-key-of-acme", next_id=9001)
    illu.start()
    path = tmp_path / "acme.json"
    path.write_text(json.dumps({"illu": {"base_url": illu.url, "org_id": 5, "api_key": "illu-key-of-acme"}}))
    options = ("--port", "0", "--tenant", str(path), "--no-vendors")
    with running(*options, home=tmp_path, number=signal.SIGTERM) as (banner, _):
        key = re.search(r"its key\s+(crmb_[\w-]+)", banner)
        assert key
        assert key[1] != DEMO_KEY
        assert "tenant    acme" in banner
        assert f"{illu.url}   (not simulated" in banner
        assert "C-1001" not in banner  # nothing to paste that would make a real record
        for secret, status in ((key[1], 201), (DEMO_KEY, 401), (new_api_key(), 401)):
            assert post_site(gateway_in(banner), secret).status_code == status
    illu.stop()
    assert [site["site_id"] for site in illu.sites] == [9001]


def test_another_aws_endpoint_is_used_instead_of_the_embedded_one(tmp_path: Path) -> None:
    with ministack(tmp_path) as url:
        site_ids = []
        for _ in range(2):  # the second time, what the first one made is there
            with Stack(aws_endpoint=url, background=False) as stack:
                assert stack.aws is None
                answer = post_site(stack.url, stack.api_key)
                site_ids.append((answer.status_code, answer.json()["site_id"]))
        assert site_ids == [(201, 4711), (200, 4711)]
        assert len(stack.illu.sites) == 0


def test_the_help_explains_every_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert started(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    for option in ("--port", "--tenant", "--no-vendors", "--aws-endpoint"):
        assert option in shown
