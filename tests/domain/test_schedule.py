"""When schedules are due: the document's own dates, every edge of the calendar, and the same by a plainer way."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.domain.schedule import Calendar, Frequency, Timetable, advice

DAILY, WEEKLY, MONTHLY = Frequency


def timetable(frequency, since, first, last, zone="UTC", sync="02:00"):
    """A timetable whose account made it at a local time of its own."""
    calendar = Calendar(ZoneInfo(zone), time.fromisoformat(sync))
    moment = datetime.fromisoformat(since).replace(tzinfo=calendar.zone)
    return Timetable(frequency, date.fromisoformat(first), date.fromisoformat(last), moment.astimezone(UTC), calendar)


def days(table):
    return [slot.day.isoformat() for slot in table.slots()]


THURSDAY, MONDAY = "2020-10-01", "2020-10-05"
BEFORE, AFTER, AT = "T01:59:59", "T02:00:01", "T02:00:00"
FAR = "2020-12-31"

# frequency, when it was made, validity, how many runs, the first, the last
FIRST_AND_LAST = [
    # The document's own: made on Thursday, 1 October 2020, before and after the sync time (S29, S32, S34, D8, D9).
    (DAILY, THURSDAY + BEFORE, THURSDAY, FAR, 92, "2020-10-01", FAR),
    (DAILY, THURSDAY + AFTER, THURSDAY, FAR, 91, "2020-10-02", FAR),
    (WEEKLY, THURSDAY + BEFORE, THURSDAY, FAR, 13, "2020-10-05", "2020-12-28"),
    (WEEKLY, THURSDAY + AFTER, THURSDAY, FAR, 13, "2020-10-05", "2020-12-28"),
    (MONTHLY, THURSDAY + BEFORE, THURSDAY, FAR, 3, "2020-10-01", "2020-12-01"),
    (MONTHLY, THURSDAY + AFTER, THURSDAY, FAR, 2, "2020-11-01", "2020-12-01"),
    # Just at the sync time is not before it.
    (DAILY, THURSDAY + AT, THURSDAY, FAR, 91, "2020-10-02", FAR),
    (WEEKLY, MONDAY + AT, MONDAY, FAR, 12, "2020-10-12", "2020-12-28"),
    (MONTHLY, THURSDAY + AT, THURSDAY, FAR, 2, "2020-11-01", "2020-12-01"),
    # Made on a Monday (S33).
    (WEEKLY, MONDAY + BEFORE, MONDAY, FAR, 13, "2020-10-05", "2020-12-28"),
    (WEEKLY, MONDAY + AFTER, MONDAY, FAR, 12, "2020-10-12", "2020-12-28"),
    (WEEKLY, "2020-10-04T23:59:59", "2020-10-04", FAR, 13, "2020-10-05", "2020-12-28"),
    (WEEKLY, "2020-10-06T00:00:00", "2020-10-06", FAR, 12, "2020-10-12", "2020-12-28"),
    # The validity begins later than the schedule is made, and ends on the last day, inclusive (D8).
    (DAILY, THURSDAY + AFTER, "2020-10-10", "2020-10-12", 3, "2020-10-10", "2020-10-12"),
    (DAILY, THURSDAY + AFTER, "2020-10-10", "2020-10-10", 1, "2020-10-10", "2020-10-10"),
    (WEEKLY, THURSDAY + AFTER, "2020-10-12", "2020-10-26", 3, "2020-10-12", "2020-10-26"),
    (WEEKLY, THURSDAY + AFTER, "2020-10-13", "2020-10-25", 1, "2020-10-19", "2020-10-19"),
    (WEEKLY, THURSDAY + AFTER, "2020-10-05", "2020-10-05", 1, "2020-10-05", "2020-10-05"),
    (MONTHLY, THURSDAY + AFTER, "2020-11-01", "2020-11-01", 1, "2020-11-01", "2020-11-01"),
    (MONTHLY, THURSDAY + AFTER, "2020-11-02", "2021-01-31", 2, "2020-12-01", "2021-01-01"),
    (MONTHLY, THURSDAY + AFTER, "2020-11-02", "2021-02-01", 3, "2020-12-01", "2021-02-01"),
    # The validity began before the schedule was made: nothing is made up for.
    (DAILY, THURSDAY + BEFORE, "2020-01-01", "2020-10-02", 2, "2020-10-01", "2020-10-02"),
    (DAILY, THURSDAY + AFTER, "2020-01-01", "2020-10-02", 1, "2020-10-02", "2020-10-02"),
    (WEEKLY, THURSDAY + AFTER, "2020-01-01", "2020-10-05", 1, "2020-10-05", "2020-10-05"),
    (MONTHLY, THURSDAY + AFTER, "2020-01-01", "2020-11-30", 1, "2020-11-01", "2020-11-01"),
    # No run at all.
    (DAILY, THURSDAY + AFTER, THURSDAY, THURSDAY, 0, None, None),
    (DAILY, THURSDAY + BEFORE, "2019-01-01", "2019-12-31", 0, None, None),
    (WEEKLY, THURSDAY + BEFORE, THURSDAY, "2020-10-04", 0, None, None),
    (MONTHLY, THURSDAY + AFTER, THURSDAY, "2020-10-31", 0, None, None),
    (MONTHLY, "2020-10-02T00:00:00", "2020-10-02", "2020-10-31", 0, None, None),
    # Ends of months and years, leap days.
    (DAILY, "2020-02-27T12:00:00", "2020-02-27", "2020-03-01", 3, "2020-02-28", "2020-03-01"),
    (DAILY, "2021-02-27T12:00:00", "2021-02-27", "2021-03-01", 2, "2021-02-28", "2021-03-01"),
    (DAILY, "2020-02-28T12:00:00", "2020-02-29", "2020-02-29", 1, "2020-02-29", "2020-02-29"),
    (DAILY, "2100-02-27T12:00:00", "2100-02-28", "2100-03-01", 2, "2100-02-28", "2100-03-01"),
    (DAILY, "2000-02-27T12:00:00", "2000-02-28", "2000-03-01", 3, "2000-02-28", "2000-03-01"),
    (DAILY, "2020-12-30T12:00:00", "2020-12-30", "2021-01-02", 3, "2020-12-31", "2021-01-02"),
    (MONTHLY, "2020-01-31T12:00:00", "2020-01-31", "2020-03-31", 2, "2020-02-01", "2020-03-01"),
    (MONTHLY, "2020-12-31T23:59:59", "2020-12-31", "2021-01-31", 1, "2021-01-01", "2021-01-01"),
    (MONTHLY, "2021-01-30T12:00:00", "2021-01-01", "2022-01-31", 12, "2021-02-01", "2022-01-01"),
    (WEEKLY, "2020-02-24T12:00:00", "2020-02-24", "2020-03-02", 1, "2020-03-02", "2020-03-02"),
    (WEEKLY, "2020-12-29T12:00:00", "2020-12-29", "2021-01-04", 1, "2021-01-04", "2021-01-04"),
]


@pytest.mark.rule("S8", "S26", "S27", "S29", "S32", "S33", "S34", "S35")
@pytest.mark.parametrize("case", FIRST_AND_LAST)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])  # where no clock is ever changed, dates are the same
def test_a_schedule_begins_and_ends_on_the_days_of_its_validity(case, zone):
    frequency, since, first, last, count, begins, ends = case
    found = days(timetable(frequency, since, first, last, zone))
    assert (len(found), found[:1], found[-1:]) == (count, [begins] * bool(count), [ends] * bool(count))


# zone, sync time, validity, the instants
INSTANTS = [
    # A local time that does not exist is the first instant after the gap, one that occurs twice the first (D7).
    ("Europe/Vienna", "02:30", "2020-03-28", "2020-03-30", ["28T01:30", "29T01:00", "30T00:30"]),
    ("Europe/Vienna", "02:00", "2020-03-28", "2020-03-30", ["28T01:00", "29T01:00", "30T00:00"]),
    ("Europe/Vienna", "02:59:59", "2020-03-29", "2020-03-29", ["29T01:00"]),
    ("Europe/Vienna", "03:00", "2020-03-28", "2020-03-30", ["28T02:00", "29T01:00", "30T01:00"]),
    ("Europe/Vienna", "01:59:59", "2020-03-29", "2020-03-29", ["29T00:59:59"]),
    ("Europe/Vienna", "02:30", "2020-10-24", "2020-10-26", ["24T00:30", "25T00:30", "26T01:30"]),
    ("Europe/Vienna", "02:00", "2020-10-25", "2020-10-25", ["25T00:00"]),
    ("Europe/Vienna", "03:00", "2020-10-24", "2020-10-26", ["24T01:00", "25T02:00", "26T02:00"]),
    ("America/New_York", "02:30", "2020-03-07", "2020-03-09", ["07T07:30", "08T07:00", "09T06:30"]),
    ("America/New_York", "01:30", "2020-10-31", "2020-11-02", ["31T05:30", "01T05:30", "02T06:30"]),
    # South of the equator the clocks go the other way round.
    ("Australia/Sydney", "02:30", "2020-10-03", "2020-10-05", ["02T16:30", "03T16:00", "04T15:30"]),
    ("Australia/Sydney", "02:30", "2020-04-04", "2020-04-06", ["03T15:30", "04T15:30", "05T16:30"]),
    # By half an hour only.
    ("Australia/Lord_Howe", "02:15", "2020-10-04", "2020-10-04", ["03T15:30"]),
    ("Australia/Lord_Howe", "01:45", "2020-04-05", "2020-04-05", ["04T14:45"]),
    # At midnight: the day begins at one o'clock.
    ("Asia/Beirut", "00:00", "2020-03-28", "2020-03-30", ["27T22:00", "28T22:00", "29T21:00"]),
    ("America/Havana", "00:30", "2020-03-08", "2020-03-08", ["08T05:00"]),
    # Zones with odd offsets, and the ends of the earth.
    ("Asia/Kolkata", "02:00", "2020-10-01", "2020-10-02", ["30T20:30", "01T20:30"]),
    ("Asia/Kathmandu", "00:00", "2020-10-01", "2020-10-01", ["30T18:15"]),
    ("Pacific/Kiritimati", "02:00", "2020-10-01", "2020-10-01", ["30T12:00"]),
    ("Etc/GMT+12", "23:59", "2020-10-01", "2020-10-01", ["02T11:59"]),
    # Samoa had no 30 December 2011: the first instant after the gap, and once where two days would meet there.
    ("Pacific/Apia", "02:00", "2011-12-29", "2011-12-31", ["29T12:00", "30T10:00", "30T12:00"]),
    ("Pacific/Apia", "00:00", "2011-12-29", "2011-12-31", ["29T10:00", "30T10:00"]),
]


@pytest.mark.rule("S28", "S30")
@pytest.mark.parametrize(("zone", "sync", "first", "last", "expected"), INSTANTS)
def test_a_run_is_at_the_sync_time_of_the_accounts_zone(zone, sync, first, last, expected):
    table = timetable(DAILY, "2010-01-01T00:00:00", first, last, zone, sync)
    found = [f"{slot.at:%dT%H:%M:%S}" for slot in table.slots()]
    assert found == [each if each.count(":") == 2 else f"{each}:00" for each in expected]


MONTHLY_DST = timetable(MONTHLY, "2020-01-15T00:00:00", "2020-01-01", "2020-12-31", "Europe/Vienna")


def test_weekly_and_monthly_runs_keep_the_local_time_through_the_year():
    assert [f"{slot.at:%m-%d %H:%M}" for slot in MONTHLY_DST.slots()][1:4] == [
        "03-01 01:00",
        "04-01 00:00",
        "05-01 00:00",
    ]
    weekly = timetable(WEEKLY, "2020-10-20T00:00:00", "2020-10-20", "2020-11-03", "Europe/Vienna")
    assert [f"{slot.at:%m-%d %H:%M}" for slot in weekly.slots()] == ["10-26 01:00", "11-02 01:00"]


def test_what_was_dealt_with_does_not_come_again_when_the_calendar_moves():
    """Today's run was at 02:00; then the sync time is moved to the evening, or the zone to the west."""
    for moved in ({"sync": "22:00"}, {"zone": "Pacific/Honolulu"}, {"zone": "Pacific/Kiritimati"}):
        table = timetable(DAILY, "2020-10-01T00:00:00", "2020-10-01", "2020-10-05", **moved)
        assert table.next(after=date(2020, 10, 3)).day == date(2020, 10, 4)


