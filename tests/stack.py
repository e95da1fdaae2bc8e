"""The local stack as tests use it: with the simulators of this bundle's vendors by their names."""

from local.demo import DemoStack as Stack

__all__ = ["Stack"]
