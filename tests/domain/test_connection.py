"""Paths of a connection: always below its root folder (S19, D3)."""

import pytest

from ingestd.domain.connection import parse_path, parse_root
from ingestd.domain.errors import Invalid


@pytest.mark.rule("S19")
@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/demo_path/", "demo_path"),
        ("demo_path", "demo_path"),
        ("demo_path/demo__points.csv", "demo_path/demo__points.csv"),
        ("a//b/", "a/b"),
        ("", ""),
        ("/", ""),
        ("/etc/passwd", "etc/passwd"),  # below the root folder, whatever stands there
        ("Größe/日本", "Größe/日本"),
    ],
)
def test_a_path_begins_at_the_root_folder(text, path):
    assert parse_path(text) == path


@pytest.mark.rule("S19")
@pytest.mark.threat("T136")
@pytest.mark.parametrize(
    "text",
    [
        "..",
        "a/../b",
        "./a",
        "~/a",
        "ftp://demo_apac/demo_master/demo_path/demo__points.csv",
        "//host/share",
        "C:/x",
        "a\\b",
        "a\r\nDELE b",
        "a\0.csv",
        "a\x1b[2J",
        "a\u202eb",
        "demo**points.csv",
        "x" * 1025,
    ],
)
def test_a_path_that_leads_elsewhere_or_hides_something_is_refused(text):
    with pytest.raises(Invalid) as refused:
        parse_path(text)
    assert refused.value.code == "path_invalid"


@pytest.mark.rule("S19")
def test_a_root_folder_begins_at_the_servers_root_or_where_the_login_leads_to():
    assert parse_root("demo_apac/demo_master/") == "demo_apac/demo_master"
    assert parse_root("/data//in/") == "/data/in"
    assert (parse_root(""), parse_root("/")) == ("", "/")
