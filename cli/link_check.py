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
from crm_bridge.outbound.transport import Deadline
from crm_bridge.outbound.vendor import PATIENCE
from crm_bridge.settings import Tenant
from crm_bridge.vendors.egito_settings import EgitoSettings
from crm_bridge.vendors.illu import Illu, IlluSettings
from crm_bridge.vendors.revio import RevioSettings
from key_link.flow import CreateKeyLink

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
    rate: Annotated[int, typer.Option(min=1, help="Requests a minute to Egito.")] = GENTLE,
) -> None:
    """Compare a tenant's links with the records of its vendors, and list what disagrees. Nothing is changed."""
    settings, output = bridge.tenant(name), bridge.output
    check = _Check(bridge, name, settings, list(stored(bridge, name)), rate)
    found: list[Disagreement] = []
    not_checked: dict[str, str] = {}
    failed: VendorError | None = None
    checks = (("illu", IlluSettings, check.illu), ("Rev.io", RevioSettings, check.revio))
    for vendor, model, disagreements in (*checks, ("Egito", EgitoSettings, check.egito)):
        try:
            for one in disagreements() if settings.of(model) else ():  # those before a failure are kept
                found.append(one)  # noqa: PERF402
        except CannotLookError as error:
            not_checked[vendor] = error.message
        except VendorError as error:
            not_checked[vendor] = f"only in part: {error.message}"
            failed = error
    report = {"links": len(check.links), "not_checked": not_checked}
    output.document({**report, "disagreements": [asdict(one) for one in found]})
    output.table(("vendor", "record", "what disagrees"), [(one.vendor, one.record, one.what) for one in found])
    for vendor, why in not_checked.items():
        output.line(f"{vendor} was not checked: {why}", style="yellow")
    output.line(f"Links: {len(check.links):,}, of which {len(found):,} disagree with a vendor.")
    if failed:
        raise failed
    if found:
        raise NotAllWellError


@dataclass(frozen=True)
class _Check:
    """Each method returns the links that a vendor's records disagree with. Raises VendorError."""

    bridge: Bridge
    tenant: str
    settings: Tenant
    links: Sequence[StoredLink]
    rate: int

    def illu(self) -> Iterator[Disagreement]:
        """Ask for each list once. A list that is asked by name is of no use: the bridge keeps no names."""
        for kind, list_ids in ((SITE, _site_ids), (JOB, _job_ids)):
            links = [one for one in self.links if (one.right.system, one.right.entity) == kind]
            links = [one for one in links if one.left.system == "crm"]
            ids = self._ask(CreateSite, list_ids) if links else set()
            for one in links:
                if one.right.id not in ids:
                    what = f"illu no longer lists it; it is linked to {one.left.entity} {one.left.id}"
                    yield Disagreement("illu", f"{one.right.entity} {one.right.id}", what)

    def revio(self) -> Iterator[Disagreement]:
        linked: dict[str, set[str]] = {}
        for one in self.links:
            for end, other in ((one.left, one.right), (one.right, one.left)):
                if (end.system, end.entity) == ("revio", "key_link"):
                    linked.setdefault(end.id, set()).add(canonical(other.id))
        records = self._ask(
            CreateKeyLink, lambda revio: {str(one.id): one for one in revio.key_links({})}, patience=LONGEST_READING
        )
        for key_link_id, ids in sorted(linked.items()):
            record = records.get(key_link_id)
            if record is None:
                yield Disagreement("Rev.io", f"key link {key_link_id}", "Rev.io no longer has it")
            elif ids != {str(record.internal_id), canonical(record.external_id)}:
                yield Disagreement("Rev.io", f"key link {key_link_id}", "Rev.io has other ids for it")

    def egito(self) -> Iterator[Disagreement]:
        settings = self.settings.require(EgitoSettings)
        host = urlsplit(settings.base_url).netloc.casefold()
        # A link has the entity's name in small letters; Egito may tell the two apart.
        entities = {its_map.entity.casefold(): its_map.entity for its_map in (settings.prospects, settings.members)}
        ends = [end for one in self.links for end in (one.left, one.right)]
        ends = [end for end in ends if end.system == host and end.entity in entities]
        with progress_of(self.bridge.output, "asking Egito", len(ends)) as progress:
            for number, end in enumerate(ends):
                time.sleep(60 / self.rate if number else 0)  # so that live traffic goes on
                entity = entities[end.entity]
                if not self._is_at_egito(entity, end.id):
                    yield Disagreement("Egito", f"{entity} {end.id}", "Egito no longer has it")
                progress.advance("asked")

    def _is_at_egito(self, entity: str, record_id: str) -> bool:
        try:
            self._ask(SavePerson, lambda egito: egito.record(entity, record_id))
        except NoSuchRecordError:
            return False
        return True

    def _ask[V: Vendor[Any], T](
        self, flow: type[Flow[Any, V, Any]], question: Callable[[V], T], *, patience: float = PATIENCE
    ) -> T:
        engine = self.bridge.runtime.engine
        return engine.ask(engine.bind(flow, self.tenant, Deadline(patience)), question)


def _site_ids(illu: Illu) -> set[str]:
    illu.expect_all_sites()
    return {str(one.site_id) for one in illu.list_sites(name="")}


def _job_ids(illu: Illu) -> set[str]:
    illu.expect_all_jobs()
    return {one.job_id for one in illu.list_jobs(name="")}
