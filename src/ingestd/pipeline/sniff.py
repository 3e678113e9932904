"""What a file's first bytes tell: whether it is text in lines at all (D42, D43, T70)."""

from __future__ import annotations

from typing import Final

from ingestd.domain.errors import FileRefused

BOM: Final = b"\xef\xbb\xbf"
SNIFFED: Final = 64 * 1024  # bytes

UTF16_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")  # UTF-32 little-endian begins with the first, too
MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\x1f\x9d", "compress (.Z)"),
    (b"PK\x03\x04", "ZIP or Excel"),
    (b"PK\x05\x06", "ZIP or Excel"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x04\x22\x4d\x18", "LZ4"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"PAR1", "Parquet"),
    (b"ARROW1\x00", "Arrow"),
    (b"Obj\x01", "Avro"),
    (b"%PDF-", "PDF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel or another Office document"),
    (b"\x7fELF", "program"),
    (b"SQLite format 3\x00", "SQLite"),
)
COMPRESSED: Final = {"gzip", "compress (.Z)", "ZIP or Excel", "Zstandard", "bzip2", "xz", "LZ4", "7-Zip", "RAR"}


def refused(detail: str) -> FileRefused:
    """Return the error for a file that cannot be read; `detail` says what is wrong and what to do."""
    return FileRefused(detail, code="file_unreadable")


def sniff(head: bytes) -> None:
    """Refuse what the first 64 KiB show to be no text; `head` may be shorter only where the file is."""
    if not head or head == BOM:
        raise refused("The file is empty. Upload a file with a header line.")
    for magic, kind in MAGIC:
        if head.startswith(magic):
            state = "compressed" if kind in COMPRESSED else "binary"
            raise refused(f"The file is {state} ({kind}). Upload it as plain text.")
    if head.startswith(UTF16_BOMS) or _looks_utf16(head):
        raise refused("The file is encoded in UTF-16. Save it as UTF-8.")
    lines = head[:SNIFFED].removesuffix(b"\n").split(b"\n")
    if 2 * sum(b"\0" in line for line in lines) > len(lines):
        raise refused("More than half of the first lines hold NUL bytes: the file is binary. Upload plain text.")


def _looks_utf16(head: bytes) -> bool:
    """Tell UTF-16 without a mark by its first line: every other byte of Latin text in it is NUL."""
    line = head[:256].split(b"\n", 1)[0].removesuffix(b"\r")
    return len(line) >= 4 and (line[0::2].count(0) >= len(line) // 2 or line[1::2].count(0) >= len(line) // 2)
