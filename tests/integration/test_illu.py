"""The client of illu, against its simulator and against what no simulator says, over real HTTP."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
from crm_bridge.outbound.transport import Deadline, Transport
from crm_bridge.vendors.illu import Illu, IlluSettings, IlluSite, ListedIlluSite
from local.server import Server
from local.stack import LOCAL_HOSTS
from local.vendors.illu import IlluSimulator
from local.vendors.simulator import Kind
from tests.integration.conftest import failing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

KEY = "illu-demo-key"
SHOP: dict[str, Any] = {"name": "Shop 12, Kitale", "latitude": 1.0157, "longitude": 35.0062, "address": "Moi Ave 12"}
LISTED: dict[str, object] = {"site_id": 4711, "name": "Shop 12, Kitale", "latitude": 1.0157, "longitude": 35.0062}
LIST_PATH = "/orgs/{org_id}/sites?name={name}"
SOON = 1.5
"""Seconds of a deadline that a test waits for. Half of them are for connecting, and half for the answer."""
NO_JSON = (b"", b"<html></html>", b'[{"site_id": 4711')


@dataclass(frozen=True)
class Asked:
    """One request, as it was on the wire."""

    method: str
    uri: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class ScriptedIllu:
    """illu on loopback, with responses that a test sets, keeping what it was asked."""

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
    monkeypatch.setattr("crm_bridge.outbound.transport.SHORTEST_CALL", 0.5)  # so that tests need not wait for long
    transport = Transport(on_this_machine=LOCAL_HOSTS)

    def client(
        url: str,
        *,
        org_id: int = 88,
        key: str = KEY,
        path: str | None = LIST_PATH,
        lag: int = 120,
        seconds: float = 120,
    ) -> Illu:
        document = {"base_url": url, "org_id": org_id, "api_key": key, "site_list_path": path, "search_lag": lag}
        settings = IlluSettings.model_validate(document, context=LOCAL_HOSTS)
        return Illu(settings, transport, Deadline(seconds))

    yield client
    transport._adapter.close()


@pytest.fixture
def client(connect: Connect, scripted: ScriptedIllu) -> Illu:
    """A client of the scripted illu."""
    return connect(scripted.server.url)


@contextmanager
def fails(error: type[VendorError], case: object, status: int | None = None) -> Iterator[None]:
    """It is just this error."""
    with pytest.raises(VendorError) as caught:
        yield
    assert type(caught.value) is error, case
    assert caught.value.vendor == "illu"
    assert status in (None, caught.value.status), case


# ------------------------------------------------------------------ create_site


def test_site_is_answered_when_illu_created_it(illu: IlluSimulator, connect: Connect) -> None:
    site = connect(illu.url).create_site(**SHOP)
    assert isinstance(site, IlluSite)
    assert site.model_dump() == {"site_id": 4711, "is_active": True, "org_id": 88, **SHOP}
    for number, name in enumerate(("Büro Nord", "店", "Kiosk 🏪", 'The "Corner"\\Shop\n2'), start=1):
        site = connect(illu.url).create_site(**SHOP | {"name": name})
        assert illu.sites[number]["name"] == name
        assert (site.model_extra or {})["name"] == name


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


NO_IDS = (None, 0, -1, True, False, "", "abc", "0", "-1", "1.5", " 1", "٤٧١١", 1.5, [4711], {"id": 4711})
NO_SITES = (
    *(b"", b"created", b"<html></html>", b"[]", b"null", b"4711", b'"4711"', b"{}", b'{"id": 4711}'),
    *(b'{"site_id": NaN}', b'{"site_id": 1e400}', b'[{"site_id": 4711}]', b'{"site": {"site_id": 4711}}'),
    b'{"site_id": 4711',
)


def test_contract_broken_when_the_id_is_not_usable(scripted: ScriptedIllu, client: Illu) -> None:
    bodies = [*({"site_id": site_id, **SHOP} for site_id in NO_IDS), *NO_SITES]
    for number, body in enumerate(bodies, start=1):
        scripted.answers(201, body)
        with fails(ContractBrokenError, body, 201):
            client.create_site(**SHOP)
        assert len(scripted.asked) == number
    usable: tuple[object, ...] = (4711, "4711", 1)
    for site_id in usable:
        scripted.answers(201, {"site_id": site_id})
        assert client.create_site(**SHOP).site_id == int(str(site_id))
    scripted.answers(201, rb'{"site_id": 4711, "name": "Kiosk \ud83c"}')  # half a character
    assert json.loads(client.create_site(**SHOP).model_dump_json())["site_id"] == 4711


@pytest.mark.parametrize("status", [200, 202, 204])
def test_contract_broken_when_the_status_is_not_201(scripted: ScriptedIllu, client: Illu, status: int) -> None:
    scripted.answers(status, b"" if status == 204 else {"site_id": 4711, **SHOP})
    with fails(ContractBrokenError, status, status):
        client.create_site(**SHOP)


def test_sign_in_refused_when_the_key_is_wrong(illu: IlluSimulator, connect: Connect) -> None:
    client = connect(illu.url, key="of-yesterday")
    with pytest.raises(SignInRefusedError, match=r"^illu answered 401: Invalid API key$"):
        client.create_site(**SHOP)
    with pytest.raises(SignInRefusedError):
        client.list_sites(name="Shop")
    assert illu.sites == []


def test_sign_in_refused_when_the_organisation_is_another(illu: IlluSimulator, connect: Connect) -> None:
    client = connect(illu.url, org_id=89)
    with pytest.raises(SignInRefusedError, match=r"^illu answered 403: No access to this organisation$"):
        client.create_site(**SHOP)
    with pytest.raises(SignInRefusedError):
        client.list_sites(name="Shop")
    assert illu.sites == []


def test_key_is_masked_when_illu_repeats_it(scripted: ScriptedIllu, client: Illu) -> None:
    scripted.answers(400, {"message": f"Unexpected header 'Bearer {KEY}'"})
    with pytest.raises(RefusedError) as caught:
        client.create_site(**SHOP)
    assert caught.value.message == "illu answered 400: Unexpected header 'Bearer ***'"


@dataclass(frozen=True)
class Fate:
    """The meaning of a fault: the error that the bridge must see, and the sites that illu made."""

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


def wait_until(fulfilled: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 10
    while not fulfilled():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)


@pytest.mark.parametrize("kind", Kind)
def test_error_says_what_may_have_happened_when_illu_fails(illu: IlluSimulator, connect: Connect, kind: Kind) -> None:
    fate = FATES[kind]
    client = connect(illu.url, seconds=SOON)
    with failing(illu, kind, seconds=1, delay=2), pytest.raises(VendorError) as caught:
        client.create_site(**SHOP)
    assert (type(caught.value), caught.value.status) == (fate.error, fate.status)
    assert caught.value.retry_after == (1 if fate.error is TryLaterError else None)
    wait_until(lambda: len(illu.sites) == fate.made)
    connect(illu.url).create_site(**SHOP)  # the fault was for one request
    assert len(illu.sites) == fate.made + 1


# ------------------------------------------------------------------ list_sites


def test_cannot_look_when_no_address_is_named(scripted: ScriptedIllu, connect: Connect) -> None:
    with pytest.raises(CannotLookError, match="site_list_path"):
        connect(scripted.server.url, path=None).list_sites(name="Shop")
    assert scripted.asked == []


def test_sites_are_listed_when_illu_holds_them(illu: IlluSimulator, connect: Connect) -> None:
    client = connect(illu.url)
    assert client.list_sites(name="Shop") == []
    illu.clock = lambda: datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
    illu.add_site(**SHOP)
    illu.add_site(**SHOP | {"name": "Another"})
    created = client.create_site(**SHOP)
    listed = client.list_sites(name="Shop 12, Kitale")
    assert [site.site_id for site in listed] == [4711, created.site_id]
    assert isinstance(listed[0], ListedIlluSite)
    assert (listed[0].name, listed[0].latitude, listed[0].longitude) == ("Shop 12, Kitale", 1.0157, 35.0062)
    assert listed[0].created_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_site_is_listed_when_the_search_lag_is_over(illu: IlluSimulator, connect: Connect) -> None:
    now = 1_770_000_000.0
    illu.clock, illu.search_lag = lambda: now, 120
    client = connect(illu.url, lag=120)
    client.create_site(**SHOP)
    for passed, sites in ((0, []), (client.search_lag - 1, []), (1, [4711])):
        now += passed
        assert [site.site_id for site in client.list_sites(name=SHOP["name"])] == sites


LINK = "/sites?page=1"
WHOLE: tuple[tuple[dict[str, object], dict[str, str]], ...] = (
    ({"total": 1, "total_count": 1}, {}),
    ({"next": None, "next_page": None, "next_cursor": "", "has_more": False}, {}),
    ({}, {"Link": f'<{LINK}>; rel="first", <{LINK}>; rel="last"'}),
)


def test_sites_are_listed_however_the_list_is_wrapped(scripted: ScriptedIllu, client: Illu) -> None:
    for sites in ([], [LISTED], [LISTED, {**LISTED, "site_id": 4712}]):
        for member in (None, "sites", "items", "data", "results"):
            scripted.asked.clear()
            scripted.answers(200, {member: sites} if member else sites)
            assert [site.site_id for site in client.list_sites(name="Shop")] == [4711, 4712][: len(sites)], member
            [asked] = scripted.asked
            assert (asked.method, asked.body, asked.headers["authorization"]) == ("GET", b"", f"Bearer {KEY}")
    for members, headers in WHOLE:
        scripted.answers(200, {"sites": [LISTED], **members}, headers)
        assert [site.site_id for site in client.list_sites(name="Shop")] == [4711], members
    scripted.answers(200, [{**LISTED, "site_id": number + 1} for number in range(5000)])
    assert len(client.list_sites(name="Shop")) == 5000


def test_look_fails_when_the_list_is_too_large(
    scripted: ScriptedIllu, client: Illu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crm_bridge.vendors.illu.MAX_LIST", 1000)
    scripted.answers(200, [LISTED] * 1000)
    with pytest.raises(NotDoneError):
        client.list_sites(name="Shop")


P2 = "/orgs/88/sites?page=2"
MORE: tuple[Mapping[str, object], ...] = (
    *({"next": P2}, {"next_page": 2}, {"next_cursor": "bmV4dA"}, {"has_more": True}, {"total": 2}, {"total_count": 2}),
    *({"total": "2"}, {"total": None}, {"total": 0, "total_count": 51}),
)
"""Members that say that there is more, whether or not the list has a site."""
IN_OTHER_WORDS: tuple[Mapping[str, object], ...] = (
    *({"links": {"next": P2}}, {"_links": {"next": {"href": P2}}}, {"meta": {"total": 51}}, {"hasMore": True}),
    *({"pagination": {"page": 1, "pages": 2}}, {"paging": {"cursors": {"after": "bmV4dA"}}}, {"totalCount": 51}),
    *({"nextPageToken": "bmV4dA"}, {"next_page_url": P2}, {"next_page_token": "bmV4dA"}, {"@odata.nextLink": P2}),
    *({"count": 51}, {"page": 1, "total_pages": 2}, {"current_page": 1, "last_page": 2}, {"limit": 1, "offset": 0}),
    *({"truncated": True}, {"results": 51}, {"data": {"next": "/p2"}}),
)
RELATIONS = ('rel="next"', "rel=next", 'rel="last next"', 'REL="next"', 'rel="Next"', 'rel = "next"')
UNREADABLE: tuple[Mapping[str, object], ...] = (
    *({"site_id": True}, {"site_id": "abc"}, {"site_id": 0}, {"name": 7}, {"latitude": "north"}, {"longitude": [35.0]}),
    *({"created_at": "yesterday"}, {"created_at": ""}, {"created_at": {}}),
    *({name: None} for name in LISTED),
)
NO_LISTS: tuple[object, ...] = (
    *(None, 4711, "Shop", {}, LISTED, {"sites": {"4711": LISTED}}, {"sites": None}, {"data": {"sites": [LISTED]}}),
    {"sites": [], "items": [LISTED]},
)
INCOMPLETE: list[tuple[object, dict[str, str]]] = [
    *(({"sites": sites, **members}, {}) for members in MORE for sites in ([], [LISTED])),
    *(({"sites": [LISTED], **members}, {}) for members in IN_OTHER_WORDS),
    *(([LISTED], {"Link": f"<{LINK}>; {relation}"}) for relation in RELATIONS),
    ([LISTED], {"Link": '</sites?page=1>; rel="prev", </sites?page=3>; rel="next"'}),
    ({"sites": [LISTED]}, {"Link": '</sites?page=2>; rel="next"'}),
    *((body, {}) for body in NO_LISTS),
    *(([LISTED, {**LISTED, **members}, LISTED], {}) for members in UNREADABLE),
    *(([LISTED, {name: value for name, value in LISTED.items() if name != missing}], {}) for missing in LISTED),
]


def test_cannot_look_when_the_list_may_not_be_whole_or_lacks_what_a_site_is_known_by(
    scripted: ScriptedIllu, client: Illu
) -> None:
    for body, headers in INCOMPLETE:
        scripted.answers(200, body, headers)
        with fails(CannotLookError, (body, headers)):
            client.list_sites(name="Shop")


def test_creation_time_is_in_utc_unless_illu_tells_no_zone_or_none(scripted: ScriptedIllu, client: Illu) -> None:
    noon, day = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1)  # noqa: DTZ001
    cases: tuple[tuple[object, datetime | None], ...] = (
        *(("2026-03-01T12:00:00Z", noon), ("2026-03-01T15:00:00.000+03:00", noon), (1_772_366_400, noon), (None, None)),
        *((text, day) for text in ("2026-03-01", "2026-03-01T00:00:00", "2026-03-01 00:00")),
    )
    for created_at, expected in cases:
        scripted.answers(200, [{**LISTED, "created_at": created_at}])
        [site] = client.list_sites(name="Shop")
        assert site.created_at == expected
        assert (site.created_at and site.created_at.tzinfo is not None) == (expected and expected is noon)
    scripted.answers(200, [LISTED])
    assert client.list_sites(name="Shop")[0].created_at is None


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


def test_site_is_found_and_the_address_is_filled_in_when_its_name_needs_encoding(
    illu: IlluSimulator, scripted: ScriptedIllu, connect: Connect
) -> None:
    client = connect(illu.url)
    path = "/v1/{org_id}/by-name/{name}/sites?org={org_id}&q={name}&limit=500"
    scripted.answers(200, [])
    for name in NAMES:
        for made in (name, name + "x"):
            client.create_site(**SHOP | {"name": made})
        assert [site.name for site in client.list_sites(name=name)] == [name]
        connect(scripted.server.url, path=path).list_sites(name=name)
        asked = scripted.asked[-1]
        assert asked.uri.isascii()
        parts = urlsplit(asked.uri)
        assert [unquote(part) for part in parts.path.split("/")] == ["", "v1", "88", "by-name", name, "sites"]
        assert parse_qs(parts.query) == {"org": ["88"], "q": [name], "limit": ["500"]}
        assert parts.fragment == ""


def test_contract_broken_when_a_list_does_not_come_as_json_with_200(scripted: ScriptedIllu, client: Illu) -> None:
    bodies: list[tuple[int, object]] = [(status, [LISTED]) for status in (201, 202, 206)]
    for status, body in [*bodies, (204, b""), *((200, body) for body in NO_JSON)]:
        scripted.answers(status, body)
        with fails(ContractBrokenError, (status, body), status):
            client.list_sites(name="Shop")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.REFUSE, Kind.DELAY)])
def test_look_fails_when_illu_fails(illu: IlluSimulator, connect: Connect, kind: Kind) -> None:
    illu.add_site(**SHOP | {"name": "Wanjiru"})
    illu.fail(kind, seconds=1, method="GET")
    client = connect(illu.url)
    if kind is not Kind.WRONG_STATUS:  # 200 is the right one for a list
        with pytest.raises(VendorError) as caught:
            client.list_sites(name="Wanjiru")
        error = FATES[kind].error
        harmless = NotDoneError if error in (MaybeDoneError, TryLaterError) else error  # a list changes nothing
        assert (type(caught.value), caught.value.status) == (harmless, FATES[kind].status)
        shown = f"{caught.value} {caught.value!r} {caught.value.message}"
        assert not [secret for secret in ("Wanjiru", KEY, "/sites") if secret in shown]
    assert len(client.list_sites(name="Wanjiru")) == 1
