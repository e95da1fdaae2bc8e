"""Entry of create_job: HTTP and queue events in, responses out."""

from create_job.flow import CreateJob
from crm_bridge import Function

lambda_handler = Function("create_job", CreateJob)
