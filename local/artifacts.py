"""Check and measure the output of `sam build`: `python -m local.artifacts [FOLDER] [--beside FOLDER] [--json]`."""

import argparse
import ast
import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.table import Table
from samtranslator.yaml_helper import yaml_parse

BUILD = Path(".aws-sam/build")


@dataclass(frozen=True)
class Artifact:
    """One function or layer. Sizes are in bytes; `sha256` is that of `zipped`."""

    name: str
    unzipped_size: int
    zip_size: int
    sha256: str

    @classmethod
    def of(cls, folder: Path) -> Self:
        data = zipped(folder)
        unzipped_size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return cls(folder.name, unzipped_size, len(data), hashlib.sha256(data).hexdigest())


def zipped(folder: Path) -> bytes:
    """A zip that holds paths, modes and contents and nothing else, so that the same tree always makes the same zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # dated 1980
            entry.create_system = 3  # Unix, wherever this runs: else the modes would not count
            entry.external_attr = path.stat().st_mode << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def artifacts(build: Path) -> list[Artifact]:
    """Raises FileNotFoundError if nothing was built there."""
    return [Artifact.of(folder) for folder in sorted(build.iterdir()) if folder.is_dir()]


def missing_handlers(build: Path) -> list[str]:
    """Return a message for each function of the built template whose `Handler` is not in its artifact.

    Lambda would find that out at the first call (`Runtime.ImportModuleError`). The code is read and not run, because it
    may be built for another machine. Raises FileNotFoundError if nothing was built there.
    """
    messages = []
    for name, resource in yaml_parse((build / "template.yaml").read_text())["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            module, _, handler = resource["Properties"]["Handler"].rpartition(".")
            file = build / resource["Properties"]["CodeUri"] / f"{module.replace('.', '/')}.py"
            if not file.is_file():
                messages.append(f"{name}: there is no {file} for the handler {module}.{handler}.")
            elif handler not in _defined(file):
                messages.append(f"{name}: {file} does not define {handler}.")
    return messages


def _defined(file: Path) -> set[str]:
    """Return the names that a module defines at its top level, as functions or by assignments."""
    body = ast.parse(file.read_text()).body
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    return functions | {target.id for target in targets if isinstance(target, ast.Name)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m local.artifacts", description="Check that every handler was built, and list sizes and hashes."
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", default=BUILD, help="what `sam build` made (default %(default)s)"
    )
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="another build, whose sizes are shown beside")
    parser.add_argument("--json", action="store_true", help="for machines")
    options = parser.parse_args()
    if missing := missing_handlers(options.folder):
        raise SystemExit("\n".join(["The build is not complete. Do not deploy it.", *missing]))
    built = artifacts(options.folder)
    beside = {other.name: other for other in artifacts(options.beside)} if options.beside else {}
    if options.json:
        lists = {"artifacts": built, "beside": list(beside.values())}
        print(json.dumps({name: [asdict(one) for one in of] for name, of in lists.items()}))  # noqa: T201
        return
    table = Table(title=str(options.folder), title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("artifact")
    for column in ("unzipped", "zip", *(["unzipped by default", "zip by default"] if beside else [])):
        table.add_column(column, justify="right")
    table.add_column("sha256 of the zip")
    for one in built:
        other = beside.get(one.name)
        sizes = [one.unzipped_size, one.zip_size, *([other.unzipped_size, other.zip_size] if other else [])]
        table.add_row(one.name, *(f"{size / 1e6:.2f} MB" for size in sizes), one.sha256)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
