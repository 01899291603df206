# ruff: noqa: RUF001, SIM905 - tables of words, some with look-alike characters on purpose
from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aether.errors import ToolError
from aether.extensions.tools import _urls
from aether.extensions.tools._urls import parse_web_url

ACCEPTED = {
    "http://example.com": "http://example.com/",
    "https://example.com/": "https://example.com/",
    "HTTPS://Example.COM/Path": "https://example.com/Path",
    "http://example.com:80/a": "http://example.com/a",
    "https://example.com:443": "https://example.com/",
    "https://example.com:80/": "https://example.com:80/",
    "http://example.com:0443/": "http://example.com:443/",
    "https://example.com?q=1": "https://example.com/?q=1",
    "https://example.com/a?q=a+b&c=%20#part": "https://example.com/a?q=a+b&c=%20",
    "https://example.com/a?": "https://example.com/a",
    "https://example.com/@user/x": "https://example.com/@user/x",
    "https://example.com//b/../c": "https://example.com//b/../c",
    "https://example.com/a;b=c": "https://example.com/a;b=c",
    "https://example.com/http://10.0.0.1/": "https://example.com/http://10.0.0.1/",
    "https://example.com/?u=http://user@10.0.0.1": "https://example.com/?u=http://user@10.0.0.1",
    "https://de.wikipedia.org/wiki/Größe": "https://de.wikipedia.org/wiki/Gr%C3%B6%C3%9Fe",
    "https://example.com/日本?q=語": "https://example.com/%E6%97%A5%E6%9C%AC?q=%E8%AA%9E",
    'https://example.com/a"<b>`{c}|^[d]': "https://example.com/a%22%3Cb%3E%60%7Bc%7D%7C%5E%5Bd%5D",
    "https://example.com/100%": "https://example.com/100%25",
    "https://example.com/%e4%zz": "https://example.com/%e4%25zz",
    "https://xn--bcher-kva.example/": "https://xn--bcher-kva.example/",
    "https://a_b.example.com/": "https://a_b.example.com/",
    "https://1.1.1.1/dns-query": "https://1.1.1.1/dns-query",
    "https://1.example.com/": "https://1.example.com/",
    "https://1e100.net/": "https://1e100.net/",
    "https://[2606:4700:4700::1111]/": "https://[2606:4700:4700::1111]/",
    "https://[2606:4700:4700:0:0:0:0:1111]:80/": "https://[2606:4700:4700::1111]:80/",
}

NOT_WEB = """
    file:///etc/passwd file://localhost/etc/passwd file:/etc/passwd
    gopher://127.0.0.1:6379/_INFO ftp://example.com/ ftps://example.com/ data:text/html,hello
    data:;base64,aGk= javascript:alert(1) dict://127.0.0.1:11211/stats ldap://127.0.0.1/
    tftp://127.0.0.1/x jar:http://example.com!/ netdoc:///etc/passwd php://filter/resource=x
    unix:///var/run/docker.sock http+unix://%2Fvar%2Frun%2Fdocker.sock/info ws://example.com/
    wss://example.com/ ssh://example.com/ about:blank view-source:http://example.com/
    mailto:a@example.com urn:isbn:0 httpx://example.com/ hhttp://example.com/
    http-://example.com/ //example.com/ /path path example.com www.example.com localhost
    127.0.0.1 example.com:80 http https :// ://example.com
""".split()

NO_HOST = """
    http: https: http:// https:// ///example.com/ http:/// http:///etc/passwd http:/example.com
    http:example.com http://:80/ http://?q=1 http://#part http://@/ http:////example.com/
    https:////10.0.0.1/ http://./ http://../ http://.example.com/ http://example..com/
    http://-example.com/ http://example-.com/ http://example.com./ http://localhost./
    http://example.com../
""".split()

