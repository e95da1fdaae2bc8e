"""What is told, line by line, as CloudWatch takes it up."""

import json
import os
import subprocess
import sys
import time
from io import StringIO
from threading import Thread
from typing import Any

import pytest

from crm_bridge.errors import VendorError
from crm_bridge.telemetry import add_to_log, bind_log, count, log_defect, logger, measure


@pytest.fixture(autouse=True)
def begin() -> None:
    bind_log()


def told(log: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def in_a_process(script: str, **environment: str) -> str:
    code = f"from crm_bridge.telemetry import *\n{script}"
    path = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_a_line_tells_when_and_how_bad_it_is_and_what_belongs_to_it(
    log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_764_237_600_250_000_000)
    bind_log(flow="create_site", request_id="r-1")
    add_to_log(tenant="acme")
    logger().warning("odd", extra={"try": 2, "made": ["site 1"], "vendor_status": None})
    assert told(log) == [
        {
            "level": "WARNING",
            "message": "odd",
            "timestamp": "2025-11-27T10:00:00.250Z",
            "flow": "create_site",
            "request_id": "r-1",
            "tenant": "acme",
            "try": 2,
            "made": ["site 1"],
        }
    ]


def test_a_line_tells_the_trace_that_lambda_names(log: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=3995c3f42cd8ad8;Sampled=1")
    logger().info("answered")
    assert told(log)[0]["xray_trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"


def test_the_keys_of_the_event_before_are_gone(log: StringIO) -> None:
    bind_log(operation_id="op_1")
    bind_log(flow="create_site")
    logger().info("answered")
    assert "operation_id" not in told(log)[0]
    assert told(log)[0]["flow"] == "create_site"


def test_keys_belong_to_one_thread(log: StringIO) -> None:
    bind_log(operation_id="op_1")

    def log_there() -> None:
        add_to_log(tenant="other")
        logger().info("there")

    other = Thread(target=log_there)
    other.start()
    other.join()
    logger().info("here")
    there, here = told(log)
    assert ("operation_id" in there, there["tenant"]) == (False, "other")
    assert (here["operation_id"], "tenant" in here) == ("op_1", False)


def test_no_value_loses_a_line(log: StringIO) -> None:
    logger().info("odd", extra={"of": {1, 2}, "half": "\ud800"})
    assert (told(log)[0]["of"], told(log)[0]["half"]) == ("{1, 2}", "\ud800")
    log.getvalue().encode()


def test_a_defect_is_told_by_kind_and_place_only(log: StringIO) -> None:
    try:
        raise VendorError("of customer Wanjiku", vendor="illu")
    except VendorError as error:
        log_defect(error)
    (line,) = told(log)
    assert (line["level"], line["message"], line["error"]) == ("ERROR", "defect", "VendorError")
    assert line["places"][-1].endswith("test_a_defect_is_told_by_kind_and_place_only")
    assert "Wanjiku" not in log.getvalue()


def test_tells_as_much_as_the_level_says_and_once() -> None:
    script = "import logging; logging.basicConfig(stream=sys.stdout); logger().info('one'); logger().warning('two')"
    messages = [json.loads(line)["message"] for line in in_a_process(script).splitlines()]
    assert messages == ["one", "two"]
    assert '"two"' in in_a_process(script, LOG_LEVEL="WARNING")
    assert '"one"' not in in_a_process(script, LOG_LEVEL="WARNING")
    assert in_a_process(script, LOG_LEVEL="CRITICAL") == ""
    assert [in_a_process(script, LOG_LEVEL=level).count("\n") for level in ("", "info", "error")] == [2, 2, 0]


def test_a_metric_is_in_cloudwatchs_embedded_format(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_764_237_600.25)
    count("Operations", flow="create_site", state="waiting")
    measure("OldestDueAge", 61.5, "Seconds")
    counted, measured = map(json.loads, capsys.readouterr().out.splitlines())
    described = {
        "Namespace": "CrmBridge/test",
        "Dimensions": [["flow", "state"]],
        "Metrics": [{"Name": "Operations", "Unit": "Count"}],
    }
    assert counted == {
        "_aws": {"Timestamp": 1_764_237_600_250, "CloudWatchMetrics": [described]},
        "Operations": 1,
        "flow": "create_site",
        "state": "waiting",
    }
    (described,) = measured["_aws"]["CloudWatchMetrics"]
    assert (described["Dimensions"], described["Metrics"]) == ([[]], [{"Name": "OldestDueAge", "Unit": "Seconds"}])
    assert measured["OldestDueAge"] == 61.5


@pytest.mark.parametrize("namespace", [None, ""])
def test_no_metric_is_told_where_nobody_takes_it_up(
    namespace: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("METRICS_NAMESPACE")
    if namespace is not None:
        monkeypatch.setenv("METRICS_NAMESPACE", namespace)
    count("Defects")
    assert capsys.readouterr().out == ""
