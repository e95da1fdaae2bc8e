"""The engine: sends one operation to its vendor with one effect, whatever fails on the way.

`states` is the table of states, `policy` the times and limits, `context` what a flow may use. `decide` says what
happens next, and reads and writes nothing; `engine` claims, sends and looks up; `settling` writes the end of an
operation in one transaction; `review` has the decisions that a person makes.
"""

from crm_bridge.engine.context import Context, Required
from crm_bridge.engine.engine import Engine, Outcome
from crm_bridge.engine.policy import HANDED_OVER, KEEP, KEEP_ATTEMPTS, MOST_ENDINGS, POLICY, Policy
from crm_bridge.engine.settling import Ending
from crm_bridge.engine.states import DUE, HELD_BACK, REPLACEABLE, TRANSITIONS, UNLINKABLE

__all__ = [
    "DUE",
    "HANDED_OVER",
    "HELD_BACK",
    "KEEP",
    "KEEP_ATTEMPTS",
    "MOST_ENDINGS",
    "POLICY",
    "REPLACEABLE",
    "TRANSITIONS",
    "UNLINKABLE",
    "Context",
    "Ending",
    "Engine",
    "Outcome",
    "Policy",
    "Required",
]
