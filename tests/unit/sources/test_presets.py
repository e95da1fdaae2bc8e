"""Each preset reads its documented sample, and refuses whatever does not prove that it comes from the source."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from crm_bridge.errors import NotJsonError, ProblemError, UnauthenticatedError
from crm_bridge.sources import PRESETS, Incoming, SourceSettings, receive
from crm_bridge.sources.proof import Basic, BodyToken, Header, Organization, Query
from crm_bridge.sources.signature import Signature
from local.source_requests import prove, sample

NOW = 1_795_000_000.0
SECRET, NEXT = "whsec_" + "c2VjcmV0IG9mIGEgc2VuZGVy" + "MDEy", "whsec_" + "c2VjcmV0IG9mIGEgc2VuZGVy" + "MzQ1"
EVENTS = [{"flow": "create_site", "version": "1", "expression": "{customer_id: id}"}]
CASES = [(preset, proof) for preset in PRESETS for proof in PRESETS[preset].proofs]
SIGNED = [case for case in CASES if isinstance(PRESETS[case[0]].proofs[case[1]], Signature)]
DATED = [(preset, proof) for preset, proof in SIGNED if "timestamp" in PRESETS[preset].proofs[proof].parts]  # type: ignore[attr-defined]


def settings(preset: str, proof: str | None = None, **changes: object) -> SourceSettings:
    used = PRESETS[preset].proofs[proof or next(iter(PRESETS[preset].proofs))]
    values = {"user": "bridge", "organization_id": "00DX00000000001", "url": "https://bridge.example/in/acme/crm"}
    needed = {name: value for name, value in values.items() if name in used.needs}
    return SourceSettings.model_validate(
        {"preset": preset, "proof": proof, "secrets": [SECRET, NEXT], "events": EVENTS, **needed, **changes}
    )


def tampered(incoming: Incoming) -> Incoming:
    return replace(incoming, body=incoming.body.replace(b"O", b"0").replace(b"55", b"56") + b" ")


def accepted(source: SourceSettings, incoming: Incoming, now: float = NOW) -> bool:
    try:
        receive(source, incoming, now)
    except UnauthenticatedError:
        return False
    return True


# ---------------------------------------------------------------- each way of each preset


@pytest.mark.parametrize(("preset", "proof"), CASES)
def test_sample_becomes_its_events_when_it_is_proved(preset: str, proof: str) -> None:
    source = settings(preset, proof)
    events = receive(source, sample(source, NOW), NOW)
    assert len(events) == (2 if preset == "zoho-notification" else 1)
    assert len({event.key for event in events}) == len(events)
    assert SECRET not in json.dumps([event.payload for event in events])


@pytest.mark.parametrize(("preset", "proof"), CASES)
def test_sample_is_accepted_when_it_is_proved_by_either_secret(preset: str, proof: str) -> None:
    old, new = settings(preset, proof, secrets=[SECRET]), settings(preset, proof, secrets=[NEXT])
    assert accepted(settings(preset, proof), sample(old, NOW))
    assert accepted(settings(preset, proof), sample(new, NOW))
    assert not accepted(old, sample(new, NOW))


@pytest.mark.parametrize(("preset", "proof"), CASES)
def test_sample_is_refused_when_the_proof_is_missing(preset: str, proof: str) -> None:
    source = settings(preset, proof)
    found = PRESETS[preset]
    assert not accepted(source, Incoming("POST", found.sample_headers, {}, found.sample))
    assert not accepted(source, Incoming("POST", {}, {}, b""))


def spoilt(proof: object, incoming: Incoming) -> Iterator[Incoming]:
    """Yield the request with its proof changed in one place each."""
    for name, value in incoming.headers.items():
        if SECRET in value or name.startswith("authorization") or "signature" in name or "hmac" in name:
            yield replace(incoming, headers={**incoming.headers, name: value + "x"})
            yield replace(incoming, headers={**incoming.headers, name: value[:-1]})
            yield replace(incoming, headers={**incoming.headers, name: f"{value},{value}"})
    if isinstance(proof, Query | Organization):
        for name, value in incoming.query.items():
            yield replace(incoming, query={name: value + "x"})
            yield replace(incoming, query={name: value.upper()})
    if isinstance(proof, Organization):
        yield replace(incoming, body=incoming.body.replace(b"00DX00000000001", b"00DX00000000002"))
        yield replace(incoming, body=b"<a/>")
    if isinstance(proof, BodyToken):
        yield replace(incoming, body=incoming.body.replace(SECRET.encode(), SECRET[:-1].encode()))
        yield replace(incoming, body=incoming.body[:-1])


@pytest.mark.parametrize(("preset", "proof"), CASES)
def test_sample_is_refused_when_the_proof_is_wrong_in_one_place(preset: str, proof: str) -> None:
    source = settings(preset, proof)
    used = PRESETS[preset].proofs[proof]
    tries = list(spoilt(used, sample(source, NOW)))
    assert tries
    # A list of the same signature twice is one that a sender may send.
    several = isinstance(used, Signature) and used.several == ","
    assert [accepted(source, one) for one in tries].count(True) <= several


@pytest.mark.parametrize(("preset", "proof"), SIGNED)
def test_sample_is_refused_when_its_body_was_changed(preset: str, proof: str) -> None:
    source = settings(preset, proof)
    assert not accepted(source, tampered(sample(source, NOW)))


@pytest.mark.parametrize(("preset", "proof"), DATED)
@pytest.mark.parametrize("tolerance", [60, 300, 900])
def test_sample_is_refused_when_it_is_too_old_or_from_the_future(preset: str, proof: str, tolerance: int) -> None:
    source = settings(preset, proof, tolerance=tolerance)
    request = sample(source, NOW)
    assert [accepted(source, request, NOW + late) for late in (tolerance, tolerance + 1)] == [True, False]
    assert [accepted(source, request, NOW - early) for early in (tolerance, tolerance + 1)] == [True, False]


@pytest.mark.parametrize(("preset", "proof"), DATED)
def test_sample_is_refused_when_its_time_was_changed(preset: str, proof: str) -> None:
    source = settings(preset, proof)
    now, later = sample(source, NOW).headers, sample(source, NOW + 1).headers
    for name in {name for name in now if now[name] != later[name]}:
        for value in ("", "tomorrow", later[name] if "timestamp" in name else "t=1,v1="):
            assert not accepted(source, replace(sample(source, NOW), headers={**now, name: value}))


@pytest.mark.parametrize(
    ("start", "is_accepted"), [("Basic ", True), ("basic ", True), ("Bearer ", False), ("", False), ("Basic:", False)]
)
def test_login_is_accepted_when_its_scheme_is_basic(start: str, is_accepted: bool) -> None:
    source = settings("pipedrive-v2")
    good = sample(source, NOW)
    login = good.headers["authorization"].removeprefix("Basic ")
    assert accepted(source, replace(good, headers={**good.headers, "authorization": start + login})) is is_accepted
    assert not accepted(source, replace(good, headers={**good.headers, "authorization": "Basic " + login + "!"}))


def test_the_same_is_said_whatever_is_wrong() -> None:
    source = settings("hubspot-app")
    good = sample(source, NOW)
    said = set()
    for one, now in ((replace(good, headers={}), NOW), (tampered(good), NOW), (good, NOW + 10_000)):
        with pytest.raises(UnauthenticatedError) as refused:
            receive(source, one, now)
        said.add((refused.value.detail, refused.value.status))
    assert len(said) == 1


def test_presets_have_every_kind_of_proof() -> None:
    kinds = {type(proof) for preset in PRESETS.values() for proof in preset.proofs.values()}
    assert kinds == {Signature, Header, Basic, Query, BodyToken, Organization}


# ---------------------------------------------------------------- bodies


JSON_LISTS = [name for name, preset in PRESETS.items() if "json" in preset.formats]


@pytest.mark.parametrize("preset", [name for name in JSON_LISTS if not name.startswith(("zoho", "cloudevents"))])
def test_there_are_as_many_events_as_in_the_list(preset: str) -> None:
    source = settings(preset)
    one: Any = json.loads(PRESETS[preset].sample)
    one = one[0] if isinstance(one, list) else one
    for count in (0, 1, 100):
        body = json.dumps([{**one, "number": number} for number in range(count)]).encode()
        headers = {**PRESETS[preset].sample_headers, "content-type": "application/json"}
        request = prove(source, Incoming("POST", headers, {}, body), NOW)
        assert len(receive(source, request, NOW)) == count


@pytest.mark.parametrize("preset", PRESETS)
def test_body_is_refused_when_it_is_not_utf_8(preset: str) -> None:
    source = settings(preset)
    found = PRESETS[preset]
    request = Incoming("POST", found.sample_headers, {}, found.sample.replace(b"a", b"\xff", 1))
    with pytest.raises(ProblemError) as refused:
        receive(source, prove(source, request, NOW), NOW)
    is_read_first = isinstance(source.proof_used(), BodyToken | Organization)
    assert isinstance(refused.value, UnauthenticatedError if is_read_first else NotJsonError)
