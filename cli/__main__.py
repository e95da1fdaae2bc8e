"""The commands, by what they are about."""

import os
import sys
import unicodedata
from typing import Annotated

import typer
from typer.main import get_command

from cli.command import ExitCode, command, print_error
from cli.doctor import doctor
from cli.events import send
from cli.forget import forget
from cli.importing import app as importing
from cli.link_check import check
from cli.links import app as links
from cli.mapping import app as mapping
from cli.operations import app as operations
from cli.output import Output, print_traceback
from cli.requests import requests
from cli.show import show
from cli.tail import tail
from cli.tenants import app as tenants
from crm_bridge import __version__

app = typer.Typer(
    name="crm-bridge",
    help="Onboard the tenants of CRM Bridge, check them, import their records, look up, repair.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"crm-bridge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Only what is common to all commands."""


app.add_typer(tenants, name="tenant")
command(app)(doctor)
command(app)(forget)
app.add_typer(importing, name="import")
app.add_typer(operations, name="operations")
app.add_typer(mapping, name="mapping")
command(app)(send)
command(app)(show)
command(app)(tail)
command(app)(requests)
command(links)(check)
app.add_typer(links, name="links")


def main() -> None:
    sys.excepthook = print_traceback
    # What cannot be parsed is repeated by Typer as it is.
    if any(unicodedata.category(one) == "Cc" and one not in "\n\t" for one in "".join(sys.argv[1:])):
        Output(as_json=False).notice("An argument contains a control character. Remove it.", style="bold red")
        sys.exit(ExitCode.WRONG_INPUT)
    run = get_command(app)  # not `app`, which has a hook of its own
    if "--json" not in sys.argv:
        run()
    try:
        sys.exit(run(standalone_mode=False))
    except typer.TyperException as error:  # an unknown option, for instance
        print_error(Output(as_json=True), error.format_message())
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        sys.exit(ExitCode.NOT_ALL_WELL)


if __name__ == "__main__":
    main()
