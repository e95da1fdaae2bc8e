"""Questions in a terminal: whether to go on, and a tenant's settings, but only what each vendor cannot do without."""

import base64
import json
import secrets
import sys
from collections.abc import Callable
from typing import Any

import typer
from pydantic import BaseModel, ValidationError

from cli.command import WrongInputError
from cli.output import Output, visible
from crm_bridge.settings import (
    CallbackSettings,
    ConnectorSettings,
    EgitoSettings,
    IlluSettings,
    IzzitUpSettings,
    RevioSettings,
)


def confirm(question: str) -> None:
    """Raises WrongInputError unless somebody says yes."""
    if not sys.stdin.isatty():
        raise WrongInputError("Give --yes, because nobody can be asked here. Nothing was changed.")
    if not typer.confirm(visible(question), err=True):
        raise WrongInputError("Nothing was changed.")


def confirm_id(given: str) -> None:
    """Raises WrongInputError unless somebody types the same id again."""
    if not sys.stdin.isatty():
        raise WrongInputError("Give --confirmed, because nobody can be asked here. Nothing was changed.")
    if str(typer.prompt("Type the id again", err=True)).strip() != given.strip():
        raise WrongInputError("The two ids are not the same. Nothing was changed.")


def _shown(question: str) -> Callable[[], str]:
    return lambda: str(typer.prompt(f"  {question}", err=True)).strip()


def _hidden(question: str) -> Callable[[], str]:
    return lambda: str(typer.prompt(f"  {question} (not shown)", hide_input=True, err=True)).strip()


def _made(length: int, prefix: str = "") -> Callable[[], str]:
    return lambda: prefix + base64.b64encode(secrets.token_bytes(length)).decode()


def _clubs() -> dict[str, dict[str, str]]:
    given = str(typer.prompt("  Clubs, as OURS=THEIRS with the Connector's id; several with commas", err=True))
    pairs = [club.partition("=") for club in given.split(",")]
    return {ours.strip(): {"connector_id": theirs.strip()} for ours, _, theirs in pairs}


BLOCKS: dict[str, tuple[str, type[BaseModel], dict[str, Callable[[], object]]]] = {
    "illu": (
        "illu (sites and jobs)",
        IlluSettings,
        {"org_id": _shown("Organization ID, in illu's Admin Console"), "api_key": _hidden("API key, shown there too")},
    ),
    "revio": (
        "Rev.io (key links)",
        RevioSettings,
        {
            "username": _shown("User name"),
            "client_code": _shown("Client code, the sub-domain of the Rev.io site"),
            "password": _hidden("Password"),
        },
    ),
    "izzitup": (
        "IzzitUp (status page)",
        IzzitUpSettings,
        {
            "base_url": _shown("Address of the application, up to where /api begins"),
            "user": _shown("User"),
            "password": _hidden("Password"),
        },
    ),
    "egito": (
        "Egito (people of clubs)",
        EgitoSettings,
        {
            "base_url": _shown("Address, https://NAME.egito.pl"),
            "api_id": _shown("Id of the API's client"),
            "api_secret": _hidden("Its secret"),
            "username": _shown("User, as login@firma"),
            "password": _hidden("Password"),
        },
    ),
    "connector": (
        "the InTouch Connector",
        ConnectorSettings,
        {
            "client_id": _shown("Your id of this customer, as InTouch was told it"),
            "clubs": _clubs,
            "match_key": _made(32),
        },
    ),
    "callback": (
        "callbacks (to be told what became of what was accepted)",
        CallbackSettings,
        {"url": _shown("Address of the tenant's own system"), "secret": _made(32, "whsec_")},
    ),
}
"""Each with what it is called, its settings, and how each of them is got that has no default."""


def asked_tenant(output: Output) -> str:
    """The tenant's document. A block whose answers are not valid is asked for again."""
    output.notice("What does the tenant use? All other settings have a default; see docs/configuration.md.")
    document = {}
    for block, (called, settings, questions) in BLOCKS.items():
        if typer.confirm(f"Does it use {called}?", default=False, err=True):
            document[block] = _asked(output, settings, questions)
    return json.dumps(document, indent=2, ensure_ascii=False)


def _asked(output: Output, settings: type[BaseModel], questions: dict[str, Callable[[], object]]) -> dict[str, Any]:
    while True:
        answers = {setting: ask() for setting, ask in questions.items()}
        try:
            settings.model_validate(answers)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False, include_context=False):
                place = ".".join(str(part) for part in detail["loc"])
                output.notice(f"  {place}: {detail['msg'].removeprefix('Value error, ')}", style="bold red")
        else:
            return answers
