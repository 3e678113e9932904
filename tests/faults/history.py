"""What clients sent and were told, held against what is there in the end: a history check from outside."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class History:
    """Numbered events of one account: those that were sent, and those whose file was acknowledged."""

    sent: set = field(default_factory=set)
    acknowledged: set = field(default_factory=set)
    files: int = 0

    async def push(self, client, events):
        """Push a file with so many new events until it is acknowledged."""
        numbers = range(len(self.sent), len(self.sent) + events)
        self.sent |= {*numbers}
        self.files += 1
        rows = "".join(f"Bought,1578503667,person-{n % 7},{n}\n" for n in numbers)
        columns = {"event": {"ctName": "evtName"}, "at": {"ctName": "ts"}, "n": {"ctName": "n", "dataType": "INTEGER"}}
        columns = {name: {"dataType": "STRING"} | column for name, column in columns.items()}
        await client.insist(
            f"events-{self.files}", f"event,at,identity,n\n{rows}".encode(), type="event", columns=columns
        )
        self.acknowledged |= {*numbers}

    async def check(self, client):
        """Assert that nothing was lost, nothing made up and nothing doubled."""
        found = Counter(await numbers_of(client))
        assert self.acknowledged - found.keys() == set(), "lost"
        assert found.keys() - self.sent == set(), "phantom"
        assert {n for n, times in found.items() if times > 1} == set(), "duplicated"


async def numbers_of(client):
    """The numbers of an account's events, as the API lists them."""
    numbers, cursor = [], None
    async with client.http() as http:
        while True:
            asked = {"limit": 200} | ({"cursor": cursor} if cursor else {})
            page = (await http.get("/v1/events", params=asked)).raise_for_status().json()
            numbers += [each["properties"]["n"] for each in page["data"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return numbers
