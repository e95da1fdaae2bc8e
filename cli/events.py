"""Events in files: read as the API reads a body, and sent to it with an API key."""

import json
import os
import sys
from collections.abc import Mapping
from http.client import responses
from operator import attrgetter
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import requests
import typer
from pydantic import JsonValue
from requests.auth import AuthBase

from cli.bridge import LOCAL_HOSTS, Bridge
from cli.command import ExitCode, WrongInputError
from cli.flows import flow_names
from cli.settings import read_document
from crm_bridge.errors import InvalidError, UnavailableError
from crm_bridge.inbound.api import JSON, MAX_BODY, REQUEST_ID, once
from operations.flows import flows

KEY = "CRM_BRIDGE_API_KEY"
TIMEOUT = (10, 40)
"""Seconds to connect, and to wait for the response; API Gateway gives up after 30."""
LARGEST_SHOWN = 100_000
"""Characters of a response."""


def read_event(file: Path) -> JsonValue:
    """Return the JSON in a file. Raises WrongInputError if the API would not accept it, and repeats nothing of it."""
    text = read_document(file)
    if len(text.encode()) > MAX_BODY:
        raise WrongInputError(f"{file} is larger than the {MAX_BODY:,} bytes that the API accepts.")
    try:
        parsed: JsonValue = json.loads(text, object_pairs_hook=once, parse_constant=_refuse)
    except InvalidError as error:
        raise WrongInputError(f"{file} cannot be used.", error.fields) from None
    except json.JSONDecodeError as error:
        raise WrongInputError(
            f"{file} is not valid JSON: {error.msg}, line {error.lineno}, column {error.colno}."
        ) from None
    except (ValueError, RecursionError):
        raise WrongInputError(f"{file} is not JSON that the API accepts.") from None
    return parsed


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def send(
    bridge: Bridge,
    flow: Annotated[str, typer.Argument(help="The flow: create_site, ...", **flow_names(attrgetter("event_route")))],
    file: Annotated[Path, typer.Argument(help="The event as JSON, as the CRM sends it; - for standard input.")],
    path: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A part of the path, as service=MAIL.")
    ] = None,
    later: Annotated[bool, typer.Option("--later", help="Only store it: respond with 202, and send it then.")] = False,
    url: Annotated[
        str | None, typer.Option(help="The API's address, if not the stack's.", envvar="CRM_BRIDGE_URL")
    ] = None,
) -> None:
    """Send an event to the API, and print the response. The same event may be sent again: it has one effect.

    The API key is read from CRM_BRIDGE_API_KEY, or asked for and not shown.
    """
    method, _, pattern = flows()[flow].event_route.partition(" ")
    where = _filled(pattern, dict(one.partition("=")[::2] for one in path or []))
    body = json.dumps(read_event(file)).encode()
    address = _checked(url or bridge.api_url)
    headers = {"Content-Type": JSON, **({"Prefer": "respond-async"} if later else {})}
    try:
        response = requests.request(
            method, address + where, data=body, headers=headers, auth=_Bearer(_key()), timeout=TIMEOUT,
            allow_redirects=False,
        )  # fmt: skip
    except requests.RequestException as error:
        raise UnavailableError(
            f"No response from {address} ({type(error).__name__}). The event may have arrived. Run the same command "
            "again: it has no second effect."
        ) from None
    _print(bridge, response)


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    """Return the path with these values in it. Raises WrongInputError."""
    wanted = [part[1:-1] for part in pattern.split("/") if part.startswith("{")]
    if set(wanted) != set(values) or not all(values.values()):
        needed = " ".join(f"--path {name}=..." for name in wanted) or "no --path"
        raise WrongInputError(f"This flow's route is {pattern}. Give {needed}.")
    return pattern.format(**{name: quote(value, safe="") for name, value in values.items()})


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS):
        raise WrongInputError("The address must begin with https://, because the API key is sent there.")
    return url.rstrip("/")


class _Bearer(AuthBase):
    """Sets the header by itself, so that no login in ~/.netrc takes its place."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _key() -> str:
    """Return the API key. It is never an argument: those stay in the shell's history."""
    key = os.environ.get(KEY, "").strip()
    if not key and sys.stdin.isatty():
        key = str(typer.prompt("API key", hide_input=True, err=True)).strip()
    if not key or not key.isascii() or not key.isprintable():
        raise WrongInputError(f"Set {KEY} to an API key of the tenant. Nothing was sent.")
    return key


def _print(bridge: Bridge, response: requests.Response) -> None:
    """Print the response, and raise Exit with its exit code."""
    try:
        body = response.json() if response.content else None
    except ValueError:
        body = response.text[:LARGEST_SHOWN]
    request_id = response.headers.get(REQUEST_ID, "")
    bridge.output.document({"status": response.status_code, "request_id": request_id, "body": body})
    bridge.output.line(
        f"{response.status_code} {responses.get(response.status_code, '')}".strip(),
        style="green" if response.ok else "bold red",
    )
    if body is not None:
        text = body if isinstance(body, str) else json.dumps(body, indent=2, ensure_ascii=False)
        bridge.output.line(text[:LARGEST_SHOWN])
    if response.status_code >= 300:
        may_succeed = response.status_code >= 500 or (isinstance(body, dict) and body.get("retryable") is True)
        raise typer.Exit(ExitCode.UNAVAILABLE if may_succeed else ExitCode.NOT_ALL_WELL)
