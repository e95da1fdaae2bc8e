"""docs/problems.md: a section for each type of problem, to which `doc_url` leads, in the words of docs/api.md."""

import json
import re
from collections.abc import Iterator, Mapping
from operator import attrgetter

from crm_bridge import errors
from crm_bridge.errors import ProblemError
from crm_bridge.inbound.api import PROBLEM_TYPE
from local.template import TEMPLATE
from openapi.recorded import recorded

ROOT = TEMPLATE.parent
PAGE = ROOT / "docs" / "problems.md"
_ROW = re.compile(r"^\| \d{3} \| `([\w-]+)` \| (.+) \|$", re.MULTILINE)
_HEAD = """# Problems

Each type of problem, and what to do. `doc_url` in a problem leads here, relative to the root of this repository;
[the API](api.md#problems) says what else is in one. `make openapi` writes this page.

Give `request_id` to the people who run the bridge: every line of the log about the request has it.
"""


def kinds() -> list[type[ProblemError]]:
    """Return all that are told apart by their `type`, by status."""
    there = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProblemError))
    return sorted((kind for kind in there if "kind" in vars(kind)), key=attrgetter("status", "kind"))


def text() -> str:
    """Return what docs/problems.md has to be."""
    section = (ROOT / "docs" / "api.md").read_text().partition("\n## Problems\n")[2]
    meanings = dict(_ROW.findall(section.replace("](#", "](api.md#")))
    examples = dict(_examples())
    return "\n".join([_HEAD, *(_section(kind, meanings[kind.kind], examples) for kind in kinds())])


def _section(kind: type[ProblemError], meaning: str, examples: Mapping[str, object]) -> str:
    retry = f"Yes, after `Retry-After`; {kind.retry_after} s if nothing else is known." if kind.retryable else "No."
    lines = [
        f"## `{kind.kind}`",
        "",
        f"{kind.title}.",
        "",
        "| | |",
        "|---|---|",
        f"| status | {kind.status} |",
        f"| type | `{PROBLEM_TYPE}{kind.kind}` |",
        f"| meaning | {meaning} |",
        f"| send the same request again | {retry} |",
        "",
    ]
    if kind.kind in examples:
        lines += ["```json", json.dumps(examples[kind.kind], indent=2, ensure_ascii=False), "```", ""]
    return "\n".join(lines)


def _examples() -> Iterator[tuple[str, object]]:
    """Yield type and body of the recorded problems: the shortest of a type is the last, the Connector's are first."""
    problems = [one.body for one in recorded() if one.status >= 400 and isinstance(one.body, dict)]
    for body in sorted(problems, key=lambda body: ("result" not in body, -len(json.dumps(body)))):
        yield body["type"].removeprefix(PROBLEM_TYPE), body
