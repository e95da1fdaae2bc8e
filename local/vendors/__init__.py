"""Simulators of the vendors, over real HTTP, with faults on demand.

Each behaves as its vendor is documented to. What is not documented is marked as ours in its module.
"""
