"""The client of illu, against its simulator and against what no simulator says, over real HTTP."""

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from werkzeug.wrappers import Request, Response

from crm_bridge.errors import (
    AddressMovedError,
    CannotLookError,
    ContractBrokenError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    TryLaterError,
    VendorError,
)
from crm_bridge.transport import Deadline, Transport
from crm_bridge.vendors.illu import Illu, IlluSettings, IlluSite, ListedIlluSite
from local.server import HOST, Server
from local.stack import LOCAL_HOSTS
from local.vendors.illu import IlluSimulator
from local.vendors.simulator import Kind

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KEY = "illu-demo-key"
SHOP: dict[str, Any] = {"name": "Shop 12, Kitale", "latitude": 1.0157, "longitude": 35.0062, "address": "Moi Ave 12"}
LISTED: dict[str, object] = {"site_id": 4711, "name": "Shop 12, Kitale", "latitude": 1.0157, "longitude": 35.0062}
LIST_PATH = "/orgs/{org_id}/sites?name={name}"
SOON = 1.5
"""Seconds of a deadline that a test waits for. Half of them are for connecting, and half for the answer."""


@dataclass(frozen=True)
class Asked:
    """One request, as it was on the wire."""

    method: str
    uri: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class ScriptedIllu:
    """illu on loopback, answering what it was told to and keeping what it was asked."""

    answer: Response = field(default_factory=lambda: Response("{}"))
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = Server("scripted illu", self._answer)

    def answers(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body)
        self.answer = Response(data, status, headers, mimetype="application/json")

    def _answer(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        request = Request(environ)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.method, environ["REQUEST_URI"], headers, request.get_data()))
        return self.answer(environ, start_response)


@pytest.fixture
def illu() -> Iterator[IlluSimulator]:
    simulator = IlluSimulator(api_key=KEY)
    simulator.start()
    yield simulator
    simulator.stop()


@pytest.fixture(scope="module")
def script() -> Iterator[ScriptedIllu]:
    vendor = ScriptedIllu()
    vendor.server.start()
    yield vendor
    vendor.server.stop()


@pytest.fixture
def scripted(script: ScriptedIllu) -> ScriptedIllu:
    script.asked.clear()
    return script


type Connect = Callable[..., Illu]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """A client of the illu at an address."""
    monkeypatch.setattr("crm_bridge.transport.SHORTEST_CALL", 0.5)  # so that tests need not wait for long
    transport = Transport(on_this_machine=LOCAL_HOSTS)

    def client(
        url: str, *, org_id: int = 88, key: str = KEY, path: str | None = LIST_PATH, lag: int = 120, seconds: float = 20
    ) -> Illu:
        document = {"base_url": url, "org_id": org_id, "api_key": key, "site_list_path": path, "search_lag": lag}
        settings = IlluSettings.model_validate(document, context=LOCAL_HOSTS)
        return Illu(settings, transport, Deadline(seconds))

    yield client
    transport._adapter.close()


# ------------------------------------------------------------------ create_site


def test_site_is_answered_when_illu_created_it(illu: IlluSimulator, connect: Connect) -> None:
    site = connect(illu.url).create_site(**SHOP)

    assert isinstance(site, IlluSite)
    assert site.model_dump() == {"site_id": 4711, "is_active": True, "org_id": 88, **SHOP}
    assert [held["site_id"] for held in illu.sites] == [4711]


@pytest.mark.parametrize(
    ("base", "uri"), [("", "/orgs/88/sites"), ("/", "/orgs/88/sites"), ("/v2/", "/v2/orgs/88/sites")]
)
def test_request_is_as_documented_when_a_site_is_created(
    scripted: ScriptedIllu, connect: Connect, base: str, uri: str
) -> None:
    scripted.answers(201, {"site_id": 1})

    connect(scripted.server.url + base).create_site(**SHOP)

    [asked] = scripted.asked
    assert (asked.method, asked.uri) == ("POST", uri)
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == SHOP


