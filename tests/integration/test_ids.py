"""One record has one id here, however its sender writes it, and what cannot be an id is refused."""

import csv
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from local.vendors.egito import CLUB
from tests.integration.conftest import SITE, CommandLine, Crm
from tests.stack import Stack

GUID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
GUIDS = (
    GUID,
    GUID.upper(),
    f"{{{GUID.upper()}}}",
    f"({GUID})",
    GUID.replace("-", ""),
    GUID.replace("-", "").upper(),
    f"urn:uuid:{GUID}",
    f"URN:UUID:{GUID.upper()}",
    f"  {GUID}\u200b",
)
SALESFORCE = ("ka36S0000006qgK", "ka36S0000006qgKQAQ", "ka36s0000006qgkqaq", "KA36S0000006QGKQAQ", "ka36S0000006qgKqaq")
"""One record of https://github.com/forcedotcom/cli/issues/1642, which a tool had put into lower case."""
PERSON = {"firstname": "Ada", "lastname": "Nowak", "userType": "PROSPECT", "userStatus": "ACTIVE"}
KEY_LINK = {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1015}
QUICK = ("--yes", "--rate", "100000", "--wait", "0")


def linked(crm: Crm, system: str, entity: str, record: str) -> requests.Response:
    return crm.get("/links", params={"system": system, "entity": entity, "id": record})


# ---------------------------------------------------------------- one form


def test_one_person_when_the_connector_writes_its_guid_in_any_form(crm: Crm) -> None:
    saves = f"/connector/clubs/{CLUB}/prospects"
    ids = {crm.post(saves, {**PERSON, "uuid": guid}).json()["recordID"] for guid in GUIDS}
    for guid in GUIDS:
        for body in (PERSON, {**PERSON, "uuid": GUID}):
            ids.add(crm.put(f"{saves}/{quote(guid, safe='')}", body).json()["recordID"])
    assert len(ids) == 1
    assert len(crm.stack.egito.records["Contact"]) == 1
    for guid in GUIDS:
        (link,) = linked(crm, "intouch", "person", guid).json()["links"]
        assert {link["id"]} == ids


def test_two_people_when_ids_that_are_no_guid_differ_in_case(crm: Crm) -> None:
    saves = f"/connector/clubs/{CLUB}/prospects"
    ids = {crm.post(saves, {**PERSON, "uuid": uuid}).json()["recordID"] for uuid in ("abc-1", "ABC-1", "{abc-1}")}
    assert len(ids) == 3


@pytest.mark.parametrize("forms", [GUIDS, SALESFORCE], ids=["GUID", "Salesforce"])
def test_one_site_and_one_job_when_the_crm_writes_an_id_in_several_forms(crm: Crm, forms: tuple[str, ...]) -> None:
    sites = [crm.create_site(customer_id=form) for form in forms]
    assert [site.status_code for site in sites] == [201, *[200] * (len(forms) - 1)]
    assert all("warnings" not in site.json() for site in sites)
    assert len({site.json()["operation_id"] for site in sites}) == 1
    jobs = [crm.post("/jobs", {"ticket_id": form, "name": "Meter", "customer_id": form}) for form in reversed(forms)]
    assert [job.status_code for job in jobs] == [201, *[200] * (len(forms) - 1)]
    assert (len(crm.stack.illu.sites), len(crm.stack.illu.jobs)) == (1, 1)
    for form in forms:
        (link,) = linked(crm, "crm", "customer", form).json()["links"]
        assert (link["entity"], link["id"]) == ("site", "4711")
        path = f"/operations?id={quote(form, safe='')}"
        assert {one["flow"] for one in crm.get(path).json()["operations"]} == {"create_site", "create_job"}


def test_the_id_is_displayed_as_it_came_first_when_it_has_several_forms(crm: Crm, cli: CommandLine) -> None:
    short, long = SALESFORCE[:2]
    assert crm.create_site(customer_id=long).json()["customer_id"] == long
    assert crm.create_site(customer_id=short).json()["customer_id"] == long
    (link,) = linked(crm, "illu", "site", "4711").json()["links"]
    assert link["id"] == long
    (exported,) = cli("links", "export", "demo", "--json").json
    assert exported["id"] == long
    (found,) = cli("links", "find", "demo", "crm", "customer", f" {short}\u200e", "--json").json
    assert found["partner_id"] == "4711"


