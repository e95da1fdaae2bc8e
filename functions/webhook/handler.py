"""Entry of webhook: queue events in. No caller asks for a webhook, so there is no route."""

from crm_bridge import Function
from webhook.flow import SendWebhook

lambda_handler = Function("webhook", SendWebhook)