USER_INFO = """
    http://user@example.com/ http://user:password@example.com/ http://:password@example.com/
    http://@example.com/ http://example.com@127.0.0.1/ http://example.com:80@127.0.0.1/
    http://127.0.0.1@example.com/ http://example.com@127.0.0.1@example.org/
    http://foo@127.0.0.1:80@example.com/ http://a:b@127.0.0.1:80@example.com:80/
    http://example.com%40@127.0.0.1/ https://user@[::1]/
""".split()

AMBIGUOUS_HOST = """
    http://2130706433/ http://0x7f000001/ http://0X7F000001/ http://017700000001/ http://127.1/
    http://127.0.1/ http://127.0.0.01/ http://0127.0.0.1/ http://0177.0.0.1/ http://0177.1/
    http://0x7f.0.0.1/ http://0x7f.1/ http://127.0x1/ http://127.0.0.0x1/ http://0/ http://00/
    http://0x/ http://1/ http://256.1.1.1/ http://1.1.1.1.1/ http://1.1.1/ http://999999999999/
    http://127.0.0.1./ http://127.0.0.1../ http://2852039166/ http://0xa9fea9fe/
    http://0xa9.0xfe.0xa9.0xfe/ http://0251.0376.0251.0376/ http://169.254.43518/
    http://169.16689662/ http://example.123/ http://example.0x7f/ http://00000000177.0.0.1/
    http://127.0.0.1.1/ http://0x7f.0.0.0x1/ http://4294967297/ http://18446744073709551617/
    http://127.000.000.001/
""".split()

NOT_ASCII_HOST = """
    http://127。0。0。1/ http://127．0．0．1/ http://127｡0｡0｡1/ http://１２７.0.0.1/ http://①②⑦.⓪.⓪.①/
    http://⑯⑨。②⑤④。⑯⑨｡②⑤④/ http://ⓔⓧⓐⓜⓟⓛⓔ.ⓒⓞⓜ/ http://ｅｘａｍｐｌｅ.com/ http://lоcalhost/
    http://localhoſt/ http://bücher.example/ http://日本.jp/ http://127.0.0.1％00.example.com/
    http://example.com／.evil.org/ http://example.com？.evil.org/ http://example.com＃@127.0.0.1/
    http://ⅼocalhost/ http://℀.example.com/ http://\u212a.example.com/ http://ß.example/
    http://example.com：80/ http://٠.٠.٠.٠/ http://۱۲۷.۰.۰.۱/ http://example․com/
""".split()

MALFORMED_AUTHORITY = """
    http://[::1/ http://::1/ http://::1]/ http://[]/ http://[::1]x/ http://[::1]]/
    http://[[::1]]/ http://[127.0.0.1]/ http://[example.com]/ http://[::1%25eth0]/
    http://[::1%eth0]/ http://[fe80::1%251]/ http://[fe80::1%1]/ http://[v1.fe80::1]/
    http://[::ffff:127.1]/ http://[12345::]/ http://[1::2::3]/ http://[::1]:/ http://[::1]:x/
    http://example.com:/ http://example.com:80a/ http://example.com:a/ http://example.com:-80/
    http://example.com:+80/ http://example.com:80:80/ http://example.com:999999/
    http://example.com:８０/ http://example.com:0x50/ http://example.com:%38%30/
    http://127.0.0.1%00.example.com/ http://example.com%2f@127.0.0.1/
    http://example.com%2f.evil.org/ http://%31%32%37.0.0.1/ http://127.0.0.1%2f/
    http://%6c%6f%63alhost/ http://example.com%23@evil/ http://exa$mple.com/
    http://exa!mple.com/ http://a,b.com/ http://a;b.com/ http://a&b.com/ http://a*b.com/
    http://(a).com/ http://'a'.com/ http://a=b.com/ http://a+b.com/ http://a|b.com/
    http://<a>.com/ http://{a}.com/ http://`a`.com/ http://"a".com/ http://a^b.com/ http://*/
""".split()

