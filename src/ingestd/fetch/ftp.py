"""Files of an FTP or FTPS server: exact times by MLSD or MDTM, and transfers that are known to be whole."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aioftp

from ingestd.domain.errors import Unavailable
from ingestd.domain.remote_file import RemoteFile, is_safe
from ingestd.fetch.control import Control, context_for, failures, passing, refused_by
from ingestd.fetch.remote import BLOCK, Listing, Server, Step, Terms, listing_time, too_long

LISTING_LINE: Final = 4 * 1024
LISTING_PIECE: Final = 64 * 1024
ASKED_FOR: Final = 64
"""Files of which exact times are asked one by one: the dates of LIST are good enough to tell which may be newest."""

ASKED_AT_MOST: Final = 500
"""Where they are not: they cannot be read, or several files have the newest."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)

_GONE: Final = ("550", "553")
"""What a server answers of a file that is gone since, or is no plain file."""

_UNKNOWN: Final = ("500", "501", "502", "504")
"""What a server answers to a command that it does not have."""

_UNIX: Final = re.compile(
    r"(?P<kind>[a-z-])[-rwxsStT]{9}[+.@]? +\d+ +(?:\S+ +){1,2}(?P<size>\d+) +"
    r"(?P<date>(?:\S+ +){1,2}(?:\d\d?:\d\d(?::\d\d)?|\d{4})) +(?P<name>.+)"
)
"""A line of LIST as `ls -l` has it: with a mark of further rights or none, with a group or none, with any date."""

_DOS: Final = re.compile(
    r"(?P<date>\d\d[-/]\d\d[-/](?:\d{4}|\d\d)) +(?P<time>\d\d?:\d\d)(?: ?(?P<half>[AP]M))? +"
    r"(?:<(?P<kind>[A-Z]+)>|(?P<size>[\d,]+)) +(?P<name>.+)"
)
"""A line of LIST as IIS has it, the month first, of 12 hours or of 24."""

_KINDS: Final = {"-": "file", None: "file", "d": "dir", "DIR": "dir"}


@asynccontextmanager
async def opened(
    server: Server, connected: socket.socket, ip: str, terms: Terms, begin: Callable[[Step], None]
) -> AsyncIterator[FtpRemote]:
    """Let us in over a connected socket."""
    control = Control(server, connected, ip, terms=terms, context=await context_for(server))
    try:
        with failures():
            async with asyncio.timeout(terms.settings.connect_seconds):
                home = await _let_in(control, server, begin)
        yield FtpRemote(control, f"{home}/{server.root}".replace("//", "/").rstrip("/"), terms)
    finally:
        control.close()


async def _let_in(control: Control, server: Server, begin: Callable[[Step], None]) -> str:
    """Where paths begin that are not said from the top on."""
    if server.kind.has_tls:
        begin(Step.HOST_KEY)
    await control.open()
    begin(Step.AUTHENTICATE)
    with refused_by("login_refused", "The server does not let us in with this user name and password."):
        await control.login(server.username, server.login.secret)
    begin(Step.LIST_ROOT)
    await control.command("TYPE I", "200")  # SIZE counts bytes then
    return "" if server.root.startswith("/") else await _home(control)


async def _home(control: Control) -> str:
    """Where the login leads to; an answer that would be more than a path in later commands is none (T136)."""
    home = str(await control.get_current_directory())
    if not (home.startswith("/") and home.isprintable()):
        raise Unavailable("The server does not tell where the login leads to.", code="protocol_error")
    return home.rstrip("/")


