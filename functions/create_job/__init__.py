"""A new request or ticket in a CRM becomes a job at illu."""
