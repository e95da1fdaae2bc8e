"""Tenants' settings, and the API keys."""

import base64
import json
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, Self

import pytest
from aws_lambda_powertools.utilities.parameters import base as parameters
from botocore.exceptions import ClientError, EndpointConnectionError
from pydantic import ValidationError

from crm_bridge import tenants
from crm_bridge.errors import NotConfiguredError, StorageError, UnauthenticatedError
from crm_bridge.settings import Tenant, parse_tenant
from crm_bridge.storage.api_keys import KEY_CACHE, KEY_MAX_AGE, REFUSED_MAX_AGE, hash_api_key, new_api_key
from crm_bridge.tenants import MAPPING_MAX_AGE, SECRET_MAX_AGE
from crm_bridge.vendors.illu import IlluSettings
from tests.clock import Clock
from tests.unit.conftest import Tables


@pytest.fixture
def emulator() -> str:
    return "moto"


ILLU = {"org_id": 88, "api_key": "a-secret"}


def illu(**settings: object) -> str:
    return json.dumps({"illu": {**ILLU, **settings}})


def test_settings_have_the_vendors_address_when_none_is_given() -> None:
    tenant = parse_tenant(illu())
    settings = tenant.require(IlluSettings)
    assert settings.base_url == "https://api.illu.works"
    assert settings.site_list_path is None  # illu documents none


