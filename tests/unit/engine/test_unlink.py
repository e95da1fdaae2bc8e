"""Records that a person or a look-up linked: verified before, undone after."""

import pytest

from crm_bridge.errors import (
    CannotLookError,
    ConflictError,
    ContractBrokenError,
    Event,
    FieldError,
    IncompleteSearchError,
    InvalidError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    UnconfirmedError,
    VendorError,
)
from crm_bridge.storage.links import Cardinality, Identity, Link
from crm_bridge.storage.operation import Attempt, State
from tests.unit.engine.conftest import PAYLOAD, Bench, failing, hit, recorded, webhooks


@pytest.mark.parametrize(
    "doubt",
    [
        "it has another name",
        failing(CannotLookError),
        failing(IncompleteSearchError),
        failing(RefusedError),
        failing(ContractBrokenError),
    ],
    ids=lambda doubt: doubt if isinstance(doubt, str) else type(doubt).__name__,
)
def test_is_linked_only_after_a_confirmation_when_the_vendor_cannot_verify_it(
    in_review: Bench, doubt: str | VendorError
) -> None:
    in_review.shop.verified, before = doubt, in_review.stored()
    with pytest.raises(UnconfirmedError) as unconfirmed:
        in_review.link_existing(before, "101", by="ops")
    assert unconfirmed.value.fields == (FieldError("confirmed", "must be true, because the id could not be verified"),)
    assert (doubt if isinstance(doubt, str) else "because") in unconfirmed.value.detail
    assert (in_review.stored(), in_review.linked()) == (before, [])
    assert in_review.link_existing(before, "101", by="ops", confirmed=True).state is State.SUCCEEDED
    assert in_review.linked() == ["101"]


def test_is_linked_only_after_a_confirmation_when_it_was_sent_to_another_account(in_review: Bench) -> None:
    in_review.shop.destination = "https://shop.example/2"
    said = "Cannot verify the id at the vendor: it was sent to an account that the tenant no longer names. "
    with pytest.raises(UnconfirmedError, match=f"^{said}"):
        in_review.link_existing(in_review.stored(), "101", by="ops")
    assert not [asked for asked in in_review.shop.asked if asked[0] == "verify"]
    assert in_review.link_existing(in_review.stored(), "101", by="ops", confirmed=True).state is State.SUCCEEDED


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize(("wanted", "waits"), [(None, 30), (5, 30), (90, 90)])
def test_nothing_is_linked_while_the_vendor_does_not_answer(
    in_review: Bench, confirmed: bool, wanted: float | None, waits: float
) -> None:
    before = in_review.stored()
    for kind in (NotDoneError, MaybeDoneError, SignInRefusedError):
        in_review.shop.verified = failing(kind, **({"retry_after": wanted} if wanted else {}))
        with pytest.raises(kind) as raised:
            in_review.link_existing(before, "101", by="ops", confirmed=confirmed)
        assert raised.value.retry_after == waits
    assert (in_review.stored(), in_review.linked()) == (before, [])