@pytest.mark.parametrize("name", ["Büro Nord", "店", "Kiosk 🏪", 'The "Corner"\\Shop\n2'])
def test_name_arrives_unchanged_when_a_site_is_created(illu: IlluSimulator, connect: Connect, name: str) -> None:
    site = connect(illu.url).create_site(**SHOP | {"name": name})

    assert illu.sites[0]["name"] == name
    assert site.model_extra is not None
    assert site.model_extra["name"] == name


@pytest.mark.parametrize("site_id", [4711, "4711", 1])
def test_site_is_answered_when_its_id_is_usable(scripted: ScriptedIllu, connect: Connect, site_id: object) -> None:
    scripted.answers(201, {"site_id": site_id})

    assert connect(scripted.server.url).create_site(**SHOP).site_id == int(str(site_id))


@pytest.mark.parametrize(
    "site_id", [None, 0, -1, True, False, "", "abc", "0", "-1", "1.5", " 1", "٤٧١١", 1.5, [4711], {"id": 4711}]
)
def test_contract_broken_when_the_id_is_not_usable(scripted: ScriptedIllu, connect: Connect, site_id: object) -> None:
    scripted.answers(201, {"site_id": site_id, **SHOP})

    with pytest.raises(ContractBrokenError) as caught:
        connect(scripted.server.url).create_site(**SHOP)
    assert (caught.value.status, len(scripted.asked)) == (201, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"created",
        b"<html></html>",
        b"[]",
        b"null",
        b"4711",
        b'"4711"',
        b"{}",
        b'{"id": 4711}',
        b'{"site_id": NaN}',
        b'{"site_id": 1e400}',
        b'[{"site_id": 4711}]',
        b'{"site": {"site_id": 4711}}',
        b'{"site_id": 4711',
    ],
)
def test_contract_broken_when_201_has_no_id(scripted: ScriptedIllu, connect: Connect, body: bytes) -> None:
    scripted.answers(201, body)

    with pytest.raises(ContractBrokenError) as caught:
        connect(scripted.server.url).create_site(**SHOP)
    assert (caught.value.vendor, caught.value.status) == ("illu", 201)


@pytest.mark.parametrize("status", [200, 202, 204])
def test_contract_broken_when_the_status_is_not_201(scripted: ScriptedIllu, connect: Connect, status: int) -> None:
    scripted.answers(status, b"" if status == 204 else {"site_id": 4711, **SHOP})

    with pytest.raises(ContractBrokenError) as caught:
        connect(scripted.server.url).create_site(**SHOP)
    assert caught.value.status == status


def test_site_can_be_stored_when_illu_cut_a_character_in_half(scripted: ScriptedIllu, connect: Connect) -> None:
    scripted.answers(201, rb'{"site_id": 4711, "name": "Kiosk \ud83c"}')

    site = connect(scripted.server.url).create_site(**SHOP)

    assert json.loads(site.model_dump_json())["site_id"] == 4711


def test_sign_in_refused_when_the_key_is_wrong(illu: IlluSimulator, connect: Connect) -> None:
    with pytest.raises(SignInRefusedError) as caught:
        connect(illu.url, key="of-yesterday").create_site(**SHOP)
    assert caught.value.message == "illu answered 401: Invalid API key"
    assert illu.sites == []


def test_sign_in_refused_when_the_organisation_is_another(illu: IlluSimulator, connect: Connect) -> None:
    with pytest.raises(SignInRefusedError) as caught:
        connect(illu.url, org_id=89).create_site(**SHOP)
    assert caught.value.message == "illu answered 403: No access to this organisation"
    assert illu.sites == []


def test_key_is_masked_when_illu_repeats_it(scripted: ScriptedIllu, connect: Connect) -> None:
    scripted.answers(400, {"message": f"Unexpected header 'Bearer {KEY}'"})

    with pytest.raises(RefusedError) as caught:
        connect(scripted.server.url).create_site(**SHOP)
    assert caught.value.message == "illu answered 400: Unexpected header 'Bearer ***'"


