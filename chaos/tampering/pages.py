"""Just enough of SQLite's file format to damage a file where it hurts.

A table's leaf page begins with byte 13 and lists where its cells are; a cell is the record's
length, the row number and the record: the length of its head, a type code per column, the values.
Lengths, numbers and codes are varints: seven bits a byte, the highest bit says that more follow.

Source: https://sqlite.org/fileformat2.html (sections 1.3, 1.6, 2.1).
"""

from dataclasses import dataclass

PAGE_BYTES = 4096
LEAF = 13
HEADER_BYTES = 100
"""What stands before the first page's own head."""
MAGIC_AT, PAGE_SIZE_AT, WRITE_VERSION_AT, RESERVED_AT = 0, 16, 18, 20
CHANGE_COUNTER_AT, PAGES_AT, FREE_TRUNK_AT, FREE_COUNT_AT = 24, 28, 32, 36
SCHEMA_COOKIE_AT, ENCODING_AT = 40, 56


@dataclass(frozen=True)
class Cell:
    """Where a row's parts lie in the file.

    Attributes
    ----------
    start
        Of the cell: the varint of the record's length.
    types
        Of the type codes, one varint per column; all but a long body's are one byte.
    """

    start: int
    number: int
    types: int


def varint(content: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return the number at ``at`` and where the next thing begins (at most eight bytes)."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | content[place] & 0x7F
        if content[place] < 0x80:
            return value, place + 1
    raise ValueError(f"there is no such number at byte {at}")


def log_leaves(content: bytes | bytearray) -> list[int]:
    """Return where the leaf pages with several rows begin: only the table of rows has such."""
    return [
        at
        for at in range(PAGE_BYTES, len(content), PAGE_BYTES)
        if content[at] == LEAF and int.from_bytes(content[at + 3 : at + 5], "big") > 2
    ]


def cells(content: bytes | bytearray, page: int) -> list[Cell]:
    """Return the cells of a leaf page."""
    count = int.from_bytes(content[page + 3 : page + 5], "big")
    found = []
    for index in range(count):
        pointer = page + 8 + 2 * index
        start = page + int.from_bytes(content[pointer : pointer + 2], "big")
        _, place = varint(content, start)
        number, record = varint(content, place)
        _, types = varint(content, record)
        found.append(Cell(start, number, types))
    return found
