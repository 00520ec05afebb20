"""Lines of text files, checked for their encoding before anything is parsed."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from hydraprune.data.readers.source import Source

# A line is in memory several times while it is parsed.
LONGEST_LINE = 64 << 20
# Characters of a text in an error.
_QUOTED = 40
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def checked_lines(source: Source, file: Path, longest: int | None = LONGEST_LINE) -> Iterator[tuple[int, bytes]]:
    """The lines of a UTF-8 file with their numbers, from 1, without a byte order mark.

    Raises:
        UserError: another encoding, a NUL byte, or a line of more than `longest` bytes.
    """
    with file.open("rb") as opened:
        _check_encoding(source, file, opened.read(1024))
        opened.seek(0)
        size = -1 if longest is None else longest + 1
        for number, line in enumerate(iter(lambda: opened.readline(size), b""), start=1):
            if longest is not None and len(line) > longest:
                raise source.error(
                    f"line {number} is longer than {longest >> 20} MiB",
                    "give one example per line (a json list must start with a square bracket)",
                )
            if b"\0" in line:
                reason = f"line {number} has a NUL byte, so the file is damaged or not text"
                raise source.error(reason, "save it as UTF-8 text")
            if not line.isascii():
                _check_utf8(source, file, number, line)
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _check_encoding(source: Source, file: Path, start: bytes) -> None:
    found = next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), None)
    if found is None:
        # In UTF-16 every other byte of most texts is zero.
        zeros = [start[offset::2].count(0) / max(1, len(start) // 2) for offset in (0, 1)]
        found = "UTF-16BE" if zeros[0] > 0.4 > zeros[1] else "UTF-16LE" if zeros[1] > 0.4 > zeros[0] else None
    if found is not None:
        raise source.error(f"is {found} text", f"save it as UTF-8 ({_iconv(file, found)})")


def _check_utf8(source: Source, file: Path, number: int, line: bytes) -> None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = line[error.start]
        reason = f"line {number} is not UTF-8 (byte 0x{bad:02x} at position {error.start + 1}"
        if bad == 0xED and error.start + 1 < len(line) and line[error.start + 1] >= 0xA0:
            raise source.error(f"{reason}: half of a surrogate pair)", "save the file as UTF-8") from None
        around = line[max(0, error.start - 12) : error.start + 12].decode("cp1252", "replace").strip()
        raise source.error(
            f"{reason}); in windows-1252, much like latin-1, it would read {around!r}",
            f"save the file as UTF-8; if that reading is right, by {_iconv(file, 'WINDOWS-1252')}",
        ) from None


def _iconv(file: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {file.name} > utf8_{file.name}"


def quoted(text: str | bytes) -> str:
    """The beginning of a text, in quotes."""
    text = text[: 4 * _QUOTED].decode("utf-8", "replace") if isinstance(text, bytes) else text
    return repr(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")
