"""Files that the scanner refuses as a whole."""

import bz2
import gzip
import io
import lzma
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestd.domain.errors import FileRefused
from ingestd.domain.plan import Limits
from ingestd.domain.rejection import FILE_REASONS
from ingestd.pipeline.scan import open_scan

TEXT = b"id,name\n1,a\n2,b\n3,c\n4,d\n5,e\n"


def refusal(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(FileRefused) as caught:
        open_scan(io.BytesIO(data), delimiter=",", limits=limits or Limits())
    assert caught.value.code == "file_unreadable"
    assert caught.value.code in FILE_REASONS
    return caught.value.detail


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("data.csv", TEXT)
    return out.getvalue()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2]}), out)
    return out.getvalue()


@pytest.mark.rule("S120")
@pytest.mark.threat("T70")
@pytest.mark.parametrize(
    "data",
    [gzip.compress(TEXT), bz2.compress(TEXT), lzma.compress(TEXT), zipped(), pa.compress(TEXT, "zstd", asbytes=True)],
    ids=["gzip", "bzip2", "xz", "zip", "zstd"],
)
def test_compressed_files_are_refused(data):
    assert "compressed" in refusal(data)


@pytest.mark.rule("S120")
@pytest.mark.parametrize(
    "data",
    [
        parquet(),
        b"%PDF-1.7\n1 0 obj\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    ],
    ids=["parquet", "pdf", "png", "ole"],
)
def test_binary_files_are_refused(data):
    assert "binary" in refusal(data)


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(data):
    assert "empty" in refusal(data)


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_with_and_without_a_mark(codec):
    assert "UTF-16" in refusal(TEXT.decode().encode(codec))


def test_cr_alone_is_no_line_end():
    assert "CR" in refusal(TEXT.replace(b"\n", b"\r"))


@pytest.mark.parametrize("data", [b"id,na\0me\n1,a\n", b"id,name\n" + b"a\0,b\n" * 9])
def test_nul_in_the_header_or_in_most_lines_is_refused(data):
    assert "NUL" in refusal(data)


def test_nul_in_some_lines_is_no_reason_to_refuse_the_file():
    open_scan(io.BytesIO(TEXT + bytes(10) + b"\n"), delimiter=",", limits=Limits())


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (b"id,n\xffame", "UTF-8"),
        (b'id,"name', "quote"),
        (b'id,"name\nx"', "quote"),
        (b'id,na"me', "quote"),
        (b'id,"na"me', "quote"),
        (b"", "blank"),
        (b"id," + b"x" * 1024 * 1024, "header"),
        (b"x," * 2000 + b"y", "2001 columns"),
        (b"x," * 400_000 + b"y", "400001 columns"),
    ],
)
def test_a_header_that_cannot_be_cut_is_refused(header, word):
    assert word in refusal(header + b"\n1,a\n")


def test_2000_columns_are_allowed():
    assert len(open_scan(io.BytesIO(b"x," * 1999 + b"y\n"), delimiter=",", limits=Limits()).header) == 2000


@pytest.mark.threat("T72")
def test_a_file_without_line_ends_is_given_up_after_16_mib():
    class Counted(io.BytesIO):
        given = 0

        def read(self, size=-1):
            data = super().read(size)
            self.given += len(data)
            return data

    stream = Counted(b"x" * (17 * 1024 * 1024))
    with pytest.raises(FileRefused, match="No line ends"):
        open_scan(stream, delimiter=",", limits=Limits())
    assert stream.given == 16 * 1024 * 1024
