"""`crm-bridge mapping`: a new version is stored only if the samples come out as expected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.command import ExitCode
from cli.storing import LARGEST_SECRET
from crm_bridge.mapping import LARGEST_SAMPLE, MASK, MOST_SAMPLES
from tests.integration.conftest import CommandLine, CommandResult
from tests.stack import Stack

ILLU = {"base_url": "http://127.0.0.1:3002", "org_id": 88, "api_key": "illu-demo-key"}
FIRST = "{customer_id: number, name: name, latitude: lat, longitude: lon, address: town}"
SECOND = FIRST.replace("address: town", "address: street || town")
MILL = {"number": "C-1", "name": "Mill", "lat": 1, "lon": 35, "town": "Nakuru"}
SHOP = {**MILL, "number": "C-2", "street": "Moi Ave"}
SOURCE: dict[str, Any] = {
    "preset": "in-house",
    "secrets": ["a-secret-of-the-senders-own"],
    "events": [
        {"when": "kind == 'company'", "flow": "create_site", "version": "a", "expression": FIRST},
        {"when": "kind == 'ticket'", "flow": "create_job", "version": "1", "expression": "{ticket_id: id}"},
    ],
}


@pytest.fixture
def acme(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandResult]:
    """The command line, for a tenant with a mapping and a source; files are in an empty folder."""
    monkeypatch.chdir(tmp_path)
    document = {
        "illu": ILLU,
        "mappings": {"create_site": {"version": "1", "expression": FIRST}},
        "sources": {"crm": SOURCE},
    }
    Path("acme.json").write_text(json.dumps(document))
    Path("first").write_text(FIRST)
    Path("second").write_text(SECOND)
    Path("mill.json").write_text(json.dumps(MILL))
    Path("shop.json").write_text(json.dumps(SHOP))
    assert cli("tenant", "add", "acme", "--file", "acme.json").code == ExitCode.DONE

    def run(*arguments: str, code: ExitCode = ExitCode.DONE) -> CommandResult:
        said = cli(*arguments)
        assert said.code == code, said
        return said

    return run


def stored(stack: Stack, part: str = "illu") -> Any:  # noqa: ARG001 - it must run
    import boto3

    text = boto3.client("secretsmanager").get_secret_value(SecretId=f"crm-bridge/dev/{part}/acme")["SecretString"]
    return json.loads(text)


def test_a_new_version_is_stored_with_the_time_when_the_samples_come_out_as_expected(
    stack: Stack, acme: Callable[..., CommandResult]
) -> None:
    acme("mapping", "add-sample", "acme", "create_site", "mill", "mill.json", "--yes")
    before = stored(stack)["mappings"]["create_site"]
    assert before["samples"] == {"mill": {"payload": MILL, "command": {**_made(MILL), "address": "Nakuru"}}}
    said = acme("mapping", "set", "acme", "create_site", "second", "--yes")
    assert "Every function uses it within 10 s." in said.out
    after = stored(stack)["mappings"]["create_site"]
    assert (after["version"], after["expression"], after["samples"]) == ("2", SECOND, before["samples"])
    assert after["stored_at"] >= before["stored_at"]
    assert acme("mapping", "set", "acme", "create_site", "second", "--yes").out == "Nothing would change.\n"


def _made(payload: dict[str, Any]) -> dict[str, Any]:
    return {
        "customer_id": payload["number"],
        "name": payload["name"],
        "latitude": payload["lat"],
        "longitude": payload["lon"],
    }


@pytest.mark.parametrize("way", ["mapping", "tenant"])
def test_a_version_that_makes_something_else_of_a_sample_is_refused_until_that_is_accepted(
    stack: Stack, acme: Callable[..., CommandResult], way: str
) -> None:
    acme("mapping", "add-sample", "acme", "create_site", "shop", "shop.json", "--yes")
    before = stored(stack)
    change = ["mapping", "set", "acme", "create_site", "second", "--yes"]
    if way == "tenant":
        change = ["tenant", "set", "acme", f"mappings.create_site.expression={SECOND}", "--yes"]
    said = acme(*change, code=ExitCode.WRONG_INPUT)
    assert 'create_site, sample shop, address: expected "Nakuru", made "Moi Ave"' in said.err
    assert "--accept" in said.err
    assert stored(stack) == before
    acme(*change, "--accept")
    assert stored(stack)["mappings"]["create_site"]["samples"]["shop"]["command"]["address"] == "Moi Ave"
    assert "1 as expected" in acme("mapping", "show", "acme", "create_site").out


def test_a_sample_that_becomes_no_command_is_not_accepted(stack: Stack, acme: Callable[..., CommandResult]) -> None:
    acme("mapping", "add-sample", "acme", "create_site", "mill", "mill.json", "--yes")
    Path("wrong").write_text(FIRST.replace("address: town", "adress: town"))
    before = stored(stack)
    said = acme("mapping", "set", "acme", "create_site", "wrong", "--yes", "--accept", code=ExitCode.WRONG_INPUT)
    assert "create_site, sample mill, address: is required" in said.err
    assert stored(stack) == before
    Path("failing").write_text("{customer_id: join('', [missing])}")
    said = acme("mapping", "set", "acme", "create_site", "failing", "--yes", "--accept", code=ExitCode.WRONG_INPUT)
    assert "join() takes list of texts, and got null" in said.err


def test_a_file_without_samples_keeps_and_runs_them(stack: Stack, acme: Callable[..., CommandResult]) -> None:
    acme("mapping", "add-sample", "acme", "create_site", "shop", "shop.json", "--yes")
    document = json.loads(Path("acme.json").read_text())
    document["mappings"]["create_site"] |= {"version": "2", "expression": SECOND}
    Path("acme.json").write_text(json.dumps(document))
    acme("tenant", "set", "acme", "--file", "acme.json", "--yes", code=ExitCode.WRONG_INPUT)
    acme("tenant", "set", "acme", "--file", "acme.json", "--yes", "--accept")
    assert stored(stack)["mappings"]["create_site"]["samples"].keys() == {"shop"}
    document["mappings"]["create_site"]["samples"] = {}
    Path("acme.json").write_text(json.dumps(document))
    acme("tenant", "set", "acme", "--file", "acme.json", "--yes")
    assert stored(stack)["mappings"]["create_site"]["samples"] == {}


def test_samples_are_removed_and_bounded(stack: Stack, acme: Callable[..., CommandResult]) -> None:
    for number in range(MOST_SAMPLES):
        acme("mapping", "add-sample", "acme", "create_site", f"mill-{number}", "mill.json", "--yes")
    wrong = ExitCode.WRONG_INPUT
    said = acme("mapping", "add-sample", "acme", "create_site", "mill-x", "mill.json", "--yes", code=wrong)
    assert "at most 5 items" in said.err
    acme("mapping", "remove-sample", "acme", "create_site", "mill-0", "--yes")
    Path("large.json").write_text(json.dumps({**MILL, "note": "x" * LARGEST_SAMPLE}))
    said = acme("mapping", "add-sample", "acme", "create_site", "large", "large.json", "--yes", code=wrong)
    assert "at most 4000 characters" in said.err
    assert "xxx" not in said.err
    said = acme("mapping", "add-sample", "acme", "create_site", "Not a name", "mill.json", "--yes", code=wrong)
    acme("mapping", "remove-sample", "acme", "create_site", "mill-0", "--yes", code=wrong)
    Path("other.json").write_text("{}")
    said = acme("mapping", "add-sample", "acme", "create_site", "other", "other.json", "--yes", code=wrong)
    assert "latitude: is required" in said.err
    assert len(stored(stack)["mappings"]["create_site"]["samples"]) == MOST_SAMPLES - 1


def test_settings_that_a_secret_does_not_hold_are_refused(stack: Stack, acme: Callable[..., CommandResult]) -> None:
    sample = {"payload": {**MILL, "note": "ä" * 1500}, "command": {**_made(MILL), "address": "Nakuru"}}
    samples = {f"n-{number}": sample for number in range(MOST_SAMPLES)}
    entry = {**SOURCE["events"][0], "samples": samples, "when": None}
    document = json.loads(Path("acme.json").read_text())
    document["sources"]["crm"] = {**SOURCE, "events": [entry], "key": ["number"]}
    document["sources"] |= {f"crm-{number}": document["sources"]["crm"] for number in range(6)}
    Path("acme.json").write_text(json.dumps(document))
    before = stored(stack, "sources")
    said = acme("tenant", "set", "acme", "--file", "acme.json", "--yes", code=ExitCode.WRONG_INPUT)
    assert f"a secret takes {LARGEST_SECRET:,}" in said.err
    assert stored(stack, "sources") == before


def test_the_values_of_samples_are_not_shown_with_the_settings(acme: Callable[..., CommandResult]) -> None:
    said = acme("mapping", "add-sample", "acme", "create_site", "mill", "mill.json", "--yes", "--json")
    assert "Nakuru" not in said.out
    assert "Nakuru" not in acme("tenant", "show", "acme").out
    assert MASK in acme("tenant", "show", "acme").out
    assert "Nakuru" not in acme("mapping", "show", "acme", "create_site", "--json").out
    assert "Nakuru" in acme("mapping", "show", "acme", "create_site", "--samples").out


def test_the_entry_of_a_source_has_versions_and_samples_too(stack: Stack, acme: Callable[..., CommandResult]) -> None:
    Path("company.json").write_text(json.dumps({**SHOP, "kind": "company"}))
    wrong = ExitCode.WRONG_INPUT
    said = acme("mapping", "add-sample", "acme", "crm/create_site", "shop", "shop.json", "--yes", code=wrong)
    assert "when: this event goes to no entry, so it is ignored" in said.err
    acme("mapping", "add-sample", "acme", "crm/create_site", "shop", "company.json", "--yes")
    assert "Give --version" in acme("mapping", "set", "acme", "crm/0", "second", "--yes", code=wrong).err
    said = acme("mapping", "set", "acme", "crm/0", "second", "--version", "b", "--yes", code=wrong)
    assert "crm/0, sample shop, address: expected" in said.err
    said = acme("mapping", "set", "acme", "crm/0", "second", "--version", "b", "--yes", "--accept")
    assert "within 10 s" in said.out
    entry = stored(stack, "sources")["sources"]["crm"]["events"][0]
    assert (entry["version"], entry["expression"]) == ("b", SECOND)
    assert (
        acme("mapping", "try", "crm/0", "company.json", "--tenant", "acme", "--json").json["command"]["name"] == "Mill"
    )
    assert "has no mapping crm/7" in acme("mapping", "show", "acme", "crm/7", code=wrong).err


def test_the_diff_is_with_a_file_or_with_the_version_before(acme: Callable[..., CommandResult]) -> None:
    lines = acme("mapping", "diff", "acme", "create_site", "second", "--json").json["lines"]
    assert lines[:2] == ["--- version 1", "+++ version tried"]
    assert lines[3:] == [f"-{FIRST}", f"+{SECOND}"]
    assert "The expressions are the same." in acme("mapping", "diff", "acme", "create_site", "first").out
    said = acme("mapping", "diff", "acme", "create_site", code=ExitCode.WRONG_INPUT)
    assert "No version of create_site before this one is kept" in said.err
    acme("mapping", "set", "acme", "create_site", "second", "--yes")
    assert acme("mapping", "diff", "acme", "create_site", "--json").json["lines"][:2] == [
        "--- version 1",
        "+++ version 2",
    ]
    acme("mapping", "add-sample", "acme", "create_site", "shop", "shop.json", "--yes")
    said = acme("mapping", "diff", "acme", "create_site", "first", code=ExitCode.NOT_ALL_WELL)
    assert 'shop, address: expected "Moi Ave", made "Nakuru"' in said.out


def test_show_says_since_when_a_version_is_active_whatever_else_is_stored(acme: Callable[..., CommandResult]) -> None:
    (first, *_) = acme("mapping", "show", "acme", "--json").json
    acme("tenant", "set", "acme", "illu.search_lag=60", "--yes")
    (same, *others) = acme("mapping", "show", "acme", "--json").json
    assert first["stored_at"] == same["stored_at"]
    assert [one["mapping"] for one in others] == ["crm/0", "crm/1"]
    said = acme("tenant", "set", "acme", "mappings.create_job.version=v1", "mappings.create_job.expression=@", "--yes")
    assert "within 300 s" in said.out  # the first one: what is valid without it is taken as it is for so long
