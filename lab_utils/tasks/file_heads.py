"""How a file begins: what is not a text is named by what it is, with the way out, before anything is read as data."""

from pathlib import Path

from ..errors import LabError
from .data_lines import UTF_16

HEAD = 64  # bytes that are looked at
SPREADSHEET = "Open it in the program that made it, and save it as CSV (UTF-8)."
KNOWN = {  # first bytes -> what such a file is, and the way out
    b"\x1f\x8b": ("packed with gzip", "Unpack it first."),
    b"BZh": ("packed with bzip2", "Unpack it first."),
    b"\xfd7zXZ": ("packed with xz", "Unpack it first."),
    b"PK\x03\x04": ("a ZIP archive; .xlsx and .ods files are archives too", f"Unpack it, or: {SPREADSHEET}"),
    b"\xd0\xcf\x11\xe0": ("an old Office document", SPREADSHEET),
    b"PAR1": ("Parquet", "Rename it to .parquet."),
    b"SQLite format 3": ("an SQLite database", "Write the table that you want to a CSV file."),
    b"%PDF": ("a PDF", "Make a table of what is asked and answered first."),
    b"\x89PNG": ("a picture", "Name the file of data."),
    b"\xff\xd8\xff": ("a picture", "Name the file of data."),
    b"version https://git-lfs": ("a pointer of Git LFS, not the data", "Fetch the data: `git lfs pull`."),
    b"<!doctype": ("a web page", "The download went wrong: fetch the file itself."),
    b"<html": ("a web page", "The download went wrong: fetch the file itself."),
}
TABLES = (".csv", ".tsv", ".tab", ".txt")


def check_head(path: Path, head: bytes, encoding: str) -> None:
    """Raise a LabError if the first bytes of a file are those of something that is not a text in this encoding.

    Parameters
    ----------
    path : of the file, for messages; a table (`TABLES`) that begins as JSON does is refused too
    head : bytes, the first `HEAD`
    encoding : str, what the file is to be read with
    """
    begins = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, (what, way_out) in KNOWN.items():
        if head.startswith(mark) or begins.startswith(mark.lower()):
            raise LabError(f"{path}, line 1, column 1: the file is {what}. {way_out}")
    if path.suffix.lower() in TABLES and begins.startswith((b'{"', b'[{"')):
        raise LabError(f"{path}, line 1, column 1: the file holds JSON, not a table. Rename it to .jsonl or .json.")
    wide = head.startswith(UTF_16) or 4 * head.count(0) >= max(len(head), 1)
    if wide and not encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        raise LabError(
            f"{path}, line 1, column 1: the file is UTF-16, or not text at all. Save it as UTF-8, or pass "
            "encoding='utf-16'."
        )
