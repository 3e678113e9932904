"""What the name of a download can do to a header: nothing (T61)."""

import pytest

from ingestd.api.downloads import disposition


@pytest.mark.threat("T61")
@pytest.mark.parametrize("name", ['a"\r\nX: y.csv', "a\\b;c.csv", "\u202ecsv.exe", "Käse.csv", "a'b%.csv", ""])
def test_a_name_breaks_no_header_and_can_be_read_back(name):
    header = disposition(name)
    assert header.isascii()
    assert header.isprintable()
    plain, encoded = header.removeprefix('attachment; filename="').split("\"; filename*=UTF-8''")
    assert '"' not in plain
    assert set(encoded) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~%")
