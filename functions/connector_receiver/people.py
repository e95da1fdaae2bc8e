"""People: who it is that the Connector sends, and the id by which it is told of them for ever.

A person is known by our id, else by the Connector's, else by name with e-mail or mobile, as the Connector itself
recognises people. Names and addresses are kept as keyed hashes only; changing what compares equal changes the hashes.
"""

import hashlib
import hmac
import html
import re
import unicodedata
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crm_bridge.errors import StorageError
from crm_bridge.fields import normalized
from crm_bridge.storage.documents import Change, Document, Documents
from crm_bridge.storage.dynamodb import Reading
from crm_bridge.storage.links import Cardinality, Identity, Link, Links, joined

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

MOST_TRIES = 30
"""So often others may be quicker in writing what was read."""
MOST_NAMESAKES = 1000
"""People of one name in one club among whom a person is looked for: their document must stay far below the 400 KB that
the table takes. Everybody else of this name is recognised by ids only."""


@dataclass(frozen=True)
class Traits:
    """Hashes by which a person is recognised. None is "not sent", an empty text "there is none"."""

    name: str
    email: str | None = field(repr=False)
    mobile: str | None = field(repr=False)


@dataclass(frozen=True)
class Recognised:
    """`several`: more than one person fits, so this is taken for yet another.

    `namesake`: somebody of this name is known in the club, and nothing that was sent tells the two apart.
    `crowded`: too many people of this name are known, so this one is not looked for by name.
    `writes` returns what is to be stored of the person, for the transaction that claims the operation with this id. It
    fails if somebody has written any of it since it was read.
    """

    person_id: str
    known: bool
    several: bool = False
    namesake: bool = False
    crowded: bool = False
    writes: "Callable[[str], Sequence[TransactWriteItemTypeDef]]" = field(
        default=lambda _: (), compare=False, repr=False
    )


class Hasher:
    """Makes keyed hashes of names, addresses and numbers, the same for all forms that compare equal.

    `country`: the country of a phone number that names none, two letters.
    """

    def __init__(self, key: str, country: str | None = None) -> None:
        self._key = key.encode()
        self._country = country

    def traits(self, fields: Mapping[str, str]) -> Traits:
        """Return what is compared. Case, spaces, apostrophes and the way in which a number is written do not count."""
        email, mobile = fields.get("email"), fields.get("mobile")
        return Traits(
            name=self._hashed("name", _plain(fields["firstname"] + fields["lastname"])),
            email=None if email is None else self._hashed("email", _plain(email)),
            mobile=None if mobile is None else self._hashed("mobile", _number(mobile, self._country)),
        )

    def person_id(self, tenant: str, club_id: str, connector_id: str) -> str:
        """Return the id that a person gets who is first seen with an id of the Connector's."""
        return f"p_{self._hashed('person', joined(tenant, club_id, connector_id))}"

    def _hashed(self, kind: str, text: str) -> str:
        """Return the keyed hash of a text; empty for an empty text."""
        return hmac.digest(self._key, f"{kind}\0{text}".encode(), hashlib.sha256).hex()[:32] if text else ""


