"""docs/command-reference.md: every command with its options. `python -m docs` writes it."""

import ast
import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command

from cli.__main__ import app
from cli.command import ExitCode

PAGE = Path(__file__).parent / "command-reference.md"
_INTRODUCTION = """\
# Command reference

Every command of `crm-bridge`, its arguments and options, and the exit codes. [Command line](command-line.md) shows the
commands at work, and `crm-bridge COMMAND --help` says the same. `python -m docs` writes this page.
"""
_METAVARS = {int: "N", float: "N", Path: "FILE"}

type Parameter = TyperArgument | TyperOption
type Command = tuple[str, str, list[Parameter]]
"""Its name with its group, its help, and its parameters."""


def content() -> str:
    """Return what docs/command-reference.md has to be."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    found = list(commands(root, "crm-bridge"))
    shared = set.intersection(*({_name(one) for one in parameters} for _, _, parameters in found))
    lines = [_INTRODUCTION, "## Options of every command", ""]
    lines += _table([one for one in found[0][2] if _name(one) in shared])
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {code.value} | {meaning} |" for code, meaning in exit_codes()]
    for name, meaning, parameters in sorted(found):
        own = [one for one in parameters if _name(one) not in shared]
        arguments = "".join(f" {_place(one)}" for one in own if isinstance(one, TyperArgument))
        lines += ["", f"## `{name}`", "", meaning, "", "```text", f"{name}{arguments} [OPTIONS]", "```"]
        lines += ["", *_table(own)] if own else []
    return "\n".join(lines) + "\n"


def commands(group: TyperGroup, name: str) -> Iterator[Command]:
    """Yield the commands of a group and of the groups in it."""
    for part, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{name} {part}")
        else:
            parameters = [
                one for one in command.params if isinstance(one, TyperArgument | TyperOption) and not one.hidden
            ]
            yield f"{name} {part}", inspect.cleandoc(command.help or ""), parameters


def exit_codes() -> Iterator[tuple[ExitCode, str]]:
    """Yield each exit code with the docstring below it."""
    (tree,) = ast.parse(inspect.getsource(ExitCode)).body
    assert isinstance(tree, ast.ClassDef)
    docstrings = [
        one.value.value for one in tree.body[1:] if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
    ]
    for code, meaning in zip(ExitCode, docstrings, strict=True):
        yield code, " ".join(str(meaning).split())


def _name(parameter: Parameter) -> str:
    return str(parameter.name)


def _place(argument: TyperArgument) -> str:
    """Return how an argument stands in the line that is typed."""
    shown = argument.metavar or _name(argument).upper()
    shown += "..." if argument.nargs == -1 else ""
    return shown if argument.required else f"[{shown}]"


def _table(parameters: list[Parameter]) -> list[str]:
    rows = []
    for one in parameters:
        annotation = one.type_descriptor.annotation
        choices = (
            [str(value.value) for value in annotation]
            if isinstance(annotation, type) and issubclass(annotation, Enum)
            else []
        )
        if isinstance(one, TyperArgument):
            shown = _place(one)
        else:
            is_flag = bool(one.is_flag)
            shown = ", ".join(one.opts) + ("" if is_flag else f" {one.metavar or _METAVARS.get(annotation, 'VALUE')}")
        notes = [f"One of {', '.join(f'`{value}`' for value in choices)}."] if choices else []
        if isinstance(one, TyperOption):
            notes += ["May be given several times."] if one.multiple else []
            notes += (
                [f"Default: `{getattr(one.default, 'value', one.default)}`."]
                if one.default not in (None, False, ())
                else []
            )
            notes += ["Required."] if one.required else []
            notes += [f"Variable: `{one.envvar}`."] if one.envvar else []
        text = " ".join([(one.help or "").strip(), *notes]).replace("|", "&#124;")
        rows.append(f"| `{shown}` | {text} |")
    return ["| argument or option | meaning |", "|---|---|", *rows]