@dataclass(frozen=True)
class Fate:
    """What a fault means: the error that the bridge must see, and the sites that illu made."""

    error: type[VendorError]
    status: int | None
    made: int


FATES = {
    Kind.REFUSE: Fate(NotDoneError, None, 0),
    Kind.DELAY: Fate(MaybeDoneError, None, 1),
    Kind.TOO_MANY: Fate(TryLaterError, 429, 0),
    Kind.UNAVAILABLE: Fate(TryLaterError, 503, 0),
    Kind.TOO_MANY_AFTER: Fate(TryLaterError, 429, 1),
    Kind.UNAVAILABLE_AFTER: Fate(TryLaterError, 503, 1),
    Kind.ERROR_BEFORE: Fate(MaybeDoneError, 500, 0),
    Kind.ERROR_AFTER: Fate(MaybeDoneError, 500, 1),
    Kind.CLOSE_BEFORE: Fate(MaybeDoneError, None, 0),
    Kind.CLOSE_AFTER: Fate(MaybeDoneError, None, 1),
    Kind.WRONG_STATUS: Fate(ContractBrokenError, 200, 1),
    Kind.HTML: Fate(MaybeDoneError, 502, 0),
    Kind.BAD_KEY: Fate(SignInRefusedError, 401, 0),
    Kind.MOVED: Fate(AddressMovedError, 308, 0),
}


@pytest.mark.parametrize("kind", Kind)
def test_error_says_what_may_have_happened_when_illu_fails(illu: IlluSimulator, connect: Connect, kind: Kind) -> None:
    fate = FATES[kind]
    illu.fail(kind, seconds=2 if kind is Kind.DELAY else 1)
    if kind is Kind.REFUSE:
        time.sleep(0.1)  # until nothing listens

    with pytest.raises(VendorError) as caught:
        connect(illu.url, seconds=SOON).create_site(**SHOP)

    assert (type(caught.value), caught.value.status) == (fate.error, fate.status)
    assert caught.value.retry_after == (1 if fate.error is TryLaterError else None)
    wait_until(lambda: len(illu.sites) == fate.made)

    wait_until(lambda: listens(illu))
    connect(illu.url).create_site(**SHOP)  # the fault was for one request
    assert len(illu.sites) == fate.made + 1


def listens(illu: IlluSimulator) -> bool:
    with socket.socket() as client:
        return client.connect_ex((HOST, urlsplit(illu.url).port)) == 0