@dataclass(frozen=True)
class People:
    """The people of one club of a tenant. Raises StorageError.

    A club's people of one name are one document, so that two functions that meet somebody new at once agree on an id.
    """

    documents: Documents
    links: Links
    tenant: str
    club_id: str
    clock: Callable[[], float]
    is_undecided: Callable[[str], bool] | None = None
    """Whether a person's record waits for a decision. None: nobody is asked about people of the same name."""
    also: Callable[[str], Sequence[Reading[Any]]] = lambda _: ()
    """Returns the readings that go along with the person who has an id."""
    besides: Sequence[Reading[Any]] = ()
    """Readings that go along with every person."""

    def look(
        self,
        traits: Traits,
        *,
        person_id: str | None,
        connector_id: str | None,
        derived_id: str | None = None,
        again: bool = False,
    ) -> Recognised | None:
        """Return who it is; somebody new gets an id. None: there is nobody with this `person_id`.

        `derived_id` is probably the id of the person with this `connector_id`, and becomes the id of somebody new who
        has one, unless anything is left of a person who had it and was erased. `again`: what was read at first was
        changed meanwhile.
        """
        names = self.documents.reading(self._name_key(self.club_id, traits.name))
        links = [self._link(connector_id)] if connector_id else []
        read_id = person_id or derived_id
        person = self._reading(read_id) if read_id else []
        self.documents.read_at_once(names, *links, *person, *self.besides)
        linked_id = next((one.value.id for one in links if one.value), None)
        known_id, several, namesake = person_id or linked_id, False, False
        if known_id is None:
            known_id, several, namesake = self._by_name(names.value, traits, connector_id)
        of_id = known_id or self._new_id(derived_id, person)
        if of_id != read_id:
            person = self._reading(of_id)
            if known_id:
                self.documents.read_at_once(*person)
        document: Document = person[0].value
        if person_id and not document.version:
            return None
        before = document.content
        bind = connector_id if connector_id not in before.get("connector_ids", ()) else None
        if person_id and linked_id:
            bind = None  # it is somebody else's; our own id counts
        after = {
            "club_id": self.club_id,
            "name": traits.name,
            "email": before.get("email", "") if traits.email is None else traits.email,
            "mobile": before.get("mobile", "") if traits.mobile is None else traits.mobile,
            "connector_ids": [*before.get("connector_ids", ()), *([bind] if bind else [])],
            "one_of_several": several or before.get("one_of_several", False),
            "asked": (namesake and self.is_undecided is not None) or before.get("asked", False),
        }
        if after == before:
            return Recognised(of_id, known_id is not None, several, namesake)
        changes, left, crowded = self._changes(of_id, document, after, names.value, again=again)

        def writes(operation_id: str) -> "Sequence[TransactWriteItemTypeDef]":
            link = Link(Identity("intouch", "person", bind or ""), identity(of_id), cardinality=Cardinality.MANY_TO_ONE)
            puts = self.links.puts(self.tenant, [link], operation_id, self.clock()) if bind else ()
            leaves = [self.documents.removing(left, of_id, operation_id)] if left else []
            return [*self.documents.writes(changes, operation_id), *leaves, *puts]

        return Recognised(of_id, known_id is not None, several, namesake or crowded, crowded, writes)

    def erase(self, person_id: str) -> bool:
        """Erase what a person is recognised by; the same person sent again is somebody new. False if not found."""
        for _ in range(MOST_TRIES):
            person = self.documents.get(self._person_key(person_id))
            if not person.version:
                return False
            key = self._name_key(person.content["club_id"], person.content["name"])
            namesakes = self.documents.get(key)
            others = {one: traits for one, traits in namesakes.content.items() if one != person_id}
            changes = {self._person_key(person_id): Change(person, None)}
            if others != namesakes.content:
                changes[key] = Change(namesakes, others or None)
            if self.documents.write(changes):
                return True
        raise StorageError("Too many saves of people with this name at once. Send the same request again.")

    def _reading(self, person_id: str) -> list[Reading[Any]]:
        """Return all that is read of a person, the document first."""
        return [self.documents.reading(self._person_key(person_id)), *self.also(person_id)]

    def _by_name(self, names: Document, traits: Traits, connector_id: str | None) -> tuple[str | None, bool, bool]:
        """Return who of this name it is, if it is one of them; whether several fit, and whether somebody is alike."""
        fitting = _fitting(names.content, traits, connector_id)
        if fitting:
            return (fitting[0] if len(fitting) == 1 else None), len(fitting) > 1, False
        alike = _alike(names.content, traits, connector_id)
        return self._asked_about(alike), False, bool(alike)

    @staticmethod
    def _new_id(derived_id: str | None, read: Sequence[Reading[Any]]) -> str:
        """Return the id of somebody new: another than the derived one, if anything is left of somebody who had that."""
        if derived_id and not any(one.item for one in read):
            return derived_id
        return f"p_{uuid.uuid4().hex}"

    def _asked_about(self, alike: Mapping[str, Any]) -> str | None:
        """Return the person of this name whom a decision waits for: the same save sent again is the same question."""
        if self.is_undecided is None:
            return None
        return next((one for one, told in alike.items() if told.get("asked") and self.is_undecided(one)), None)

    def _changes(
        self, person_id: str, person: Document, after: Mapping[str, Any], namesakes: Document, *, again: bool
    ) -> tuple[dict[str, Change], str | None, bool]:
        """Return what is to be written; which document the person is to be taken out of, unread; and whether there is
        no place for the person among those of this name."""
        changes, before = {self._person_key(person_id): Change(person, after)}, person.content
        key, left = self._name_key(self.club_id, after["name"]), None
        crowded = len(namesakes.content) >= MOST_NAMESAKES and person_id not in namesakes.content
        if not crowded:
            told = {name: after[name] for name in ("email", "mobile", "one_of_several", "asked")}
            entry = {**told, "linked": bool(after["connector_ids"])}
            changes[key] = Change(namesakes, {**namesakes.content, person_id: entry})
        if before and (old := self._name_key(before["club_id"], before["name"])) != key:
            left = old
            if again:  # there may be no such document
                others = self.documents.get(old)
                content = {one: told for one, told in others.content.items() if one != person_id}
                changes[old], left = Change(others, content), None
        return changes, left, crowded

    def _link(self, connector_id: str) -> Reading[Identity | None]:
        return self.links.reading(self.tenant, Identity("intouch", "person", connector_id), *PERSON)

    def _person_key(self, person_id: str) -> str:
        return joined(self.tenant, "person", person_id)

    def _name_key(self, club_id: str, name: str) -> str:
        return joined(self.tenant, "name", club_id, name)


