"""Entry of create_site: HTTP and queue events in, responses out."""

from create_site.flow import CreateSite
from crm_bridge import Function

lambda_handler = Function("create_site", CreateSite)