def test_a_secret_is_not_shown_by_repr_or_dump() -> None:
    tenant = parse_tenant(illu())
    assert "a-secret" not in repr(tenant)
    assert "a-secret" not in tenant.model_dump_json()


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "http://api.illu.works"},
        {"org_id": 0},
        {"org_id": "many"},
        {"api_key": ""},
        {"api_key": "with\nnewline"},
        {"api_key": " padded "},
        {"api_key": "schlüssel"},
        {"site_list_path": "orgs/1/sites"},
        {"site_list_path": "/orgs/{org}/sites"},
        {"search_lag": 29},
        {"search_lag": 86_401},
        {"apikey": "typo"},
    ],
)
def test_refuses_settings_that_cannot_be_right(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as raised:
        parse_tenant(illu(**settings))
    assert "a-secret" not in str(raised.value)
    assert next(iter(settings)) in str(raised.value)


def test_refuses_a_vendor_that_it_does_not_know() -> None:
    with pytest.raises(ValidationError):
        parse_tenant(json.dumps({"ilu": ILLU}))


# ---------------------------------------------------------------- Secrets Manager


def test_reads_a_secret_once_and_again_when_asked_for_a_fresh_one(tables: Tables) -> None:
    assert _key(tables.tenants.get("acme", "create_site")) == "illu-key-1"
    tables.put_secret("acme", illu(api_key="illu-key-2"))
    assert _key(tables.tenants.get("acme", "create_site")) == "illu-key-1"
    assert _key(tables.tenants.get("acme", "create_site", fresh=True)) == "illu-key-2"
    assert _key(tables.tenants.get("acme", "create_site")) == "illu-key-2"


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the secrets, which a test moves."""
    clock = Clock()

    class Wall(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(clock.now, tz)

    for module in (parameters, tenants):
        monkeypatch.setattr(module, "datetime", Wall)
    return clock


@pytest.mark.parametrize(
    ("passed", "key"),
    [(SECRET_MAX_AGE, "illu-key-1"), (SECRET_MAX_AGE + 1, "illu-key-2"), (-3600, "illu-key-2")],
    ids=["kept", "too old", "the clock is set back"],
)
def test_a_secret_is_kept_for_five_minutes_of_the_wall_clock(
    tables: Tables, wall: Clock, passed: float, key: str
) -> None:
    tables.tenants.get("acme", "create_site")
    tables.put_secret("acme", illu(api_key="illu-key-2"))
    wall.move(passed)  # the monotonic clock stands still, as in a function that was frozen
    assert _key(tables.tenants.get("acme", "create_site")) == key


def test_a_secret_that_is_too_old_is_not_used_when_secrets_manager_is_down(
    tables: Tables, wall: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.tenants.get("acme", "create_site")
    wall.move(SECRET_MAX_AGE + 1)
    monkeypatch.setattr(tables.tenants._secrets.client, "get_secret_value", _fail)
    for _ in range(2):
        with pytest.raises(StorageError):
            tables.tenants.get("acme", "create_site")


def test_a_secret_is_read_again_early_only_for_whoever_maps_events(tables: Tables, wall: Clock) -> None:
    tables.tenants.get("acme", "create_site")
    tables.put_secret("acme", illu(api_key="illu-key-2"))
    wall.move(MAPPING_MAX_AGE)
    assert _key(tables.tenants.get("acme", "create_site", max_age=MAPPING_MAX_AGE)) == "illu-key-1"
    wall.move(1)
    assert _key(tables.tenants.get("acme", "create_site")) == "illu-key-1"
    assert _key(tables.tenants.get("acme", "create_site", max_age=MAPPING_MAX_AGE)) == "illu-key-2"


def test_a_secret_is_read_once_in_ten_seconds_when_every_event_is_mapped(
    tables: Tables, wall: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, calls = tables.tenants._secrets.client, 0
    read = client.get_secret_value

    def counted(**one: Any) -> Any:
        nonlocal calls
        calls += 1
        return read(**one)

    monkeypatch.setattr(client, "get_secret_value", counted)
    for _ in range(60):
        tables.tenants.get("acme", "create_site", max_age=MAPPING_MAX_AGE)
        wall.move(0.5)
    assert calls == 3


def test_the_mapping_that_there_is_goes_on_when_secrets_manager_is_down(
    tables: Tables, wall: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, calls = 0.0, 0

    def fail(**_: object) -> None:
        nonlocal calls
        calls += 1
        _fail()

    monkeypatch.setattr("time.monotonic", lambda: now)
    tables.tenants.get("acme", "create_site")
    wall.move(MAPPING_MAX_AGE + 1)
    monkeypatch.setattr(tables.tenants._secrets.client, "get_secret_value", fail)
    for _ in range(5):  # of which only the first waits for Secrets Manager
        assert _key(tables.tenants.get("acme", "create_site", max_age=MAPPING_MAX_AGE)) == "illu-key-1"
    assert calls == 1
    now += MAPPING_MAX_AGE
    tables.tenants.get("acme", "create_site", max_age=MAPPING_MAX_AGE)
    assert calls == 2
    with pytest.raises(StorageError):
        tables.tenants.get("acme", "create_site", fresh=True)
    wall.move(SECRET_MAX_AGE)
    with pytest.raises(StorageError):
        tables.tenants.get("acme", "create_site", max_age=MAPPING_MAX_AGE)


def test_one_tenant_is_dropped_when_its_secret_is_gone_and_the_others_are_kept(tables: Tables) -> None:
    tables.put_secret("bolt", illu(api_key="bolt-key"))
    for name in ("acme", "bolt"):
        tables.tenants.get(name, "create_site")
    tables.secrets.delete_secret(SecretId="crm-bridge/dev/illu/acme", ForceDeleteWithoutRecovery=True)
    tables.put_secret("bolt", illu(api_key="bolt-key-2"))
    with pytest.raises(NotConfiguredError):
        tables.tenants.get("acme", "create_site", fresh=True)
    assert [key[0] for key in tables.tenants._secrets.store] == ["crm-bridge/dev/illu/bolt"]
    assert _key(tables.tenants.get("bolt", "create_site")) == "bolt-key"


def test_a_secret_is_read_again_when_another_thread_dropped_it_in_between(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tables.tenants._secrets
    tables.tenants.get("acme", "create_site")

    def found_and_dropped(key: tuple[Any, ...]) -> bool:
        secrets.drop(key[0])
        return True

    monkeypatch.setattr(secrets, "has_not_expired_in_cache", found_and_dropped)
    assert _key(tables.tenants.get("acme", "create_site")) == "illu-key-1"


def test_an_error_that_nobody_expected_keeps_its_kind(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> Tenant:
        raise ZeroDivisionError

    monkeypatch.setattr(tenants, "parse_tenant", defect)
    with pytest.raises(ZeroDivisionError):
        tables.tenants.get("acme", "create_site")


def _fail(**_: object) -> None:
    raise EndpointConnectionError(endpoint_url="https://secretsmanager")


def test_a_secret_that_is_wrong_is_not_used_any_more(tables: Tables) -> None:
    tables.tenants.get("acme", "create_site")
    tables.put_secret("acme", "{")
    with pytest.raises(NotConfiguredError):
        tables.tenants.get("acme", "create_site", fresh=True)
    with pytest.raises(NotConfiguredError):
        tables.tenants.get("acme", "create_site")
    tables.put_secret("acme", illu(api_key="illu-key-2"))
    assert _key(tables.tenants.get("acme", "create_site")) == "illu-key-2"


def test_a_secret_is_kept_for_its_time_while_secrets_manager_is_down(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.tenants.get("acme", "create_site")
    monkeypatch.setattr(tables.tenants._secrets.client, "get_secret_value", _fail)
    with pytest.raises(StorageError):
        tables.tenants.get("acme", "create_site", fresh=True)
    assert _key(tables.tenants.get("acme", "create_site")) == "illu-key-1"


def test_a_binary_secret_is_not_valid(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables.tenants._secrets.client, "get_secret_value", lambda **_: {"SecretBinary": b"{}"})
    with pytest.raises(NotConfiguredError, match="the document"):
        tables.tenants.get("acme", "create_site")


def test_says_which_secret_to_create_when_there_is_none(tables: Tables) -> None:
    with pytest.raises(NotConfiguredError, match="crm-bridge/dev/illu/nobody"):
        tables.tenants.get("nobody", "create_site")


@pytest.mark.parametrize("document", [" ", "{", "[]", '{"illu": {"org_id": 88}}', '{"illu": {"api_key": "hush-hush"}}'])
def test_says_what_to_check_without_showing_it_when_a_secret_is_not_valid(tables: Tables, document: str) -> None:
    tables.put_secret("broken", document)
    with pytest.raises(NotConfiguredError) as raised:
        tables.tenants.get("broken", "create_site")
    assert "hush-hush" not in raised.value.detail
    if "hush" in document:
        assert "illu.org_id" in raised.value.detail


def test_is_a_storage_error_when_secrets_manager_fails(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "InternalServiceError", "Message": "secret stuff"}}, "GetSecretValue")

    monkeypatch.setattr(tables.tenants._secrets.client, "get_secret_value", fail)
    with pytest.raises(StorageError) as raised:
        tables.tenants.get("acme", "create_site")
    assert "stuff" not in raised.value.detail


def _key(tenant: Tenant) -> str:
    return tenant.require(IlluSettings).api_key.get_secret_value()


# ---------------------------------------------------------------- API keys


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_is_stored_only_as_its_hash(tables: Tables) -> None:
    key = new_api_key()
    assert key.startswith("crmb_")
    assert len(key) >= 48
    assert key != new_api_key()
    tables.keys.add(key, "acme", frozenset({"create_site"}), "the CRM")
    table = tables.keys._client.scan(TableName=tables.keys._table)["Items"]
    assert key not in json.dumps(table, default=str)
    assert table[0]["key_hash"] == {"S": hash_api_key(key)}


def a_key(name: str) -> str:
    """A key of the right form that says which one it is."""
    return f"crmb_{name:0<43}"


@pytest.fixture
def reads(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes of the keys that were looked up in the table."""
    found: list[str] = []
    get_item: Callable[..., object] = tables.keys._client.get_item

    def counted(**arguments: Any) -> object:
        found.append(arguments["Key"]["key_hash"]["S"])
        return get_item(**arguments)

    monkeypatch.setattr(tables.keys._client, "get_item", counted)
    return found


def test_a_key_is_believed_for_a_minute_and_then_read_again(tables: Tables, clock: Clock) -> None:
    tables.keys.add(a_key("k"), "acme", frozenset({"create_site"}), "the CRM")
    tables.keys.caller(_bearer(a_key("k")))
    _change(tables, a_key("k"), disabled=True)
    clock.move(KEY_MAX_AGE - 1)
    assert tables.keys.caller(_bearer(a_key("k"))).tenant == "acme"
    clock.move(2)
    with pytest.raises(UnauthenticatedError):
        tables.keys.caller(_bearer(a_key("k")))


def test_a_key_is_refused_from_the_second_on_at_which_it_expires(tables: Tables, clock: Clock) -> None:
    tables.keys.add(a_key("k"), "acme", frozenset({"create_site"}), "the CRM", expires_at=int(clock.now) + 30)
    clock.move(29)
    assert tables.keys.caller(_bearer(a_key("k"))).label == "the CRM"
    clock.move(1)  # although it was believed a second ago
    with pytest.raises(UnauthenticatedError):
        tables.keys.caller(_bearer(a_key("k")))


@pytest.mark.parametrize("why", ["unknown", "disabled", "expired"])
def test_a_flood_of_one_refused_key_is_one_read_in_ten_seconds(
    tables: Tables, clock: Clock, reads: list[str], why: str
) -> None:
    key = a_key("wrong")
    if why != "unknown":
        tables.keys.add(key, "acme", frozenset({"create_site"}), "old", expires_at=int(clock.now) + 1)
        _change(tables, key, disabled=why == "disabled")
        clock.move(1)
    for count in (1, 2):
        for _ in range(50):
            with pytest.raises(UnauthenticatedError):
                tables.keys.caller(_bearer(key))
        assert reads == [hash_api_key(key)] * count
        clock.move(REFUSED_MAX_AGE)


def test_a_flood_of_different_keys_pushes_out_no_valid_key_and_is_bounded(
    tables: Tables, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.storage.api_keys.KEY_CACHE", 3)
    valid = a_key("valid")
    tables.keys.add(valid, "acme", frozenset({"create_site"}), "the CRM")
    tables.keys.caller(_bearer(valid))
    for number in range(10):
        with pytest.raises(UnauthenticatedError):
            tables.keys.caller(_bearer(a_key(f"wrong-{number}")))
    assert len(tables.keys._refused) == 3
    tables.keys.caller(_bearer(valid))
    assert reads.count(hash_api_key(valid)) == 1


@pytest.mark.parametrize(
    "key",
    [
        "crmb_",
        "hunter2",
        a_key("k")[:-1],
        a_key("k") + "0",
        a_key("k").upper(),
        a_key("ключ"),
        a_key("k/+"),
        a_key("k") + "\n",
        "x" * 100_000,
    ],
    ids=lambda key: repr(key[:20]),
)
def test_what_cannot_be_a_key_is_refused_without_a_read(tables: Tables, reads: list[str], key: str) -> None:
    with pytest.raises(UnauthenticatedError, match="unknown, disabled or expired"):
        tables.keys.caller({"authorization": f"Basic {base64.b64encode(f':{key}'.encode()).decode()}"})
    assert reads == []
    assert tables.keys._refused == {}


def test_a_new_key_works_at_once(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eventually consistent read may miss what was written a moment ago.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.ReadConsistency.html
    """
    asked: list[dict[str, Any]] = []

    def nothing_there(**arguments: Any) -> object:
        asked.append(arguments)
        return {}

    monkeypatch.setattr(tables.keys._client, "get_item", nothing_there)
    with pytest.raises(UnauthenticatedError):
        tables.keys.caller(_bearer(new_api_key()))
    assert [one["ConsistentRead"] for one in asked] == [True]


@pytest.mark.parametrize("passed", [REFUSED_MAX_AGE, -3600], ids=["ten seconds", "the clock is set back"])
def test_a_key_that_was_tried_before_it_was_made_works_after_ten_seconds(
    tables: Tables, clock: Clock, passed: float
) -> None:
    key = a_key("early")
    with pytest.raises(UnauthenticatedError):
        tables.keys.caller(_bearer(key))
    tables.keys.add(key, "acme", frozenset({"create_site"}), "the CRM")
    clock.move(passed)
    assert tables.keys.caller(_bearer(key)).tenant == "acme"


def test_a_key_is_looked_up_again_when_the_storage_failed(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.keys.add(a_key("k"), "acme", frozenset({"create_site"}), "the CRM")
    with monkeypatch.context() as patch:
        patch.setattr(tables.keys._client, "get_item", _fail)
        with pytest.raises(StorageError):
            tables.keys.caller(_bearer(a_key("k")))
    assert tables.keys.caller(_bearer(a_key("k"))).tenant == "acme"


def test_the_cache_of_keys_stays_small(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crm_bridge.storage.api_keys.KEY_CACHE", 3)
    assert KEY_CACHE == 1000
    for number in range(5):
        tables.keys.add(a_key(f"k{number}"), "acme", frozenset({"create_site"}), "the CRM")
        tables.keys.caller(_bearer(a_key(f"k{number}")))
    assert [*tables.keys._cache] == [hash_api_key(a_key(f"k{number}")) for number in (2, 3, 4)]


def _change(tables: Tables, key: str, *, disabled: bool) -> None:
    tables.keys._client.update_item(
        TableName=tables.keys._table,
        Key={"key_hash": {"S": hash_api_key(key)}},
        UpdateExpression="SET disabled = :d",
        ExpressionAttributeValues={":d": {"BOOL": disabled}},
    )


def test_keys_are_listed_for_their_tenant_only_and_a_revoked_one_is_refused_once_it_is_forgotten(
    tables: Tables, clock: Clock
) -> None:
    keys = tables.keys
    mine, other, theirs = (new_api_key() for _ in range(3))
    keys.add(mine, "acme", frozenset({"create_site"}), "CRM")
    clock.move(1)
    ends, ada = int(clock()) + 60, "arn:aws:iam::1:user/ada"
    keys.add(other, "acme", frozenset({"operations:read"}), "old", expires_at=ends, created_by=ada)
    keys.add(theirs, "bolt", frozenset({"create_site"}), "CRM")
    first, second = keys.of("acme")
    assert (first.key_hash, first.scopes, first.disabled) == (hash_api_key(mine), frozenset({"create_site"}), False)
    assert (second.label, second.scopes, second.expires_at) == ("old", frozenset({"operations:read"}), ends)
    assert (first.created_by, second.created_by) == ("", ada)
    assert keys.caller(_bearer(mine)).tenant == "acme"
    keys.revoke(first)
    assert keys.of("acme")[0].disabled
    clock.move(KEY_MAX_AGE)
    with pytest.raises(UnauthenticatedError):
        keys.caller(_bearer(mine))
    assert keys.caller(_bearer(theirs)).tenant == "bolt"