def test_what_was_not_dealt_with_is_due_at_once_when_the_sync_time_moves_to_before_now():
    table = timetable(DAILY, "2020-10-01T00:00:00", "2020-10-01", "2020-10-05", sync="02:00")
    due = table.due(datetime(2020, 10, 3, 12, tzinfo=UTC), after=date(2020, 10, 2))
    assert [slot.day for slot in due] == [date(2020, 10, 3)]


@pytest.mark.parametrize(
    ("made", "first"),
    [("T10:00:00", MONDAY), ("T23:00:00", "2020-10-12"), ("T23:30:00", "2020-10-12")],
)
def test_what_was_to_come_is_due_at_once_when_its_instant_moves_to_before_the_schedule_was_made(made, first):
    """Made on a Monday for 23:00, and moved to 09:00 then."""
    table = timetable(WEEKLY, MONDAY + made, MONDAY, FAR, sync="23:00")
    moved = table.moved(Calendar(ZoneInfo("UTC"), time(9)))
    assert days(moved)[0] == first == days(table)[0]
    assert len(days(moved)) == len(days(table))
    assert moved.next(after=date(2020, 10, 5)).day == date(2020, 10, 12)


def test_after_a_downtime_every_slot_that_passed_is_due_in_order():
    table = timetable(DAILY, "2020-10-01T00:00:00", "2020-10-01", "2020-10-05")
    found = table.due(datetime(2021, 1, 1, tzinfo=UTC), after=date(2020, 10, 2))
    assert [slot.day.day for slot in found] == [3, 4, 5]
    assert table.due(datetime(2020, 10, 1, 1, 59, 59, tzinfo=UTC)) == []


