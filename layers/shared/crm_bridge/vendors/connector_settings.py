"""Settings of InTouch's Connector, whose people are saved at Egito: both are in one part of a tenant's document."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, SecretStr, model_validator

from crm_bridge.ids import canonical
from crm_bridge.settings import Generated, Prompt, Settings
from crm_bridge.vendors.egito_settings import EgitoName, Scalar


def _clubs(text: str) -> dict[str, dict[str, str]]:
    pairs = [club.partition("=") for club in text.split(",")]
    return {ours.strip(): {"connector_id": theirs.strip()} for ours, _, theirs in pairs}


class ClubSettings(Settings):
    """A club of the customer."""

    connector_id: Annotated[str, Field(min_length=1, max_length=200)]
    """The Connector's id of the club."""
    fields: dict[EgitoName, Scalar] = {}
    """Values that every record of this club has at Egito, so that clubs can be told apart there."""


class ConnectorSettings(Settings):
    """The agreement with InTouch when a customer is onboarded. The password is an API key, and not stored here.

    Source: "Partner Integration Guide" of InTouch, section "Turnup"; see docs/vendors/egito.md.
    """

    model_config = ConfigDict(title="the InTouch Connector")
    block = "connector"

    client_id: Annotated[
        str, Field(min_length=1, max_length=200), Prompt("Your id of this customer, as InTouch was told it")
    ]
    """Our id of the customer, as agreed with InTouch."""
    clubs: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=100)], ClubSettings],
        Field(min_length=1),
        Prompt("Clubs, as OURS=THEIRS with the Connector's id, separated by commas", _clubs),
    ]
    """By our id of the club, which is in the address of every call: the Connector's id, and fields of its records."""
    user: str = "connector"
    """The user name of the Connector's login by HTTP Basic. Any is accepted; the password is an API key with the scope
    `connector_receiver`."""
    scheme: Literal["https"] = "https"
    """The scheme of this API, as agreed with InTouch."""
    host: str | None = None
    """The host of this API, as agreed with InTouch."""
    match_key: Annotated[SecretStr, Field(min_length=32), Generated(32)]
    """Random HMAC key for the stored hashes of names and e-mail addresses. Never change it: with another key, no known
    person is recognised by name."""
    phone_country: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = None
    """The country of phone numbers without a country code, two letters (ISO 3166), as in PL. Without it,
    +48 601 234 567 and 601 234 567 are two numbers. Set it before the first save."""
    ask_about_namesakes: bool = False
    """Whether a person decides if a new person is the known one of the same name in the same club, where neither an
    e-mail address, nor a mobile number, nor the Connector's id tells them apart. Otherwise a new record is made, with
    a warning."""

    @model_validator(mode="after")
    def _name_each_club_once(self) -> Self:
        theirs = [club.connector_id for club in self.clubs.values()]
        if len(set(theirs)) < len(theirs):
            raise ValueError("two clubs have the same connector_id")
        if any(club_id in theirs and self.clubs[club_id].connector_id != club_id for club_id in self.clubs):
            raise ValueError("one club's id is another's connector_id")
        return self

    def club_fields(self) -> set[str]:
        """Return the fields at Egito by which clubs are told apart."""
        return {name for club in self.clubs.values() for name in club.fields}

    def club(self, club_id: str) -> str | None:
        """Return our id of the club with this id, which may be the Connector's; None if there is none."""
        wanted = canonical(club_id)
        ours = {canonical(club_id): club_id for club_id in self.clubs}
        theirs = {canonical(club.connector_id): club_id for club_id, club in self.clubs.items()}
        return ours.get(wanted, theirs.get(wanted))
