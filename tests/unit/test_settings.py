"""A tenant's settings: which addresses of vendors are taken."""

import json

import pytest
from pydantic import ValidationError

from crm_bridge.settings import parse_tenant


def izzitup(base_url: str) -> str:
    settings = parse_tenant(json.dumps({"izzitup": {"base_url": base_url, "user": "u", "password": "p"}}))
    assert settings.izzitup
    return settings.izzitup.base_url


@pytest.mark.parametrize(
    "base_url",
    ["https://status.acme.example", "https://acme.example:8443/status/", "http://127.0.0.1:4000/izzitup"],
)
def test_an_address_is_scheme_host_and_path(base_url: str) -> None:
    assert izzitup(base_url) == base_url.rstrip("/")


@pytest.mark.parametrize(
    "base_url",
    [
        "https://acme.example/?",
        "https://acme.example#",
        "https://acme.example/status?key=1",
        "https://acme.example/status#top",
        "https://user@acme.example",
        "https://@acme.example",
        "https://acme.example/a b",
        "https://acme.example/ü",
        "https://acme.example/\n",
        "https:///status",
        "http://acme.example",
        "ftp://acme.example",
        "//acme.example",
    ],
)
def test_any_other_address_is_refused(base_url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        izzitup(base_url)