def wait_until(fulfilled: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not fulfilled():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


# ------------------------------------------------------------------ list_sites


def test_cannot_look_when_no_address_is_named(scripted: ScriptedIllu, connect: Connect) -> None:
    with pytest.raises(CannotLookError, match="site_list_path"):
        connect(scripted.server.url, path=None).list_sites(name="Shop")
    assert scripted.asked == []


def test_sites_are_listed_when_illu_holds_them(illu: IlluSimulator, connect: Connect) -> None:
    client = connect(illu.url)
    illu.clock = lambda: datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
    illu.add_site(**SHOP)
    illu.add_site(**SHOP | {"name": "Another"})
    created = client.create_site(**SHOP)

    listed = client.list_sites(name="Shop 12, Kitale")

    assert [site.site_id for site in listed] == [4711, created.site_id]
    assert isinstance(listed[0], ListedIlluSite)
    assert (listed[0].name, listed[0].latitude, listed[0].longitude) == ("Shop 12, Kitale", 1.0157, 35.0062)
    assert listed[0].created_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_nothing_is_listed_when_illu_holds_nothing(illu: IlluSimulator, connect: Connect) -> None:
    assert connect(illu.url).list_sites(name="Shop") == []


def test_site_is_listed_when_the_search_lag_is_over(illu: IlluSimulator, connect: Connect) -> None:
    now = 1_770_000_000.0
    illu.clock = lambda: now
    illu.search_lag = 120
    client = connect(illu.url, lag=120)
    client.create_site(**SHOP)

    assert client.list_sites(name=SHOP["name"]) == []
    now += client.search_lag - 1
    assert client.list_sites(name=SHOP["name"]) == []
    now += 1
    assert [site.site_id for site in client.list_sites(name=SHOP["name"])] == [4711]


@pytest.mark.parametrize("member", [None, "sites", "items", "data", "results"])
@pytest.mark.parametrize("sites", [[], [LISTED], [LISTED, {**LISTED, "site_id": 4712}]])
def test_sites_are_listed_when_the_list_is_wrapped(
    scripted: ScriptedIllu, connect: Connect, member: str | None, sites: list[object]
) -> None:
    scripted.answers(200, {member: sites} if member else sites)

    listed = connect(scripted.server.url).list_sites(name="Shop")

    assert [site.site_id for site in listed] == [4711, 4712][: len(sites)]
    [asked] = scripted.asked
    assert (asked.method, asked.body, asked.headers["authorization"]) == ("GET", b"", f"Bearer {KEY}")


def test_all_sites_are_listed_when_they_are_many(scripted: ScriptedIllu, connect: Connect) -> None:
    scripted.answers(200, [{**LISTED, "site_id": number + 1} for number in range(5000)])

    assert len(connect(scripted.server.url).list_sites(name="Shop")) == 5000


def test_look_fails_when_the_list_is_too_large(
    scripted: ScriptedIllu, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.vendors.illu.MAX_LIST", 1000)
    scripted.answers(200, [LISTED] * 1000)

    with pytest.raises(NotDoneError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize(
    ("members", "headers"),
    [
        ({"total": 1, "total_count": 1}, {}),
        ({"next": None, "next_page": None, "next_cursor": "", "has_more": False}, {}),
        ({}, {"Link": '</sites?page=1>; rel="first", </sites?page=1>; rel="last"'}),
    ],
    ids=["totals", "nothing more", "Link"],
)
def test_sites_are_listed_when_that_is_said_to_be_all(
    scripted: ScriptedIllu, connect: Connect, members: dict[str, object], headers: dict[str, str]
) -> None:
    scripted.answers(200, {"sites": [LISTED], **members}, headers)

    assert [site.site_id for site in connect(scripted.server.url).list_sites(name="Shop")] == [4711]


@pytest.mark.parametrize("sites", [[], [LISTED]], ids=["none", "one"])
@pytest.mark.parametrize(
    "members",
    [
        {"next": "/orgs/88/sites?page=2"},
        {"next_page": 2},
        {"next_cursor": "bmV4dA"},
        {"has_more": True},
        {"total": 2},
        {"total_count": 2},
        {"total": "2"},
        {"total": None},
        {"total": 0, "total_count": 51},
    ],
    ids=str,
)
def test_cannot_look_when_the_list_says_that_there_is_more(
    scripted: ScriptedIllu, connect: Connect, members: dict[str, object], sites: list[object]
) -> None:
    scripted.answers(200, {"sites": sites, **members})

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize(
    "members",
    [
        {"links": {"next": "/orgs/88/sites?page=2"}},
        {"_links": {"next": {"href": "/orgs/88/sites?page=2"}}},
        {"meta": {"total": 51}},
        {"pagination": {"page": 1, "pages": 2}},
        {"paging": {"cursors": {"after": "bmV4dA"}}},
        {"hasMore": True},
        {"nextPageToken": "bmV4dA"},
        {"next_page_url": "/orgs/88/sites?page=2"},
        {"next_page_token": "bmV4dA"},
        {"@odata.nextLink": "/orgs/88/sites?page=2"},
        {"totalCount": 51},
        {"count": 51},
        {"page": 1, "total_pages": 2},
        {"current_page": 1, "last_page": 2},
        {"limit": 1, "offset": 0},
        {"truncated": True},
        {"results": 51},
        {"data": {"next": "/p2"}},
    ],
    ids=str,
)
def test_cannot_look_when_the_list_says_it_in_other_words(
    scripted: ScriptedIllu, connect: Connect, members: dict[str, object]
) -> None:
    scripted.answers(200, {"sites": [LISTED], **members})

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


def test_cannot_look_when_there_are_two_lists(scripted: ScriptedIllu, connect: Connect) -> None:
    scripted.answers(200, {"sites": [], "items": [LISTED]})

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


def test_cannot_look_when_a_header_names_the_next_page(scripted: ScriptedIllu, connect: Connect) -> None:
    scripted.answers(200, [LISTED], {"Link": '</sites?page=1>; rel="prev", </sites?page=3>; rel="next"'})

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


def test_cannot_look_when_a_header_names_the_next_page_of_a_wrapped_list(
    scripted: ScriptedIllu, connect: Connect
) -> None:
    scripted.answers(200, {"sites": [LISTED]}, {"Link": '</sites?page=2>; rel="next"'})

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize("relation", ["rel=next", 'rel="last next"', 'REL="next"', 'rel="Next"', 'rel = "next"'])
def test_cannot_look_when_a_header_names_the_next_page_in_another_way(
    scripted: ScriptedIllu, connect: Connect, relation: str
) -> None:
    scripted.answers(200, [LISTED], {"Link": f"</sites?page=2>; {relation}"})

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize(
    "body",
    [None, 4711, "Shop", {}, LISTED, {"sites": {"4711": LISTED}}, {"sites": None}, {"data": {"sites": [LISTED]}}],
)
def test_cannot_look_when_the_answer_is_no_list(scripted: ScriptedIllu, connect: Connect, body: object) -> None:
    scripted.answers(200, body)

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize("missing", LISTED)
@pytest.mark.parametrize("null", [False, True], ids=["missing", "null"])
def test_cannot_look_when_a_site_lacks_what_it_is_known_by(
    scripted: ScriptedIllu, connect: Connect, missing: str, null: bool
) -> None:
    lacking = {name: value for name, value in LISTED.items() if name != missing} | ({missing: None} if null else {})
    scripted.answers(200, [LISTED, lacking, LISTED])

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize(
    "members",
    [
        {"site_id": True},
        {"site_id": "abc"},
        {"site_id": 0},
        {"name": 7},
        {"latitude": "north"},
        {"longitude": [35.0]},
        {"created_at": "yesterday"},
        {"created_at": ""},
        {"created_at": {}},
    ],
    ids=str,
)
def test_cannot_look_when_a_site_is_not_readable(
    scripted: ScriptedIllu, connect: Connect, members: dict[str, object]
) -> None:
    scripted.answers(200, [LISTED, {**LISTED, **members}])

    with pytest.raises(CannotLookError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize(
    ("created_at", "expected"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01T15:00:00.000+03:00", datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (1_772_366_400, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        (None, None),
    ],
)
def test_creation_time_is_in_utc_when_illu_tells_it(
    scripted: ScriptedIllu, connect: Connect, created_at: object, expected: datetime | None
) -> None:
    scripted.answers(200, [{**LISTED, "created_at": created_at}])

    [site] = connect(scripted.server.url).list_sites(name="Shop")

    assert site.created_at == expected
    assert site.created_at is None or site.created_at.utcoffset() is not None


def test_creation_time_is_unknown_when_illu_does_not_tell_it(scripted: ScriptedIllu, connect: Connect) -> None:
    scripted.answers(200, [LISTED])

    [site] = connect(scripted.server.url).list_sites(name="Shop")

    assert site.created_at is None


@pytest.mark.parametrize("told", ["2026-03-01", "2026-03-01T00:00:00", "2026-03-01 00:00"])
def test_creation_time_has_no_zone_when_illu_tells_none(scripted: ScriptedIllu, connect: Connect, told: str) -> None:
    scripted.answers(200, [{**LISTED, "created_at": told}])

    [site] = connect(scripted.server.url).list_sites(name="Shop")

    assert site.created_at == datetime(2026, 3, 1)  # noqa: DTZ001


NAMES = [
    "Shop",
    "Shop 12, Kitale",
    "Duka/Moi Ave",
    "Büro Zürich",
    "店",
    "🏪",
    "A & B",
    "a=b;c",
    "#7",
    "Why?",
    "1+1",
    "100%",
    "50%20off",
    "{org_id}",
    "{name}",
    '"Corner"',
    "back\\slash",
    "two\nlines",
    "<b>",
    "*~'()!",
]


@pytest.mark.parametrize("name", NAMES)
def test_site_is_found_when_its_name_needs_encoding(illu: IlluSimulator, connect: Connect, name: str) -> None:
    client = connect(illu.url)
    client.create_site(**SHOP | {"name": name})
    client.create_site(**SHOP | {"name": name + "x"})

    assert [site.name for site in client.list_sites(name=name)] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_address_is_filled_in_when_sites_are_listed(scripted: ScriptedIllu, connect: Connect, name: str) -> None:
    scripted.answers(200, [])

    path = "/v1/{org_id}/by-name/{name}/sites?org={org_id}&q={name}&limit=500"
    connect(scripted.server.url, path=path).list_sites(name=name)

    [asked] = scripted.asked
    assert asked.uri.isascii()
    parts = urlsplit(asked.uri)
    assert [unquote(part) for part in parts.path.split("/")] == ["", "v1", "88", "by-name", name, "sites"]
    assert parse_qs(parts.query) == {"org": ["88"], "q": [name], "limit": ["500"]}
    assert parts.fragment == ""


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_contract_broken_when_a_list_does_not_come_with_200(
    scripted: ScriptedIllu, connect: Connect, status: int
) -> None:
    scripted.answers(status, b"" if status == 204 else [LISTED])

    with pytest.raises(ContractBrokenError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize("body", [b"", b"<html></html>", b'[{"site_id": 4711'])
def test_contract_broken_when_a_list_is_not_json(scripted: ScriptedIllu, connect: Connect, body: bytes) -> None:
    scripted.answers(200, body)

    with pytest.raises(ContractBrokenError):
        connect(scripted.server.url).list_sites(name="Shop")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.REFUSE, Kind.DELAY)])
def test_look_fails_when_illu_fails(illu: IlluSimulator, connect: Connect, kind: Kind) -> None:
    illu.add_site(**SHOP)
    illu.fail(kind, seconds=1, method="GET")
    client = connect(illu.url)

    if kind is Kind.WRONG_STATUS:  # 200 is the right one for a list
        assert len(client.list_sites(name=SHOP["name"])) == 1
        return
    with pytest.raises(VendorError) as caught:
        client.list_sites(name=SHOP["name"])

    error = FATES[kind].error
    harmless = NotDoneError if error in (MaybeDoneError, TryLaterError) else error  # a list changes nothing
    assert (type(caught.value), caught.value.status) == (harmless, FATES[kind].status)
    assert len(client.list_sites(name=SHOP["name"])) == 1


@pytest.mark.parametrize(("org_id", "key"), [(89, KEY), (88, "wrong")])
def test_look_fails_when_illu_does_not_let_us_in(illu: IlluSimulator, connect: Connect, org_id: int, key: str) -> None:
    with pytest.raises(SignInRefusedError):
        connect(illu.url, org_id=org_id, key=key).list_sites(name="Shop")


def test_error_shows_nothing_of_the_request_when_a_look_fails(illu: IlluSimulator, connect: Connect) -> None:
    illu.fail(Kind.CLOSE_BEFORE, method="GET")

    with pytest.raises(VendorError) as caught:
        connect(illu.url).list_sites(name="Wanjiru")
    shown = f"{caught.value} {caught.value!r} {caught.value.message}"
    assert not [secret for secret in ("Wanjiru", KEY, "/sites") if secret in shown]
