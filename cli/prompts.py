"""Questions in a terminal: whether to go on, and the settings of a tenant that have no default."""

import base64
import json
import secrets
import sys
from typing import Any

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from cli.command import WrongInputError
from cli.output import Output, visible
from cli.settings import field_errors, secret_settings
from crm_bridge.settings import Generated, Prompt, Settings
from crm_bridge.vendors import vendors


def confirm(question: str) -> None:
    """Raises WrongInputError unless the user says yes."""
    if not sys.stdin.isatty():
        raise WrongInputError("There is no terminal to ask for confirmation. Give --yes. Nothing was changed.")
    if not typer.confirm(visible(question), err=True):
        raise WrongInputError("Nothing was changed.")


def confirm_id(record_id: str) -> None:
    """Raises WrongInputError unless the user types the same id again."""
    if not sys.stdin.isatty():
        raise WrongInputError("There is no terminal to ask for the id. Give --confirmed. Nothing was changed.")
    if str(typer.prompt("Type the id again", err=True)).strip() != record_id.strip():
        raise WrongInputError("The two ids are not the same. Nothing was changed.")


def prompt_for_tenant(output: Output) -> str:
    """Return the tenant's document. The questions of a block are repeated if the answers are not valid."""
    output.notice("What does the tenant use? All other settings have a default; see docs/settings.md.")
    document = {}
    for settings in (block for vendor in vendors() for block in vendor.blocks()):
        if typer.confirm(f"Does it use {settings.model_config['title']}?", default=False, err=True):
            document[settings.block] = _prompt_for(output, settings)
    return json.dumps(document, indent=2, ensure_ascii=False)


def _prompt_for(output: Output, settings: type[Settings]) -> dict[str, Any]:
    required = {name: field for name, field in settings.model_fields.items() if field.is_required()}
    while True:
        answers = {
            name: _answer(field, is_secret=f"{settings.block}.{name}" in secret_settings())
            for name, field in required.items()
        }
        try:
            settings.model_validate(answers)
        except ValidationError as error:
            for wrong in field_errors(error):
                output.notice(f"  {wrong.field}: {wrong.message}", style="bold red")
        else:
            return answers


def _answer(field: FieldInfo, *, is_secret: bool) -> object:
    """Return the value of a required setting, which has a `Prompt` or is `Generated`."""
    (marker,) = (one for one in field.metadata if isinstance(one, Prompt | Generated))
    if isinstance(marker, Generated):
        return marker.prefix + base64.b64encode(secrets.token_bytes(marker.length)).decode()
    question = f"  {marker.question}" + (" (not shown)" if is_secret else "")
    return marker.parse(str(typer.prompt(question, hide_input=is_secret, err=True)))
