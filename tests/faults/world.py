"""The file of the fault tests, whose effect shows every repeat, and what must have come of it."""

PEOPLE = 300
PARTS = 16


def adding(song, people=PEOPLE):
    """A file in which everyone, who has two identifiers, adds a song, in two rows each."""
    rows = "".join(f"person-{n},{other(n)},{song},$add\n" * 2 for n in range(people))
    return ("identity,objectId,Playlist,Playlist.operation\n" + rows).encode()


def other(number):
    """The other identifier of a person."""
    return f"object-{number}"


async def exact(client, songs):
    """Assert that the files took effect once each, and in their order."""
    ended = await client.ended()
    for n, each in enumerate(ended):
        assert each["status"] == "completed"
        assert (each["counts"]["accepted"], each["counts"]["rejected"]) == (2 * PEOPLE, 0)
        assert (each["counts"]["created"], each["counts"]["updated"]) == ((0, PEOPLE) if n else (PEOPLE, 0))
    for n in (0, PEOPLE // 2, PEOPLE - 1):
        assert await client.playlist(f"person-{n}") == await client.playlist(other(n), kind="objectId") == songs
    return ended


def crashes(program, *, newest=2):
    """How often each of the newest ingestions crashed, newest first."""
    with program.sql() as sql:
        return [row[0] for row in sql.execute("SELECT attempts FROM ingestions ORDER BY id DESC LIMIT %s", [newest])]
