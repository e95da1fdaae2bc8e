"""create_site from the CRM's call to illu and back, over real HTTP."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from crm_bridge.runtime import runtime
from crm_bridge.storage.api_keys import new_api_key
from local.events import load_event
from local.vendors.alterations import ALTERATIONS
from local.vendors.simulator import Kind
from tests.integration.conftest import ROUNDS, SITE, Crm, change_settings, failing, without_site_list
from tests.stack import Stack


def test_becomes_a_site_with_illus_own_fields_when_a_customer_is_new(crm: Crm) -> None:
    answer = crm.create_site()
    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("operation_id").startswith("op_")
    assert body == {**SITE, "site_id": 4711, "is_active": True, "org_id": 88}
    assert len(crm.stack.illu.sites) == 1


def test_is_answered_from_the_store_when_it_is_repeated(crm: Crm) -> None:
    first, again = crm.create_site(), crm.create_site()
    assert again.status_code == 200
    assert again.json() == {name: first.json()[name] for name in ("site_id", "customer_id", "operation_id")}
    assert len(crm.stack.illu.seen) == 1


def test_no_name_or_address_is_stored_or_shown_once_the_site_is_made(crm: Crm) -> None:
    operation = crm.create_site().json()["operation_id"]
    shown = crm.get(f"/operations/{operation}").text
    for text in (shown, crm.stored()):
        assert SITE["customer_id"] in text
        assert str(SITE["name"]) not in text
        assert str(SITE["address"]) not in text


def test_warns_when_it_is_repeated_with_other_fields(crm: Crm) -> None:
    crm.create_site()
    again = crm.create_site(address="Moi Ave 13")
    assert again.status_code == 200
    assert again.json().pop("warnings") == ["Already processed with a different payload. This one was not sent."]
    assert {**again.json(), "warnings": None, "operation_id": None} == {
        "site_id": 4711,
        "customer_id": SITE["customer_id"],
        "changed": True,
        "applied": False,
        "not_applied": "illu documents no call that changes a site. Change the site at illu.",
        "warnings": None,
        "operation_id": None,
    }
    assert len(crm.stack.illu.seen) == 1


def test_the_link_is_found_from_both_ends(crm: Crm) -> None:
    operation_id = crm.create_site().json()["operation_id"]
    there = crm.get("/links/crm/customer/C-1001").json()["links"]
    back = crm.get("/links/illu/site/4711").json()["links"]
    assert [(link["system"], link["entity"], link["id"]) for link in there] == [("illu", "site", "4711")]
    assert [(link["system"], link["entity"], link["id"]) for link in back] == [("crm", "customer", "C-1001")]
    assert {link["operation_id"] for link in there + back} == {operation_id}
    assert crm.get("/links/crm/customer/C-9999").status_code == 404


def test_a_tenant_sees_neither_anothers_operations_nor_its_links(crm: Crm) -> None:
    operation_id = crm.create_site().json()["operation_id"]
    crm.stack.put_secret("umbrella", crm.stack.demo_tenant())
    other = crm.with_key("create_site", "operations:read", tenant="umbrella")
    assert other.get(f"/operations/{operation_id}").status_code == 404
    assert other.get("/links/crm/customer/C-1001").status_code == 404
    unknown, anothers = (other.get(f"/operations/{one}").json() for one in ("op_unknown", operation_id))
    assert {**unknown, "request_id": ""} == {**anothers, "request_id": ""}
    assert other.create_site().status_code == 201  # its own customer C-1001
    assert len(crm.stack.illu.sites) == 2


# ---------------------------------------------------------------- who may call


def test_is_401_without_a_key_or_with_a_wrong_one_and_403_without_the_scope(crm: Crm) -> None:
    for headers, status in (
        ({"Authorization": ""}, 401),
        ({"Authorization": f"Bearer {new_api_key()}"}, 401),
        (crm.with_key("operations:read").headers, 403),
    ):
        answer = crm.post("/sites", SITE, headers=headers)
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert crm.stack.illu.seen == []


# ---------------------------------------------------------------- bad input


def _bad(case: str, status: int, *, body: str | None = None, kind: str = "application/json", **site: object) -> Any:
    return pytest.param(body if body is not None else json.dumps({**SITE, **site}), kind, status, id=case)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        _bad("1 MB", 413, body=json.dumps({**SITE, "name": "x" * 1_000_000})),
        _bad("broken JSON", 400, body='{"customer_id": "C-1'),
        _bad("empty", 400, body=""),
        _bad("array", 422, body=json.dumps([SITE])),
        _bad("NaN", 400, body=json.dumps({**SITE, "latitude": float("nan")})),
        _bad("wrong content type", 415, kind="text/plain"),
        _bad("a form", 415, kind="application/x-www-form-urlencoded"),
        _bad("latitude 91", 422, latitude=91),
        _bad("name of 10,000 characters", 422, name="x" * 10_000),
        _bad("no fields", 422, body="{}"),
        _bad("customer of 1,000 characters", 422, customer_id="x" * 1000),
    ],
)
def test_bad_input_is_a_clear_problem_and_leaves_nothing_behind(
    crm: Crm, body: str, content_type: str, status: int
) -> None:
    assert crm.stack.aws
    before = crm.stack.aws.calls.copy()
    answer = crm.post("/sites", data=body.encode(), headers={"Content-Type": content_type})
    assert answer.status_code == status
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:crm-bridge:problem:")
    assert len(problem["detail"]) < 300
    assert crm.stack.illu.seen == []
    assert not [call for call in crm.stack.aws.calls - before if call.endswith(("Items", "UpdateItem", "PutItem"))]


def test_every_wrong_field_is_named(crm: Crm) -> None:
    answer = crm.post("/sites", json.loads(load_event("create_site", "invalid")["body"]))
    assert answer.status_code == 422
    fields = {error["field"] for error in answer.json()["errors"]}
    assert fields == {"customer_id", "latitude", "longitude", "address", "adress"}


def test_an_unknown_route_is_404(crm: Crm) -> None:
    assert crm.post("/nothing").status_code == 404
    assert crm.get("/sites").status_code == 404


# ---------------------------------------------------------------- what illu may do


def test_is_422_with_illus_own_words_when_illu_refuses(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crm.stack.illu, "longest_name", 5)
    answer = crm.create_site()
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:crm-bridge:problem:refused-by-vendor"
    assert answer.json()["detail"] == "illu answered 422: Invalid fields: name"
    assert crm.create_site(name="Shop").status_code == 201  # a refused event may be sent again, corrected
    assert len(crm.stack.illu.sites) == 1


def test_waits_and_keeps_the_event_when_the_key_lacks_a_right(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(crm.stack.illu, "org_id", 99)
        accepted = crm.create_site()
        assert accepted.status_code == 202
        assert accepted.json()["state"] == "waiting"
        assert accepted.json()["reason"] == "illu answered 403: No access to this organisation"
    assert crm.settle(accepted)["state"] == "succeeded"


def test_waits_and_names_the_new_host_when_the_address_has_moved(crm: Crm, capsys: pytest.CaptureFixture[str]) -> None:
    crm.stack.illu.fail(Kind.MOVED, times=2)
    accepted = crm.create_site()
    assert (accepted.status_code, accepted.json()["state"]) == (202, "waiting")
    reason = "illu answered 308: the address has moved to moved.example. Correct its base_url"
    assert accepted.json()["reason"] == reason
    out = capsys.readouterr().out
    assert '"vendor":"illu","SignInRefused":[1.0]' in out  # its alarm starts
    assert "s3cret" not in out
    assert crm.settle(accepted)["state"] == "succeeded"
    assert len(crm.stack.illu.sites) == 1


def test_is_sent_to_the_new_address_at_once_when_it_was_corrected_a_moment_ago(crm: Crm) -> None:
    crm.create_site(customer_id="C-1000")  # the function remembers the tenant's settings
    document = crm.stack.demo_tenant()
    crm.stack.put_secret("demo", document + " ")
    crm.stack.illu.fail(Kind.MOVED)
    assert crm.create_site().status_code == 201
    assert len(crm.stack.illu.sites) == 2


def test_is_502_and_kept_as_unknown_when_illu_breaks_its_contract(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.WRONG_STATUS)
    answer = crm.create_site()
    assert answer.status_code == 502
    operation_id = answer.json()["operation_id"]
    assert crm.get(f"/operations/{operation_id}").json()["state"] == "unconfirmed"
    assert crm.get("/links/crm/customer/C-1001").status_code == 404  # never answered, nor linked, as created
    accepted = crm.create_site()
    assert accepted.status_code == 202
    assert crm.settle(accepted)["result"]["site_id"] == 4711
    assert len(crm.stack.illu.sites) == 1


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.DELAY, Kind.WRONG_STATUS)])
def test_there_is_one_site_in_the_end_whatever_illu_does(crm: Crm, kind: Kind) -> None:
    with failing(crm.stack.illu, kind):
        accepted = crm.create_site()
    assert accepted.status_code == 202
    assert accepted.json()["state"] in ("waiting", "unconfirmed")
    assert accepted.headers["Location"] == f"/operations/{accepted.json()['operation_id']}"
    settled = crm.settle(accepted)
    assert settled["state"] == "succeeded"
    assert len(crm.stack.illu.sites) == 1
    again = crm.create_site()
    assert again.status_code == 200
    assert again.json()["site_id"] == crm.stack.illu.sites[0]["site_id"]
    assert [link["id"] for link in crm.get("/links/illu/site/4711").json()["links"]] == ["C-1001"]


def test_there_is_one_site_when_the_answer_is_lost_and_the_search_lags(crm: Crm) -> None:
    crm.stack.illu.search_lag = 29  # the tenant says 30
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    assert crm.settle(crm.create_site())["state"] == "succeeded"
    assert len(crm.stack.illu.sites) == 1


def test_needs_review_in_doubt_when_the_answer_is_lost_and_illu_cannot_be_asked(crm: Crm, in_review: str) -> None:
    operation = crm.get(in_review).json()
    assert operation["state"] == "needs_review"
    assert operation["attempts"][-1]["event"] == "in doubt"
    assert "site_list_path" in operation["attempts"][-1]["reason"]
    assert crm.create_site().status_code == 202  # and it is not sent again
    assert len(crm.stack.illu.sites) == 1


@pytest.fixture
def in_review(crm: Crm) -> str:
    """The path of an operation that illu did, but that nobody can know it did."""
    without_site_list(crm.stack)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = crm.create_site()
    assert crm.settle(accepted)["state"] == "needs_review"
    return accepted.headers["Location"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"action": "again"}, 422),
        ({"action": "link"}, 422),
        ({"action": "link", "id": "4711"}, 422),
        ({"action": "link", "id": "4711", "confirmed": False}, 422),
        ({"action": "link", "id": "4711", "confirmed": "maybe"}, 422),
        ({"action": "retry", "confirmed": True}, 422),
        ({"action": "unlink"}, 409),
        ({"action": "unlink", "id": "4711"}, 422),
        ({"action": "link", "id": "site-4711"}, 422),
        ({"action": "link", "id": "0"}, 422),
        ({"action": "retry", "id": "4711"}, 422),
        ({"action": "discard", "why": "no"}, 422),
        ([], 422),
    ],
    ids=str,
)
def test_a_decision_that_is_not_clear_changes_nothing(crm: Crm, in_review: str, body: object, status: int) -> None:
    assert crm.post(f"{in_review}/resolve", body).status_code == status
    assert crm.get(in_review).json()["state"] == "needs_review"


def test_the_site_of_a_namesake_at_the_same_place_is_not_linked(crm: Crm) -> None:
    assert crm.create_site(customer_id="C-1").status_code == 201
    crm.stack.illu.fail(Kind.CLOSE_BEFORE)
    operation = crm.settle(crm.create_site(customer_id="C-2"))
    assert operation["result"]["site_id"] == 4712
    assert [link["id"] for link in crm.get("/links/illu/site/4711").json()["links"]] == ["C-1"]


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_there_is_one_site_whatever_illu_makes_of_its_texts(crm: Crm, alteration: str) -> None:
    crm.stack.illu.alterations = (ALTERATIONS[alteration],)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    name = "Duka <b>Tom\u2019s</b>  & S\u00f6hne \U0001f3ea\u200b Kitale, next to the bakery"
    operation = crm.settle(crm.create_site(name=name))
    assert operation["state"] == ("succeeded" if alteration in ("stripped", "decomposed") else "needs_review")
    assert len(crm.stack.illu.sites) == 1


def test_a_person_sees_the_candidates_and_links_one(crm: Crm) -> None:
    crm.stack.illu.alterations = (ALTERATIONS["cut at an emoji"],)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    accepted = crm.create_site(name="Duka \U0001f3ea Kitale")
    crm.stack.illu.add_site("Made by hand", SITE["latitude"], SITE["longitude"], "Moi Ave 12")
    crm.stack.illu.add_site("Elsewhere", SITE["latitude"] + 1, SITE["longitude"], "Moi Ave 12")
    assert crm.settle(accepted)["state"] == "needs_review"
    path = accepted.headers["Location"]
    shown = crm.with_key("operations:read", "operations:payload").get(path).json()["candidates"]
    assert [(one["id"], one["name"]) for one in shown] == [("4711", "Duka"), ("4712", "Made by hand")]
    assert [set(one) for one in crm.get(path).json()["candidates"]] == [{"id", "created_at"}] * 2
    linked = crm.post(f"{path}/resolve", {"action": "link", "id": "4711", "confirmed": True})
    assert linked.json()["state"] == "succeeded"
    assert crm.get(path).json()["candidates"] == []
    assert [link["id"] for link in crm.get("/links/illu/site/4711").json()["links"]] == ["C-1001"]
    assert len(crm.stack.illu.sites) == 3


def test_sites_of_customers_who_differ_in_the_address_only_are_not_swapped(crm: Crm) -> None:
    crm.stack.illu.fail(Kind.CLOSE_BEFORE)
    first = crm.create_site(customer_id="C-1", address="Moi Ave 12, left door")
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    second = crm.create_site(customer_id="C-2", address="Moi Ave 12, right door")
    ids = [crm.settle(answer)["result"]["site_id"] for answer in (first, second)]
    addresses = {site["site_id"]: site["address"] for site in crm.stack.illu.sites}
    assert [addresses[one] for one in ids] == ["Moi Ave 12, left door", "Moi Ave 12, right door"]
    assert len(addresses) == 2


def test_needs_review_when_sites_are_asked_for_by_a_name_that_illu_altered(crm: Crm) -> None:
    change_settings(crm.stack, illu={"site_list_path": "/orgs/{org_id}/sites?name={name}"})
    crm.stack.illu.alterations = (ALTERATIONS["upper case"],)
    crm.stack.illu.fail(Kind.CLOSE_AFTER)
    operation = crm.settle(crm.create_site())
    assert (operation["state"], len(crm.stack.illu.sites)) == ("needs_review", 1)
    assert "remove {name} from `site_list_path`" in operation["attempts"][-1]["reason"]


def test_is_sent_again_when_illu_asked_for_time_and_cannot_be_asked(crm: Crm) -> None:
    """Here illu is taken at its word: see docs/reliability.md."""
    without_site_list(crm.stack)
    crm.stack.illu.fail(Kind.UNAVAILABLE, seconds=40)
    assert crm.settle(crm.create_site())["state"] == "succeeded"
    assert len(crm.stack.illu.sites) == 1


def test_a_rotated_key_is_taken_up_without_a_failure(crm: Crm) -> None:
    assert crm.create_site(customer_id="C-1").status_code == 201
    crm.stack.illu.api_key = "illu-key-2"
    crm.stack.put_secret("demo", crm.stack.demo_tenant())
    assert crm.create_site(customer_id="C-2").status_code == 201


def test_is_accepted_at_once_when_the_caller_prefers_not_to_wait(crm: Crm) -> None:
    accepted = crm.post("/sites", SITE, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    assert crm.stack.illu.seen == []
    assert crm.settle(accepted)["result"]["site_id"] == 4711
    assert len(crm.stack.illu.sites) == 1


# ---------------------------------------------------------------- the wire


def test_takes_three_round_trips_when_new_and_one_when_repeated(crm: Crm) -> None:
    crm.create_site(customer_id="warm-up")
    before = crm.round_trips()
    crm.create_site()
    new = crm.round_trips()
    assert new - before == Counter({"PutItem": 1, "illu": 1, "TransactWriteItems": 1})
    crm.create_site()
    assert crm.round_trips() - new == Counter({"PutItem": 1})


# ---------------------------------------------------------------- races


@pytest.mark.usefixtures("eager_switches")
def test_twenty_identical_requests_at_once_make_one_site_round_after_round(crm: Crm) -> None:
    with ThreadPoolExecutor(20) as pool:
        for number in range(ROUNDS):
            customer = f"C-{number}"
            answers = list(pool.map(lambda _, c=customer: crm.create_site(customer_id=c), range(20)))
            statuses = Counter(answer.status_code for answer in answers)
            assert statuses[201] == 1, statuses
            assert statuses[200] + statuses[409] == 19, statuses
            assert len(crm.stack.illu.sites) == number + 1
            site_ids = {answer.json()["site_id"] for answer in answers if answer.ok}
            assert site_ids == {crm.stack.illu.sites[-1]["site_id"]}
            assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 409)


def test_a_message_goes_back_to_the_queue_when_the_storage_fails(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPERATIONS_TABLE", "not-there")
    runtime.cache_clear()
    event = load_event("create_site", "from_queue")
    answer = stack.invoke("CreateSiteFunction", event)
    assert answer == {"batchItemFailures": [{"itemIdentifier": event["Records"][0]["messageId"]}]}


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1250", "utf-8-sig", "utf-16"])
def test_is_made_when_illu_responds_in_the_charset_that_it_names(
    crm: Crm, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    answer = crm.stack.illu._faulty

    def encoded(request: Request) -> Response:
        response = answer(request)
        text = json.dumps(json.loads(response.get_data()), ensure_ascii=False)
        named = "utf-8" if encoding.startswith("utf") else encoding
        return Response(text.encode(encoding), response.status_code, content_type=f"application/json; charset={named}")

    monkeypatch.setattr(crm.stack.illu, "_faulty", encoded)
    made = crm.create_site(name="Müller & Söhne")
    assert (made.status_code, made.json()["name"]) == (201, "Müller & Söhne")


def test_a_site_is_made_when_a_mark_stands_before_the_json(crm: Crm) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(SITE).encode()
    assert crm.post("/sites", data=body, headers={"Content-Type": "application/json"}).status_code == 201
