"""What every function of the CRM Bridge shares: the engine, its tables, the HTTP and queue entries, the clients."""