@pytest.mark.parametrize("forms", [GUIDS, SALESFORCE], ids=["GUID", "Salesforce"])
def test_one_key_link_when_the_crm_writes_an_id_in_several_forms(crm: Crm, forms: tuple[str, ...]) -> None:
    answers = [crm.post("/key-links", {**KEY_LINK, "external_id": form}) for form in forms]
    assert [answer.status_code for answer in answers] == [201, *[200] * (len(forms) - 1)]
    assert {answer.json()["id"] for answer in answers} == {77}
    assert [one["external_id"] for one in crm.stack.revio.account.key_links] == [forms[0]]


@pytest.mark.parametrize(
    ("there", "sent"),
    [
        *[(SALESFORCE[0], form) for form in SALESFORCE[1:]],
        *[(SALESFORCE[1], form) for form in SALESFORCE[2:]],
        (SALESFORCE[1], SALESFORCE[0]),
        (GUID, GUID.upper()),
        (GUID.upper(), f"{{{GUID}}}"),
    ],
)
def test_the_key_link_is_found_when_somebody_stored_it_in_another_form(crm: Crm, there: str, sent: str) -> None:
    key_link = crm.stack.revio.account.add_key_link(4, 2, 1015, there)
    answer = crm.post("/key-links", {**KEY_LINK, "external_id": sent})
    assert (answer.status_code, answer.json()["id"]) == (200, key_link["integration_key_link_id"])
    assert len(crm.stack.revio.account.key_links) == 1
    found = crm.get(f"/key-links?external_id={quote(sent, safe='')}").json()["key_links"]
    assert [one["external_id"] for one in found] == [there]


def test_a_key_link_is_changed_when_only_the_form_of_its_id_changes(crm: Crm) -> None:
    short, long = SALESFORCE[:2]
    crm.post("/key-links", {**KEY_LINK, "external_id": short})
    answer = crm.put("/key-links/77", {**KEY_LINK, "external_id": long})
    assert (answer.status_code, answer.json()["external_id"]) == (200, long)
    assert [one["external_id"] for one in crm.stack.revio.account.key_links] == [long]
    for form in (short, long):
        assert crm.post("/key-links", {**KEY_LINK, "external_id": form}).json()["id"] == 77
        assert len(linked(crm, "salesforce", "customer", form).json()["links"]) == 2


def test_two_key_links_when_15_characters_differ_in_case_only(crm: Crm) -> None:
    """Salesforce has both: https://github.com/MinnPost/object-sync-for-salesforce/issues/131"""
    ids = ("001XX0000ABCDEF", "001XX0000ABCDEf", "001xx0000abcdef")
    answers = [crm.post("/key-links", {**KEY_LINK, "external_id": one}) for one in ids]
    assert [answer.status_code for answer in answers] == [201, 201, 201]


# ---------------------------------------------------------------- what cannot be an id


@pytest.mark.parametrize(
    "character", ["\u200b", "\u200e", "\ufeff", "\u202e", "\u00ad", "\u2060", "\ufe0f", "\U000e0041"]
)
def test_an_invisible_character_is_refused_with_its_position_when_it_is_inside_an_id(crm: Crm, character: str) -> None:
    answer = crm.create_site(customer_id=f" C-{character}1001")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error == {
        "field": "customer_id",
        "message": f"must not contain the character U+{ord(character):04X} (position 4)",
    }
    assert linked(crm, "crm", "customer", f"C-{character}1001").status_code == 422
    assert crm.get(f"/links/crm/customer/{quote(f'C-{character}1001')}").status_code == 422
    assert crm.get(f"/operations?id={quote(f'C-{character}1001')}").status_code == 422
    assert crm.create_site(customer_id=f"{character}C-1001 {character}").json()["customer_id"] == "C-1001"
    assert crm.create_site(customer_id="C-1001").status_code == 200
    assert linked(crm, "crm", "customer", f"{character} C-1001{character}").status_code == 200