PERSON = ("connector", "person")


def identity(person_id: str) -> Identity:
    return Identity(*PERSON, person_id)


def _fitting(namesakes: Mapping[str, Any], traits: Traits, connector_id: str | None) -> list[str]:
    """Return those of one name with the same e-mail and mobile, else with the same e-mail, else with the same mobile.

    Whoever has another id at the Connector is somebody else, however alike.
    """
    possible = {one: told for one, told in namesakes.items() if not (connector_id and told["linked"])}
    for wanted in (("email", "mobile"), ("email",), ("mobile",)):
        values = {trait: getattr(traits, trait) for trait in wanted}
        if all(values.values()):
            fitting = [one for one, told in possible.items() if all(told[trait] == values[trait] for trait in wanted)]
            if len(fitting) > 1 and not connector_id:
                # Sent without an id once more: then it is the one that was sent so before, if that can be told.
                unlinked = [one for one in fitting if not possible[one]["linked"]]
                return (
                    unlinked
                    if len(unlinked) == 1
                    else [one for one in unlinked if possible[one]["one_of_several"]] or fitting
                )
            if fitting:
                return fitting
    return []


def _alike(namesakes: Mapping[str, Any], traits: Traits, connector_id: str | None) -> dict[str, Any]:
    """Return those of one name whom neither an e-mail, nor a mobile, nor the Connector's id tells from this person."""
    return {
        one: told
        for one, told in namesakes.items()
        if not (connector_id and told["linked"])
        and not (traits.email and told["email"])
        and not (traits.mobile and told["mobile"])
    }


_APOSTROPHES = str.maketrans(
    dict.fromkeys(
        "'\"`\\\u00b4\u2018\u2019\u201a\u201b\u2032\u2035\u02b9\u02bb\u02bc\u02bd\u02c8\u02ca\u02cb\u055a\u05f3\ua78c\uff07\uff40"
    )
)
"""A name is written with any of them, escaped, or without one, whichever system it went through."""
_TURKISH = str.maketrans({"\u0131": "i", "\u0307": None})
"""The dotless i, and the dot that is left of a capital İ in lower case."""


def _plain(text: str) -> str:
    """Return a name or an address without what systems change on its way; the tests show what compares equal."""
    for _ in range(3):  # escaped twice is frequent: O&amp;#39;Brien
        text = html.unescape(text)
    text = "".join(character for character in text if unicodedata.category(character) != "Cf").translate(_APOSTROPHES)
    text = normalized(normalized(text, "NFKC").casefold(), "NFKC")
    return "".join(text.translate(_TURKISH).split())


def _number(text: str, country: str | None) -> str:
    """Return a number's digits with its country's in front, if they are sent or a `country` is given.

    A number that cannot be one of that country is compared digit by digit.
    """
    text = normalized(text, "NFKC").replace("(0)", "")  # of a country's own prefix: +44 (0)20
    digits = "".join(str(unicodedata.decimal(character)) for character in text if character.isdecimal())
    plus = "+" if re.match(r"\D*\+", text) else ""
    if not plus and digits.startswith("00"):
        plus, digits = "+", digits[2:]
    if not country or not digits:
        return digits
    import phonenumbers  # takes long to import, and only what recognises people needs it

    # Sent without a plus, it may begin with the country all the same: 48 601 234 567.
    calling_code = str(phonenumbers.country_code_for_region(country))
    in_full = f"+{digits}" if plus or digits.startswith(calling_code) else ""
    possible = []
    for written in filter(None, (in_full, "" if plus else digits, digits.removeprefix("0"))):
        try:
            parsed = phonenumbers.parse(written, country)
        except phonenumbers.NumberParseException:
            continue
        found = f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}"
        if phonenumbers.is_valid_number(parsed):
            return found
        if phonenumbers.is_possible_number(parsed):
            possible.append(found)
    return possible[0] if possible else digits
