"""Requests of senders: the samples of the presets, with the proof of a source."""

import base64
from dataclasses import replace
from datetime import UTC, datetime

from crm_bridge.sources import Incoming, SourceSettings
from crm_bridge.sources.proof import Basic, BodyToken, Header, Organization, Query
from crm_bridge.sources.signature import Signature


def sample(settings: SourceSettings, now: float) -> Incoming:
    """Return the sample of a source's preset, proved at a time in epoch seconds."""
    preset = settings.preset_class()
    return prove(settings, Incoming("POST", preset.sample_headers, {}, preset.sample), now)


def prove(settings: SourceSettings, incoming: Incoming, now: float) -> Incoming:
    """Return the request with the proof of its source, by the first of the secrets."""
    proof, secret = settings.proof_used(), settings.secrets[0].get_secret_value()
    headers, query = dict(incoming.headers), dict(incoming.query)
    match proof:
        case Signature():
            return _sign(settings, proof, secret, incoming, now)
        case Header():
            headers[settings.header or proof.name] = proof.prefix + secret
        case Basic():
            headers["authorization"] = "Basic " + base64.b64encode(f"{settings.user}:{secret}".encode()).decode()
        case Query(name=name) | Organization(query=Query(name=name)):
            query[settings.parameter or name] = secret
        case BodyToken():
            return replace(incoming, body=_with_token(incoming, settings.parameter or proof.name, secret))
    return replace(incoming, headers=headers, query=query)


def _sign(settings: SourceSettings, proof: Signature, secret: str, incoming: Incoming, now: float) -> Incoming:
    stamps = {"s": str(int(now)), "ms": str(int(now * 1000)), "iso": datetime.fromtimestamp(now, UTC).isoformat()}
    stamp = stamps[proof.unit] if proof.timestamp else ""
    headers, items = dict(incoming.headers), []
    if proof.timestamp and proof.timestamp.endswith("="):
        items = [proof.timestamp + stamp]
    elif proof.timestamp:
        headers[proof.timestamp] = stamp
    signed = proof.signed(secret, settings.url or "", incoming, stamp)
    if signed is None:
        raise ValueError("a part of what is signed is missing")
    items.append(proof.prefix + proof.sign(secret, signed))
    headers[settings.header or proof.header] = proof.several.join(items)
    return replace(incoming, headers=headers)


def _with_token(incoming: Incoming, name: str, secret: str) -> bytes:
    if incoming.headers["content-type"].startswith("application/json"):
        return incoming.body.rstrip().removesuffix(b"}") + f', "{name}": "{secret}"}}'.encode()
    return incoming.body + f"&{name}={secret}".encode()