def test_a_placeholder_is_refused_by_every_flow_when_it_was_not_filled_in(crm: Crm) -> None:
    for placeholder in ("undefined", " NULL\u200b", "{{contact.id}}", "{!Account.Id}"):
        refused = [
            crm.create_site(customer_id=placeholder),
            crm.post("/jobs", {"ticket_id": placeholder, "name": "Meter", "site_id": 1}),
            crm.post("/jobs", {"ticket_id": "T-1", "name": "Meter", "customer_id": placeholder}),
            crm.post("/key-links", {**KEY_LINK, "external_id": placeholder}),
            crm.post(f"/connector/clubs/{CLUB}/prospects", {**PERSON, "uuid": placeholder}),
            crm.put(f"/connector/clubs/{CLUB}/members/{quote(placeholder, safe='')}", PERSON),
            linked(crm, "crm", "customer", placeholder),
        ]
        assert [answer.status_code for answer in refused] == [422] * 7
        assert all("placeholder" in answer.json()["errors"][0]["message"] for answer in refused)
    assert (crm.stack.illu.sites, crm.stack.illu.jobs, crm.stack.egito.records["Contact"]) == ([], [], [])


@pytest.mark.parametrize(("number", "status"), [(1001.0, 200), (1001.5, 422), (9007199254740993.0, 422), (True, 422)])
def test_a_whole_number_is_the_same_id_with_and_without_a_decimal_point(crm: Crm, number: object, status: int) -> None:
    crm.create_site(customer_id=1001)
    assert crm.create_site(customer_id=number).status_code == status
    assert len(crm.stack.illu.sites) == 1


# ---------------------------------------------------------------- look-ups


@pytest.mark.parametrize("record", ["Zażółć", "a/b", "a//b/", "../c", "%2F", "a?b#c&d=e", "a+b", "👍", "a%23b"])
def test_a_link_is_found_by_query_parameters_whatever_the_id_contains(crm: Crm, record: str) -> None:
    crm.create_site(customer_id=record)
    for form in (record, f" {record}\t"):
        (link,) = linked(crm, " CRM", "Customer ", form).json()["links"]
        assert link["id"] == "4711"


def test_a_link_is_found_when_the_id_is_decomposed_or_has_outer_blanks(crm: Crm) -> None:
    crm.create_site(customer_id="Café")
    for form in ("Café", "Cafe\u0301", " Café ", "Cafe\u0301\u00a0"):
        assert linked(crm, "crm", "customer", form).status_code == 200
        assert crm.get(f"/links/crm/customer/{quote(form)}").status_code == 200
        assert len(crm.get(f"/operations?id={quote(form)}").json()["operations"]) == 1
        assert len(crm.get(f"/operations?id={quote(f'crm/customer/{form}')}").json()["operations"]) == 1


def test_a_look_up_says_what_is_wrong_when_a_parameter_is_missing_or_unknown(crm: Crm) -> None:
    for query, field in (("", "system"), ("?system=crm&entity=customer", "id"), ("?id=1&sytem=crm", "sytem")):
        answer = crm.get(f"/links{query}")
        assert answer.status_code == 422
        assert field in [error["field"] for error in answer.json()["errors"]]
    assert linked(crm, "crm", "customer", "C-unknown").status_code == 404


# ---------------------------------------------------------------- duplicate members


