"""HubSpot: webhooks of an app, and the workflow action "Send a webhook"."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Header, Query
from crm_bridge.sources.signature import Signature

V3 = Signature(
    "x-hubspot-signature-v3",
    encoding="base64",
    parts=("method", "url", "body", "timestamp"),
    timestamp="x-hubspot-request-timestamp",
    unit="ms",
)
V2 = Signature("x-hubspot-signature", digest="sha256", parts=("secret", "method", "url", "body"))
V1 = Signature("x-hubspot-signature", digest="sha256", parts=("secret", "body"))


class HubSpotApp(Preset):
    """Webhooks of an app: lists of up to 100 events, each with ids and at most one changed property.

    HubSpot does not promise that an `eventId` is unique, so the key is more than that. The signatures v2 and v1 have no
    time, so what they prove could be old; they are never accepted in place of v3.
    """

    name, title = "hubspot-app", "HubSpot app"
    source_page = "https://developers.hubspot.com/docs/api-reference/webhooks-webhooks-v3/guide"
    proofs = {"v3": V3, "v2": V2, "v1": V1}
    key = (
        "portalId",
        "subscriptionType || eventType",
        "objectId || primaryObjectId || fromObjectId",
        "toObjectId || ''",
        "associationType || ''",
        "propertyName || ''",
        "occurredAt",
        "eventId",
    )
    volatile = ("attemptNumber",)
    sample = (
        b'[{"eventId": 77, "subscriptionId": 9001, "portalId": 555, "appId": 321, "occurredAt": 1790000000000,'
        b' "subscriptionType": "company.creation", "attemptNumber": 0, "objectId": 4242, "changeSource": "CRM_UI"}]'
    )


class HubSpotWorkflow(Preset):
    """The workflow action: one record for each request, with the properties that its author has chosen."""

    name, title = "hubspot-workflow", "HubSpot workflow"
    source_page = "https://knowledge.hubspot.com/workflows/how-do-i-use-webhooks-with-hubspot-workflows"
    proofs = {
        "v2": V2,
        "v3": V3,
        "header": Header("x-api-key"),
        "bearer": Header("authorization", "Bearer "),
        "query": Query("key"),
    }
    sample = b'{"type": "company", "hs_object_id": "4242", "name": "Shop 12", "hs_lastmodifieddate": "1790000000000"}'
