"""Microsoft: webhooks of Dataverse (Dynamics 365), and the HTTP action of Power Automate."""

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.proof import Basic, Header, Query


class Dataverse(Preset):
    """One message for each request. Above 256 KB Dataverse leaves the record out, and sends its id only."""

    name, title = "dataverse", "Dataverse (Dynamics 365)"
    source_page = "https://learn.microsoft.com/en-us/power-apps/developer/data-platform/use-webhooks"
    proofs = {"header": Header("x-api-key"), "query": Query("code")}
    key = (
        "OrganizationId",
        "OperationId",
        "CorrelationId",
        "OperationCreatedOn",
        "MessageName",
        "PrimaryEntityName",
        "PrimaryEntityId",
    )
    sample_headers = {
        "content-type": "application/json",
        "x-ms-dynamics-organization": "demo.example",
        "x-ms-dynamics-entity-name": "contact",
        "x-ms-dynamics-request-name": "Create",
    }
    sample = (
        b'{"MessageName": "Create", "PrimaryEntityName": "contact",'
        b' "PrimaryEntityId": "6d000000-0000-4000-8000-000000000001",'
        b' "OrganizationId": "4ef00000-0000-4000-8000-000000000002",'
        b' "CorrelationId": "b3700000-0000-4000-8000-000000000003",'
        b' "OperationId": "4af00000-0000-4000-8000-000000000004", "Depth": 1, "Mode": 1,'
        b' "OperationCreatedOn": "/Date(1790000000000+0000)/", "InputParameters": [{"key": "Target", "value":'
        b' {"LogicalName": "contact", "Id": "6d000000-0000-4000-8000-000000000001", "Attributes":'
        b' [{"key": "firstname", "value": "Ola"}, {"key": "parentcustomerid", "value":'
        b' {"LogicalName": "account", "Id": "aa000000-0000-4000-8000-000000000005"}}]}}], "PostEntityImages": []}'
    )


class PowerAutomate(Preset):
    """The HTTP action of a cloud flow. It polls after a 202, so it is answered 200."""

    name, title = "power-automate", "Power Automate"
    source_page = "https://learn.microsoft.com/en-us/azure/connectors/connectors-native-http"
    proofs = {"header": Header("x-api-key"), "bearer": Header("authorization", "Bearer "), "basic": Basic()}
    answers = ("async 200",)
    sample = (
        b'{"run_id": "08585000000000000000000000000CU00", "type": "account", "id": "55", "name": "Shop 12",'
        b' "modifiedon": "2026-03-01T10:00:00Z"}'
    )
