"""OAuth2 tokens, shared by all functions: one of them asks for a new one, the others wait for it and read it.

A token is remembered by each execution environment, and kept as a document of its login. Whoever wants a new one first
writes into that document that it is asking, which only one can. Source: https://www.rfc-editor.org/rfc/rfc6749
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from crm_bridge.errors import NotDoneError, SignInPausedError, SignInRefusedError, StorageError, VendorError
from crm_bridge.outbound.transport import SHORTEST_CALL, Deadline
from crm_bridge.storage.documents import Change, Document, Documents

EARLY = 60_000
"""Milliseconds before its end at which a token is renewed."""
LONGEST_ASKING = 10.0
"""Seconds that asking for a token may take."""
TURN = 15_000
"""Milliseconds after which whoever is asking must have died, and another asks."""
SPARING = 30_000
"""Milliseconds in which a token that was just given, and is not accepted, is not replaced by yet another."""
SOON = 10_000
"""Milliseconds after which a request that brought no token is tried again, if the vendor does not ask for longer."""
LATEST = 15 * 60_000
"""Milliseconds; a vendor's Retry-After is honoured up to this."""
SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
"""Seconds between two looks whether the token has come."""
KEEP = 24 * 3600
"""Seconds after its end for which a token's document is kept."""


@dataclass(frozen=True)
class Grant:
    """The vendor's response to a login. `expires_in`: seconds."""

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Login:
    """One version of an account's credentials at a vendor, and how a token is asked for with them.

    `ask` gets the refresh token, if there is one. It raises SignInPausedError if the vendor refuses the credentials,
    and any other VendorError if nothing came of it.
    """

    name: str
    vendor: str
    ask: Callable[[str | None, Deadline], Grant] = field(repr=False)


class _Kept(BaseModel):
    """The document of a login. All times are epoch milliseconds."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    access_token: str | None = Field(default=None, repr=False)
    refresh_token: str | None = Field(default=None, repr=False)
    renew_at: int = 0
    ends_at: int = 0
    asking_until: int = 0
    not_before: int = 0
    """Until then nobody asks again, because it brought nothing."""
    replaced_at: int = 0
    """When one was asked for last because the vendor did not accept the one before."""
    refused: str | None = None
    """How the vendor refused the credentials. They are never tried again."""

    def offers(self, rejected: str | None) -> str | None:
        return self.access_token if self.access_token != rejected else None


class Tokens:
    """The tokens of all logins. Threads may share it."""

    def __init__(self, documents: Documents, clock: Callable[[], float]) -> None:
        self._documents = documents
        self._clock = clock
        self._remembered: dict[str, _Kept] = {}

    def get(self, login: Login, deadline: Deadline, *, rejected: str | None = None) -> str:
        """Return a token, but not the `rejected` one.

        Raises SignInPausedError if the credentials were refused, SignInRefusedError if a token was rejected that was
        only just given, NotDoneError if none comes in time, StorageError, and what asking for it raises.
        """
        remembered = self._remembered.get(login.name)
        if remembered and (token := remembered.offers(rejected)) and self._now() < remembered.renew_at:
            return token
        pause = SHORTEST_PAUSE
        while True:
            document, now = self._documents.get(login.name), self._now()
            kept = _Kept.model_validate(document.content)
            token = kept.offers(rejected)
            if kept.refused:
                raise _paused(login, kept.refused)
            if token and now < kept.renew_at:
                self._remembered[login.name] = kept
                return token
            if rejected and not token and now < kept.replaced_at + SPARING:
                raise SignInRefusedError(_NOT_ACCEPTED.format(login.vendor), vendor=login.vendor)
            good = token if now < kept.ends_at else None
            if not good and now < kept.not_before:
                raise NotDoneError(
                    f"{login.vendor} gave no token a moment ago",
                    vendor=login.vendor,
                    retry_after=(kept.not_before - now) / 1000,
                )
            if now >= max(kept.asking_until, kept.not_before):
                if deadline.remaining() < SHORTEST_CALL + 1:  # nobody could be asked in that time
                    if good:
                        return good
                    raise NotDoneError(f"no time was left to sign in to {login.vendor}", vendor=login.vendor)
                asking = kept.model_copy(update={"asking_until": now + TURN})
                if self._write(login, document, asking):
                    return self._ask(login, Document(document.version + 1), asking, rejected, deadline)
            elif good:  # somebody renews it early; until then it is as good as ever
                return good
            if deadline.remaining() - pause < 2 * SHORTEST_CALL:
                raise NotDoneError(f"another function is signing in to {login.vendor}", vendor=login.vendor)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _ask(self, login: Login, document: Document, kept: _Kept, rejected: str | None, deadline: Deadline) -> str:
        now = self._now()
        try:
            grant = login.ask(kept.refresh_token, Deadline(min(LONGEST_ASKING, deadline.remaining())))
        except SignInPausedError as error:
            self._settle(login, document, _Kept(refused=error.message))
            raise _paused(login, error.message) from None
        except VendorError as error:
            soon = self._now() + min(max(SOON, int((error.retry_after or 0) * 1000)), LATEST)
            # Next time with the password: it may have been the refresh token.
            changes = {"asking_until": 0, "not_before": soon, "refresh_token": None}
            self._settle(login, document, kept.model_copy(update=changes))
            token = kept.offers(rejected)
            if token and now < kept.ends_at:
                return token
            raise
        lasts = grant.expires_in * 1000
        # A vendor that gives the same token until it ends has nothing new before that, however often it is asked.
        same = grant.access_token == kept.access_token
        fresh = _Kept(
            access_token=grant.access_token,
            refresh_token=grant.refresh_token,
            renew_at=now + (max(lasts, 1000) if same else max(lasts - EARLY, lasts // 2)),
            ends_at=now + lasts,
            replaced_at=now if rejected else kept.replaced_at,
        )
        self._settle(login, document, fresh)
        if grant.access_token == rejected:
            raise SignInRefusedError(_NOT_ACCEPTED.format(login.vendor), vendor=login.vendor)
        self._remembered[login.name] = fresh
        return grant.access_token

    def _settle(self, login: Login, document: Document, kept: _Kept) -> None:
        with suppress(StorageError):  # then the turn ends by itself, and the next one asks again
            self._write(login, document, kept)

    def _write(self, login: Login, document: Document, kept: _Kept) -> bool:
        expires_at = None if kept.refused else max(self._now(), kept.ends_at) // 1000 + KEEP
        return self._documents.write({login.name: Change(document, kept.model_dump(exclude_none=True), expires_at)})

    def _now(self) -> int:
        return int(self._clock() * 1000)


_NOT_ACCEPTED = "{} does not accept the token that it has just given"


def _paused(login: Login, how: str) -> SignInPausedError:
    return SignInPausedError(f"{how}. It is not used again until the tenant's secret changes", vendor=login.vendor)
