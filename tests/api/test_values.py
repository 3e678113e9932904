import pytest

from ingestd.api.values import value


@pytest.mark.rule("D55")
@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-62135596800, "0001-01-01T00:00:00Z"),
        (-50000000000, "0385-07-25T07:06:40Z"),
        (1589274432, "2020-05-12T09:07:12Z"),
        (253402300799, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_date_of_any_year_is_shown_as_rfc_3339_writes_it(seconds, shown):
    assert value([{"$D": seconds}]) == [shown]
