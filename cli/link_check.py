"""`crm-bridge links check`: whether the vendors still hold what is linked. Nothing is changed."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from cli.bridge import Bridge
from cli.command import Name, NotAllWellError
from cli.links import JOB, SITE, StoredLink, stored
from cli.progress import progress_of
from connector_receiver.saves import SavePerson
from create_site.flow import CreateSite
from crm_bridge import Flow, Vendor
from crm_bridge.errors import CannotLookError, NoSuchRecordError, VendorError
from crm_bridge.ids import canonical
from crm_bridge.links import Identity
from crm_bridge.transport import Deadline
from crm_bridge.vendors.egito_settings import EgitoSettings
from crm_bridge.vendors.illu import Illu, IlluSettings
from crm_bridge.vendors.revio import RevioSettings
from key_link.flow import CreateKeyLink

PATIENCE = 25.0
"""Seconds for one question to a vendor."""
LONGEST_READING = 600.0
"""Seconds for all key links of an account, of which Rev.io gives 500 at a time."""
GENTLE = 120


@dataclass(frozen=True)
class Disagreement:
    vendor: str
    record: str
    what: str


def check(
    bridge: Bridge,
    name: Name,
    rate: Annotated[int, typer.Option(min=1, help="Questions a minute to Egito.")] = GENTLE,
) -> None:
    """Compare a tenant's links with what its vendors hold, and list what disagrees. Nothing is changed."""
    settings, output = bridge.tenant(name), bridge.output
    vendors = _Vendors(bridge, name, rate)
    links = list(stored(bridge, name))
    checks: dict[str, Iterator[Disagreement]] = {}
    if settings.of(IlluSettings):
        checks["illu"] = vendors.illu(links)
    if settings.of(RevioSettings):
        checks["Rev.io"] = vendors.revio(links)
    if egito := settings.of(EgitoSettings):
        checks["Egito"] = vendors.egito(links, egito)
    found: list[Disagreement] = []
    not_checked: dict[str, str] = {}
    failed: VendorError | None = None
    for vendor, disagreements in checks.items():
        try:
            for one in disagreements:  # one by one, so that those before a failure are kept
                found.append(one)  # noqa: PERF402
        except CannotLookError as error:
            not_checked[vendor] = error.message
        except VendorError as error:
            not_checked[vendor] = f"only in part: {error.message}"
            failed = error
    output.document({"links": len(links), "not_checked": not_checked, "disagreements": [asdict(one) for one in found]})
    output.table(("vendor", "record", "what disagrees"), [(one.vendor, one.record, one.what) for one in found])
    for vendor, why in not_checked.items():
        output.line(f"{vendor} was not checked: {why}", style="yellow")
    output.line(f"Links: {len(links):,}, of which {len(found):,} disagree with a vendor.")
    if failed:
        raise failed
    if found:
        raise NotAllWellError


@dataclass(frozen=True)
class _Vendors:
    """Each says what it does not hold as it is linked. Raises VendorError."""

    bridge: Bridge
    tenant: str
    rate: int

    def illu(self, links: Sequence[StoredLink]) -> Iterator[Disagreement]:
        """Ask for each list once. A list that is asked by name is of no use: the bridge keeps no names."""
        of_illu = {
            kind: [one for one in links if one.left.system == "crm" and (one.right.system, one.right.entity) == kind]
            for kind in (SITE, JOB)
        }
        for kind, there in ((SITE, self._sites), (JOB, self._jobs)):
            ids = there() if of_illu[kind] else set()
            for one in of_illu[kind]:
                if one.right.id not in ids:
                    what = f"illu does not list it any more; it is linked to {one.left.entity} {one.left.id}"
                    yield Disagreement("illu", f"{one.right.entity} {one.right.id}", what)

    def _sites(self) -> set[str]:
        def ids(illu: Illu) -> set[str]:
            illu.expect_all_sites()
            return {str(one.site_id) for one in illu.list_sites(name="")}

        return self._ask(CreateSite, ids)

    def _jobs(self) -> set[str]:
        def ids(illu: Illu) -> set[str]:
            illu.expect_all_jobs()
            return {one.job_id for one in illu.list_jobs(name="")}

        return self._ask(CreateSite, ids)

    def revio(self, links: Sequence[StoredLink]) -> Iterator[Disagreement]:
        tied: dict[str, set[str]] = {}
        for one in links:
            for end, other in ((one.left, one.right), (one.right, one.left)):
                if (end.system, end.entity) == ("revio", "key_link"):
                    tied.setdefault(end.id, set()).add(canonical(other.id))
        there = self._ask(
            CreateKeyLink,
            lambda revio: {str(one.id): one for one in revio.key_links({})},
            patience=LONGEST_READING,
        )
        for key_link_id, ids in sorted(tied.items()):
            record = there.get(key_link_id)
            if record is None:
                yield Disagreement("Rev.io", f"key link {key_link_id}", "Rev.io no longer has it")
            elif ids != {str(record.internal_id), canonical(record.external_id)}:
                yield Disagreement("Rev.io", f"key link {key_link_id}", "Rev.io says another pair of it")

    def egito(self, links: Sequence[StoredLink], settings: EgitoSettings) -> Iterator[Disagreement]:
        here = urlsplit(settings.base_url).netloc.casefold()
        # A link has the entity's name in small letters; Egito may tell the two apart.
        entities = {its_map.entity.casefold(): its_map.entity for its_map in (settings.prospects, settings.members)}
        ends = [end for one in links for end in (one.left, one.right) if end.system == here and end.entity in entities]
        for end in self._in_turn("Egito", ends):
            if not self._is_shown(entities[end.entity], end):
                yield Disagreement("Egito", f"{entities[end.entity]} {end.id}", "Egito no longer shows it")

    def _is_shown(self, entity: str, record: Identity) -> bool:
        try:
            self._ask(SavePerson, lambda egito: egito.record(entity, record.id))
        except NoSuchRecordError:
            return False
        return True

    def _ask[V: Vendor[Any], T](
        self, flow: type[Flow[Any, V, Any]], question: Callable[[V], T], *, patience: float = PATIENCE
    ) -> T:
        engine = self.bridge.runtime.engine
        return engine.ask(engine.bind(flow, self.tenant, Deadline(patience)), question)

    def _in_turn[T](self, vendor: str, items: Sequence[T]) -> Iterator[T]:
        """So many a minute, so that live traffic goes on."""
        with progress_of(self.bridge.output, f"asking {vendor}", len(items)) as progress:
            for number, item in enumerate(items):
                if number:
                    time.sleep(60 / self.rate)
                yield item
                progress.advance("asked")
