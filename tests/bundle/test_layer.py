"""The built layer and functions: complete, compiled, small, and the same each time."""

import ast
import importlib.util
import json
import marshal
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from types import CodeType
from typing import Literal

import boto3
import pytest

from local.artifacts import Artifact, artifacts, zipped
from local.aws import EmbeddedAws
from local.emulator import LAYER, RUNTIME, SAM
from local.sam import BUNDLE, ROOT
from local.stack import REGION

SERVICES: tuple[Literal["dynamodb", "secretsmanager", "sqs"], ...] = ("dynamodb", "secretsmanager", "sqs")
PACKAGES = sorted(path.parent.name for path in (ROOT / "functions").glob("*/handler.py"))
HERE = "x86_64" if platform.machine() in ("x86_64", "AMD64") else "arm64"
OTHER = {"x86_64": "arm64", "arm64": "x86_64"}[HERE]
LARGEST_ZIP = 8_300_000

ONLY_AFTER_PYDANTIC = "runs only if pydantic was imported before Powertools; see crm_bridge/__init__.py"
NEVER_REACHED = {
    ("aws_lambda_powertools/utilities/batch/types.py", "aws_lambda_powertools.utilities.parser.models"): (
        ONLY_AFTER_PYDANTIC
    ),
    ("aws_lambda_powertools/utilities/batch/types.py", "aws_lambda_powertools.utilities.parser.models.kafka"): (
        ONLY_AFTER_PYDANTIC
    ),
    ("aws_lambda_powertools/shared/functions.py", "aws_lambda_powertools.event_handler.openapi.compat"): (
        "puts a pydantic model into a dictionary for the utilities that were taken out"
    ),
    ("dateutil/tz/tz.py", "dateutil.zoneinfo"): "looks a time zone up by its name; AWS answers in UTC",
    ("pydantic/_internal/_generate_schema.py", "pydantic.v1"): "meets a type with validators of pydantic 1",
}
"""Imports of what was taken out, which stand inside functions, and what such a function does."""


