"""The Connector's bodies: null, empty and left out are three things, whichever program wrote the XML."""

import json
import subprocess
from collections.abc import Mapping
from xml.sax.saxutils import escape

import pytest

from connector_receiver import wire
from connector_receiver.models import LeadSourceSave, PersonSave
from crm_bridge.errors import InvalidError, NotXmlError, ProblemError
from crm_bridge.inbound.api import Request
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.api_keys import Caller
from crm_bridge.vendors.egito_settings import PERSON_FIELDS

XSI = "http://www.w3.org/2001/XMLSchema-instance"
MANDATORY = {"firstname": "Ada", "lastname": "Nowak", "userStatus": "ACTIVE", "userType": "PROSPECT"}
TAGS = "".join(f"<{name}>{text}</{name}>" for name, text in MANDATORY.items())
OPTIONAL = sorted(PERSON_FIELDS.keys() - MANDATORY.keys())


def request(body: str | bytes, kind: str = "application/xml") -> Request:
    content = body.encode() if isinstance(body, str) else body
    return Request(Caller("acme", frozenset(), ""), Deadline(9), {}, {"content-type": kind}, content)


def fields(body: str | bytes, kind: str = "application/xml") -> Mapping[str, str]:
    return wire.read(request(body, kind), PersonSave).fields()


def refused(body: str | bytes, kind: str = "application/xml") -> list[str]:
    with pytest.raises(ProblemError) as problem:
        fields(body, kind)
    assert isinstance(problem.value, InvalidError | NotXmlError)
    return [f"{error.field} {error.message}" for error in problem.value.fields] or [problem.value.detail]


def person(inner: str, declarations: str = f'xmlns:xsi="{XSI}"') -> str:
    return f"<user {declarations}><userInfo>{TAGS}{inner}</userInfo></user>"


# ---------------------------------------------------------------- null, empty, left out


@pytest.mark.parametrize("name", OPTIONAL)
def test_null_keeps_and_empty_empties_when_a_field_may_be_empty(name: str) -> None:
    as_json = json.dumps
    assert name not in fields(person(""))
    for nil in ("true", "1", " true\n"):
        assert name not in fields(person(f'<{name} xsi:nil="{nil}"/>'))
    assert name not in fields(as_json({**MANDATORY, name: None}), "application/json")
    for empty in (f"<{name}/>", f"<{name}></{name}>", f"<{name}> </{name}>", f'<{name} xsi:nil="false"/>'):
        assert fields(person(empty))[name] == ""
    assert fields(as_json({**MANDATORY, name: ""}), "application/json")[name] == ""


@pytest.mark.parametrize("name", MANDATORY)
def test_null_is_the_same_as_left_out_when_a_field_is_required(name: str) -> None:
    others = {other: text for other, text in MANDATORY.items() if other != name}
    tags = "".join(f"<{other}>{text}</{other}>" for other, text in others.items())
    document = f'<user xmlns:xsi="{XSI}">{tags}%s</user>'
    left_out = refused(document % "")
    assert left_out == [f"{name} is required"]
    assert refused(document % f'<{name} xsi:nil="true"/>') == left_out
    assert refused(json.dumps({**others, name: None}), "application/json") == left_out
    empty = refused(document % f"<{name}/>")
    assert empty == refused(json.dumps({**others, name: ""}), "application/json")
    assert empty != left_out


@pytest.mark.parametrize("name", ["recordID", "uuid", "identifier", "clientID", "clubID"])
def test_null_is_the_same_as_left_out_when_a_field_is_an_id(name: str) -> None:
    nothing = wire.read(request(person("")), PersonSave)
    assert wire.read(request(person(f'<{name} xsi:nil="1"/>')), PersonSave) == nothing
    assert wire.read(request(json.dumps({**MANDATORY, name: None}), "application/json"), PersonSave) == nothing


