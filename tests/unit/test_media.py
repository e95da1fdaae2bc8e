"""The text of bodies that other programs wrote: what counts of mark, header and declaration, and what is refused."""

import time

import pytest

from crm_bridge.media import CharsetError, charset, media_type, text_of

POLISH = "Kraków, ul. Łąkowa 5, Żółć"
CENTRAL_EUROPE = ("iso-8859-2", "windows-1250")


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("outer", [None, "utf-8", "iso-8859-1", "windows-1250", "x-nothing"])
def test_bytes_decide_when_they_have_a_mark_or_are_wide(encoding: str, outer: str | None) -> None:
    assert text_of(f"<a>{POLISH}</a>".encode(encoding), outer, "iso-8859-2") == f"<a>{POLISH}</a>"


def test_two_marks_are_left_out_when_a_program_writes_two() -> None:
    """As in https://github.com/ActiveCampaign/activecampaign-api-php/issues/114"""
    assert text_of(b"\xef\xbb\xbf\xef\xbb\xbf{}", None) == "{}"


@pytest.mark.parametrize(
    ("encoding", "outer", "inner"),
    [
        ("iso-8859-2", "iso-8859-2", "utf-8"),
        ("iso-8859-2", "ISO-8859-2", "windows-1250"),
        ("iso-8859-2", "x-nothing", "ISO-8859-2"),
        ("iso-8859-2", "utf-8", "ISO-8859-2"),
        ("iso-8859-2", "utf-16", "ISO-8859-2"),
        ("windows-1250", "windows-1250", "utf-8"),
        ("windows-1250", "us-ascii", "windows-1250"),
        ("cp852", "ibm852", "utf-8"),
        ("utf-8", None, "utf-8"),
        ("utf-8", "utf-8", "ISO-8859-2"),
        ("utf-8", "UTF8", "windows-1250"),
        ("utf-8", "iso-8859-1", "UTF-8"),
        ("utf-8", "us-ascii", "utf-8"),
        ("utf-8", None, "utf-16"),
        ("utf-8", "utf-16", "utf-16"),
        ("utf-8", None, "ISO-8859-1"),
        ("utf-8", "iso-8859-2", "ISO-8859-2"),
        ("utf-8", "x-nothing", "utf-8"),
    ],
)
def test_text_is_right_whichever_label_lies(encoding: str, outer: str | None, inner: str) -> None:
    assert text_of(POLISH.encode(encoding), outer, inner) == POLISH


@pytest.mark.parametrize("text", ["SPÓŁKA", "RÓŻA", "MĘŻYK", "SZCZĘŚLIWY", "GÓŹDŹ"])
@pytest.mark.parametrize("encoding", CENTRAL_EUROPE)
def test_polish_capitals_are_right_or_refused_when_their_bytes_are_valid_utf8(text: str, encoding: str) -> None:
    body = text.encode(encoding)
    assert text_of(body, encoding) == text
    assert text_of(body, None, encoding) == text
    for outer in (None, "utf-8"):
        with pytest.raises(CharsetError):
            text_of(body, outer)


@pytest.mark.parametrize("text", ["NESTLÉ®", "CAFÉ\u00a0:", "Fuß«"])
def test_latin_1_is_right_when_its_bytes_are_valid_utf8_and_nothing_says_utf8(text: str) -> None:
    assert text.encode("latin-1").decode() != text
    assert text_of(text.encode("latin-1"), "iso-8859-1", "iso-8859-1") == text


@pytest.mark.parametrize(
    "text",
    [
        "ƏLİYEV MƏMMƏD",
        "BRAȘOV, ȚEPEȘ",
        "Иван Петров",
        "Ἀθῆναι",
        "ƊANGOTE",
        "O\u02bcBRIEN",
        "Кӣрка ӯ",
        "李 👩",
        "ɖevi Kɔfi",
        "שלום",
    ],
)
def test_utf8_is_right_in_all_scripts(text: str) -> None:
    assert text_of(text.encode(), None) == text
    assert text_of(text.encode(), "utf-8", "iso-8859-1") == text


@pytest.mark.parametrize("encoding", CENTRAL_EUROPE)
def test_what_is_not_utf8_is_refused_when_only_utf8_is_named(encoding: str) -> None:
    for outer in (None, "utf-8", "utf-16", "us-ascii"):
        with pytest.raises(CharsetError):
            text_of(POLISH.encode(encoding), outer)


@pytest.mark.parametrize(
    "label",
    ["x-nothing", "utf-7", "punycode", "idna", "unicode_escape", "zlib", "hz", "cp037", "a\0b", "é", "x" * 9999, "."],
)
def test_charsets_that_are_not_supported_are_refused(label: str) -> None:
    with pytest.raises(CharsetError, match="not supported"):
        text_of(b"+AMM-", None, label)
    assert text_of(b"+AMM-", label) == "+AMM-"  # UTF-8 is what the document is without one


@pytest.mark.parametrize(
    "body", [b"\xff\xfea", b"\xff\xfe\x00\xd8", b"\0\0\0\x01\0", b"a\0\x00\xdc", b"\xef\xbb\xbf\xff", b"\xed\xa0\x80"]
)
def test_bytes_that_are_no_text_are_refused(body: bytes) -> None:
    with pytest.raises(CharsetError) as refused:
        text_of(body, None)
    assert "0x" not in str(refused.value)


def test_work_is_linear_when_the_body_is_hostile() -> None:
    began = time.process_time()
    for body in (b"A\xd3" * 500_000, b"A\xc6\x80" * 300_000, b"\xc6" * 1_000_000, b"A" * 1_000_000):
        for inner in ("utf-8", "iso-8859-2"):
            try:
                text_of(body, "iso-8859-1", inner)
            except CharsetError:
                continue
    assert time.process_time() - began < 2
    assert charset(";" * 10_000 + " " * 10_000) is None
    assert media_type('"' * 9_999 + "," * 9_999)


@pytest.mark.parametrize(
    ("header", "named", "kind"),
    [
        ("application/json", None, "application/json"),
        ("Application/JSON; Charset=UTF-8", "utf-8", "application/json"),
        ('application/xml;charset="iso-8859-2"', "iso-8859-2", "application/xml"),
        ("application/xml; charset='utf-8' ; q=1", "utf-8", "application/xml"),
        ("application/json,application/json", None, "application/json"),
        ("application/json, application/json;charset=utf-8", "utf-8", "application/json"),
        ("application/xml;charset=utf-8,application/xml;charset=iso-8859-2", None, "application/xml"),
        (",application/json", None, "application/json"),
        ('application/vnd.a+json; profile="a,b;c"', None, "application/vnd.a+json"),
        ("application/json,text/xml", None, "application/json,text/xml"),
        ("application/json; charset=", None, "application/json"),
        (" ", None, ""),
        (",", None, ","),
    ],
)
def test_a_content_type_is_read_when_it_is_repeated(header: str, named: str | None, kind: str) -> None:
    assert (charset(header), media_type(header)) == (named, kind)
