"""Bodies of all forms arrive as the bytes that were sent, whether API Gateway passes them on as text or in base64."""

import hashlib
import hmac
import json
from typing import Any

import pytest

from crm_bridge.errors import StorageError
from crm_bridge.storage.requests import Requests
from tests.integration.conftest import Crm, rows
from tests.integration.sources.conftest import SECRET, Sender

ORGANIZATION = "00D000000000001AAA"


@pytest.fixture
def sender(crm: Crm) -> Sender:
    return Sender(crm)


def post(sender: Sender, body: bytes, kind: str, **headers: str) -> Any:
    return sender.post(data=body, headers={"Content-Type": kind, **headers})


def source(preset: str, expression: str, **more: object) -> dict[str, Any]:
    events = [{"flow": "create_site", "version": "1", "expression": expression}]
    return {"preset": preset, "secrets": [SECRET], "events": events, **more}


FLAT = "{customer_id: id, name: name, latitude: to_number(lat), longitude: to_number(lon), address: address}"


@pytest.mark.parametrize("form", ["urlencoded", "multipart"])
def test_a_form_becomes_a_site(sender: Sender, form: str) -> None:
    sender.use(source("in-house", FLAT))
    fields = {"id": "C-1", "name": "Café", "lat": "1.02", "lon": "35", "address": "Søndergade 4"}
    files = {name: (None, value) for name, value in fields.items()} if form == "multipart" else None
    answer = sender.post(data=None if files else fields, files=files, headers={"x-api-key": SECRET})
    assert (answer.status_code, answer.json()["stored"]) == (200, 1), answer.text
    sender.crm.stack.deliver()
    assert [site["name"] for site in sender.sites] == ["Café"]


@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream", "application/json; charset=utf-8"])
def test_a_signature_holds_over_the_raw_bytes(sender: Sender, kind: str) -> None:
    """GitHub's is over the body alone. Blanks and escapes would not survive a parser."""
    sender.use(source("github", FLAT))
    body = json.dumps({"id": "C-1", "name": "Caf\u00e9", "lat": "1.02", "lon": "35", "address": "x"}, indent=3).encode()
    signature = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    sign = {"X-Hub-Signature-256": signature, "X-GitHub-Event": "ping", "X-GitHub-Delivery": "d-1"}
    answer = post(sender, body, kind, **sign)
    assert answer.status_code in ((200,) if "json" in kind else (200, 415)), answer.text
    assert post(sender, body + b" ", kind, **sign).status_code == 401


ENVELOPE = """<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>
<notifications xmlns="http://soap.sforce.com/2005/09/outbound"><OrganizationId>{organization}</OrganizationId>
<Notification><Id>04l000000000001AAA</Id><sObject xmlns:sf="urn:sobject.enterprise.soap.sforce.com">
<sf:Id>001000000000001AAA</sf:Id><sf:Name>Caf\u00e9</sf:Name></sObject></Notification>
</notifications></soapenv:Body></soapenv:Envelope>"""


def test_salesforce_is_answered_an_acknowledgement(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    sender.use(source("salesforce-outbound", "@", organization_id=ORGANIZATION, parameter="key"))
    body = ENVELOPE.format(organization=ORGANIZATION).encode()
    sent: dict[str, Any] = {"path": f"/in/demo/crm?key={SECRET}", "data": body, "headers": {"Content-Type": "text/xml"}}
    answer = sender.post(**sent)
    assert (answer.status_code, "<Ack>true</Ack>" in answer.text) == (200, True), answer.text
    assert len(sender.quarantined()) == 1

    def fail(*_: object) -> None:
        raise StorageError("no")

    monkeypatch.setattr(Requests, "quarantine", fail)
    again = sender.post(**sent)
    assert "<Ack>false</Ack>" in again.text
    assert rows("OPERATIONS_TABLE") == []