@pytest.mark.rule("S31")
def test_daily_is_recommended_and_nothing_forbidden():
    assert advice(DAILY) == []
    for frequency in (WEEKLY, MONTHLY):
        assert [each.code for each in advice(frequency)] == ["daily_recommended"]
        assert f"A {frequency} schedule" in advice(frequency)[0].detail


def test_a_timetable_is_said_in_one_plain_sentence():
    said = timetable(WEEKLY, THURSDAY + BEFORE, THURSDAY, FAR, "Europe/Vienna").sentence()
    assert said == "Every Monday at 02:00 (Europe/Vienna), first on Monday, 2020-10-05, until Thursday, 2020-12-31."
    none = timetable(MONTHLY, THURSDAY + AFTER, THURSDAY, "2020-10-31").sentence()
    assert none.endswith("until Saturday, 2020-10-31: there is no such day left.")


ZONES = ["UTC", "Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana"]
EPOCHS = [int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2010, 2031)]
DAYS = st.dates(date(2010, 1, 1), date(2030, 12, 31))
TIMETABLES = st.builds(
    lambda frequency, since, first, length, zone, sync: Timetable(
        frequency, first, first + timedelta(days=length), since, Calendar(ZoneInfo(zone), sync)
    ),
    st.sampled_from(Frequency),
    st.integers(EPOCHS[0], EPOCHS[1]).map(lambda epoch: datetime.fromtimestamp(epoch, UTC)),
    DAYS,
    st.integers(0, 500),
    st.sampled_from(ZONES),
    st.times().map(lambda found: found.replace(microsecond=0, tzinfo=None, fold=0)),
)


