"""No secret of a tenant is taken as an argument, which a shell keeps in its history and others see."""

import json
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from cli.command import WrongInputError
from cli.settings import changed, read_document, refuse_secrets, secret_settings
from crm_bridge.settings import parse_tenant

OF_SOURCES = "sources.*.secrets"
EVERYTHING: dict[str, Any] = {
    "illu": {"org_id": 88, "api_key": "hush-hush"},
    "revio": {"username": "u", "client_code": "c", "password": "hush-hush", "subscription_key": "hush-hush"},
    "izzitup": {"base_url": "https://status.example", "user": "u", "password": "hush-hush"},
    "egito": {
        "base_url": "https://a.egito.pl",
        "api_id": "a",
        "api_secret": "hush-hush",
        "username": "login@firma",
        "password": "hush-hush",
    },
    "connector": {"client_id": "c-7", "clubs": {"k-3": {"connector_id": "1b"}}, "match_key": 32 * "k"},
    "webhook": {
        "url": "https://hooks.example/hush-hush",
        "secret": "whsec_" + 32 * "A",
        "previous_secret": "whsec_" + 32 * "B",
    },
}


def test_all_secrets_of_a_tenant_are_known() -> None:
    settings = parse_tenant(json.dumps(EVERYTHING))
    found = {
        f"{block}.{name}"
        for block in EVERYTHING
        for name, value in vars(getattr(settings, block)).items()
        if isinstance(value, SecretStr)
    }
    assert secret_settings() == found | {"webhook.url", OF_SOURCES}
    assert len(found) == 9


@pytest.mark.parametrize("setting", sorted(secret_settings() - {OF_SOURCES}))
def test_a_secret_is_refused_by_itself_and_within_its_block_and_is_not_repeated(setting: str) -> None:
    block, _, name = setting.partition(".")
    for change in (
        f"{setting}=hush-hush",
        f"{setting}=",
        f'{setting}="hush-hush"',
        f"{setting}=hush=hush-hush",
        f"{setting}=12345",
        f"{block}={json.dumps(EVERYTHING[block] | {name: 'hush-hush'})}",
        f'{block}= {{"{name}": "hush-hush"}} ',
    ):
        with pytest.raises(WrongInputError, match=rf"{setting}.*Leave =VALUE out") as refused:
            refuse_secrets(["illu.search_lag=60", change])
        assert "hush-hush" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        'sources.crm.secrets=["hush-hush"]',
        "sources.crm.secrets=hush-hush",
        'sources.crm={"secrets": ["hush-hush"]}',
        'sources={"crm": {"secrets": ["hush-hush"]}}',
    ],
)
def test_a_secret_of_a_source_is_refused_whatever_the_source_is_called(change: str) -> None:
    with pytest.raises(WrongInputError, match=r"sources\.crm\.secrets.*Leave =VALUE out") as refused:
        refuse_secrets([change])
    assert "hush-hush" not in str(refused.value)


def test_everything_else_is_taken() -> None:
    refuse_secrets([f"{setting}" for setting in secret_settings()])
    refuse_secrets(
        ["illu.search_lag=60", "illu.org_id=88", 'egito.staff={"entity": "User"}', "webhook.previous_secret=null"]
    )
    refuse_secrets(['mappings.create_site={"version": "1", "expression": "{password: a.b}"}', "webhook={}"])


@pytest.mark.parametrize("name", ["settings.json", "-"])
def test_a_file_of_settings_may_begin_with_a_byte_order_mark(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(content: bytes) -> str:
        (tmp_path / "settings.json").write_bytes(content)
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(content), "ascii", errors="surrogateescape"))
        return read_document(tmp_path / name if name != "-" else Path(name))

    assert read('{"name": "Łódź"}'.encode("utf-8-sig")) == '{"name": "Łódź"}'  # as Notepad writes it
    for other in ("utf-16", "latin-1"):
        with pytest.raises(WrongInputError, match="as UTF-8"):
            read('{"name": "Kraków"}'.encode(other))


def test_a_value_that_is_nested_endlessly_is_taken_for_text() -> None:
    deep = "[" * 100_000
    assert json.loads(changed("{}", [f"illu.org_id={deep}"], [])) == {"illu": {"org_id": deep}}