BAD_CHARACTERS = [
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\\@example.com/",
    "http:\\\\127.0.0.1\\",
    "http:/\\127.0.0.1/",
    "http://example.com\\.evil.org/",
    "\\\\127.0.0.1\\share",
    "http://example.com/a\\b",
    "http://127.0.0.1\0.example.com/",
    "http://example.com\0@127.0.0.1/",
    "http://example.com/\0",
    "\0http://example.com/",
    "http://exam\tple.com/",
    "http://exam\nple.com/",
    "ht\ntp://example.com/",
    "http://example.com/\r\nHost: 127.0.0.1",
    "http://example.com/\r\n\r\nGET /admin HTTP/1.1",
    "http://example.com/ HTTP/1.1\r\nX: y",
    " http://example.com/",
    "http://example.com/ ",
    "http://example.com /",
    "http:// example.com/",
    "http://127.0.0.1 @example.com/",
    "http://example.com/a b",
    "http://example.com/\x7f",
    "http://example.com/\x85",
    "http://example.com/\xa0",
    "http://example.com/\xad",
    "http://example.com/\u200b",
    "http://exam\u200bple.com/",
    "http://exam\u00adple.com/",
    "http://example.com/\u202egnp.exe",
    "http://example.com\u2028/",
    "http://example.com\u3000/",
    "\ufeffhttp://example.com/",
    "http://example.com/\ud800",
    "http://example.com/" + "a" * 8000,
    "http://" + "a." * 130 + "example.com/",
    "http://" + "a" * 64 + ".example.com/",
    "",
    " ",
]

REFUSED = (
    NOT_WEB
    + NO_HOST
    + USER_INFO
    + AMBIGUOUS_HOST
    + NOT_ASCII_HOST
    + MALFORMED_AUTHORITY
    + BAD_CHARACTERS
)


@pytest.mark.parametrize("url", ACCEPTED)
def test_a_web_url_has_one_spelling(url: str) -> None:
    assert parse_web_url(url).text == ACCEPTED[url]


@pytest.mark.parametrize("url", ACCEPTED)
def test_the_spelling_is_final(url: str) -> None:
    once = parse_web_url(url)
    assert parse_web_url(once.text) == once


@pytest.mark.row("X3", "X4", "X7")
@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_parsers_may_read_otherwise_is_refused(url: str) -> None:
    with pytest.raises(ToolError, match="http_get refuses this URL"):
        parse_web_url(url)


@pytest.mark.parametrize(
    ("urls", "reason"),
    [
        (NOT_WEB, "begin with http"),
        (USER_INFO, "user name"),
        (AMBIGUOUS_HOST, "odd spelling"),
        (NOT_ASCII_HOST, "ASCII|cannot be read"),
        (BAD_CHARACTERS[:7], "backslash"),
        (
            ["http://example.com/a b", "http://example.com/\u200b"],
            "space or an invisible",
        ),
        (["///example.com/"], "disagree about a URL that begins with ///"),
        (["https://example.com?to=a@b"], "disagree about an @ that has no /"),
        (["http://[::1]:x/", "http://:80/"], "host or port is missing or malformed"),
        (["http://example-.com/", "http://localhost./"], "no domain name"),
    ],
)
def test_the_reason_is_told(urls: list[str], reason: str) -> None:
    for url in urls:
        with pytest.raises(ToolError, match=reason):
            parse_web_url(url)


def test_what_only_looks_like_an_ipv6_address_is_refused() -> None:
    with pytest.raises(ToolError, match="no IPv6 address"):  # later releases of Python say so first
        _urls._parse_authority("[12345::]", 80)


def test_the_longest_url_is_taken_and_a_longer_one_refused() -> None:
    longest = "https://example.com/".ljust(8000, "a")
    assert parse_web_url(longest).text == longest
    with pytest.raises(ToolError, match="longer than 8000 characters"):
        parse_web_url(f"{longest}a")


