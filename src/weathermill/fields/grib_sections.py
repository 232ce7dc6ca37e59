"""The sections of GRIB messages of edition 2.

A message may hold several fields, which share sections (WMO Manual on Codes, FM 92 GRIB, regulation 92.1.2); each becomes
a message by itself here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO


def read_bytes(file: BinaryIO, offset: int, length: int) -> bytes:
    """Return bytes of an open file."""
    file.seek(offset)
    return file.read(length)


def sections_of(file: BinaryIO, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yield (number, offset, length) of the sections 1 to 7 of a message of edition 2."""
    place, end = offset + 16, offset + length - 4
    while place + 5 <= end:
        head = read_bytes(file, place, 5)
        size = int.from_bytes(head[:4], "big")
        if size < 5:
            return
        yield head[4], place, size
        place += size


def split_fields(content: bytes) -> list[bytes]:
    """Return each field of a message of edition 2 as a message by itself.

    Parameters
    ----------
    content
        The message. Sections 2 to 7, 3 to 7 or 4 to 7 may be repeated; what is not repeated stays in force, and so
        does a bitmap where section 6 says so (its sixth octet is 254).
    """
    current: dict[int, bytes] = {}
    bitmap = b""
    parts = []
    place = 16
    while place + 5 <= len(content) - 4:
        size = int.from_bytes(content[place : place + 4], "big")
        section, number = content[place : place + size], content[place + 4]
        if size < 5:
            break
        current[number] = section
        if number == 6:
            if section[5] == 254:
                current[6] = bitmap
            else:
                bitmap = section
        if number == 7:
            body = b"".join(current[n] for n in sorted(current))
            total = 16 + len(body) + 4
            parts.append(content[:8] + total.to_bytes(8, "big") + body + b"7777")
        place += size
    return parts
