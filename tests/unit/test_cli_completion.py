"""The shell completes commands, options, states and flows. It is a real bash that asks."""

import os
import subprocess
import sys
from pathlib import Path

COMPLETE = r"""
eval "$(_CRM_BRIDGE_COMPLETE=source_bash crm-bridge)"
function=$(complete -p crm-bridge | sed 's/.*-F \([^ ]*\) .*/\1/')
while IFS= read -r typed; do
  read -ra COMP_WORDS <<<"$typed"
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  $function crm-bridge
  echo "${COMPREPLY[*]}"
done
"""
COMPLETED = {
    "crm-bridge op": "operations",
    "crm-bridge operations list acme --state un": "unconfirmed",
    "crm-bridge tail acme --flow create_key": "create_key_link",
    "crm-bridge send create_s": "create_site",
    "crm-bridge show --ten": "--tenant",
    "crm-bridge show op_": "",
}
"""A line up to the tab key, and its completion."""


def test_bash_completes_when_tab_is_pressed(tmp_path: Path) -> None:
    finished = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE],
        input="\n".join([*COMPLETED, ""]),
        env={"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert (finished.stdout.splitlines(), finished.stderr) == (list(COMPLETED.values()), "")
