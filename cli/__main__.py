"""The commands, by what they are about."""

import typer

from cli.command import command
from cli.doctor import doctor
from cli.forget import forget
from cli.importing import app as importing
from cli.link_check import check
from cli.links import app as links
from cli.operations import app as operations
from cli.tenants import app as tenants

app = typer.Typer(
    name="crm-bridge",
    help="Turn a tenant of CRM Bridge up, check it, import what it has, look up, repair.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they may be secrets
)
app.add_typer(tenants, name="tenant")
command(app)(doctor)
command(app)(forget)
app.add_typer(importing, name="import")
app.add_typer(operations, name="operations")
command(links)(check)
app.add_typer(links, name="links")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