@pytest.mark.parametrize(
    ("path", "body", "twice"),
    [
        ("PUT /services/api/status", '{"status": "outage", "status": "operational"}', ["status"]),
        ("PUT /key-links/77", '{"system": "SALESFORCE", "system": "SAP"}', ["system"]),
        (f"PUT /connector/clubs/{CLUB}/members/abc", '{"firstname": "A", "firstname": "B"}', ["firstname"]),
        ("/sites", '{"customer_id": "C-1", "customer_id": "C-2"}', ["customer_id"]),
        ("/sites", r'{"customer_id": "C-1", "customer\u005fid": "C-2"}', ["customer_id"]),
        ("/jobs", '{"ticket_id": "T-1", "site": {"name": "a", "name": "b"}}', ["name"]),
        ("/jobs", '{"workflow_instances": [{"a": 1, "b": [{"a": 1, "a": 1}]}]}', ["a"]),
        ("/key-links", '{"system": "A", "internal_id": 1, "system": "B", "internal_id": 2}', ["internal_id", "system"]),
        ("/operations/op_{}/resolve", '{"action": "retry", "action": "link", "id": "1"}', ["action"]),
        (f"/connector/clubs/{CLUB}/prospects", '{"firstname": "A", "firstname": "B"}', ["firstname"]),
        (f"/connector/clubs/{CLUB}/lead-sources", '{"name": "A", "name": "B"}', ["name"]),
    ],
)
def test_a_body_is_refused_when_a_member_appears_twice(crm: Crm, path: str, body: str, twice: list[str]) -> None:
    is_put = path.startswith("PUT ")
    if "{}" in path:
        path = path.format(crm.create_site().json()["operation_id"].removeprefix("op_"))
    headers, path = {"Content-Type": "application/json"}, path.removeprefix("PUT ")
    answer = crm.send("PUT" if is_put else "POST", path, data=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": name, "message": "appears more than once"} for name in twice]


# ---------------------------------------------------------------- files


def import_sites(cli: CommandLine, file: Path, text: str, *options: str) -> tuple[int, dict[str, Any]]:
    file.write_text(text)
    done = cli("import", "sites", "demo", str(file), *QUICK, "--json", *options)
    return done.code, done.json


def results(file: Path) -> list[dict[str, str]]:
    with file.with_name(f"{file.name}.result.csv").open(newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "customers.csv"


HEADER = f"{','.join(SITE)}\n"


def test_import_warns_when_a_file_has_both_forms_of_an_id(stack: Stack, cli: CommandLine, file: Path) -> None:
    short, long = SALESFORCE[:2]
    rows = f"{short},Shop,1,2,here\nC-2,Shop,1,2,here\n{long},Shop,1,2,here\n{long.upper()},Other,1,2,here\n"
    code, said = import_sites(cli, file, HEADER + rows)
    assert code == 1
    assert said["states"] == {"succeeded": 2, "repeated": 1, "invalid": 1}
    assert [warning["line"] for warning in said["warnings"]] == [4, 5]
    assert all("line 2" in warning["detail"] and "form" in warning["detail"] for warning in said["warnings"])
    assert len(stack.illu.sites) == 2
    assert cli("import", "sites", "demo", str(file), "--dry-run").out.count("another form") == 2


def test_a_file_of_pandas_makes_one_site_when_its_ids_became_floats(crm: Crm, cli: CommandLine, file: Path) -> None:
    crm.create_site(customer_id=1001)
    rows = "1001.0,Shop,1.0,2.0,here\n1001,Shop,1,2,here\n1002.0,5.0,1.0,2.0,here\n1003.5,Shop,1,2,here\n"
    rows += "nan,Shop,1,2,here\n"
    code, _ = import_sites(cli, file, HEADER + rows)
    assert code == 1
    assert [row["state"] for row in results(file)] == ["succeeded", "repeated", "succeeded", "succeeded", "invalid"]
    assert sorted(str(site["name"]) for site in crm.stack.illu.sites) == ["5.0", "Shop", str(SITE["name"])]
    assert results(file)[3]["event_key"] == "1003.5"
    assert crm.create_site(customer_id=1002).status_code == 200


@pytest.mark.parametrize(
    ("rows", "states"),
    [
        # The quote of one row is closed in the next: together they would be a row.
        ('C-1,"Shop A,1,2,here\nC-2,Shop B",3,4,there\nC-3,Shop,5,6,here\n', ["invalid", "invalid", "succeeded"]),
        ('C-1,Shop A,1,2,"here\nC-2,Shop B,3,4,there"\nC-3,Shop,5,6,here\n', ["invalid", "invalid", "succeeded"]),
        ('C-1,"Shop A,1,2,here\nC-2,"Shop B",3,4,there\n', ["invalid", "succeeded"]),
        # A quote that nobody closes.
        ('C-1,"Shop A,1,2,here\nC-2,Shop B,3,4,there\nC-3,Shop,5,6,here\n', ["invalid", "succeeded", "succeeded"]),
        ('"C-1,Shop A,1,2,here\n\nC-2,Shop B,3,4,there', ["invalid", "empty", "succeeded"]),
        # A quote within a cell that is not quoted is an inch.
        ('C-1,Pipe 5",1,2,here\nC-2,Pipe 6",3,4,there\n', ["succeeded", "succeeded"]),
        # An address may have several lines.
        ('C-1,Shop,1,2,"Moi Ave 12\n\nKitale"\nC-2,Shop,3,4,there\n', ["succeeded", *["continued"] * 2, "succeeded"]),
        ('C-1,"Shop\n12",1,2,here\nC-2,Shop,3,4,there\n', ["invalid", "invalid", "succeeded"]),
        ('"C-1\n",Shop,1,2,here\nC-2,Shop,3,4,there\n', ["invalid", "invalid", "succeeded"]),
        ('C-1,Shop,north,2,"a\nb"\n,,,,\nC-2,Shop,3,4,there\r\n', ["invalid", "continued", "empty", "succeeded"]),
        ('C-1,Shop,1,2,"a\nb",more\nC-2,Shop,3,4,there\n', ["invalid", "invalid", "succeeded"]),
    ],
)
def test_every_physical_line_is_in_the_result_and_in_one_count(
    stack: Stack, cli: CommandLine, file: Path, rows: str, states: list[str]
) -> None:
    code, said = import_sites(cli, file, HEADER + rows)
    assert [row["state"] for row in results(file)] == states
    assert [row["line"] for row in results(file)] == [str(number) for number in range(2, 2 + len(states))]
    assert sum(said["states"].values()) == len(states) == len(rows.splitlines())
    assert said["states"] == {state: states.count(state) for state in states}
    assert code == (1 if "invalid" in states else 0)
    assert len(stack.illu.sites) == states.count("succeeded")
    assert not any("\n" in str(site["name"]) for site in stack.illu.sites)


def test_a_dry_run_ends_with_1_when_a_line_is_invalid(stack: Stack, cli: CommandLine, file: Path) -> None:
    file.write_text(f'{HEADER}C-1,"Shop,1,2,here\n')
    assert cli("import", "sites", "demo", str(file), "--dry-run").code == 1
    file.write_text("system,entity,id,partner_system,partner_entity,partner_id\ncrm,customer,null,illu,site,1\n")
    assert cli("links", "import", "demo", str(file), "--dry-run").code == 1
    assert stack.illu.seen == []


def test_a_row_of_jsonl_is_invalid_when_a_member_appears_twice(stack: Stack, cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "sites.jsonl"
    row = json.dumps(SITE)
    file.write_text(f'{row}\n\n{row[:-1]}, "customer_id": "C-2"}}\n')
    done = cli("import", "sites", "demo", str(file), *QUICK, "--json")
    assert (done.code, done.json["states"]) == (1, {"succeeded": 1, "empty": 1, "invalid": 1})
    assert "customer_id: appears more than once" in results(file)[2]["detail"]
    assert len(stack.illu.sites) == 1


@pytest.mark.parametrize("formula", ["=1+1", "+48", "-1", "@SUM(A1)", "'=1", "a;=1+1", '=HYPERLINK("http://x")'])
def test_what_a_spreadsheet_would_run_is_escaped_in_files_and_imported_as_it_was(
    crm: Crm, cli: CommandLine, file: Path, tmp_path: Path, formula: str
) -> None:
    crm.create_site(customer_id=formula)
    links = tmp_path / "links.csv"
    cli("links", "export", "demo", str(links))
    with links.open(newline="") as opened:
        (link,) = csv.DictReader(opened)
    assert not any(part.lstrip().startswith(("=", "+", "-", "@")) for part in link["id"].split(";"))
    done = cli("links", "import", "demo", str(links), "--yes", "--json")
    assert (done.code, done.json["known_already"], done.json["new"]) == (0, 1, 0)
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([list(SITE), [link["id"], *list(SITE.values())[1:]]])
    done = cli("import", "sites", "demo", str(file), *QUICK, "--json")
    assert (done.code, done.json["sent"], done.json["states"]) == (0, 0, {"succeeded": 1})
    assert results(file)[0]["event_key"] == link["id"]
