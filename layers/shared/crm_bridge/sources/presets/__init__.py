"""The presets: each sender in its own file. All lists of senders are derived from `PRESETS`."""

from collections.abc import Mapping

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.presets.cloudevents import CloudEvents
from crm_bridge.sources.presets.freshdesk import Freshdesk
from crm_bridge.sources.presets.github import GitHub
from crm_bridge.sources.presets.hubspot import HubSpotApp, HubSpotWorkflow
from crm_bridge.sources.presets.in_house import InHouse
from crm_bridge.sources.presets.microsoft import Dataverse, PowerAutomate
from crm_bridge.sources.presets.pipedrive import PipedriveV1, PipedriveV2
from crm_bridge.sources.presets.salesforce import SalesforceFlow, SalesforceOutbound
from crm_bridge.sources.presets.shopify import Shopify
from crm_bridge.sources.presets.standard_webhooks import StandardWebhooks, Svix
from crm_bridge.sources.presets.stripe_like import StripeLike
from crm_bridge.sources.presets.upya import Upya
from crm_bridge.sources.presets.zendesk import Zendesk
from crm_bridge.sources.presets.zoho import ZohoNotification, ZohoWorkflow

PRESETS: Mapping[str, type[Preset]] = {
    preset.name: preset
    for preset in (
        HubSpotApp,
        HubSpotWorkflow,
        Zendesk,
        SalesforceFlow,
        SalesforceOutbound,
        ZohoWorkflow,
        ZohoNotification,
        PipedriveV2,
        PipedriveV1,
        Freshdesk,
        Dataverse,
        PowerAutomate,
        Upya,
        Shopify,
        GitHub,
        StripeLike,
        StandardWebhooks,
        Svix,
        CloudEvents,
        InHouse,
    )
}
