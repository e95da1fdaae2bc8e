"""The engine: sends one operation to its vendor with one effect, whatever fails on the way.

`states` is the table of states, `policy` the times and limits, `flow` what a flow must offer. `decide` says what
happens next, and reads and writes nothing; `engine` claims, sends and looks up; `settling` writes the end of an
operation in one transaction; `review` has the decisions that a person makes.
"""

from crm_bridge.engine.engine import Engine
from crm_bridge.engine.flow import Claiming, Discarding, Ending, Flow, Hit, Outcome, Task, Tasked, Vendor
from crm_bridge.engine.policy import HANDED_OVER, KEEP, KEEP_ATTEMPTS, MOST_ENDINGS, POLICY, Policy
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
    "Claiming",
    "Discarding",
    "Ending",
    "Engine",
    "Flow",
    "Hit",
    "Outcome",
    "Policy",
    "Task",
    "Tasked",
    "Vendor",
]
