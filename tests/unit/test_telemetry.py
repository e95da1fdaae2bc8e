"""Log and metrics, line by line, as CloudWatch reads them."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from logging import StreamHandler
from threading import Barrier
from typing import Any

import pytest
from aws_lambda_powertools.logging.formatter import RESERVED_LOG_ATTRS

from crm_bridge.errors import VendorError
from crm_bridge.telemetry import add_to_log, bind_log, count, log_defect, logger, measure, report_defect
from local.template import TEMPLATE

NAMESPACE = {"POWERTOOLS_METRICS_NAMESPACE": "CrmBridge/test"}


@pytest.fixture(autouse=True)
def begin() -> None:
    bind_log()


def logged(log: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def in_a_process(script: str, environment: Mapping[str, str] = {}, *, killed: bool = False) -> str:
    code = f"import sys\nfrom crm_bridge.telemetry import *\n{script}"
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (-signal.SIGKILL if killed else 0), done.stderr
    return done.stdout


def test_a_line_says_when_and_how_bad_it_is_and_what_belongs_to_it(
    log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_764_237_600_250_000_000)
    bind_log(flow="create_site", request_id="r-1")
    add_to_log(tenant="acme")
    logger().warning("odd", extra={"try": 2, "made": ["site 1"], "vendor_status": None})
    (line,) = logged(log)
    assert line == {
        "level": "WARNING",
        "message": "odd",
        "timestamp": "2025-11-27T10:00:00.250+00:00",
        "flow": "create_site",
        "request_id": "r-1",
        "tenant": "acme",
        "try": 2,
        "made": ["site 1"],
    }


def test_a_message_stays_text_when_it_looks_like_json(log: StringIO) -> None:
    for message in ("12", "{}", "null", '{"level": "ERROR"}'):
        logger().info(message)
    assert [line["message"] for line in logged(log)] == ["12", "{}", "null", '{"level": "ERROR"}']


def test_a_line_tells_the_trace_that_lambda_names(log: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=3995c3f42cd8ad8;Sampled=1")
    logger().info("answered")
    assert logged(log)[0]["xray_trace_id"] == "1-5759e988-bd862e3fe1be46a994272793"


def test_the_keys_of_the_event_before_are_gone(log: StringIO) -> None:
    bind_log(operation_id="op_1")
    bind_log(flow="create_site")
    logger().info("answered")
    assert "operation_id" not in logged(log)[0]
    assert logged(log)[0]["flow"] == "create_site"


def test_keys_belong_to_one_thread(log: StringIO) -> None:
    together = Barrier(8)

    def handle(number: int) -> None:
        for turn in range(20):
            bind_log(operation_id=f"op_{number}_{turn}")
            together.wait()
            add_to_log(tenant=f"tenant-{number}")
            together.wait()
            logger().info("here", extra={"number": number, "turn": turn})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(handle, range(8)))
    lines = logged(log)
    assert len(lines) == 160
    for line in lines:
        number, turn = line["number"], line["turn"]
        assert (line["operation_id"], line["tenant"]) == (f"op_{number}_{turn}", f"tenant-{number}")


def test_no_value_loses_a_line(log: StringIO) -> None:
    logger().info("odd", extra={"of": {1, 2}, "half": "\ud800"})
    assert (logged(log)[0]["of"], logged(log)[0]["half"]) == ("{1, 2}", "\ud800")
    log.getvalue().encode()


def failed() -> BaseException:
    try:
        try:
            raise ValueError("cause: Wanjiku")
        except ValueError as cause:
            cause.add_note("note: Wanjiku")
            raise VendorError("of customer Wanjiku", vendor="illu") from cause
    except VendorError as error:
        error.add_note("note: Wanjiku")
        return error


def test_a_defect_is_logged_by_kind_and_place_only(log: StringIO) -> None:
    log_defect(failed())
    (line,) = logged(log)
    assert (line["level"], line["message"], line["exception_name"]) == ("ERROR", "defect", "VendorError")
    assert line["stack_trace"]["module"] == "crm_bridge.errors"
    assert re.search(r"test_telemetry\.py:\d+ failed$", line["stack_trace"]["frames"][-1])
    assert "Wanjiku" not in log.getvalue()


def test_no_text_of_an_exception_is_logged_however_it_is_passed(log: StringIO) -> None:
    try:
        raise failed()
    except VendorError as error:
        logger().exception("one")
        logger().error("two", exc_info=True)
        logger().warning("three", exc_info=(type(error), error, error.__traceback__))
        logger().info("four", extra={"exception": str(error)})
    logger().error("five", exc_info=True)  # none is being handled
    assert [line.get("exception_name") for line in logged(log)] == [*["VendorError"] * 3, None, None]
    assert "Wanjiku" not in log.getvalue()


def test_one_handler_is_added_when_two_threads_are_the_first() -> None:
    script = """
import threading, time
from aws_lambda_powertools import Logger
slow = Logger.addHandler
def add(*arguments):
    time.sleep(0.1)
    slow(*arguments)
