"""What all commands have in common: the options that name a bridge, and the codes with which they end."""

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
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
    NOT_ALL_WELL = 1
    """It ran, and a check failed, or something was not done; the output says what."""
    WRONG_INPUT = 2
    """The command, a file or a name is wrong. Nothing was changed."""
    UNAVAILABLE = 3
    """AWS, or a vendor, did not answer or refused. What was done is kept, and repeating is safe."""
    STOPPED = 130
    """By Ctrl-C. What was done is kept, and the same command goes on."""


class WrongInputError(Exception):
    """What the user gave cannot be used; `fields` are the places. Nothing was changed."""

    def __init__(self, message: str, fields: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class NotAllWellError(Exception):
    """The command said everything already; it only has to end with its code."""


Name = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
OF_THE_BRIDGE = "Which bridge"


def _shared(
    *,
    stack: Annotated[
        str,
        typer.Option(envvar="CRM_BRIDGE_STACK", help="The CloudFormation stack.", rich_help_panel=OF_THE_BRIDGE),
    ] = "crm-bridge-dev",
    profile: Annotated[
        str | None,
        typer.Option(envvar="AWS_PROFILE", help="The AWS profile.", rich_help_panel=OF_THE_BRIDGE),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(envvar="AWS_REGION", help="The AWS region.", rich_help_panel=OF_THE_BRIDGE),
    ] = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            envvar="CRM_BRIDGE_LOCAL",
            help="The bridge on this machine (make run).",
            rich_help_panel=OF_THE_BRIDGE,
        ),
    ] = False,
    port: Annotated[
        int,
        typer.Option(min=1, max=65_534, help="Its port, with --local.", rich_help_panel=OF_THE_BRIDGE),
    ] = 3000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> tuple[Bridge, Output]:
    output = Output(as_json=as_json)
    return (
        Bridge(stack, profile=profile, region=region, local_port=port if local else None, output=output),
        output,
    )


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function to `app` that takes the bridge first, and then what the user gives.

    It gets the options that all commands have, and what it raises becomes a message and an exit code.
    """
    shared = inspect.signature(_shared, eval_str=True).parameters

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

        def run(**given: Any) -> None:
            bridge, output = _shared(**{option: given.pop(option) for option in shared})
            with _told(output):
                function(bridge, **given)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = inspect.Signature([*own, *shared.values()])  # type: ignore[attr-defined]
        app.command(name)(run)
        return function

    return decorate


@contextmanager
def _told(output: Output) -> Iterator[None]:
    try:
        yield
    except NotAllWellError:
        code = ExitCode.NOT_ALL_WELL
    except WrongInputError as error:
        code = _say(output, ExitCode.WRONG_INPUT, str(error), error.fields)
    except NotConfiguredError as error:
        code = _say(output, ExitCode.WRONG_INPUT, error.detail)
    except UnavailableError as error:
        code = _say(output, ExitCode.UNAVAILABLE, error.detail)
    except ProblemError as error:
        code = _say(output, ExitCode.WRONG_INPUT, error.detail, error.fields)
    except VendorError as error:
        code = _say(output, ExitCode.UNAVAILABLE, error.message)
    except BridgeError as error:
        code = _say(output, ExitCode.NOT_ALL_WELL, str(error))
    except (ClientError, BotoCoreError) as error:
        code = _say(output, ExitCode.UNAVAILABLE, _of_aws(error))
    except typer.Abort:  # a question was answered by the end of the input, or by Ctrl-C
        code = _say(output, ExitCode.WRONG_INPUT, "Nothing was changed.")
    except KeyboardInterrupt:
        code = _say(output, ExitCode.STOPPED, "Stopped. What was done is kept; the same command goes on.")
    else:
        return
    raise typer.Exit(code)


def _say(output: Output, code: ExitCode, message: str, fields: tuple[FieldError, ...] = ()) -> ExitCode:
    if output.as_json:
        errors = [{"field": field.field, "message": field.message} for field in fields]
        sys.stderr.write(json.dumps({"error": message, "errors": errors}) + "\n")
        return code
    output.notice(message, style="bold red")
    for field in fields:
        output.notice(f"  {field.field}: {field.message}")
    return code


def _of_aws(error: ClientError | BotoCoreError) -> str:
    """What AWS said, and what to do. Its own words are for whoever has the account's credentials anyway."""
    match error:
        case NoCredentialsError() | UnauthorizedSSOTokenError() | SSOError():
            return "AWS does not know you. Sign in (aws sso login), or name a profile with --profile."
        case NoRegionError():
            return "No AWS region is known. Name it with --region, or set AWS_REGION."
        case ProfileNotFound():
            return f"{error}. `aws configure list-profiles` lists those that there are."
        case ClientError():
            said = error.response["Error"]
            return f"AWS refused {error.operation_name} ({said['Code']}): {said['Message']}"
    return (
        f"AWS did not answer ({type(error).__name__}). Is the network there, and with --local, is `make run` running?"
    )
