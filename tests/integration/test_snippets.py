"""The calls in docs/reference.html, run as somebody would who copies them."""

import json
import os
import subprocess
import sys
from html import unescape

import pytest

from openapi.calls import KEY, URL, calls
from openapi.page import PAGE
from tests.stack import Stack

SAMPLE = {
    "POST /sites": 201,
    "POST /jobs": 201,
    "POST /key-links": 201,
    "GET /key-links": 200,
    "PUT /services/{service}/status": 200,
    "POST /connector/clubs/{club_id}/prospects": 201,
    "POST /records/{entity}": 201,
    "DELETE /records/{entity}/{id}": 204,
    "GET /links": 200,
    "GET /operations": 200,
    "GET /operations/{id}": 200,
}
"""By route: the status of its call, if all before it were made."""


@pytest.mark.parametrize("language", ["curl", "Python"])
def test_the_snippets_do_what_the_reference_says(stack: Stack, language: str) -> None:
    environment = {**os.environ, URL: stack.url, KEY: stack.api_key}
    page = unescape(PAGE.read_text())
    by_route = {call.route: call for call in calls()}
    for route, status in SAMPLE.items():
        code = by_route[route].snippets[language]
        assert f"<code>{code}</code>" in page
        program = (
            [sys.executable, "-c", code] if language == "Python" else ["sh", "-c", f"{code} -w '\\n%{{http_code}}'"]
        )
        ran = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
        if language == "Python":
            returned, _, body = ran.stdout.strip().partition(" ")
        else:
            body, _, returned = ran.stdout.rpartition("\n")
        assert int(returned) == status, (route, body)
        assert status == 204 or json.loads(body)
