"""Shared by all commands: the options that name a bridge, and the exit codes."""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
    SSOError,
    UnauthorizedSSOTokenError,
)

from cli.bridge import Bridge
from cli.output import Output
from crm_bridge.errors import BridgeError, FieldError, NotConfiguredError, ProblemError, UnavailableError, VendorError


class ExitCode(IntEnum):
    """How a command ends."""

    DONE = 0
    """Done."""
    NOT_ALL_WELL = 1
    """It ran, and a check failed, or something was not done; the output says what."""
    WRONG_INPUT = 2
    """The command, a file or a name is wrong. Nothing was changed."""
    UNAVAILABLE = 3
    """AWS or a vendor did not respond, or refused. Progress is saved, and repeating is safe."""
    STOPPED = 130
    """By Ctrl-C. Progress is saved; the same command resumes."""


class WrongInputError(Exception):
    """The user's input cannot be used; `fields` are the places. Nothing was changed."""

    def __init__(self, message: str, fields: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class NotAllWellError(Exception):
    """The command has printed everything; it only has to end with its exit code."""


EXPECTED = (NotAllWellError, WrongInputError, BridgeError, ClientError, BotoCoreError, typer.Abort, KeyboardInterrupt)

Name = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Accept = Annotated[bool, typer.Option("--accept", help="Make the new results of the samples the expected ones.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be done.")]


def _input(name: str) -> Path:
    """Typer's own check takes `-` for a file that does not exist."""
    if name != "-" and (not Path(name).exists() or Path(name).is_dir()):
        raise typer.BadParameter(f"There is no file {name}.")
    return Path(name)


File = Annotated[
    Path,
    typer.Argument(
        parser=_input, metavar="FILE", help="A .csv file with a header, or a .jsonl file; - for standard input."
    ),
]


def _option(help_text: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel="Which bridge", **options)


def _shared(
    *,
    stack: Annotated[str, _option("The CloudFormation stack.", envvar="CRM_BRIDGE_STACK")] = "crm-bridge-dev",
    profile: Annotated[str | None, _option("The AWS profile.", envvar="AWS_PROFILE")] = None,
    region: Annotated[str | None, _option("The AWS region.", envvar="AWS_REGION")] = None,
    local: Annotated[
        bool, _option("The bridge on this machine (make run).", "--local", envvar="CRM_BRIDGE_LOCAL")
    ] = False,
    port: Annotated[int, _option("Its port, with --local.", envvar="CRM_BRIDGE_PORT", min=1, max=65_534)] = 3000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    context: typer.Context,
) -> Bridge:
    output = Output(as_json=as_json, options=_typed(context))
    return Bridge(stack, profile=profile, region=region, local_port=port if local else None, output=output)


def _typed(context: typer.Context) -> str:
    """Return the options that name the bridge as they were typed, for the commands that are suggested."""
    names = [one for one in ("stack", "profile", "region", "local", "port") if _is_typed(context, one)]
    return "".join(f" --{one}" if one == "local" else f" --{one} {quote(str(context.params[one]))}" for one in names)


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function to `app` that takes the bridge first, and then what the user gives.

    It gets the options that all commands have, and what it raises becomes a message and an exit code.
    """
    shared = inspect.signature(_shared, eval_str=True).parameters

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

        def run(**options: Any) -> None:
            bridge = _shared(**{option: options.pop(option) for option in shared})
            try:
                function(bridge, **options)
            except EXPECTED as error:
                code, message = _ending(error)
                if message:
                    print_error(bridge.output, message, getattr(error, "fields", ()))
                raise typer.Exit(code) from None

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = inspect.Signature([*own, *shared.values()])  # type: ignore[attr-defined]
        app.command(name)(run)
        return function

    return decorate


def _ending(error: BaseException) -> tuple[ExitCode, str]:
    """Return the exit code and the message for one of the errors that are EXPECTED."""
    match error:
        case NotAllWellError():
            return ExitCode.NOT_ALL_WELL, ""
        case WrongInputError():
            return ExitCode.WRONG_INPUT, str(error)
        case UnavailableError() if not isinstance(error, NotConfiguredError):
            return ExitCode.UNAVAILABLE, error.detail
        case ProblemError():
            return ExitCode.WRONG_INPUT, error.detail
        case VendorError():
            return ExitCode.UNAVAILABLE, error.message
        case BridgeError():
            return ExitCode.NOT_ALL_WELL, str(error)
        case ClientError() | BotoCoreError():
            return ExitCode.UNAVAILABLE, _message_of_aws(error)
        case typer.Abort():  # a question was answered by the end of the input, or by Ctrl-C
            return ExitCode.WRONG_INPUT, "Nothing was changed."
    return ExitCode.STOPPED, "Interrupted. Progress is saved; run the same command to resume."


def print_error(output: Output, message: str, fields: Sequence[FieldError] = ()) -> None:
    if output.as_json:
        errors = [{"field": field.field, "message": field.message} for field in fields]
        sys.stderr.write(json.dumps({"error": message, "errors": errors}) + "\n")
        return
    output.notice(message, style="bold red")
    for field in fields:
        output.notice(f"  {field.field}: {field.message}")


def _message_of_aws(error: ClientError | BotoCoreError) -> str:
    """Return what AWS refused, and what to do. Its message is only for people with the account's credentials."""
    match error:
        case NoCredentialsError() | UnauthorizedSSOTokenError() | SSOError():
            return "No valid AWS credentials. Sign in (aws sso login), or name a profile with --profile."
        case NoRegionError():
            return "No AWS region is known. Name it with --region, or set AWS_REGION."
        case ProfileNotFound():
            return f"{error}. `aws configure list-profiles` lists the profiles."
        case ClientError():
            details = error.response["Error"]
            return f"AWS refused {error.operation_name} ({details['Code']}): {details['Message']}"
    return f"AWS did not respond ({type(error).__name__}). Check the network; with --local, that `make run` is running."
