"""The base class of vendors, and their registry."""

import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

import crm_bridge.vendors as package
from crm_bridge.errors import (
    CannotLookError,
    ContractBrokenError,
    MaybeDoneError,
    NotConfiguredError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    TryLaterError,
    VendorError,
)
from crm_bridge.outbound.findings import Result, asked
from crm_bridge.outbound.response import VendorResponse
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.settings import Settings, Tenant, parse_tenant
from crm_bridge.vendors import PART_OF, REGISTRY, vendors
from crm_bridge.vendors.illu import Illu, IlluSettings


class ShopSettings(Settings):
    block = "shop"
    base_url: str = "https://shop.example"
    key: SecretStr = SecretStr("hush-hush")
    old_key: SecretStr | None = None


class Order(BaseModel):
    id: int
    name: str


class Shop(Vendor[ShopSettings]):
    name = "Shop"


class Wire(Transport):
    """Notes a call, and returns a response or raises an error."""

    def __init__(self, status: int = 200, body: object = None, error: VendorError | None = None) -> None:
        super().__init__()
        self.answer = VendorResponse("Shop", status, {}, b"" if body is None else json.dumps(body).encode(), ())
        self.error = error
        self.calls: list[tuple[str, str, object]] = []

    def call(self, vendor: str, method: str, url: str, **given: Any) -> VendorResponse:
        assert vendor == "Shop"
        self.calls.append((method, url, given["body"]))
        self.given = given
        if self.error:
            raise self.error
        return self.answer


def shop(wire: Wire, **settings: Any) -> Shop:
    return Shop(ShopSettings(**settings), wire, Deadline(20))


def test_the_settings_are_those_of_the_type_argument() -> None:
    assert (Shop.settings_model, Shop.blocks()) == (ShopSettings, (ShopSettings,))


def test_every_secret_of_the_settings_is_masked_by_default() -> None:
    wire = Wire()
    shop(wire, old_key="older").get("/orders", 200)
    assert wire.given["secrets"] == ("hush-hush", "older")


@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (lambda it: it.get("/orders", 200), ("GET", "https://shop.example/orders", None)),
        (lambda it: it.post("/orders", {"a": 1}, 200), ("POST", "https://shop.example/orders", {"a": 1})),
        (lambda it: it.put("/orders/1", {"a": 2}, 200), ("PUT", "https://shop.example/orders/1", {"a": 2})),
        (lambda it: it.delete("/orders/1", 200), ("DELETE", "https://shop.example/orders/1", None)),
    ],
)
def test_a_call_is_sent_once_below_the_address(call: Callable[[Shop], object], sent: object) -> None:
    wire = Wire()
    call(shop(wire))
    assert wire.calls == [sent]


@pytest.mark.parametrize("error", [MaybeDoneError, TryLaterError])
def test_a_question_that_fails_is_not_done_and_a_post_stays_in_doubt(error: type[VendorError]) -> None:
    wire = Wire(error=error("lost", vendor="Shop"))
    with pytest.raises(NotDoneError) as caught:
        shop(wire).get("/orders", 200)
    assert type(caught.value) is NotDoneError
    with pytest.raises(error):
        shop(wire).post("/orders", {}, 201)


def test_a_status_that_is_not_expected_is_an_error() -> None:
    for status, error in ((404, RefusedError), (401, SignInRefusedError), (200, ContractBrokenError)):
        with pytest.raises(error):
            shop(Wire(status)).post("/orders", {}, 201)


def test_a_response_or_a_member_of_it_is_read_into_a_model() -> None:
    it, order = shop(Wire()), {"id": 1, "name": "a"}
    assert it.read(Wire(201, order).answer, Order) == Order(id=1, name="a")
    assert it.read(Wire(201, {"order": order}).answer, Order, "order") == Order(id=1, name="a")


@pytest.mark.parametrize(
    ("body", "member", "named"),
    [
        ({"id": "hush-hush"}, None, "id, name"),
        ({"order": {"id": 1}}, "order", "name"),
        ({"other": {}}, "order", "order"),
        ([], "order", "order"),
        ([], None, "object"),
    ],
)
def test_what_cannot_be_read_is_named_without_its_value(body: object, member: str | None, named: str) -> None:
    with pytest.raises(ContractBrokenError) as caught:
        shop(Wire()).read(Wire(201, body).answer, Order, member)
    assert caught.value.message == f"Shop answered 201 without a usable {named}"
    assert (caught.value.vendor, caught.value.status) == ("Shop", 201)


@pytest.mark.parametrize(
    ("error", "result", "what_to_do"),
    [
        (CannotLookError, Result.NOT_CHECKED, ""),
        (SignInRefusedError, Result.FAILED, "credentials"),
        (RefusedError, Result.FAILED, "rights"),
        (MaybeDoneError, Result.FAILED, "vendor up"),
    ],
)
def test_a_check_that_fails_says_what_to_do(error: type[VendorError], result: Result, what_to_do: str) -> None:
    def question() -> object:
        raise error("why", vendor="Shop")

    found = asked("Shop", "orders", question, str)
    assert (found.about, found.check, found.result, found.detail) == ("Shop", "orders", result, "why")
    assert what_to_do in found.what_to_do
    assert asked("Shop", "orders", lambda: 3, str).detail == "3"


# ---------------------------------------------------------------- the registry


def test_every_vendor_is_in_the_registry() -> None:
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert {name for name in modules if not name.endswith("_settings")} == {entry.module for entry in REGISTRY}
    assert [vendor.__module__.rpartition(".")[2] for vendor in vendors()] == [entry.module for entry in REGISTRY]
    blocks = [model.block for vendor in vendors() for model in vendor.blocks()]
    assert all(blocks)
    assert len(blocks) == len(set(blocks))


def test_a_part_has_only_the_blocks_of_its_vendor() -> None:
    document = json.dumps({"illu": {"org_id": 88, "api_key": "hush-hush"}})
    assert parse_tenant(document, frozenset(), "illu").of(IlluSettings)
    with pytest.raises(ValidationError, match="illu"):
        parse_tenant(document, frozenset(), "revio")


def test_a_tenant_that_does_not_use_a_vendor_reads_which_block_to_add() -> None:
    assert Tenant().of(IlluSettings) is None
    with pytest.raises(NotConfiguredError, match="no illu block"):
        Illu.for_tenant(Tenant(), Transport(), Deadline(1), services=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("flow", "part"), PART_OF.items())
def test_a_function_imports_no_vendor_but_its_own(flow: str, part: str) -> None:
    script = f"""
import {flow}.handler, sys
from crm_bridge.settings import parse_tenant
parse_tenant("{{}}", frozenset(), "{part}")
print(*(name for name in sys.modules if name.startswith("crm_bridge.vendors.")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    (module,) = (entry.module for entry in REGISTRY if entry.part == part)
    others = {"egito": ["connector_settings", "egito_settings"]}.get(module, [])
    assert sorted(done.stdout.split()) == sorted(f"crm_bridge.vendors.{name}" for name in [module, *others])
