"""A new customer in a CRM becomes a site at illu."""
