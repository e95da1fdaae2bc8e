"""The command line moves links out and in, and compares them with the vendors."""

import csv
from pathlib import Path

import pytest

from cli.links import COLUMNS
from local.vendors.egito import CLUB
from tests.integration.conftest import SITE, CommandLine, Crm, change_settings, without_site_list
from tests.stack import Stack

JOB = {"ticket_id": "T-501", "name": "Meter", "customer_id": SITE["customer_id"]}
KEY_LINK = {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1015, "external_id": "001XX0000ABCDEF"}
FAST = ("--rate", "100000")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "links.csv"


def write(file: Path, *lines: str) -> None:
    file.write_text("\n".join((",".join(COLUMNS[:6]), *lines)) + "\n")


def test_what_a_record_is_linked_to_is_found(crm: Crm, cli: CommandLine) -> None:
    crm.create_site()
    (found,) = cli("links", "find", "demo", "ILLU", "site", "4711", "--json").json
    assert (found["partner_system"], found["partner_id"]) == ("crm", SITE["customer_id"])
    assert "C-1001" in cli("links", "find", "demo", "illu", "site", "4711").out
    assert cli("links", "find", "demo", "illu", "site", "1").code == 2
    assert cli("links", "find", "demo-upya", "illu", "site", "4711").code == 2


def test_every_link_of_a_tenant_is_exported_once(crm: Crm, cli: CommandLine, file: Path) -> None:
    crm.create_site(customer_id="C#1%23")
    crm.post("/jobs", {**JOB, "customer_id": "C#1%23"})
    crm.post("/key-links", KEY_LINK)
    result = cli("links", "export", "demo", str(file))
    assert result.code == 0
    with file.open(newline="") as opened:
        read = list(csv.DictReader(opened))
    ends = {tuple(one[column] for column in COLUMNS[:6]) for one in read}
    assert len(read) == len(ends) == 6
    assert ("crm", "customer", "C#1%23", "illu", "site", "4711") in ends
    assert ("crm", "ticket", "T-501", "illu", "job", "801") in ends
    assert ("illu", "job", "801", "illu", "site", "4711") in ends
    assert len(cli("links", "export", "demo", "--json").json) == 6
    assert cli("links", "export", "demo").out == cli("links", "export", "demo", "-").out == file.read_text()
    assert "There is no tenant dem." in cli("links", "export", "dem", "--json").err  # although another begins so


def test_what_was_exported_is_imported_into_an_empty_bridge_and_nothing_is_made_again(
    cli: CommandLine, crm: Crm, file: Path
) -> None:
    crm.stack.illu.add_site("Shop 12", 1.0, 2.0, "here")
    write(file, "crm,customer,C-1001,illu,site,4711", "illu,job,J-7,crm,ticket,T-501", "illu,job,J-7,illu,site,4711")
    result = cli("links", "import", "demo", str(file), "--yes", "--json")
    assert (result.code, result.json["written"]) == (0, 2)
    site = crm.create_site()
    assert (site.status_code, site.json()["site_id"]) == (200, 4711)
    job = crm.post("/jobs", JOB)
    assert (job.status_code, job.json()["job_id"], job.json()["site_id"]) == (200, "J-7", 4711)
    assert crm.post("/jobs", {**JOB, "ticket_id": "T-502"}).json()["site_id"] == 4711
    assert (len(crm.stack.illu.sites), len(crm.stack.illu.jobs)) == (1, 1)
    again = cli("links", "import", "demo", str(file), "--yes", "--json").json
    assert (again["written"], again["known_already"]) == (0, 2)
    (operation,) = cli("operations", "show", "demo", "C-1001", "--json").json
    assert [attempt["event"] for attempt in operation["attempts"]] == ["linked"]


def test_an_export_can_be_imported_elsewhere(crm: Crm, cli: CommandLine, file: Path) -> None:
    crm.create_site()
    crm.post("/jobs", JOB)
    cli("links", "export", "demo", str(file))
    result = cli("links", "import", "demo-upya", str(file), "--yes", "--json").json
    assert result["written"] == 2
    cli("links", "export", "demo-upya", str(file.with_name("again.csv")))
    without_times = [line.rsplit(",", 2)[0] for line in file.read_text().splitlines()]
    assert [line.rsplit(",", 2)[0] for line in file.with_name("again.csv").read_text().splitlines()] == without_times


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("crm,customer,C-1,illu,site,north", "a site's id must be a number"),
        ("salesforce,customer,1,revio,customer,2", "cannot be imported"),
        ("crm,ticket,T-1,illu,job,J-1", "to a site"),
        ("crm,customer,,illu,site,4", "id: is required"),
        ("crm,customer,C-1001,illu,site,5", "has another result"),
    ],
)
def test_what_cannot_be_imported_is_reported_with_its_line_and_the_rest_is_written(
    crm: Crm, cli: CommandLine, file: Path, line: str, why: str
) -> None:
    crm.create_site()
    write(file, line, "crm,customer,C-2,illu,site,77")
    result = cli("links", "import", "demo", str(file), "--yes")
    assert result.code == 1
    assert "line 2: " in result.out
    assert why in result.out
    assert crm.get("/links/illu/site/77").json()["links"][0]["id"] == "C-2"
    assert crm.get("/links/crm/customer/C-1001").json()["links"][0]["id"] == "4711"


