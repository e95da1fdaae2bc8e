"""`make smoke-emulator`, whole: what it cannot do on an emulator is left out, and all else works."""

import json

import pytest

from tests import smoke


def test_a_scratch_stack_goes_from_nothing_to_nothing_on_the_emulator(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in smoke.EMULATED.items():
        monkeypatch.setenv(name, value)
    status = smoke.main(["--stack", "crm-bridge-smoke", "--emulator", "--port", "0", "--json"])
    results = {result["step"]: result["result"] for result in json.loads(capsys.readouterr().out)}
    assert status == 0, results
    assert [step for step, result in results.items() if result == "left out"] == [
        "a gradual deployment while events come",
        "go back to the version before",
    ]
    assert len(results) == 12
    assert results["accept for later, carry from the queue"] == results["delete all"] == "ok"
