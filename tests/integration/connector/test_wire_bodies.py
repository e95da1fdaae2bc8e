"""Which bodies connector_receiver reads, and which it refuses; `unit/test_wire.py` has all charsets, and null."""

import json

from local.vendors.egito import CLIENT, CLUB, CONNECTOR_CLUB
from tests.integration.conftest import Crm
from tests.integration.connector_calls import (
    JSON,
    MANDATORY,
    PERSON,
    XML,
    body,
    contacts,
    expect_untouched,
    refused,
    send,
    summary,
    tags,
    with_more,
    with_name,
)

XSI = "http://www.w3.org/2001/XMLSchema-instance"

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
HOSTILE = {
    "billion laughs": with_name("&l9;", f'<!DOCTYPE user [<!ENTITY l0 "ha">{LAUGHS}]>'),
    "quadratic blow-up": with_name("&a;" * 5000, f'<!DOCTYPE user [<!ENTITY a "{"a" * 50_000}">]>'),
    "external entity": with_name("&x;", '<!DOCTYPE user [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
    "external entity over HTTP": with_name("&x;", '<!DOCTYPE user [<!ENTITY x SYSTEM "URL/x">]>'),
    "public entity": with_name("&x;", '<!DOCTYPE user [<!ENTITY x PUBLIC "-//X//EN" "URL/x">]>'),
    "external DTD": with_name("Nowak", '<!DOCTYPE user SYSTEM "URL/user.dtd">'),
    "public DTD": with_name("Nowak", '<!DOCTYPE user PUBLIC "-//X//EN" "URL/user.dtd">'),
    "parameter entity": with_name("Nowak", '<!DOCTYPE user [<!ENTITY % p SYSTEM "URL/p">%p;]>'),
    "nested parameter entities": with_name(
        "&x;", "<!DOCTYPE user [<!ENTITY % a '<!ENTITY x SYSTEM \"file:///etc/passwd\">'>%a;]>"
    ),
    "DOCTYPE alone": with_name("Nowak", "<!DOCTYPE user>"),
    "DOCTYPE with an attribute list": with_name("Nowak", '<!DOCTYPE user [<!ATTLIST user a CDATA "b">]>'),
    "an entity that nobody declared": with_name("&oacute;"),
    "an endless document": "<a>" * 20_000,
    "two roots": PERSON + PERSON,
    "text after the root": PERSON + "Ada",
    "two declarations": '<?xml version="1.0"?>' * 2 + PERSON,
    "a declaration that comes late": ' <?xml version="1.0"?>' + PERSON,
    "no XML at all": "firstname=Ada&lastname=Nowak",
    "JSON": json.dumps(MANDATORY),
    "nothing": "",
    "blanks": " \n ",
    "only a comment": "<!-- Ada -->",
    "a tag that is not closed": PERSON.removesuffix("</user>"),
    "tags that cross": "<user><firstname><lastname></firstname></lastname></user>",
    "an ampersand": with_name("A & B"),
    "an attribute twice": with_name("Nowak").replace("<user>", '<user a="1" a="2">'),
    "a prefix that nobody declared": f"<it:user>{tags(MANDATORY)}</it:user>",
    "a control character": with_name("a\x01b"),
    "a control character as a reference": with_name("&#1;"),
    "half a character as a reference": with_name("&#xD800;"),
    "a character that is none": with_name("\uffff"),
}
UNREADABLE = {
    "invalid UTF-8": with_name("NAME").encode().replace(b"NAME", b"\xff\xfe\xfa"),
    "half a surrogate pair": with_name("NAME").encode().replace(b"NAME", b"\xed\xa0\x80"),
    "an overlong NUL": with_name("NAME").encode().replace(b"NAME", b"\xc0\x80"),
    "bytes that are not what the declaration says": with_name("Żółć", '<?xml version="1.0" encoding="UTF-8"?>').encode(
        "windows-1250"
    ),
    "capitals that are valid UTF-8 by chance": with_name("SPÓŁKA").encode("windows-1250"),
    "an encoding that there is not": b'<?xml version="1.0" encoding="x-nothing"?>' + PERSON.encode(),
    "an encoding that is no text": b'<?xml version="1.0" encoding="zlib"?>' + PERSON.encode(),
    "UTF-7": b'<?xml version="1.0" encoding="UTF-7"?>' + PERSON.encode(),
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "NULs": b"\0" * 1000,
}


def test_what_is_no_harmless_xml_is_refused_and_nothing_is_fetched(crm: Crm) -> None:
    documents = {**{name: text.encode() for name, text in HOSTILE.items()}, **UNREADABLE}
    for name, document in documents.items():
        said = refused(send(crm, document.replace(b"URL", crm.stack.illu.url.encode())), 400, "xml", name)
        assert said.fields == [], name
        assert ("document type" in said.message) == (b"<!DOCTYPE" in document), name
        assert "root:" not in said.message
        expect_untouched(crm.stack, name)


def test_xml_of_the_wrong_shape_is_refused_and_the_tag_is_named(crm: Crm) -> None:
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" parse="text" href="URL/x"/>'
    documents = {
        "an unknown tag": (with_more("<nickname>A</nickname>"), ["nickname"]),
        "an unknown tag of the provider": (with_more("", "<secret>A</secret>"), ["secret"]),
        "an unknown tag in another namespace": (with_more('<x:nickname xmlns:x="urn:x">A</x:nickname>'), ["nickname"]),
        "another case": (with_more("<City>Opole</City>"), ["City"]),
        "a tag twice": (with_more("<firstname>Eva</firstname>"), ["firstname"]),
        "a tag twice, once with a namespace": (with_more('<city>A</city><city xmlns="urn:x">B</city>'), ["city"]),
        "a tag twice, in both wrappers": (with_more("<city>A</city>", "<city>A</city>"), ["city"]),
        "an element in place of text": (with_more("<city><name>Opole</name></city>"), ["city"]),
        "an element within text": (with_more("<city>O<b>po</b>le</city>"), ["city"]),
        "XInclude": (with_more(include), ["include"]),
        "XInclude in place of text": (with_more(f"<city>{include}</city>"), ["city"]),
        "XInclude of a file": (with_more(f"<city>{include}</city>").replace("URL/x", "file:///etc/passwd"), ["city"]),
        "18,000 elements in one another": ("<user>" + "<a>" * 18_000 + "</a>" * 18_000 + "</user>", ["a"]),
        "another client": (with_more("", "<clientID>c-8</clientID>"), ["clientID"]),
        "another club": (with_more("", "<clubID>k-4</clubID>"), ["clubID"]),
        "another client and club": (with_more("", "<clientID>x</clientID><clubID>y</clubID>"), ["clientID", "clubID"]),
        "an empty client and club": (with_more("", "<clientID/><clubID/>"), ["clientID", "clubID"]),
        "a recordID that is none of ours": (with_more("", "<recordID>5001</recordID>"), ["recordID"]),
        "no fields": ("<user/>", list(MANDATORY)),
        "fields without text": (
            "<user><userInfo>" + "".join(f"<{n}/>" for n in MANDATORY) + "</userInfo></user>",
            [*MANDATORY],
        ),
        "fields as attributes": ('<user firstname="Ada" lastname="Nowak"/>', list(MANDATORY)),
    }
    for name, (document, fields) in documents.items():
        said = refused(send(crm, document.replace("URL", crm.stack.illu.url)), 422, "xml", name)
        assert said.fields == fields, name
        assert all(field in said.message for field in fields[:3]), name
        expect_untouched(crm.stack, name)


def test_xml_that_is_too_large_is_refused_unread(crm: Crm) -> None:
    documents = {
        "20,000 elements in one another": "<user>" + "<a>" * 20_000 + "</a>" * 20_000 + "</user>",
        "a huge attribute": f'<user a="{"x" * 200_000}"/>',
        "many attributes": f"<user {' '.join(f'a{n}="1"' for n in range(20_000))}/>",
        "a huge text": with_name("x" * 200_000),
        "a huge comment": with_name(f"<!--{'x' * 200_000}-->"),
    }
    for name, document in documents.items():
        said = refused(send(crm, document), 413, "xml")
        assert "bytes" in said.message, name
        expect_untouched(crm.stack, name)


def test_xml_is_read_right_however_it_is_written(crm: Crm) -> None:
    def encoded(encoding: str, name: str, declared: str | None = None) -> bytes:
        return with_name(name, f'<?xml version="1.0" encoding="{declared or encoding}"?>').encode(encoding)

    namespace = "http://www.intouchfollowup.com/api/2011-11"
    prefixed = with_name("Lis").replace("</", "\0").replace("<", "<it:").replace("\0", "</it:")
    documents: dict[str, tuple[str | bytes, str]] = {
        "UTF-8 without a declaration": (with_name("Żółć 👩"), "Żółć 👩"),
        "UTF-8 with a mark": (encoded("utf-8-sig", "Żółć", "UTF-8"), "Żółć"),
        "UTF-16": (encoded("utf-16", "Żółć 👩", "UTF-16"), "Żółć 👩"),
        "UTF-16, big end first": (b"\xfe\xff" + encoded("utf-16-be", "Żółć", "UTF-16"), "Żółć"),
        "UTF-16 without a mark": (encoded("utf-16-le", "Nowak", "UTF-16"), "Nowak"),
        "ISO-8859-1": (encoded("ISO-8859-1", "Müller-Ñé"), "Müller-Ñé"),
        "ISO-8859-2": (encoded("ISO-8859-2", "Żółć"), "Żółć"),
        "windows-1250": (encoded("windows-1250", "Żółć"), "Żółć"),
        "UTF-8 that .NET calls UTF-16": (encoded("utf-8", "Żółć", "utf-16"), "Żółć"),
        "UTF-8 that is declared as ISO-8859-2": (encoded("utf-8", "Kraków", "ISO-8859-2"), "Kraków"),
        "UTF-32": (encoded("utf-32", "Żółć"), "Żółć"),
        "US-ASCII": (encoded("US-ASCII", "Lis &#x17B;"), "Lis Ż"),
        "CDATA": (with_name("<![CDATA[<b> & ]]>]]<![CDATA[>]]>"), "<b> & ]]>"),
        "an empty CDATA": (with_name("<![CDATA[]]>Lis"), "Lis"),
        "a comment within text": (with_name("Li<!-- <lastname>X</lastname> -->s"), "Lis"),
        "a comment in front": (with_name("Lis", "<!-- hello -->"), "Lis"),
        "references": (with_name("&lt;&amp;&gt;&quot;&apos;&#x141;&#128105;"), "<&>\"'Ł👩"),
        "a processing instruction": (with_name("Li<?php exit() ?>s", '<?xml-stylesheet href="URL/x.xsl"?>'), "Lis"),
        "a default namespace": (with_name("Lis").replace("<user>", f'<user xmlns="{namespace}">'), "Lis"),
        "a prefix": (prefixed.replace("<it:user>", f'<it:user xmlns:it="{namespace}">'), "Lis"),
        "a schema's address": (
            PERSON.replace("<user>", f'<user xmlns:i="{XSI}" i:noNamespaceSchemaLocation="URL/x.xsd">'),
            "Nowak",
        ),
        "line ends and blanks": (PERSON.replace("<", "\r\n\t <"), "Nowak"),
        "no wrappers": (f"<user>{tags(MANDATORY)}</user>", "Nowak"),
        "another root": (f"<prospect>{tags(MANDATORY)}</prospect>", "Nowak"),
        "our ids": (with_more("", f"<clientID>{CLIENT}</clientID><clubID>{CLUB}</clubID>"), "Nowak"),
        "the Connector's club": (with_more("", f"<clubID>{CONNECTOR_CLUB}</clubID>"), "Nowak"),
        "a huge attribute": (PERSON.replace("<user>", f'<user a="{"x" * 100_000}">'), "Nowak"),
        "a standalone document": (with_name("Lis", '<?xml version="1.0" standalone="yes"?>'), "Lis"),
    }
    names = [expected for _, expected in documents.values()]
    for number, (name, (document, expected)) in enumerate(documents.items(), start=1):
        content = document.encode() if isinstance(document, str) else document
        kind = (XML, "text/xml", "application/vnd.club+xml", "Application/XML; charset=utf-8")[number % 4]
        answer = send(crm, content.replace(b"URL", crm.stack.illu.url.encode()), kind)
        result = "WARNING" if expected in names[: number - 1] else "INFO"  # of the same name, and with nothing else
        assert (answer.status_code, summary(answer, result).language) == (201, "xml"), name
        assert len(contacts(crm.stack)) == number, name
        assert contacts(crm.stack)[-1]["lastName"] == expected, name
    assert crm.stack.illu.seen == []


def test_an_empty_tag_empties_while_a_missing_tag_and_null_keep_what_egito_has(crm: Crm) -> None:
    kept = {"email": "a@b.c", "mobile": "600000001", "birthdate": "1990-12-31", "trialStartDate": "2024-01-01"}
    send(crm, body("json", uuid="u-1", city="Opole", company="Lis", **kept))
    before = dict(contacts(crm.stack)[0])
    provider = "<uuid>u-1</uuid>"
    assert send(crm, with_more("<city/><company>  </company>", provider)).status_code == 200
    emptied = {**before, "city": "", "company": ""}
    assert contacts(crm.stack) == [emptied]
    nils = "".join(f'<{name} i:nil="{nil}"/>' for name, nil in zip(kept, ("true", "1", "true", "1"), strict=True))
    document = with_more(nils, provider).replace("<user>", f'<user xmlns:i="{XSI}">')
    assert send(crm, document).status_code == 200
    assert send(crm, body("json", uuid="u-1", **dict.fromkeys(kept))).status_code == 200
    assert contacts(crm.stack) == [emptied]


# ---------------------------------------------------------------- JSON


def test_what_is_no_json_is_refused(crm: Crm) -> None:
    person = json.dumps(MANDATORY)
    bodies: dict[str, tuple[bytes, int]] = {
        "nothing": (b"", 400),
        "blanks": (b" \n", 400),
        "half a body": (person[:-1].encode(), 400),
        "two objects": ((person * 2).encode(), 400),
        "single quotes": (person.replace('"', "'").encode(), 400),
        "NaN": (person.replace('"Ada"', "NaN").encode(), 400),
        "Infinity": (person.replace('"Ada"', "-Infinity").encode(), 400),
        "a huge number": (person.replace('"Ada"', "9" * 10_000).encode(), 400),
        "half a surrogate pair": (person.replace("Ada", "\\ud800").encode(), 400),
        "a raw control character": (person.replace("Ada", "a\x01b").encode(), 400),
        "invalid UTF-8": (person.encode().replace(b"Ada", b"\xff"), 400),
        "windows-1250": (person.replace("Ada", "Żółć").encode("windows-1250"), 400),
        "XML": (PERSON.encode(), 400),
        "endless nesting": (b"[" * 100_000, 400),
        "an array": (f"[{person}]".encode(), 422),
        "an empty array": (b"[]", 422),
        "a text": (b'"Ada"', 422),
        "a number": (b"5", 422),
        "null": (b"null", 422),
        "nothing in it": (b"{}", 422),
    }
    for name, (content, status) in bodies.items():
        refused(send(crm, content, JSON), status, "json", name)
        expect_untouched(crm.stack, name)


def test_json_is_read_right_however_it_is_encoded(crm: Crm) -> None:
    for number, encoding in enumerate(("utf-8-sig", "utf-16", "utf-16-le", "iso-8859-2"), start=1):
        content = json.dumps(body("json", lastname="Żółć"), ensure_ascii=False).encode(encoding)
        named = "; charset=iso-8859-2" if encoding.startswith("iso") else ""
        assert send(crm, content, f"application/json{named}").status_code == 201
        assert [record["lastName"] for record in contacts(crm.stack)] == ["Żółć"] * number


def test_json_with_a_wrong_member_is_refused_and_the_member_is_named(crm: Crm) -> None:
    members: dict[str, object] = {
        "nickname": "A",
        "userInfo": MANDATORY,
        "__proto__": {},
        "user_type": "PROSPECT",
        "record_id": "x",
        "recordID": "5001",
        "uuid": "x" * 201,
        "clientID": "c-8",
        "clubID": "k-4",
        "city": {"name": "Opole"},
        "firstname": None,
        "lastname": "a\u0000b",
        "zipcode": 30.5,
        "birthdate": "1990-02-30",
    }
    for name, value in members.items():
        said = refused(send(crm, {**MANDATORY, name: value}), 422, "json")
        assert said.fields[0].split(".")[0] == name
        assert name in said.message
        expect_untouched(crm.stack, name)
    twice = json.dumps(MANDATORY).replace('"lastname"', '"firstname": "Eva", "lastname"')
    assert refused(send(crm, twice, JSON), 422, "json").fields == ["firstname"]
    expect_untouched(crm.stack)