def first_instant_with(day, sync, zone):
    """The first instant at which a zone's clocks show a time of a day or later, found by looking at all of them."""
    wanted = datetime.combine(day, sync)
    instant = datetime.combine(day, sync, UTC) - timedelta(hours=15)
    step = timedelta(hours=1)
    while step >= timedelta(seconds=1):
        while (instant + step).astimezone(zone).replace(tzinfo=None) < wanted:
            instant += step
        step /= 60
    return instant + timedelta(seconds=1)


@pytest.mark.rule("S8")
@given(TIMETABLES)
def test_no_run_is_outside_the_validity_none_is_twice_and_none_is_missing(table):
    found = list(table.slots())
    assert all(table.first <= slot.day <= table.last and slot.at > table.since for slot in found)
    assert all(one.at < two.at for one, two in pairwise(found))
    span = range((table.last - table.first).days + 1)
    fitting = [day for day in (table.first + timedelta(days=each) for each in span) if table.frequency.fits(day)]
    by_looking = {table.calendar.at(day): day for day in reversed(fitting)}
    assert {slot.at: slot.day for slot in found} == {at: day for at, day in by_looking.items() if at > table.since}


@given(TIMETABLES)
def test_each_run_is_at_the_first_instant_that_shows_its_time_or_a_later_one(table):
    for slot in islice(table.slots(), 3):
        assert slot.at == first_instant_with(slot.day, table.calendar.sync_time, table.calendar.zone)


@given(TIMETABLES, st.integers(0, 40))
def test_going_on_after_a_slot_gives_the_rest_and_no_more(table, place):
    found = list(islice(table.slots(), 60))
    if place < len(found):
        rest = list(islice(table.slots(after=found[place].day), 60 - place - 1))
        assert rest == found[place + 1 :]
