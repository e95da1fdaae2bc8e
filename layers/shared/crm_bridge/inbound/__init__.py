"""The entries of a function: HTTP requests and queue messages in, responses out."""
