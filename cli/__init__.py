"""`crm-bridge`, the command line: onboard a tenant, check it, import its records, look up, repair."""
