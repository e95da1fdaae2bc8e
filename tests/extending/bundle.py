"""A copy of the bundle with one vendor and one flow more: Zendesk, whose files are in `zendesk`."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from local.template import TEMPLATE

ROOT = TEMPLATE.parent
FILES = Path(__file__).parent / "zendesk"
BLOCK = FILES / "template.block.yaml"
"""The function and its queue, for template.yaml."""
ENTRY = '    Entry("zendesk", "zendesk", "Zendesk", ("create_organization",)),\n'
PARAMETER = """\
  ZendeskConcurrency: {Type: Number, Default: 3, MinValue: 2, MaxValue: 1000,
    Description: Concurrent retries to Zendesk.}
"""
COPIED = ("cli", "docs", "events", "functions", "layers", "local", "openapi", "tests", "*.toml", "template.yaml")
NAMES = {
    "CreateSite": "CreateOrganization",
    "create_site": "create_organization",
    "CREATE_SITE": "CREATE_ORGANIZATION",
    "IlluConcurrency": "ZendeskConcurrency",
    "Id: illu": "Id: zendesk",
    "Value: illu": "Value: Zendesk",
    "/illu/": "/zendesk/",
}
"""Other names in a line of template.yaml that is copied for the new function."""
COPIED_LINES = ("{Id: create_site,", "{Id: illu,", "CREATE_SITE_", "CreateSiteQueueUrl:")
"""How lines begin that template.yaml has for each function or vendor."""
ITEMS = (
    (r"!Ref CreateSiteFunctionRole, ", r"\g<0>!Ref CreateOrganizationFunctionRole, "),
    (r"!GetAtt CreateSiteQueue\.Arn, ", r"\g<0>!GetAtt CreateOrganizationQueue.Arn, "),
    (r"\$\{CreateSiteFunction\.Version\.Version\}-", r"\g<0>${CreateOrganizationFunction.Version.Version}-"),
    (r'"\$\{CreateSite(Function|Queue\.QueueName)\}"\], ', r'\g<0>[".", ".", ".", "${CreateOrganization\1}"], '),
)
"""Items of lists that template.yaml has on one line for all functions, with the new item behind."""


def new_files() -> dict[str, str]:
    """Return the new files, by their paths in the bundle."""
    return {
        path.relative_to(FILES).as_posix(): path.read_text() for path in sorted(FILES.rglob("*.py")) if path.is_file()
    }


def extended_template(template: str) -> str:
    """Return template.yaml with the block, and with the new function wherever all functions are named."""
    return "".join(_extended_lines(template)).replace("${IlluConcurrency}", "${IlluConcurrency} ${ZendeskConcurrency}")


def _extended_lines(template: str) -> Iterator[str]:
    block = ""
    for line in template.splitlines(keepends=True):
        if found := re.match(r"  (\w+):", line):
            block = found[1]
            if block == "CreateJobFunction":
                yield BLOCK.read_text() + "\n"
            elif block == "RevioConcurrency":
                yield PARAMETER
        if block in ("CreateSiteFunction", "CreateSiteQueue"):
            yield line
            continue
        begin = line.strip().removeprefix("- AWSSecretsManagerGetSecretValuePolicy: ")
        is_secret = block == "OperationsFunction" and begin != line.strip() and "/illu/" in line
        if is_secret or line.strip().startswith(COPIED_LINES):
            yield line
            for name, new in NAMES.items():
                line = line.replace(name, new)
        for item, with_new in ITEMS:
            line = re.sub(item, with_new, line)
        yield line


def extended_registry(registry: str) -> str:
    """Return `crm_bridge/vendors/__init__.py` with one line more."""
    before = '    Entry("webhook"'
    assert registry.count(before) == 1
    return registry.replace(before, ENTRY + before)


def lay_out(folder: Path) -> None:
    """Copy the bundle into a folder, and add the vendor and its flow."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *COPIED]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in found.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name, text in new_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert not (folder / name).exists(), f"{name} is there already"
        (folder / name).write_text(text)
    for name, changed in (
        ("layers/shared/crm_bridge/vendors/__init__.py", extended_registry),
        ("template.yaml", extended_template),
    ):
        (folder / name).write_text(changed((folder / name).read_text()))


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own whose modules are those of the folder."""
    places = (folder, folder / "functions", folder / "layers/shared")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