def test_null_keeps_and_empty_is_refused_when_a_lead_source_is_in_use_or_not() -> None:
    root = f'<leadSource xmlns:xsi="{XSI}"><name>Fair</name>%s</leadSource>'
    assert wire.read(request(root % '<active xsi:nil="true"/>'), LeadSourceSave).active is None
    assert wire.read(request(root % '<active xsi:nil="0">false</active>'), LeadSourceSave).active is False
    with pytest.raises(InvalidError):
        wire.read(request(root % "<active/>"), LeadSourceSave)


@pytest.mark.parametrize(
    ("declarations", "element"),
    [
        (f'xmlns:i="{XSI}"', '<email i:nil="true"/>'),  # .NET's DataContractSerializer
        (f'xmlns:p3="{XSI}"', '<email p3:nil="true" />'),  # .NET's XmlSerializer within an element
        ("", f'<email xmlns:d4p1="{XSI}" d4p1:nil="true"></email>'),
        (f'xmlns="http://www.intouchfollowup.com/api/2011-11" xmlns:xsi="{XSI}"', '<email xsi:nil="true"/>'),
        (
            f'xmlns:xsi="{XSI}" xmlns:xsd="http://www.w3.org/2001/XMLSchema"',
            '<email xsi:nil="true" xsi:type="xsd:string"/>',
        ),
        (f'xmlns:xsi="{XSI}"', '<email xsi:nil="true"><!-- unconfirmed --></email>'),
        (f'xmlns:xsi="{XSI}"', '<email xsi:nil="true">\r\n  </email>'),
        ("", '<email nil="true"/>'),  # Ruby on Rails' Hash#to_xml
    ],
)
def test_null_is_found_by_its_namespace_when_the_prefix_is_another(declarations: str, element: str) -> None:
    assert "email" not in fields(person(element, declarations))


@pytest.mark.parametrize(
    ("declarations", "element"),
    [
        ('xmlns:xsi="urn:something-else"', '<email xsi:nil="true"/>'),
        ('xmlns:xsi="http://www.w3.org/2001/XMLSchema"', '<email xsi:nil="true"/>'),
        (f'xmlns:xsi="{XSI}"', '<email xsi:null="true"/>'),
        (f'xmlns:xsi="{XSI}"', '<email xsi:Nil="true"/>'),
        (f'xmlns:xsi="{XSI}"', '<email xsi:nil="false"></email>'),
        (f'xmlns:xsi="{XSI}"', '<email xsi:nil="0"/>'),
    ],
)
def test_an_element_is_empty_and_not_null_when_its_attribute_says_something_else(
    declarations: str, element: str
) -> None:
    assert fields(person(element, declarations))["email"] == ""


def test_null_is_refused_when_it_contradicts_itself_or_is_no_boolean() -> None:
    assert refused(person('<email xsi:nil="true">a@b.c</email>')) == [
        "email must be empty, because its nil attribute is true"
    ]
    for nil in ("yes", "", "TRUE", "2", "null"):
        assert refused(person(f'<email xsi:nil="{nil}"/>')) == ["email must have true or false as its nil attribute"]
    assert refused(person('<email xsi:nil="true"/><email>a@b.c</email>')) == ["email appears more than once"]
    assert refused(person('<nickname xsi:nil="true"/>'))[0].startswith('nickname Unknown field "nickname"; known are')
    assert refused(person('<email xsi:nil="true"/>', ""))[0].startswith("The body cannot be read as XML at line 1")


# ---------------------------------------------------------------- charsets

NAME = "Łąkowska-Żółć z Krakowa"


def document(name: str, declared: str | None) -> str:
    declaration = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    return f"{declaration}<user>{TAGS.replace('Nowak', escape(name))}</user>"


