"""The settings of a source: how a sender proves itself, and which of its events are which flow's."""

import re
from typing import Annotated, Literal, Self

import jmespath
from pydantic import AfterValidator, AwareDatetime, Field, JsonValue, model_validator

from crm_bridge.errors import InvalidError
from crm_bridge.fields import Schema
from crm_bridge.mapping import FAILURES, LONGEST_EXPRESSION, PayloadMapping, Samples, checked_expression
from crm_bridge.settings import HeaderSecret, LoginPart, Settings, VendorUrl
from crm_bridge.sources.preset import Answer, Preset
from crm_bridge.sources.presets import PRESETS
from crm_bridge.sources.proof import HeaderName, Proof
from crm_bridge.sources.signature import Signature

OF_PROOFS = ("user", "header", "parameter", "organization_id", "url")
"""Settings of which each proof uses some."""


def _key_part(value: str) -> str:
    return value if value.startswith("header:") else checked_expression(value)


def _preset_name(value: str) -> str:
    if value not in PRESETS:
        raise ValueError(f"must be one of {', '.join(sorted(PRESETS))}")
    return value


def _plain_fingerprint(value: str) -> str:
    plain = value.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", plain):
        raise ValueError("must be the SHA-256 fingerprint of a certificate, 64 hexadecimal digits")
    return plain


def _without_escapes(value: str) -> str:
    # HubSpot decodes some of them before it signs.
    if "%" in value:
        raise ValueError("must not contain %")
    return value


type Expression = Annotated[str, Field(min_length=1, max_length=LONGEST_EXPRESSION), AfterValidator(checked_expression)]
type KeyPart = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_key_part)]
type SourceSecret = Annotated[HeaderSecret, Field(min_length=16, max_length=500)]
type SignedUrl = Annotated[VendorUrl, AfterValidator(_without_escapes)]
type Fingerprint = Annotated[str, Field(min_length=64, max_length=95), AfterValidator(_plain_fingerprint)]
"""As `openssl x509 -noout -fingerprint -sha256` shows it; colons and case do not matter."""
type PresetName = Annotated[str, AfterValidator(_preset_name), Schema(enum=sorted(PRESETS))]


class EventRoute(Settings):
    """Which events of a source are events of a flow, and how they become its commands."""

    when: Expression | None = None
    """A JMESPath expression on the event. Default: always. The entry fits if it yields true or a non-empty value."""
    flow: Annotated[str, Field(pattern="^[a-z_]{1,50}$")]
    """The flow of these events."""
    version: Annotated[str, Field(min_length=1, max_length=50)]
    """The tenant's name for this version of the expression. Every operation has the version that made it."""
    expression: Expression
    """A JMESPath expression on the event that yields the flow's command."""
    samples: Samples = Field(default_factory=dict)
    """By name: events, each with the command that the expression must make of it."""
    stored_at: AwareDatetime | None = Field(default=None, exclude=True)
    """Written by the command line: when this version was stored."""

    def fits(self, payload: JsonValue) -> bool:
        """Return whether the event is one of this flow. Raises InvalidError if `when` fails on it."""
        if self.when is None:
            return True
        try:
            found = jmespath.search(self.when, payload)
        except FAILURES as error:
            raise InvalidError(
                f"Correct when of the event for {self.flow}: it fails on what was sent ({type(error).__name__})."
            ) from None
        return bool(found) or (found == 0 and found is not False)  # JMESPath: 0 is true

    @property
    def mapping(self) -> PayloadMapping:
        """Return the mapping that makes the flow's command."""
        return PayloadMapping(
            version=self.version, expression=self.expression, samples=self.samples, stored_at=self.stored_at
        )


class SourceSettings(Settings):
    """One sender that cannot shape its requests for the bridge's own routes."""

    preset: PresetName
    """The kind of sender."""
    proof: str | None = None
    """How the sender proves who it is. Default: the first proof of the preset."""
    secrets: Annotated[tuple[SourceSecret, ...], Field(min_length=1, max_length=2)]
    """One or two secrets of at least 16 characters, for the proof. Two are valid while one is replaced."""
    user: LoginPart | None = None
    """The user name of a login by HTTP Basic. The secret is its password."""
    header: HeaderName | None = None
    """The header that has the secret or the signature, in lower case. Default: the preset's."""
    parameter: Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,50}$")] | None = None
    """The parameter, or the member of the body, that has the secret. Default: the preset's."""
    organization_id: Annotated[str, Field(pattern="^[A-Za-z0-9]{15}([A-Za-z0-9]{3})?$")] | None = None
    """The id of the sender's organization at Salesforce, 15 or 18 characters."""
    certificates: Annotated[tuple[Fingerprint, ...], Field(max_length=2)] = ()
    """SHA-256 fingerprints of client certificates. The sender must use one of them, in addition to its proof."""
    signature: Signature | None = None
    """The scheme by which an own system signs its requests."""
    url: SignedUrl | None = None
    """The address exactly as it was typed into the sender. Some signatures cover it."""
    events: Annotated[tuple[EventRoute, ...], Field(min_length=1, max_length=50)]
    """For each event, the first entry that fits counts. An event that fits none is ignored."""
    key: Annotated[tuple[KeyPart, ...], Field(min_length=1, max_length=10)] | None = None
    """The event's key at the sender: JMESPath expressions on the event, and `header:NAME`. If a part is missing, a hash
    of the event is used. Default: the preset's."""
    answer: Answer | None = None
    """The response once the events are stored: `async 200`, `async 202` or `soap ack`. Default: the preset's first."""
    invalid: Literal["quarantine", "refuse"] = "quarantine"
    """Whether an invalid event is put in quarantine and its request answered as accepted, or the request refused."""
    tolerance: Annotated[int, Field(ge=60, le=900)] = 300
    """Seconds by which a signed time may differ from the bridge's."""

    def preset_class(self) -> type[Preset]:
        return PRESETS[self.preset]

    def proof_used(self) -> Proof:
        proofs = self.preset_class().proofs
        return self.signature or proofs[self.proof or next(iter(proofs))]

    def answer_used(self) -> Answer:
        return self.answer or self.preset_class().answers[0]

    @model_validator(mode="after")
    def _fits_the_preset(self) -> Self:
        preset = self.preset_class()
        if self.proof is not None and self.proof not in preset.proofs:
            raise ValueError(f"proof must be one of {', '.join(preset.proofs)}")
        if self.signature is not None and (self.proof is not None or not preset.may_sign):
            raise ValueError("signature is for an own system only, and instead of proof")
        if self.answer is not None and self.answer not in preset.answers:
            raise ValueError(f"answer must be one of {', '.join(preset.answers)}")
        proof = self.proof_used()
        given = {name for name in OF_PROOFS if getattr(self, name) is not None}
        if missing := sorted(proof.needs - given):
            raise ValueError(f"this proof needs {', '.join(missing)}")
        if needless := sorted(given - proof.needs - proof.takes - {"url"}):
            raise ValueError(f"this proof does not use {', '.join(needless)}")
        if len({secret.get_secret_value() for secret in self.secrets}) < len(self.secrets):
            raise ValueError("the two secrets are the same")
        for secret in self.secrets:
            proof.check(secret.get_secret_value())
        return self
