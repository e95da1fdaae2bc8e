"""The table of states."""

from crm_bridge.engine import DUE, POLICY, REPLACEABLE, TRANSITIONS
from crm_bridge.errors import Event, VendorError
from crm_bridge.storage.operation import State


def test_the_table_allows_what_the_rules_say() -> None:
    assert {State.REJECTED} == REPLACEABLE
    assert {State.SENDING, State.WAITING, State.UNCONFIRMED} == DUE
    of_succeeded = [event for state, event in TRANSITIONS if state is State.SUCCEEDED]
    assert of_succeeded == [Event.ACCEPTED, Event.FOUND, Event.WITHDRAWN, Event.UNLINKED, Event.ERASED]
    assert set(TRANSITIONS.values()) == set(State)


def test_every_vendor_error_leads_to_a_state() -> None:
    def all_kinds(kind: type[VendorError]) -> list[type[VendorError]]:
        return [kind, *(deeper for sub in kind.__subclasses__() for deeper in all_kinds(sub))]

    for kind in all_kinds(VendorError)[1:]:
        assert (State.SENDING, kind.event) in TRANSITIONS
    assert max(POLICY.retry_delays) <= POLICY.longest_wait
