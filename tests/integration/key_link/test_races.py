"""Round trips on the wire, and several requests at once."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import requests

from tests.integration.conftest import ROUNDS, Crm
from tests.integration.key_link.conftest import (
    KEY_LINK,
    OTHER,
    assert_tied,
    assert_untied,
    delete,
    external,
    internal,
    key_link,
    link_up,
    linked,
    put,
    states,
)

# ---------------------------------------------------------------- the wire, and races


def _round_trips(crm: Crm) -> Counter[str]:
    assert crm.stack.aws
    calls = Counter({name.partition(".")[2]: count for name, count in crm.stack.aws.calls.items() if "SQS" not in name})
    return calls + Counter({"revio": len(crm.stack.revio.seen)})


@pytest.mark.parametrize(("external_id", "asked"), [("A-2044", 1), ("001XX0000UVWXYZ", 2)])
def test_takes_four_round_trips_when_new_and_one_when_repeated(linked_up: Crm, external_id: str, asked: int) -> None:
    """One more where Rev.io may have the other form of a Salesforce id."""
    other, before = {**OTHER, "external_id": external_id}, _round_trips(linked_up)
    link_up(linked_up, **other)
    new = _round_trips(linked_up)
    assert new - before == Counter({"PutItem": 1, "revio": asked + 1, "TransactWriteItems": 1})
    link_up(linked_up, **other)
    assert _round_trips(linked_up) - new == Counter({"PutItem": 1})


@pytest.mark.parametrize(("external_id", "asked"), [("A-2044", 1), ("001XX0000UVWXYZ", 2)])
def test_takes_six_round_trips_when_it_is_changed_and_four_when_it_is_deleted(
    linked_up: Crm, external_id: str, asked: int
) -> None:
    """One more where Rev.io may have the other form of a Salesforce id."""
    before = _round_trips(linked_up)
    assert put(linked_up, 77, {**OTHER, "external_id": external_id}).status_code == 200
    changed = _round_trips(linked_up)
    assert changed - before == Counter({"Query": 1, "revio": asked + 2, "TransactWriteItems": 2})
    assert delete(linked_up, 77).status_code == 204
    assert _round_trips(linked_up) - changed == Counter({"Query": 1, "revio": 1, "TransactWriteItems": 2})


def settle_all(crm: Crm) -> None:
    """Of those whose turn did not come within the deadline, on a machine that is busy."""
    for _ in range(5):
        crm.stack.deliver_due(after=600)


def _at_once(call: Callable[[], requests.Response], pool: ThreadPoolExecutor) -> Counter[int]:
    return Counter(answer.status_code for answer in pool.map(lambda _: call(), range(20)))


@pytest.mark.usefixtures("eager_switches")
def test_twenty_identical_requests_at_once_make_one_key_link_round_after_round(crm: Crm) -> None:
    with ThreadPoolExecutor(20) as pool:
        for number in range(ROUNDS):
            statuses = _at_once(partial(link_up, crm, external_id=f"001-{number}"), pool)
            assert statuses[201] == 1, statuses
            assert statuses[200] + statuses[409] == 19, statuses
            assert len(crm.stack.revio.key_links) == number + 1
    assert Counter(record["external_id"] for record in crm.stack.revio.key_links).most_common(1)[0][1] == 1


@pytest.mark.usefixtures("eager_switches", "quick_turns")
def test_twenty_identical_changes_and_deletions_at_once_are_one(linked_up: Crm) -> None:
    with ThreadPoolExecutor(20) as pool:
        for body in (OTHER, KEY_LINK):
            statuses = _at_once(partial(put, linked_up, 77, body), pool)
            assert statuses.keys() <= {200, 202, 409}, statuses
            settle_all(linked_up)
            assert_tied(linked_up, 77, body)
        assert len(linked_up.stack.revio.key_links) == 1
        statuses = _at_once(partial(delete, linked_up, 77), pool)
        assert statuses.keys() <= {204, 202, 409}, statuses
        settle_all(linked_up)
    assert linked_up.stack.revio.key_links == []
    assert_untied(linked_up, external(), internal(), external(OTHER), internal(OTHER), key_link(77))
    assert states(linked_up).keys() <= {"succeeded", "rejected"}


@pytest.mark.usefixtures("eager_switches", "quick_turns")
def test_the_links_are_those_of_the_change_that_counts_when_several_come_at_once(crm: Crm) -> None:
    with ThreadPoolExecutor(6) as pool:
        for number in range(5):
            key_link_id = link_up(crm).json()["id"]
            bodies = [{**KEY_LINK, "internal_id": 2000 + n, "external_id": f"001-{number}-{n}"} for n in range(6)]
            answers = list(pool.map(partial(put, crm, key_link_id), bodies))
            assert {answer.status_code for answer in answers} <= {200, 202, 409}, [answer.text for answer in answers]
            for answer in answers:
                if answer.status_code == 202:  # a newer one came first
                    crm.settle(answer)
            (record,) = crm.stack.revio.key_links
            (counts,) = [body for body in bodies if body["external_id"] == record["external_id"]]
            assert_tied(crm, key_link_id, counts)
            again = link_up(crm, **counts)
            assert again.json().get("id") == key_link_id, (again.status_code, again.text)
            others = [KEY_LINK, *(body for body in bodies if body is not counts)]
            assert_untied(crm, *(external(body) for body in others))
            made = [link_up(crm, **body) for body in others]
            assert [answer.status_code for answer in made] == [201] * len(others)
            for body, answer in zip(others, made, strict=True):
                assert key_link(answer.json()["id"]) in linked(crm, external(body))
            for answer in made:
                assert delete(crm, answer.json()["id"]).status_code == 204
            assert_tied(crm, key_link_id, counts)
            assert delete(crm, key_link_id).status_code == 204


@pytest.mark.usefixtures("eager_switches", "quick_turns")
def test_making_changing_and_deleting_at_once_leaves_what_revio_has(crm: Crm) -> None:
    with ThreadPoolExecutor(6) as pool:
        for number in range(10):
            here = {**KEY_LINK, "external_id": f"001-{number}"}
            there = {**KEY_LINK, "internal_id": 2044, "external_id": f"002-{number}"}
            first = link_up(crm, **here).json()["id"]
            calls: list[Callable[[], requests.Response]] = [
                partial(put, crm, first, there),
                partial(link_up, crm, **there),
                partial(link_up, crm, **here),
                partial(put, crm, first, here),
                partial(delete, crm, first),
                partial(link_up, crm, **there),
            ]
            answers = [future.result() for future in [pool.submit(call) for call in calls]]
            assert {answer.status_code for answer in answers} <= {200, 201, 202, 204, 404, 409}
            for answer in answers:
                if answer.status_code == 202:
                    crm.settle(answer)
            for body in (here, there):
                returned = link_up(crm, **body).json()["id"]
                assert returned in [
                    one["integration_key_link_id"]
                    for one in crm.stack.revio.key_links
                    if one["external_id"] == body["external_id"]
                ]
                assert linked(crm, external(body)) == {internal(body), key_link(returned)}
                assert linked(crm, key_link(returned)) == {internal(body), external(body)}
    assert states(crm).keys() <= {"succeeded", "rejected"}
