"""Names the ticket in a job's notes, and recognises a job by them."""

import re

from create_job.models import NewJob
from crm_bridge.fields import is_same_text, may_have_become, normalized
from crm_bridge.vendors.illu import ListedIlluJob

MOST_COMPARED = 1000
"""Pairs of tickets in notes."""


def reference(command: NewJob) -> str:
    return f"[CRM ticket {command.ticket_id}]"


def with_reference(command: NewJob) -> str:
    """Return the notes with the reference at the end."""
    return "\n\n".join(filter(None, (command.notes, reference(command))))


def says_the_same(command: NewJob, job: ListedIlluJob) -> bool:
    """Return whether the job says what the ticket says, up to the spaces of the notes."""
    notes, wanted = (normalized(text).strip() for text in (job.notes or "", with_reference(command)))
    is_named = notes.endswith(reference(command))
    return is_named and notes.split() == wanted.split() and is_same_text(job.name, command.name)


def _tickets(notes: str) -> set[str]:
    """Return the tickets that notes name in the bridge's way."""
    return set(re.findall(r"\[CRM ticket ([^][]*)\]", notes, re.IGNORECASE))


def is_anothers(command: NewJob, job: ListedIlluJob) -> bool:
    """Return whether its notes name tickets, but none that illu may have made of ours. Too many are not compared."""
    ours, named = _tickets(with_reference(command)), _tickets(job.notes or "")
    if not named or len(ours) * len(named) > MOST_COMPARED:
        return False
    return not any(may_have_become(one, other) for one in ours for other in named)
