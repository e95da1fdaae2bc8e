"""The decisions of create_site."""

from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from create_site.flow import CreateSite
from create_site.models import NewSite, SiteCreated
from crm_bridge.errors import IncompleteSearchError
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.storage.links import Identity, Link
from crm_bridge.vendors.illu import Illu, IlluSettings, IlluSite, ListedIlluSite

FLOW = CreateSite()
SENT: dict[str, Any] = {
    "customer_id": "C-1001",
    "name": "Shop 12, Kitale",
    "latitude": 1.0157,
    "longitude": 35.0062,
    "address": "Moi Ave 12",
}
COMMAND = NewSite.model_validate(SENT)


class FakeIllu(Illu):
    def __init__(self, *listed: ListedIlluSite, path: str = "/sites") -> None:
        settings = IlluSettings.model_validate({"org_id": 1, "api_key": "key", "site_list_path": path})
        super().__init__(settings, Transport(), Deadline(1))
        self.listed = list(listed)
        self.names: list[str] = []

    def create_site(self, *, name: str, latitude: float, longitude: float, address: str) -> IlluSite:
        members = {"name": name, "latitude": latitude, "longitude": longitude, "address": address}
        return IlluSite.model_validate({"site_id": 4711, "is_active": True, "customer_id": "illu's own", **members})

    def list_sites(self, *, name: str) -> list[ListedIlluSite]:
        self.names.append(name)
        return self.listed


def listed(**changes: object) -> ListedIlluSite:
    return ListedIlluSite.model_validate({"site_id": 4711, **SENT, **changes})


def test_the_result_has_illus_own_members_and_our_customer() -> None:
    result = FLOW.send(COMMAND, FakeIllu())
    assert result.model_dump() == {**SENT, "site_id": 4711, "is_active": True}


def test_the_customer_is_the_natural_key_and_is_linked_to_the_site() -> None:
    assert FLOW.key(COMMAND) == "C-1001"
    result = SiteCreated(site_id=4711, customer_id="C-1001")
    assert FLOW.links(COMMAND, result) == [
        Link(Identity("crm", "customer", "C-1001"), Identity("illu", "site", "4711"))
    ]


def found(command: NewSite, **changes: object) -> list[tuple[int, bool]]:
    return [(hit.result.site_id, hit.certain) for hit in FLOW.find(command, FakeIllu(listed(**changes)))]


@pytest.mark.parametrize(
    "changes",
    [{}, {"latitude": "1.0157"}, {"longitude": 35.0062004}, {"name": " Shop 12, Kitale"}, {"address": "Moi Ave 12 "}],
)
def test_is_certain_of_a_site_that_says_the_same(changes: dict[str, object]) -> None:
    assert found(COMMAND, **changes) == [(4711, True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "SHOP 12, Kitale"},
        {"name": "Shop 12,  Kitale"},
        {"name": "Shop 1"},
        {"name": ""},
        {"latitude": 1.016, "longitude": 35.006},
        {"longitude": 35.00621},
        {"address": "another spelling"},
        {"address": None},
        {"address": 12},
    ],
)
def test_may_be_a_site_at_the_place_whatever_its_texts_are(changes: dict[str, object]) -> None:
    assert found(COMMAND, **changes) == [(4711, False)]


@pytest.mark.parametrize("changes", [{"latitude": 1.0163}, {"longitude": 35.0068}, {"latitude": -1.0157}])
def test_does_not_take_a_site_elsewhere_for_it(changes: dict[str, object]) -> None:
    assert found(COMMAND, **changes) == []


def test_says_that_nothing_is_proved_when_illu_was_asked_by_the_name() -> None:
    illu = FakeIllu(listed(), path="/sites?name={name}")
    hits = iter(FLOW.find(COMMAND, illu))
    assert next(hits).result.site_id == 4711
    with pytest.raises(IncompleteSearchError, match=r"\{name\} from `site_list_path`"):
        next(hits)
    assert illu.names == ["Shop 12, Kitale"]


def test_a_person_sees_the_id_the_name_and_the_time_that_illu_shows() -> None:
    [hit] = FLOW.find(COMMAND, FakeIllu(listed(name="Shop", created_at="2026-03-01T12:00:00")))
    assert (hit.id, hit.name, hit.created_at) == ("4711", "Shop", datetime(2026, 3, 1, 12))  # noqa: DTZ001


@pytest.mark.parametrize("latitude", [-90, 90, 0, -0.0, "12.5"])
def test_takes_every_position_on_earth(latitude: object) -> None:
    NewSite.model_validate({**SENT, "latitude": latitude, "longitude": -180})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("latitude", 90.000001),
        ("latitude", -91),
        ("latitude", float("nan")),
        ("latitude", float("inf")),
        ("longitude", 180.1),
        ("longitude", None),
        ("latitude", "north"),
        ("customer_id", ""),
        ("customer_id", "  "),
        ("customer_id", "x" * 201),
        ("customer_id", None),
        ("name", "x" * 501),
        ("name", ["x"]),
        ("name", 12),
        ("name", "Shop\x00 12"),
        ("latitude", True),
        ("customer_id", 1001.5),
        ("customer_id", True),
        ("address", " "),
        ("address", "x" * 1001),
        ("site_id", 1),
    ],
)
def test_refuses_what_illu_could_not_use(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as raised:
        NewSite.model_validate({**SENT, field: value})
    assert [error["loc"] for error in raised.value.errors()] == [(field,)]


def test_a_number_and_its_text_are_the_same_customer() -> None:
    assert NewSite.model_validate({**SENT, "customer_id": 1001}).customer_id == "1001"
    assert NewSite.model_validate({**SENT, "customer_id": " 1001 "}).customer_id == "1001"


def test_what_was_accepted_can_be_read_again_when_composing_makes_it_longer() -> None:
    with pytest.raises(ValidationError):
        NewSite.model_validate({**SENT, "address": "\u0958" * 900})
    accepted = NewSite.model_validate({**SENT, "address": "\u0958" * 500})
    assert NewSite.model_validate_json(accepted.model_dump_json()) == accepted


@pytest.mark.parametrize(
    ("sent", "stored", "certain"),
    [
        ("Tom & Söhne", "Tom &amp; Söhne", False),
        ("So\u0308hne", "S\u00f6hne", True),
        ("S\u00f6hne", "So\u0308hne", True),
        ("\uff21\uff22\uff23", "abc", False),
        ("\uff21\uff22\uff23", "ABC", False),
    ],
)
def test_two_spellings_of_one_name_are_the_same_only_if_events_cannot_differ_by_them(
    sent: str, stored: str, certain: bool
) -> None:
    command = NewSite.model_validate({**SENT, "name": sent})
    assert found(command, name=stored) == [(4711, certain)]