def test_a_record_that_is_the_wrong_one_is_not_linked_even_if_it_is_confirmed(
    in_review: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> str:
        raise InvalidError("another one's", fields=[FieldError("id", "is another one's")])

    monkeypatch.setattr(in_review.flow, "verify", wrong)
    before = in_review.stored()
    with pytest.raises(InvalidError, match="another one's"):
        in_review.link_existing(before, "101", by="ops", confirmed=True)
    assert in_review.stored() == before


def test_a_wrong_link_is_undone_and_a_person_decides_again(linked: Bench) -> None:
    before = linked.stored()
    linked.clock.move(60)
    in_review = linked.engine.unlink(before, by="Ada")
    now = int(linked.clock.now)
    attempt = Attempt(at=now, event=Event.UNLINKED, reason="by Ada; it was shop receipt 101")
    assert in_review == linked.stored()
    assert in_review == before.model_copy(
        update={
            "state": State.NEEDS_REVIEW,
            "result": None,
            "payload": PAYLOAD,
            "links": (),
            "lease": in_review.lease,
            "updated_at": now,
            "expires_at": None,
            "attempts": (*before.attempts, attempt),
            "last_attempt": attempt,
        }
    )
    assert in_review.lease != before.lease
    assert linked.linked() == []
    assert linked.tables.links.of("acme", Identity("shop", "receipt", "101")) == []
    assert linked.tables.operations.kept_payload(in_review) is None


def test_another_record_is_linked_after_an_unlink(linked: Bench) -> None:
    linked.engine.unlink(linked.stored(), by="ops")
    linked.link_existing(linked.stored(), "102", by="ops")
    assert (linked.stored().state, linked.linked()) == (State.SUCCEEDED, ["102"])
    linked.engine.unlink(linked.stored(), by="ops")
    linked.link_existing(linked.stored(), "101", by="ops")
    assert linked.linked() == ["101"]


def test_is_sent_again_after_an_unlink(linked: Bench) -> None:
    sent = len(linked.shop.sent)
    linked.engine.unlink(linked.stored(), by="ops")
    linked.engine.request_retry(linked.stored(), by="ops")
    linked.retry()
    assert (linked.stored().state, len(linked.shop.sent)) == (State.SUCCEEDED, sent + 1)


def test_is_given_up_after_an_unlink(linked: Bench) -> None:
    linked.engine.unlink(linked.stored(), by="ops")
    linked.discard(linked.stored(), by="ops")
    assert (linked.stored().state, linked.stored().payload, linked.linked()) == (State.REJECTED, None, [])


def test_the_record_of_an_unlinked_event_may_be_anothers(linked: Bench) -> None:
    linked.engine.unlink(linked.stored(), by="ops")
    linked.run("other", later=True)
    other = linked.stored("other").model_copy(update={"state": State.NEEDS_REVIEW})
    linked.tables.operations.save(other, over=State.WAITING)
    linked.link_existing(other, "101", by="ops")
    assert linked.linked("other") == ["101"]


def test_is_unlinked_once_when_two_persons_decide(linked: Bench) -> None:
    seen = linked.stored()
    linked.engine.unlink(seen, by="one")
    unlinked = linked.stored()
    with pytest.raises(ConflictError, match="Somebody else was quicker: its state is needs_review now"):
        linked.engine.unlink(seen, by="two")
    assert linked.stored() == unlinked


def test_what_the_bridge_made_itself_is_not_unlinked(bench: Bench) -> None:
    bench.run()
    with pytest.raises(ConflictError, match="that a person or a look-up linked"):
        bench.engine.unlink(bench.stored(), by="ops")
    assert bench.linked() == ["101"]


def test_what_has_no_history_is_not_unlinked(linked: Bench) -> None:
    with pytest.raises(ConflictError, match="that a person or a look-up linked"):
        linked.engine.unlink(linked.stored().model_copy(update={"attempts": ()}), by="ops")
    assert linked.linked() == ["101"]


def test_only_what_has_succeeded_is_unlinked(in_review: Bench) -> None:
    with pytest.raises(ConflictError):
        in_review.engine.unlink(in_review.stored(), by="ops")
    in_review.link_existing(in_review.stored(), "101", by="ops")
    in_review.engine.unlink(in_review.stored(), by="ops")
    with pytest.raises(ConflictError):
        in_review.engine.unlink(in_review.stored(), by="ops")


def test_a_link_that_another_event_has_taken_over_is_left_alone(linked: Bench) -> None:
    """As a key link's, which may have several."""
    order, receipt = Identity("crm", "order", "1"), Identity("shop", "receipt", "101")
    linked.tables.links.write(
        [*linked.tables.links.puts("acme", [Link(order, receipt)], linked.stored().operation_id, 1)]
    )
    theirs = [*linked.tables.links.puts("acme", [Link(Identity("crm", "order", "2"), receipt)], "op_other", 1)][1]
    del theirs["Put"]["ConditionExpression"]
    for member in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        theirs["Put"].pop(member, None)  # type: ignore[misc]
    linked.tables.links.write([theirs])
    linked.engine.unlink(linked.stored(), by="ops")
    assert linked.linked() == []
    (kept,) = linked.tables.links.of("acme", receipt)
    assert (kept.identity.id, kept.operation_id) == ("2", "op_other")


def test_can_only_be_given_up_when_what_was_sent_is_no_longer_kept(linked: Bench) -> None:
    one = linked.stored()
    linked.tables.links.write([linked.tables.operations.drop_payload(one)])
    linked.engine.unlink(one, by="ops")
    assert (linked.stored().state, linked.stored().payload) == (State.NEEDS_REVIEW, None)
    with pytest.raises(ConflictError, match="Discard it, then let the CRM send the event again"):
        linked.link_existing(linked.stored(), "102", by="ops", confirmed=True)
    with pytest.raises(ConflictError, match="Discard it, then let the CRM send the event again"):
        linked.engine.request_retry(linked.stored(), by="ops")
    assert linked.stored().state is State.NEEDS_REVIEW
    linked.discard(linked.stored(), by="ops")
    assert linked.run().operation.state is State.SUCCEEDED


def test_what_was_recorded_by_hand_can_be_unlinked(bench: Bench) -> None:
    recorded(bench)
    bench.engine.unlink(bench.stored(), by="ops")
    assert (bench.stored().state, bench.linked()) == (State.NEEDS_REVIEW, [])


def test_each_decision_is_another_news_for_whoever_is_told(told: Bench) -> None:
    told.shop.answers = [failing(CannotLookError)]
    told.run(later=True)
    told.retry()
    told.link_existing(told.stored(), "7", by="ops")
    told.engine.unlink(told.stored(), by="ops")
    told.link_existing(told.stored(), "7", by="ops")
    assert webhooks(told) == [
        "operation.needs_review",
        "operation.needs_review",
        "operation.succeeded",
        "operation.succeeded",
    ]


@pytest.mark.parametrize(
    ("numbers", "reason"), [([], "by Ada"), ([101, 102], "by Ada; it was shop receipt 101, shop receipt 102")]
)
def test_the_history_says_what_it_was_linked_to(
    in_review: Bench, monkeypatch: pytest.MonkeyPatch, numbers: list[int], reason: str
) -> None:
    order = Identity("crm", "order", "1")
    links = [Link(order, Identity("shop", "receipt", str(number)), Cardinality.MANY_TO_MANY) for number in numbers]
    monkeypatch.setattr(in_review.flow, "links", lambda *_: links)
    in_review.link_existing(in_review.stored(), "101", by="ops")
    assert in_review.engine.unlink(in_review.stored(), by="Ada").attempts[-1].reason == reason
    assert in_review.linked() == []


def test_what_was_to_expire_is_kept_until_a_person_has_decided(unconfirmed: Bench) -> None:
    unconfirmed.shop.linking = False
    unconfirmed.shop.hits = [hit(101, unconfirmed.clock)]
    unconfirmed.retry()
    assert unconfirmed.stored().expires_at is not None
    assert unconfirmed.engine.unlink(unconfirmed.stored(), by="ops").expires_at is None
    assert unconfirmed.stored().expires_at is None
