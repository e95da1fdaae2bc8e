"""`crm-bridge mapping try`, `send` and `tail`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.bridge import Bridge
from cli.command import ExitCode
from cli.events import KEY
from crm_bridge.errors import StorageError
from crm_bridge.storage.operation import OperationSummary
from crm_bridge.tenants import MAPPING_MAX_AGE
from local.stack import UPYA_KEY, UPYA_TENANT
from local.vendors.simulator import Kind
from operations.flows import flows
from tests.integration.conftest import SITE, CommandLine, CommandResult
from tests.stack import Stack

CLIENT: dict[str, Any] = {
    "clientNumber": "K-1",
    "status": "active",
    "profile": {"firstName": "Ann", "lastName": "O", "village": "Kibomet"},
    "gps": {"latitude": 1.5, "longitude": 35},
}
MADE = {"customer_id": "K-1", "name": "Ann O", "address": "Kibomet", "latitude": 1.5, "longitude": 35}


def test_every_route_that_takes_an_event_is_one_of_its_functions() -> None:
    from importlib import import_module  # the handlers are those of AWS

    for flow in flows().values():
        if flow.event_route:
            assert flow.event_route in import_module(f"{flow.function}.handler").lambda_handler.routes


# ---------------------------------------------------------------- mapping try


def tried(
    cli: CommandLine, tenant: str, *options: str, payload: object = CLIENT, code: ExitCode = ExitCode.DONE
) -> Any:
    """Try the mapping of a tenant, or of none if it is empty."""
    which = [tenant, "create_site"] if tenant else ["create_site"]
    said = cli("mapping", "try", *which, "-", *options, "--json", input=json.dumps(payload))
    assert said.code == code, said
    return said.json if code in (ExitCode.DONE, ExitCode.NOT_ALL_WELL) else json.loads(said.err)


def test_the_mapping_of_a_tenant_makes_a_command_and_nothing_is_sent_or_stored(stack: Stack, cli: CommandLine) -> None:
    result = tried(cli, UPYA_TENANT)
    assert (result["mapping"], result["command"], result["valid"]) == ("upya 1 + 1", MADE, True)
    assert result["not_read"] == ["status"]
    assert len(stack.illu.sites) == 0
    assert cli("operations", "list", UPYA_TENANT, "--json").json == []


def test_an_expression_is_compared_with_the_one_that_is_stored(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "tried.jmespath"
    file.write_text("{latitude: gps.latitude, longitude: gps.longitude, name: profile.lastName}\n")
    result = tried(cli, UPYA_TENANT, "--expression", str(file))
    assert result["mapping"] == "upya 1 + tried"
    assert result["differences"] == [{"field": "name", "stored": "Ann O", "tried": "O"}]


def test_unknown_and_missing_members_are_named_when_the_command_is_not_valid(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "tried.jmespath"
    file.write_text("{customer_id: clientNumber, name: profile.lastName, adress: profile.village}")
    result = tried(cli, "", "--expression", str(file), code=ExitCode.NOT_ALL_WELL)
    assert {one["field"]: one["message"] for one in result["errors"]} == {
        "adress": 'Unknown field "adress". Did you mean "address"?',
        "latitude": "is required",
        "longitude": "is required",
        "address": "is required",
    }
    assert result["command"]["adress"] == "Kibomet"


def test_the_function_that_fails_is_named_with_line_and_column(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "tried.jmespath"
    file.write_text("{\n  name: join(' ', [profile.middleName])\n}\n")
    result = tried(cli, "", "--expression", str(file), code=ExitCode.NOT_ALL_WELL)
    assert (result["command"], result["not_read"]) == (None, [])
    assert result["errors"] == [
        {"field": "the expression", "message": "join() takes list of texts, and got null"},
        {"field": "line 2, column 9", "message": "join(' ', [profile.middleName])"},
    ]


def test_what_cannot_be_tried_is_wrong_input(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "tried.jmespath"
    for text, message in (("{a: ", "no JMESPath"), ("{a: foo(b)}", "calls foo(), which JMESPath does not have")):
        file.write_text(text)
        assert message in tried(cli, "", "--expression", str(file), code=ExitCode.WRONG_INPUT)["error"]
    assert "Give a tenant" in tried(cli, "", code=ExitCode.WRONG_INPUT)["error"]
    assert "has no mapping" in tried(cli, "demo", code=ExitCode.WRONG_INPUT)["error"]
    for body in ("{", '{"a": 1, "a": 2}', "[NaN]", f'"{"x" * 140_000}"', "[" * 100_000):
        said = cli("mapping", "try", UPYA_TENANT, "create_site", "-", input=body)
        assert (said.code, said.out) == (ExitCode.WRONG_INPUT, "")
    assert cli("mapping", "try", UPYA_TENANT, "webhook", "-", input="{}").code == ExitCode.WRONG_INPUT


def test_a_tenant_may_also_be_an_option_as_in_version_1_0_0(cli: CommandLine) -> None:
    said = cli("mapping", "try", "create_site", "-", "--tenant", UPYA_TENANT, "--json", input=json.dumps(CLIENT))
    assert said.json == tried(cli, UPYA_TENANT)


def test_a_list_is_wrong_input_when_no_valid_command_is_made_of_it(cli: CommandLine, tmp_path: Path) -> None:
    said = tried(cli, UPYA_TENANT, payload=[CLIENT, CLIENT], code=ExitCode.WRONG_INPUT)
    assert said["error"] == "- has a list, of which no valid command is made. Give one element of it."
    file = tmp_path / "tried.jmespath"
    file.write_text(f"[0] && `{json.dumps(MADE)}`")
    assert tried(cli, "", "--expression", str(file), payload=[CLIENT])["command"] == MADE


def test_it_says_since_when_every_function_uses_the_settings(
    stack: Stack, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("mapping", "try", UPYA_TENANT, "create_site", "-")
    assert "300 s later at the latest" in cli(*arguments, input=json.dumps(CLIENT)).out  # it is the first one
    stack.put_secret(UPYA_TENANT, stack.upya_tenant())
    assert "10 s later at the latest" in cli(*arguments, input=json.dumps(CLIENT)).out
    stored = tried(cli, UPYA_TENANT)
    assert stored["stored_at"] < stored["used_everywhere_since"]
    import time

    later = time.time() + MAPPING_MAX_AGE + 1
    monkeypatch.setattr("cli.mapping.time", SimpleNamespace(time=lambda: later))
    assert "Every function uses it.\n" in cli(*arguments, input=json.dumps(CLIENT)).out


# ---------------------------------------------------------------- send


def document(said: CommandResult) -> Any:
    """Return the JSON document, without the log of the functions, which run in this process."""
    return json.loads(said.out[said.out.index("{\n") :])


@pytest.fixture
def address(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CRM_BRIDGE_URL", stack.url)
    monkeypatch.setenv(KEY, stack.api_key)
    return stack.url


def test_an_event_is_sent_once_however_often_it_is_sent(stack: Stack, cli: CommandLine, address: str) -> None:  # noqa: ARG001
    said = [cli("send", "create_site", "-", "--json", input=json.dumps(SITE)) for _ in range(2)]
    assert [one.code for one in said] == [ExitCode.DONE, ExitCode.DONE]
    made, again = map(document, said)
    assert (made["status"], again["status"]) == (201, 200)
    assert made["body"]["site_id"] == again["body"]["site_id"]
    assert made["request_id"]
    assert len(stack.illu.sites) == 1


def test_an_event_is_only_stored_when_it_is_sent_later(stack: Stack, cli: CommandLine, address: str) -> None:  # noqa: ARG001
    said = cli("send", "create_site", "-", "--later", input=json.dumps(SITE))
    assert said.out.startswith("202 Accepted\n")
    assert len(stack.illu.sites) == 0


def test_the_parts_of_a_path_are_escaped_and_all_needed(cli: CommandLine, address: str) -> None:  # noqa: ARG001
    event = json.dumps({"status": "outage"})
    said = cli("send", "status_update", "-", "--path", "service=MAIL", "--json", input=event)
    assert document(said)["body"]["status_name"] == "outage"
    assert cli("send", "status_update", "-", "--path", "service=a/../b", input=event).code == ExitCode.NOT_ALL_WELL
    for path in ([], ["--path", "service="], ["--path", "other=x"]):
        said = cli("send", "status_update", "-", *path, input=event)
        assert (said.code, "--path service=..." in said.err) == (ExitCode.WRONG_INPUT, True)


def test_the_exit_code_says_whether_the_same_event_may_succeed_later(
    stack: Stack, cli: CommandLine, address: str, monkeypatch: pytest.MonkeyPatch  # noqa: ARG001
) -> None:  # fmt: skip
    assert cli("send", "create_site", "-", input="{}").code == ExitCode.NOT_ALL_WELL
    monkeypatch.setenv(KEY, UPYA_KEY)
    stack.put_secret(UPYA_TENANT, "{}")
    said = cli("send", "create_site", "-", input=json.dumps(SITE))
    assert (said.code, '"retryable": true' in said.out) == (ExitCode.UNAVAILABLE, True)
    monkeypatch.setenv("CRM_BRIDGE_URL", "http://127.0.0.1:1")
    said = cli("send", "create_site", "-", input=json.dumps(SITE))
    assert (said.code, "may have arrived" in said.err) == (ExitCode.UNAVAILABLE, True)


def test_a_key_is_no_argument_and_leaves_this_machine_only_under_tls(
    cli: CommandLine, address: str, monkeypatch: pytest.MonkeyPatch  # noqa: ARG001
) -> None:  # fmt: skip
    said = cli("send", "create_site", "-", "--url", "http://bridge.example", input=json.dumps(SITE))
    assert (said.code, "https://" in said.err) == (ExitCode.WRONG_INPUT, True)
    monkeypatch.delenv(KEY)
    said = cli("send", "create_site", "-", input=json.dumps(SITE))
    assert (said.code, KEY in said.err) == (ExitCode.WRONG_INPUT, True)
    assert "api-key" not in cli("send", "--help").out


def test_a_login_in_netrc_does_not_take_the_place_of_the_key(
    cli: CommandLine, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: ARG001
) -> None:  # fmt: skip
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert cli("send", "create_site", "-", input=json.dumps(SITE)).code == ExitCode.DONE


# ---------------------------------------------------------------- tail


def test_changes_are_shown_in_order_each_once_until_ctrl_c(
    stack: Stack, cli: CommandLine, address: str, monkeypatch: pytest.MonkeyPatch  # noqa: ARG001
) -> None:  # fmt: skip
    def send(customer: str) -> None:
        cli("send", "create_site", "-", input=json.dumps({**SITE, "customer_id": customer}))

    looks: list[float] = []

    def between(seconds: float) -> None:
        looks.append(seconds)
        match len(looks):
            case 1:
                stack.illu.fail(Kind.UNAVAILABLE)
                send("C-2")
            case 3:
                stack.deliver_due(after=60)
            case 5:
                raise KeyboardInterrupt

    send("C-1")
    monkeypatch.setattr("cli.tail.time", SimpleNamespace(sleep=between))
    said = cli("tail", "demo")
    assert said.code == ExitCode.DONE
    lines = re.findall(r"^[0-9 :-]+ UTC  (\w+) +create_site (C-\d)  (.*)$", said.out, re.MULTILINE)
    assert [line[:2] for line in lines] == [("succeeded", "C-1"), ("waiting", "C-2"), ("succeeded", "C-2")]
    assert "illu answered 503" in lines[1][2]


def test_tail_ends_after_as_many_lines_as_wanted_and_speaks_json(cli: CommandLine, address: str) -> None:  # noqa: ARG001
    for customer in ("C-1", "C-2", "C-3"):
        cli("send", "create_site", "-", input=json.dumps({**SITE, "customer_id": customer}))
    said = cli("tail", "demo", "--last", "2", "--limit", "2", "--json")
    assert [json.loads(line)["state"] for line in said.out.splitlines()] == ["succeeded", "succeeded"]


def test_tail_prints_only_what_the_filters_name(stack: Stack, cli: CommandLine, address: str) -> None:  # noqa: ARG001
    stack.illu.fail(Kind.UNAVAILABLE)
    for customer in ("C-1", "C-2", "C-3"):
        cli("send", "create_site", "-", input=json.dumps({**SITE, "customer_id": customer}))

    def keys(*filters: str) -> list[str]:
        said = cli("tail", "demo", "--limit", "1", "--json", *filters)
        return [json.loads(line)["event_key"] for line in said.out.splitlines()]

    assert keys("--state", "waiting") == keys("--reason", "ANSWERED 503", "--flow", "create_site") == ["C-1"]
    assert keys("--state", "succeeded") == ["C-2"]
    assert "Choose one of" in cli("tail", "demo", "--flow", "none").err


def test_tail_goes_on_when_a_look_fails(
    cli: CommandLine, address: str, monkeypatch: pytest.MonkeyPatch  # noqa: ARG001
) -> None:  # fmt: skip
    cli("send", "create_site", "-", input=json.dumps(SITE))
    listed, failures = Bridge.listed, iter(["DNS", "ThrottlingException"])

    def unreliable(*arguments: Any) -> Iterator[OperationSummary]:
        if failure := next(failures, None):
            raise StorageError(f"The bridge's storage did not respond ({failure}). Send the same request again.")
        return listed(*arguments)

    monkeypatch.setattr(Bridge, "listed", unreliable)
    monkeypatch.setattr("cli.tail.time", SimpleNamespace(sleep=lambda _: None))
    said = cli("tail", "demo", "--limit", "1")
    assert (said.code, "C-1001" in said.out) == (ExitCode.DONE, True)
    assert said.err == "The bridge's storage did not respond (DNS). Trying again ...\n"
    monkeypatch.setattr("cli.tail.PATIENCE", 2)
    failures = iter(["DNS"] * 3)
    assert cli("tail", "demo", "--limit", "1").code == ExitCode.UNAVAILABLE


def test_tail_prints_plain_lines_when_it_is_piped(stack: Stack, cli: CommandLine, address: str) -> None:  # noqa: ARG001
    stack.illu.fail(Kind.UNAVAILABLE)
    cli("send", "create_site", "-", input=json.dumps({**SITE, "customer_id": "C-" + "9" * 60}))
    said = cli("tail", "demo", "--limit", "1").out
    assert said.endswith("illu answered 503: Service Unavailable\n")
    assert (said.count("\n"), "\x1b" in said) == (1, False)
