"""Entry of create_organization: HTTP and queue events in, responses out."""

from create_organization.flow import CreateOrganization
from crm_bridge import Function

lambda_handler = Function("create_organization", CreateOrganization)
