"""Which scope opens which route: the whole table, written out, with a key for each scope."""

import requests

from crm_bridge.vendors import scopes
from tests.integration.conftest import Crm

OPEN = {"GET /console", "POST /in/{tenant}/{source}"}
"""They take no API key: a page without data, and requests that prove themselves in another way."""
OPENED = {
    "create_site": {"POST /sites"},
    "create_job": {"POST /jobs"},
    "key_link": {
        *("GET /key-links", "POST /key-links", "GET /key-links/systems", "GET /key-links/entity-types"),
        *("GET /key-links/{id}", "PUT /key-links/{id}", "DELETE /key-links/{id}"),
    },
    "status_update": {"GET /services", "PUT /services/{service}/status"},
    "connector_receiver": {
        *("POST /connector/clubs/{club_id}/prospects", "PUT /connector/clubs/{club_id}/prospects/{id}"),
        *("POST /connector/clubs/{club_id}/members", "PUT /connector/clubs/{club_id}/members/{id}"),
        *("GET /connector/clubs/{club_id}/staff", "GET /connector/clubs/{club_id}/check"),
        *("GET /connector/clubs/{club_id}/lead-sources", "POST /connector/clubs/{club_id}/lead-sources"),
        "PUT /connector/clubs/{club_id}/lead-sources/{id}",
    },
    "records": {
        *("GET /records/{entity}", "POST /records/{entity}", "GET /records/{entity}/{id}"),
        *("PUT /records/{entity}/{id}", "DELETE /records/{entity}/{id}", "GET /dictionaries/{type}"),
    },
    "operations:read": {
        *("GET /operations", "GET /operations/summary", "GET /operations/{id}", "POST /mappings/try"),
        *("GET /links", "GET /links/{system}/{entity}/{id}"),
        *("GET /requests", "GET /requests/{id}", "POST /sources/try"),
    },
    "operations:resolve": {
        *("POST /operations/retry", "POST /operations/{id}/resolve"),
        *("POST /requests/{id}/resend", "POST /requests/{id}/discard"),
    },
    "operations:payload": set[str](),
}


def test_each_route_takes_one_scope_and_no_other(crm: Crm) -> None:
    assert OPENED.keys() == scopes() | {"operations:read", "operations:resolve", "operations:payload"}
    routes = _routes(crm) - OPEN
    assert routes == set[str]().union(*OPENED.values())
    opened = {}
    for scope in OPENED:
        caller = crm.with_key(scope)
        opened[scope] = {route for route in routes if _asked(caller, route).status_code != 403}
    assert opened == OPENED


def test_no_route_but_the_open_ones_answers_without_a_key(crm: Crm) -> None:
    stranger = Crm(crm.stack)
    stranger.headers = {}
    for route in _routes(crm) - {"GET /console"}:
        assert _asked(stranger, route).status_code == 401, route


def _routes(crm: Crm) -> set[str]:
    return {f"{one.method} {one.path}" for one in crm.stack.template.routes}


def _asked(caller: Crm, route: str) -> requests.Response:
    """Return the response to a body that no route takes, of a record that is nowhere."""
    method, path = route.split()
    path = path.format(
        **dict.fromkeys(("tenant", "source", "id", "club_id", "entity", "type", "service", "system"), "0")
    )
    return caller.session.request(method, caller.stack.url + path, json=[], headers=caller.headers, timeout=60)