Logger.addHandler = add
threads = [threading.Thread(target=logger) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
bind_log(flow="f")
logger().info("once")
"""
    (line,) = in_a_process(script).splitlines()
    assert (json.loads(line)["message"], json.loads(line)["flow"]) == ("once", "f")


@pytest.mark.parametrize("variable", ["POWERTOOLS_DEV", "POWERTOOLS_LOG_DEDUPLICATION_DISABLED"])
def test_a_line_is_one_line_whatever_powertools_is_set_to(variable: str) -> None:
    lines = in_a_process("logger().info('one'); count('Defects')", {variable: "true", **NAMESPACE}).splitlines()
    assert [set(json.loads(line)) >= names for line, names in zip(lines, ({"message"}, {"_aws"}), strict=True)]


def test_no_line_of_ours_has_a_member_that_powertools_has_a_use_for() -> None:
    """Of such a one, it takes the value for a format of Python's `%`, or drops it."""
    used = {
        name
        for root in ("functions", "layers/shared/crm_bridge", "local")
        for path in (TEMPLATE.parent / root).rglob("*.py")
        for name in members(ast.parse(path.read_text()))
    }
    assert {"state", "exception_name", "operation_id", "request_id"} <= used
    assert not used & {*RESERVED_LOG_ATTRS, "message", "exception", "exception_notes", "stack_trace", "service"}


def members(tree: ast.AST) -> Iterator[str]:
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        if isinstance(call.func, ast.Name) and call.func.id in ("bind_log", "add_to_log"):
            yield from (keyword.arg for keyword in call.keywords if keyword.arg)
        for keyword in call.keywords:
            if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
                yield from (str(key.value) for key in keyword.value.keys if isinstance(key, ast.Constant))


def test_tells_as_much_as_the_level_says_and_once() -> None:
    script = "import logging; logging.basicConfig(stream=sys.stdout); logger().info('one'); logger().warning('two')"
    messages = [json.loads(line)["message"] for line in in_a_process(script).splitlines()]
    assert messages == ["one", "two"]
    assert '"two"' in in_a_process(script, {"LOG_LEVEL": "WARNING"})
    assert '"one"' not in in_a_process(script, {"LOG_LEVEL": "WARNING"})
    assert in_a_process(script, {"LOG_LEVEL": "CRITICAL"}) == ""
    assert [in_a_process(script, {"LOG_LEVEL": level}).count("\n") for level in ("", "info", "error")] == [2, 2, 0]


def test_a_metric_is_in_cloudwatchs_embedded_format(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = 1000 * time.time()
    count("Operations", flow="create_site", state="waiting")
    measure("OldestDueAge", 61.5, "Seconds")
    counted, measured = map(json.loads, capsys.readouterr().out.splitlines())
    described = {
        "Namespace": "CrmBridge/test",
        "Dimensions": [["flow", "state"]],
        "Metrics": [{"Name": "Operations", "Unit": "Count"}],
    }
    assert counted == {
        "_aws": {"Timestamp": counted["_aws"]["Timestamp"], "CloudWatchMetrics": [described]},
        "Operations": [1.0],
        "flow": "create_site",
        "state": "waiting",
    }
    assert before - 1 <= counted["_aws"]["Timestamp"] <= 1000 * time.time()
    (described,) = measured["_aws"]["CloudWatchMetrics"]
    assert (described["Dimensions"], described["Metrics"]) == ([[]], [{"Name": "OldestDueAge", "Unit": "Seconds"}])
    assert measured["OldestDueAge"] == [61.5]


@pytest.mark.parametrize("namespace", [None, ""])
def test_no_metric_is_printed_where_nobody_reads_it(
    namespace: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POWERTOOLS_METRICS_NAMESPACE")
    if namespace is not None:
        monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", namespace)
    count("Defects")
    assert capsys.readouterr().out == ""


def test_a_defect_is_logged_once_and_counted_once_without_dimensions(
    log: StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "stack-CreateSiteFunction-1A")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "7")
    report_defect(failed())
    assert len(logged(log)) == 1
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["Defects"], line["_aws"]["CloudWatchMetrics"][0]["Dimensions"]) == ([1.0], [[]])


def test_each_metric_has_its_own_dimensions_and_is_written_before_the_function_can_be_killed() -> None:
    script = """
import os, signal
count("Operations", flow="create_site", state="waiting")
count("NeedsReview", reason="in doubt")
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    lines = [json.loads(line) for line in in_a_process(script, NAMESPACE, killed=True).splitlines()]
    dimensions = [line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] for line in lines]
    assert dimensions == [[["flow", "state"]], [["reason"]]]
    assert [line.keys() - {"_aws"} for line in lines] == [{"Operations", "flow", "state"}, {"NeedsReview", "reason"}]


class OneWriteAtATime(StringIO):
    """Lets other threads go on in the middle of what is written in several writes."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        time.sleep(1e-6)
        return len(text)


def test_a_line_is_one_write_when_eight_threads_write(log: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    out = OneWriteAtATime()
    monkeypatch.setattr(sys, "stdout", out)
    handler = logger().handlers[0]
    assert isinstance(handler, StreamHandler)
    handler.setStream(out)

    def write(_: int) -> None:
        for _ in range(50):
            logger().info("answered")
            count("Defects")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    handler.setStream(log)
    assert len(out.writes) == 800
    assert all(isinstance(json.loads(line), dict) and line.endswith("}\n") for line in out.writes)