@pytest.mark.parametrize(
    ("encoding", "declared", "kind"),
    [
        ("utf-8", "utf-16", "application/xml"),
        ("utf-8", "utf-16", "application/xml; charset=utf-8"),
        ("utf-8", "UTF-16LE", "text/xml; charset=utf-16"),
        ("utf-8", "ISO-8859-2", "application/xml; charset=utf-8"),
        ("utf-8", "ISO-8859-2", "application/xml"),
        ("utf-8", "windows-1250", "application/xml; charset=UTF-8,application/xml; charset=utf-8"),
        ("utf-8", "UTF-8", "application/xml; charset=ISO-8859-1"),
        ("utf-8", None, "text/xml; charset=us-ascii"),
        ("utf-8-sig", "ISO-8859-2", "application/xml; charset=iso-8859-2"),
        ("iso-8859-2", None, "application/xml; charset=iso-8859-2"),
        ("iso-8859-2", "UTF-8", 'application/xml; charset="ISO-8859-2"'),
        ("iso-8859-2", "windows-1250", "application/xml; charset=iso-8859-2"),
        ("iso-8859-2", "ISO-8859-2", "application/xml; charset=utf-8"),
        ("windows-1250", "utf-16", "application/xml; charset=windows-1250"),
        ("windows-1250", "windows-1250", "application/xml; charset=x-nothing"),
        ("utf-16", "utf-16", "application/xml"),
        ("utf-16-le", "utf-8", "application/xml; charset=utf-8"),
        ("utf-16-be", None, "application/xml; charset=utf-16"),
        ("utf-32", "utf-32", "application/xml"),
    ],
)
def test_a_name_is_right_whichever_label_lies(encoding: str, declared: str | None, kind: str) -> None:
    """Sources: RFC 7303, section 3; .NET's StringWriter declares utf-16: https://github.com/aelassas/servy/issues/995"""
    assert fields(document(NAME, declared).encode(encoding), kind)["lastname"] == NAME


@pytest.mark.parametrize("encoding", ["windows-1250", "iso-8859-2"])
@pytest.mark.parametrize("name", [NAME, "SPÓŁKA Z O.O.", "MĘŻYK"])
def test_a_name_is_refused_when_its_bytes_are_not_what_is_named(encoding: str, name: str) -> None:
    for declared, kind in (("UTF-8", "application/xml"), (None, "text/xml; charset=utf-8"), ("utf-16", "text/xml")):
        (said,) = refused(document(name, declared).encode(encoding), kind)
        assert said.startswith("The body cannot be read as XML: the bytes are not valid in the charset")


@pytest.mark.parametrize("declared", ["x-nothing", "UTF-7", "zlib", "punycode", "unicode_escape", "EBCDIC-CP-US"])
def test_xml_is_refused_when_its_charset_is_not_supported(declared: str) -> None:
    (said,) = refused(document("Lis", declared))
    assert said == "The body cannot be read as XML: the charset that is named is not supported; send UTF-8."


@pytest.mark.parametrize("encoding", ["ISO-8859-2", "WINDOWS-1250", "UTF-16", "UTF-16BE", "UTF-8", "CP852", "UTF-32LE"])
def test_a_name_is_right_when_another_program_encoded_it(encoding: str) -> None:
    made = subprocess.run(
        ["iconv", "-f", "UTF-8", "-t", encoding],
        input=document(NAME, encoding).encode(),
        capture_output=True,
        check=True,
    )
    assert fields(made.stdout)["lastname"] == NAME


def test_json_is_read_once_more_in_its_charset_when_members_are_looked_for_twice() -> None:
    body = json.dumps({**MANDATORY, "lastname": NAME}, ensure_ascii=False)
    for encoding, kind in (("utf-8-sig", ""), ("utf-16", ""), ("iso-8859-2", "; charset=iso-8859-2")):
        assert fields(body.encode(encoding), f"application/json{kind}")["lastname"] == NAME
        twice = body.replace('"lastname"', '"firstname": "Eva", "lastname"').encode(encoding)
        assert refused(twice, f"application/json{kind}") == ["firstname appears more than once"]