def test_the_longest_name_is_taken_and_a_longer_one_refused() -> None:
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(longest) == 253
    assert parse_web_url(f"https://{longest}/").host == longest
    with pytest.raises(ToolError, match="no domain name"):
        parse_web_url(f"https://{longest}d/")


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(ToolError) as caught:
        parse_web_url("https://user:hunter2@example.com/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("/next", "https://example.com/next"),
        ("next?x=1#y", "https://example.com/a/next?x=1"),
        ("../up", "https://example.com/up"),
        ("?q=2", "https://example.com/a/b?q=2"),
        ("//example.org/", "https://example.org/"),
        ("//10.0.0.1/", "https://10.0.0.1/"),
        ("http://example.org", "http://example.org/"),
        ("/Größe", "https://example.com/Gr%C3%B6%C3%9Fe"),
    ],
)
def test_a_reference_is_read_relative_to_its_base(location: str, text: str) -> None:
    assert parse_web_url(location, base="https://example.com/a/b?q=1").text == text


@pytest.mark.row("X4", "X6")
@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/plain,x",
        "gopher://127.0.0.1/",
        "//user@127.0.0.1/",
        "///127.0.0.1/",
        "/\\127.0.0.1/",
        "\\\\127.0.0.1/",
        "//127.1/",
        "//[::1",
        "http://",
        "https:///127.0.0.1/",
        "/a\tb",
        "\t//127.0.0.1/",
        "https://a.example/, https://b.example/",
    ],
)
def test_a_reference_is_judged_like_a_url(location: str) -> None:
    with pytest.raises(ToolError):
        parse_web_url(location, base="https://example.com/a/b")


@pytest.mark.parametrize(
    ("url", "host", "port", "is_address"),
    [
        ("http://Example.com/", "example.com", 80, False),
        ("https://example.com:8443/", "example.com", 8443, False),
        ("https://127.0.0.1/", "127.0.0.1", 443, True),
        ("http://[2001:DB8:0::1]:81/", "2001:db8::1", 81, True),
        ("http://[::FFFF:7f00:1]/", "::ffff:127.0.0.1", 80, True),
    ],
)
def test_the_parts_are_told(url: str, host: str, port: int, is_address: bool) -> None:
    parsed = parse_web_url(url)
    assert (parsed.host, parsed.port, parsed.is_address) == (host, port, is_address)


_PIECES = st.sampled_from(
    [
        "http://",
        "https://",
        "//",
        "/",
        "\\",
        "@",
        ":",
        "?",
        "#",
        "%",
        "%2f",
        "%00",
        "[",
        "]",
        ".",
        "127.0.0.1",
        "example.com",
        "::1",
        "80",
        "0x7f",
        "user",
        "\t",
        " ",
        "\x00",
        "ä",
        "。",
        "①",
        ";",
    ]
)


@pytest.fixture(scope="module")
def others() -> tuple[Any, Any]:
    """Two libraries that read URLs, each in its own way."""
    return pytest.importorskip("yarl"), pytest.importorskip("httpx2")


@pytest.mark.row("X4")
@given(text=st.one_of(st.lists(_PIECES, max_size=8).map("".join), st.text(max_size=40)))
def test_any_text_is_refused_or_read_by_all_alike(others: tuple[Any, Any], text: str) -> None:
    yarl, httpx2 = others
    try:
        url = parse_web_url(text)
    except ToolError:
        return
    ours = (url.host, url.port)
    split = urlsplit(url.text)
    default = 443 if split.scheme == "https" else 80
    assert (split.hostname, split.port or default) == ours
    assert split.username is None
    theirs = yarl.URL(url.text, encoded=True)
    assert (theirs.host, theirs.port, theirs.user) == (*ours, None)
    theirs = httpx2.URL(url.text)
    assert (theirs.host, theirs.port or default, theirs.userinfo) == (*ours, b"")
    assert url.text.isascii()
    assert parse_web_url(url.text) == url


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_printable_path_is_escaped_and_not_lost(path: str) -> None:
    text = f"https://example.com/{path}"
    try:
        url = parse_web_url(text)
    except ToolError:
        assert " " in path or "\\" in path or not path.isprintable()
        return
    assert unquote(urlsplit(url.text).path) == unquote(urlsplit(text).path)
    assert unquote(urlsplit(url.text).query) == unquote(urlsplit(text).query)