class FtpRemote:
    """A `Remote` over FTP."""

    def __init__(self, control: Control, root: str, terms: Terms) -> None:
        self._control = control
        self._root = root
        self._settings = terms.settings

    async def list(self, folder: str, wanted: Callable[[str], bool]) -> Listing:
        """The entries of a folder: by MLSD, or where the server has none by LIST, and MDTM for what may be newest."""
        async with listing_time(self._settings):
            with failures():
                for way in (self._mlsd, self._list):
                    try:
                        return await way(folder, wanted)
                    except aioftp.StatusCodeError as refusal:
                        if refusal.received_codes[-1] not in _UNKNOWN:
                            raise _refused(refusal) from None
        raise Unavailable("The server lists no folders.", code="protocol_error")

    async def look(self, folder: str, name: str) -> RemoteFile:
        """A file's size and time now: by MLST, or by SIZE and MDTM."""
        path = self._path(folder, name)
        self._control.commands = 0  # how often we look is up to us
        with failures():
            try:
                facts = await self._mlst(path)
                if facts is not None and facts.get("type") != "file":
                    raise Unavailable("There is no such file.", code="path_not_found")
                return (facts and _file(name, facts)) or await self._exact(path, name)
            except aioftp.StatusCodeError as refusal:
                raise _refused(refusal) from None

    @asynccontextmanager
    async def read(self, folder: str, name: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes from an offset on; the end is believed only when the server confirms it (T138)."""
        with failures():
            try:
                stream = await self._control.download_stream(self._path(folder, name), offset=offset)
            except aioftp.StatusCodeError as refusal:
                if "350" in refusal.expected_codes and passing(refusal) is None:
                    raise Unavailable(
                        "The server begins files at their first byte only.", code="resume_refused"
                    ) from None
                raise _refused(refusal) from None
        try:
            yield _pieces(stream)
        finally:
            stream.close()

    async def _mlsd(self, folder: str, wanted: Callable[[str], bool]) -> Listing:
        found = _Found(wanted)
        async for line in self._lines(f"MLSD {self._path(folder)}"):
            facts, name = _facts(line.decode("utf-8", "surrogateescape"))
            if facts.get("type") not in {"cdir", "pdir"}:
                found.add(
                    name, facts.get("type", ""), size=_number(facts.get("size", "")), at=_moment(facts), exact=True
                )
        return await self._complete(folder, found)

    async def _list(self, folder: str, wanted: Callable[[str], bool]) -> Listing:
        found = _Found(wanted)
        async for line in self._lines(f"LIST {self._path(folder)}"):
            entry = _entry(line.decode("utf-8", "surrogateescape").rstrip(" "))
            if entry is None:
                found.skipped += not line.startswith(b"total ")
            else:
                name, kind, size, at = entry
                found.add(name, kind, size=_number(size), at=at, exact=False)
        return await self._complete(folder, found)

    async def _lines(self, command: str) -> AsyncIterator[bytes]:
        """The lines of a listing, counted (T133)."""
        stream = await self._control.get_stream(command, "1xx")
        entries = size = 0
        rest = b""
        try:
            while piece := await stream.read(LISTING_PIECE):
                *lines, rest = (rest + piece).split(b"\n")
                entries, size = entries + len(lines), size + len(piece)
                if entries > self._settings.listing_entries + 2 or size > self._settings.listing_bytes:
                    raise too_long(self._settings)
                if max(map(len, lines), default=len(rest)) > LISTING_LINE:
                    raise Unavailable("The folder's listing has a line that is too long.", code="listing_limit")
                for line in lines:
                    yield line.rstrip(b"\r")
            if rest:
                yield rest
            await stream.finish()
        finally:
            stream.close()

    async def _complete(self, folder: str, found: _Found) -> Listing:
        """Ask for the exact size and time of those entries that may be the newest, where the listing has neither."""
        undated = [entry for entry in found.vague if entry[1] is None]
        dated = sorted((entry for entry in found.vague if entry[1]), key=_hint, reverse=True)
        newest = sum(entry[1] == dated[0][1] for entry in dated)
        if len(undated) + newest > ASKED_AT_MOST:
            detail = f"The folder has more than {ASKED_AT_MOST} files that may be the newest by their dates."
            raise Unavailable(detail, code="listing_limit")
        asked = max(ASKED_FOR, newest)
        for name, _, _ in [*undated, *dated[:asked]]:
            try:
                found.files.append(await self._exact(self._path(folder, name), name))
            except aioftp.StatusCodeError as refusal:
                if refusal.received_codes[-1] not in _GONE:
                    raise
                found.skipped += 1
        oldest = min((file.modified_at for file in found.files), default=_NEVER)
        for name, at, size in dated[asked:]:
            if at is None or size is None:
                found.skipped += 1
            else:  # its date may be a local one, and ahead of the exact times
                found.files.append(RemoteFile(name, size, min(at, oldest)))
        return Listing(tuple(found.files), tuple(found.folders), found.skipped)

    async def _mlst(self, path: str) -> dict[str, str] | None:
        """The facts of one file, or None where the server has no MLST."""
        try:
            _, lines = await self._control.command(f"MLST {path}", "250")
        except aioftp.StatusCodeError as refusal:
            if refusal.received_codes[-1] not in _UNKNOWN:
                raise
            return None
        return _facts(lines[1].strip())[0] if len(lines) > 1 else None

    async def _exact(self, path: str, name: str) -> RemoteFile:
        self._control.commands = 0  # of how many files, and how often, is up to us
        size = at = None
        try:
            _, sizes = await self._control.command(f"SIZE {path}", "213")
            _, times = await self._control.command(f"MDTM {path}", "213")
        except aioftp.StatusCodeError as refusal:
            if refusal.received_codes[-1] not in _UNKNOWN:
                raise
        else:
            size, at = _number(sizes[-1].strip()), _moment({"modify": times[-1].strip()})
        if size is None or at is None:
            raise Unavailable("The server does not tell both size and time of a file.", code="protocol_error")
        return RemoteFile(name, size, at)

    def _path(self, folder: str, name: str = "") -> str:
        return "/".join([self._root, *(part for part in (folder, name) if part)]) or "/"


@dataclass
class _Found:
    """The entries of a listing as they come; `vague` are wanted files whose size and exact time are to be asked for."""

    wanted: Callable[[str], bool]
    files: list[RemoteFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    vague: list[tuple[str, datetime | None, int | None]] = field(default_factory=list)
    skipped: int = 0

    def add(self, name: str, kind: str, *, size: int | None, at: datetime | None, exact: bool) -> None:
        """Take an entry, or count it where its name or kind is not dealt with (T136)."""
        if name in {".", ".."}:
            return
        if kind not in {"file", "dir"} or not is_safe(name):
            self.skipped += 1
        elif kind == "dir":
            self.folders.append(name)
        elif self.wanted(name) and exact and size is not None and at is not None:
            self.files.append(RemoteFile(name, size, at))
        elif self.wanted(name):
            self.vague.append((name, at, size))


async def _pieces(stream: aioftp.DataConnectionThrottleStreamIO) -> AsyncIterator[bytes]:
    with failures():
        while piece := await stream.read(BLOCK):
            yield piece
        try:
            await stream.finish()
        except aioftp.StatusCodeError:
            raise Unavailable("The server broke the transfer off.", code="transfer_truncated") from None


def _facts(line: str) -> tuple[dict[str, str], str]:
    """A line of MLSD or MLST: its facts by their names in lower case, and the name."""
    told, _, name = line.partition(" ")
    pairs = (fact.partition("=") for fact in told.split(";"))
    return {key.lower(): value.lower() for key, _, value in pairs}, name


def _entry(line: str) -> tuple[str, str, str, datetime | None] | None:
    """What a line of LIST says: name, kind, size and, as no more than a hint, time; None where it is no entry."""
    if unix := _UNIX.fullmatch(line):
        return unix["name"], _KINDS.get(unix["kind"], ""), unix["size"], _unix_time(unix["date"])
    if dos := _DOS.fullmatch(line):
        return dos["name"], _KINDS.get(dos["kind"], ""), (dos["size"] or "").replace(",", ""), _dos_time(dos)
    return None


def _unix_time(date: str) -> datetime | None:
    try:
        return _moment({"modify": Control.parse_ls_date(" ".join(date.split()))})
    except ValueError:
        return None


def _dos_time(line: re.Match[str]) -> datetime | None:
    year, hour = "Y" if len(line["date"]) > len("mm-dd-yy") else "y", "%I:%M%p" if line["half"] else "%H:%M"
    told = f"{line['date'].replace('/', '-')} {line['time']}{line['half'] or ''}"
    try:
        return datetime.strptime(told, f"%m-%d-%{year} {hour}").replace(tzinfo=UTC)
    except ValueError:
        return None


def _hint(entry: tuple[str, datetime | None, int | None]) -> tuple[datetime, str]:
    return entry[1] or _LONG_AGO, entry[0]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _moment(facts: Mapping[str, Any]) -> datetime | None:
    """The fact `modify`, `YYYYMMDDHHMMSS` with or without a fraction, in UTC; None where it is missing or broken."""
    whole, _, fraction = str(facts.get("modify", "")).partition(".")
    digits = whole + fraction[:6]
    if len(whole) != 14 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        at = datetime.fromisoformat(f"{whole[:8]}T{whole[8:]}Z")
    except ValueError:
        return None
    return at + timedelta(microseconds=int(fraction[:6].ljust(6, "0"))) if fraction else at


def _file(name: str, facts: dict[str, str]) -> RemoteFile | None:
    size, at = _number(facts.get("size", "")), _moment(facts)
    return None if size is None or at is None else RemoteFile(name, size, at)


def _refused(refusal: aioftp.StatusCodeError) -> Unavailable:
    if refusal.received_codes[-1] == "550":
        return Unavailable("There is no such file or folder, or we may not read it.", code="path_not_found")
    return passing(refusal) or Unavailable("The server refuses to show or send this.", code="permission_denied")
