"""The whole bundle on one machine: embedded AWS, simulated vendors, a gateway in front of the real handlers."""