def test_a_site_that_is_anothers_is_not_given_away(crm: Crm, cli: CommandLine, file: Path) -> None:
    crm.create_site()
    write(file, "crm,customer,C-2,illu,site,4711", "crm,customer,C-3,illu,site,5", "crm,customer,C-3,illu,site,6")
    result = cli("links", "import", "demo", str(file), "--yes", "--json")
    assert result.code == 1
    assert [one["line"] for one in result.json["refused"]] == [2, 4]
    assert result.json["written"] == 1
    assert crm.get("/links/illu/site/4711").json()["links"][0]["id"] == SITE["customer_id"]
    assert crm.get("/links/crm/customer/C-2").status_code == 404


def test_a_dry_run_writes_nothing(crm: Crm, cli: CommandLine, file: Path) -> None:
    write(file, "crm,customer,C-2,illu,site,77")
    assert cli("links", "import", "demo", str(file), "--dry-run", "--json").json["new"] == 1
    assert cli("links", "import", "demo", str(file), input="").code == 2
    assert crm.get("/links/illu/site/77").status_code == 404


def everything(crm: Crm) -> None:
    """A link of each kind that can be compared."""
    assert crm.create_site(name="Shop 12").status_code == 201
    assert crm.post("/jobs", JOB).status_code == 201
    assert crm.post("/key-links", KEY_LINK).status_code == 201
    ada = {
        "userType": "PROSPECT",
        "userStatus": "ACTIVE",
        "firstname": "Ada",
        "lastname": "Nowak",
        "email": "a@b.example",
    }
    assert crm.post(f"/connector/clubs/{CLUB}/prospects", ada).status_code == 201


def test_nothing_disagrees_when_the_vendors_hold_what_is_linked(crm: Crm, cli: CommandLine) -> None:
    everything(crm)
    result = cli("links", "check", "demo", *FAST, "--json")
    assert result.code == 0, result
    assert result.json == {"links": 7, "not_checked": {}, "disagreements": []}


def test_what_is_gone_or_changed_at_a_vendor_is_listed(crm: Crm, cli: CommandLine, stack: Stack) -> None:
    everything(crm)
    stack.illu.sites.clear()
    stack.revio.account.key_links[0]["internal_id"] = 1016
    stack.egito.records["Contact"].clear()
    result = cli("links", "check", "demo", *FAST, "--json")
    assert result.code == 1
    assert {(one["vendor"], one["record"].split()[0]) for one in result.json["disagreements"]} == {
        ("illu", "site"),
        ("Rev.io", "key"),
        ("Egito", "Contact"),
    }
    stack.revio.account.key_links.clear()
    assert "no longer has it" in cli("links", "check", "demo", *FAST).out


def test_a_vendor_that_cannot_be_asked_is_said_not_to_be_checked(crm: Crm, cli: CommandLine, stack: Stack) -> None:
    crm.create_site()
    without_site_list(stack)
    result = cli("links", "check", "demo", *FAST, "--json")
    assert result.code == 0
    assert "Cannot check in illu" in result.json["not_checked"]["illu"]


def test_a_list_by_name_is_said_not_to_be_checked(crm: Crm, cli: CommandLine, stack: Stack) -> None:
    crm.create_site()
    change_settings(stack, illu={"site_list_path": "/orgs/{org_id}/sites?name={name}"})
    result = cli("links", "check", "demo", *FAST, "--json")
    assert result.code == 0
    assert "remove {name} from `site_list_path`" in result.json["not_checked"]["illu"]


def test_a_vendor_that_fails_is_said_to_be_checked_in_part(crm: Crm, cli: CommandLine, stack: Stack) -> None:
    everything(crm)
    stack.revio.account.password = "another"
    result = cli("links", "check", "demo", *FAST, "--json")
    assert result.code == 3
    assert result.json["not_checked"]["Rev.io"].startswith("only in part: ")