def in_the_layer(script: str, **environment: str) -> str:
    """Run a script with the built layer and nothing else; its output."""
    done = subprocess.run(
        [RUNTIME, "-c", script],
        env={"PYTHONPATH": f"{BUNDLE / 'CreateSiteFunction'}:{LAYER}", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sam(*arguments: str, **environment: str) -> None:
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [SAM / "bin" / "sam", *arguments],
        cwd=ROOT,
        env={"HOME": os.environ["HOME"], "PATH": path, "SAM_CLI_TELEMETRY": "0", **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def other_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second build, elsewhere, for the architecture that this machine does not have."""
    folder = tmp_path_factory.mktemp("other")
    overrides = f"Architecture={OTHER}"
    sam("build", "--build-dir", str(folder), "--parameter-overrides", overrides, ARCHITECTURE=OTHER)
    return folder


def imports(path: Path, module: str) -> Iterator[str]:
    """The modules that a file may import, wherever in it; those for a type checker only are left out."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST) -> Iterator[str]:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for other in node.orelse:
                    yield from walk(other)
                return
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                name = importlib.util.resolve_name("." * level + (source or ""), package) if level else source or ""
                yield name
                yield from (f"{name}.{alias.name}" for alias in names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    yield from walk(ast.parse(path.read_bytes()))


def is_module(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_what_is_tried_finds_nothing_but_the_layer_and_awss_runtime() -> None:
    script = """
import importlib.metadata
for distribution in importlib.metadata.distributions():
    print(distribution.name, distribution.locate_file(""), sep="|")
"""
    found = dict(line.split("|") for line in in_the_layer(script).splitlines())
    others = {name for name, place in found.items() if not Path(place).is_relative_to(LAYER)}
    assert others == {"awslambdaric", "simplejson", "snapshot-restore-py"}
    assert "botocore" in found.keys() - others


def test_nothing_that_is_left_imports_what_was_taken_out() -> None:
    [whole] = (ROOT / ".venv").glob("lib/python*/site-packages")
    missing = set()
    for path in LAYER.rglob("*.py"):
        where = path.relative_to(LAYER)
        module = ".".join(where.with_suffix("").parts).removesuffix(".__init__")
        for imported in imports(path, module):
            ours = (LAYER / imported.partition(".")[0]).exists()
            if ours and is_module(whole, imported) and not is_module(LAYER, imported):
                missing.add((where.as_posix(), imported))
    assert missing == NEVER_REACHED.keys()


def test_every_module_of_ours_is_found_with_the_layer_alone() -> None:
    modules = [
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for folder in (LAYER, BUNDLE / "CreateSiteFunction")
        for path in folder.rglob("*.py")
        if folder != LAYER or path.is_relative_to(LAYER / "crm_bridge")
    ]
    assert len(modules) > 50
    script = "import importlib, json, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    in_the_layer(script.replace("sys.argv[1:]", repr(modules)))


@pytest.mark.parametrize("package", PACKAGES)
def test_each_function_imports_powertools_batch_before_pydantic(package: str) -> None:
    script = f"""
import sys
class Watch:
    def find_spec(self, name, *_):
        if name in ("pydantic", "aws_lambda_powertools.utilities.batch.types"):
            print(name)
sys.meta_path.insert(0, Watch())
import {package}.handler
"""
    assert in_the_layer(script).splitlines() == ["aws_lambda_powertools.utilities.batch.types", "pydantic"]


def test_nothing_is_warned_of() -> None:
    script = """
import warnings
warnings.simplefilter("error")
import crm_bridge.outbound.transport, requests.compat
print(requests.compat.chardet)
"""
    assert in_the_layer(script, AWS_LAMBDA_FUNCTION_NAME="f") == "None\n"


def test_garbage_is_not_looked_for_until_all_is_there() -> None:
    script = """
import gc, os
import create_site.handler
print(gc.isenabled(), gc.get_freeze_count() > 0)
from crm_bridge.runtime import runtime
runtime()
print(gc.isenabled(), gc.get_freeze_count() > 10_000)
"""
    names = ("OPERATIONS", "LINKS", "API_KEYS", "LOCKS", "PEOPLE", "TOKENS", "REQUESTS")
    environment = {f"{name}_TABLE": "a-table" for name in names}
    environment |= {"API_KEY_HEADERS": "", "KEY_RATE": "1", "KEY_BURST": "1", "SECRET_PREFIX": "", **_account()}
    assert in_the_layer(script, AWS_LAMBDA_FUNCTION_NAME="f", **environment) == "False False\nTrue True\n"
    assert in_the_layer(script, **environment) == "True False\nTrue False\n"


def test_each_client_can_be_made_and_called() -> None:
    script = """
from crm_bridge import aws
aws.client("dynamodb").list_tables()
secrets, sqs = aws.client("secretsmanager"), aws.client("sqs")
secrets.list_secrets()
try:
    secrets.get_secret_value(SecretId="nobody")
except secrets.exceptions.ResourceNotFoundException:
    print("told by type")
sqs.get_paginator("list_queues").paginate().build_full_result()
"""
    aws = EmbeddedAws()
    aws.start()
    try:
        assert in_the_layer(script, AWS_ENDPOINT_URL=aws.url, **(_account() | aws.credentials)) == "told by type\n"
    finally:
        aws.stop()
    actions = {"ListTables", "ListSecrets", "GetSecretValue", "ListQueues"}
    assert {target.rpartition(".")[2] for target in aws.calls if target} == actions


def test_each_client_finds_the_endpoint_and_signs_as_with_all_data() -> None:
    script = f"""
import botocore.session, json
session = botocore.session.Session()
found = []
for partition in session.get_available_partitions():
    for region in session.get_available_regions("dynamodb", partition):
        for service in {SERVICES!r}:
            client = session.create_client(service, region_name=region)
            found.append([client.meta.endpoint_url, client.meta.config.signature_version, client.meta.partition])
print(json.dumps(found))
"""
    session = boto3.Session()
    clients = [
        session.client(service, region_name=region)
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("dynamodb", partition)
        for service in SERVICES
    ]
    with_all = [
        [client.meta.endpoint_url, client.meta.config.signature_version, client.meta.partition]  # type: ignore[attr-defined]
        for client in clients
    ]
    assert ["https://dynamodb.eu-west-1.amazonaws.com", "v4", "aws"] in with_all
    assert json.loads(in_the_layer(script, **_account())) == with_all


def test_a_transaction_goes_where_it_goes_with_all_data() -> None:
    script = """
import botocore.session, sys
client = botocore.session.get_session().create_client("dynamodb")
client.meta.events.register("before-send", lambda request, **_: sys.exit(print(request.url)))
client.transact_write_items(TransactItems=[{"Put": {"TableName": "operations", "Item": {"id": {"S": "1"}}}}])
"""
    environment = {**_account(), "AWS_ACCOUNT_ID": "123456789012"}
    with_all = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert with_all.startswith("https://123456789012.ddb.eu-west-1.")
    assert in_the_layer(script, **environment) == with_all


def _account() -> dict[str, str]:
    return {"AWS_DEFAULT_REGION": REGION, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


def test_the_versions_are_the_locked_ones() -> None:
    metadata = [HeaderParser().parsestr(path.read_text()) for path in LAYER.glob("*.dist-info/METADATA")]
    installed = {f"{one['Name'].lower().replace('_', '-')}=={one['Version']}" for one in metadata}
    locked = re.findall(r"^(\S+==\S+)", (ROOT / "layers/shared/requirements.txt").read_text(), re.MULTILINE)
    taken_out = {one for one in locked if one.startswith("charset-normalizer==")}
    assert installed == set(locked) - taken_out
    assert len(taken_out) == 1


def test_all_is_compiled_and_stays_valid_in_a_zip() -> None:
    functions = [folder for folder in BUNDLE.iterdir() if folder.is_dir() and folder != LAYER.parent]
    assert functions
    for folder, place in ((LAYER, "/opt/python/"), *((function, "/var/task/") for function in functions)):
        sources = list(folder.rglob("*.py"))
        for source in sources:
            data = Path(importlib.util.cache_from_source(str(source))).read_bytes()
            assert data[:4] == importlib.util.MAGIC_NUMBER
            assert data[4:8] == b"\x01\0\0\0", f"{source} would be checked against times"  # PEP 552: unchecked hash
            code = marshal.loads(data[16:])  # noqa: S302 - we made it
            assert isinstance(code, CodeType)
            assert code.co_filename == place + source.relative_to(folder).as_posix()
        assert len(list(folder.rglob("*.pyc"))) == len(sources)


def test_nothing_tells_where_it_was_built() -> None:
    for path in BUNDLE.rglob("*"):
        if path.is_file() and path.parent != BUNDLE:
            assert str(ROOT).encode() not in path.read_bytes(), path


def test_the_layer_is_small() -> None:
    assert Artifact.of(BUNDLE / "SharedLayer").zip_size <= LARGEST_ZIP


def test_another_build_is_the_same_but_for_what_is_compiled_for_its_machine(other_build: Path) -> None:
    here = {one.name: one for one in artifacts(BUNDLE)}
    other = {one.name: one for one in artifacts(other_build)}
    layer, other_layer = (folder / "SharedLayer" for folder in (BUNDLE, other_build))
    del here["SharedLayer"], other["SharedLayer"]
    assert len(here) == 9
    assert here == other
    trees = [
        {
            path.relative_to(folder).as_posix(): (path.stat().st_mode, path.read_bytes())
            for path in folder.rglob("*")
            if path.is_file() and path.suffix != ".so"
        }
        for folder in (layer, other_layer)
    ]
    assert trees[0] == trees[1]


def test_each_build_has_the_machine_code_of_its_architecture(other_build: Path) -> None:
    for build, architecture in ((BUNDLE, HERE), (other_build, OTHER)):
        libraries = list(build.rglob("*.so"))
        assert len(libraries) == 1
        machine = {"x86_64": 0x3E, "arm64": 0xB7}[architecture]  # e_machine of ELF
        assert {int.from_bytes(path.read_bytes()[18:20], "little") for path in libraries} == {machine}


def test_a_zip_has_paths_modes_and_contents_and_nothing_else(tmp_path: Path) -> None:
    for name, mode in (("one", 0o644), ("other", 0o644), ("third", 0o600)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "b.py").write_text("b")
        (folder / "a.py").write_text("a")
        (folder / "a.py").chmod(mode)
    os.utime(tmp_path / "other" / "a.py", (0, 0))
    assert zipped(tmp_path / "one") == zipped(tmp_path / "other") != zipped(tmp_path / "third")


def test_sam_finds_the_template_valid_without_an_account() -> None:
    sam("validate", "--lint", "--region", REGION)
