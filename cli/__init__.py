"""`crm-bridge`, the command line: turn a tenant up, check it, import what it has, look up, repair."""
