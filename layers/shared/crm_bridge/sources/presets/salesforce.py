"""Salesforce: HTTP callouts of a flow, and outbound messages (SOAP)."""

from collections.abc import Iterable

from pydantic import JsonValue

from crm_bridge.errors import InvalidError
from crm_bridge.sources.incoming import Incoming
from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Basic, Header, Organization, Query


class SalesforceFlow(Preset):
    """A flow's HTTP callout or external service: JSON that its author has shaped, one call for each event."""

    name, title = "salesforce-flow", "Salesforce flow"
    source_page = "https://help.salesforce.com/apex/HTViewHelpDoc?id=platform.flow_http_callout_considerations.htm"
    proofs = {"header": Header("x-api-key"), "bearer": Header("authorization", "Bearer "), "basic": Basic()}
    key = ("event_id",)
    answers = ("async 200",)
    sample = (
        b'{"event_id": "001X00000000001AAA 2026-03-01T10:00:00Z", "type": "account", "id": "001X00000000001AAA",'
        b' "name": "Shop 12"}'
    )


class SalesforceOutbound(Preset):
    """Outbound messages: up to 100 notifications in a request, with one acknowledgement for all.

    There is neither a signature nor a login. So a secret is in the query of the address, and the organization's id must
    be the expected one. The session's id, which some messages have, is dropped.
    """

    name, title = "salesforce-outbound", "Salesforce outbound message"
    source_page = "https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_om_outboundmessaging_notifications.htm"
    proofs = {"query": Organization(Query("key"), "OrganizationId")}
    formats = ("xml",)
    key = ("OrganizationId", "Id")
    answers = ("soap ack",)
    sample_headers = {"content-type": "text/xml; charset=utf-8", "soapaction": '""'}
    sample = b"""<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
 xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>
<notifications xmlns="http://soap.sforce.com/2005/09/outbound">
<OrganizationId>00DX00000000001</OrganizationId><ActionId>04kX00000000002</ActionId><SessionId xsi:nil="true"/>
<EnterpriseUrl>https://demo.example/services/Soap/c/60.0</EnterpriseUrl>
<PartnerUrl>https://demo.example/services/Soap/u/60.0</PartnerUrl>
<Notification><Id>04lX00000000003</Id>
<sObject xsi:type="sf:Case" xmlns:sf="urn:sobject.enterprise.soap.sforce.com"><sf:Id>500X00000000004</sf:Id>
<sf:CaseNumber>00001077</sf:CaseNumber><sf:Status>New</sf:Status><sf:AccountId>001X00000000005</sf:AccountId></sObject>
</Notification></notifications></soapenv:Body></soapenv:Envelope>"""

    @classmethod
    def parse(cls, incoming: Incoming) -> JsonValue:
        """Return the notifications' own element."""
        found = super().parse(incoming)
        for name in ("Body", "notifications"):
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise InvalidError("Send a SOAP envelope with the notifications of an outbound message.")
        return found

    @classmethod
    def split(cls, body: JsonValue, incoming: Incoming) -> Iterable[JsonValue]:  # noqa: ARG003
        if not isinstance(body, dict):
            return []
        notifications = body.get("Notification", [])
        shared: dict[str, JsonValue] = {name: body.get(name) for name in ("OrganizationId", "ActionId")}
        return (
            {**shared, **one} if isinstance(one, dict) else {**shared, "Notification": one}
            for one in (notifications if isinstance(notifications, list) else [notifications])
        )
