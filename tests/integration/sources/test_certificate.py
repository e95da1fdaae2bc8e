"""A source that names its sender's client certificates takes requests with one of them only."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local.gateway import invoke
from tests.integration.conftest import rows
from tests.integration.sources.conftest import SECRET, SOURCE, Sender, company


def made(name: str) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


OURS, RENEWED, STRANGE = made("proxy.example"), made("proxy.example"), made("proxy.example")


def fingerprint(certificate: x509.Certificate) -> str:
    """Return it as OpenSSL prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def status_of(sender: Sender, authentication: object, secret: str = SECRET) -> int:
    """Send an event as API Gateway hands it on, with what it says of the client's certificate."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "POST /in/{tenant}/{source}",
        "rawPath": "/in/demo/crm",
        "pathParameters": {"tenant": "demo", "source": "crm"},
        "headers": {"content-type": "application/json", "x-api-key": secret},
        "requestContext": {"http": {"method": "POST", "path": "/in/demo/crm"}, "authentication": authentication},
        "body": json.dumps([company(1)]),
        "isBase64Encoded": False,
    }
    response = invoke(sender.crm.stack.template.functions["SourcesFunction"], event)
    status: int = response["statusCode"]
    return status


def of(text: object) -> dict[str, object]:
    return {"clientCert": {"clientCertPem": text, "subjectDN": "CN=proxy.example", "serialNumber": "1"}}


@pytest.fixture
def guarded(sender: Sender) -> Sender:
    sender.use({**SOURCE, "certificates": [fingerprint(OURS), fingerprint(RENEWED)]})
    return sender


@pytest.mark.parametrize("certificate", [OURS, RENEWED])
def test_accepted_when_the_certificate_is_one_of_the_source(guarded: Sender, certificate: x509.Certificate) -> None:
    assert status_of(guarded, of(pem(certificate))) == 200
    assert len(rows("OPERATIONS_TABLE")) == 1


@pytest.mark.parametrize(
    "authentication",
    [
        None,
        {},
        {"clientCert": {}},
        of(""),
        of("proxy.example"),
        of(fingerprint(OURS)),
        of("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----"),
        of(pem(STRANGE)),
        of(pem(STRANGE) + pem(OURS)),
    ],
    ids=range(9),
)
def test_refused_when_the_certificate_is_missing_malformed_or_another(guarded: Sender, authentication: object) -> None:
    assert status_of(guarded, authentication) == 401
    assert rows("OPERATIONS_TABLE") == rows("REQUESTS_TABLE") == []


def test_refused_when_only_the_certificate_is_right(guarded: Sender) -> None:
    assert status_of(guarded, of(pem(OURS)), "another-secret-of-that-length") == 401


def test_accepted_with_any_certificate_when_the_source_names_none(sender: Sender) -> None:
    assert status_of(sender, of(pem(STRANGE))) == 200
