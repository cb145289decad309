"""Damage to bytes: what a failing disk, a careless copy or a hex editor does."""

from collections.abc import Callable
from pathlib import Path

from chaos.tampering.ground import wal_of
from chaos.tampering.kinds import Act, Demand, Kind, Scene
from chaos.tampering.pages import (
    CHANGE_COUNTER_AT,
    ENCODING_AT,
    FREE_COUNT_AT,
    FREE_TRUNK_AT,
    MAGIC_AT,
    PAGE_BYTES,
    PAGE_SIZE_AT,
    PAGES_AT,
    RESERVED_AT,
    SCHEMA_COOKIE_AT,
    WRITE_VERSION_AT,
    Cell,
    cells,
    log_leaves,
)

EPOCH_COLUMN, BODY_COLUMN = 1, 9
HUGE = b"\xff" * 9
NULL_TYPE, TEXT_TYPE_OF_BODY = 0, 1
FLIPS_MAX = 8

Target = Callable[[Scene], Path]
Edit = Callable[[bytearray, Scene], None]


def _any_file(scene: Scene) -> Path:
    return scene.draw.choice(scene.log.files)


def _whole_file(scene: Scene) -> Path:
    """Draw a file that is read as it lies: no write-ahead log stands in for its pages."""
    return scene.draw.choice([path for path in scene.log.files if not _has_wal(path)])


def _has_wal(path: Path) -> bool:
    wal = wal_of(path)
    return wal.exists() and wal.stat().st_size > 0


def _newest_wal(scene: Scene) -> Path:
    return wal_of(scene.log.files[-1])


def _heads(scene: Scene) -> Path:
    return scene.log.heads_file


def _marker(scene: Scene) -> Path:
    return scene.log.marker


def _edit(target: Target, edit: Edit) -> Act:
    def act(scene: Scene) -> None:
        path = target(scene)
        content = bytearray(path.read_bytes())
        edit(content, scene)
        path.write_bytes(content)

    return act


def _flip(content: bytearray, scene: Scene) -> None:
    content[scene.draw.randrange(len(content))] ^= 1 << scene.draw.randrange(8)


def _flip_several(content: bytearray, scene: Scene) -> None:
    for _ in range(scene.draw.randint(2, FLIPS_MAX)):
        _flip(content, scene)


def _cut(content: bytearray, scene: Scene) -> None:
    del content[scene.draw.randrange(len(content)) :]


def _cut_half(content: bytearray, scene: Scene) -> None:
    del scene
    del content[len(content) // 2 // PAGE_BYTES * PAGE_BYTES :]


def _pages(content: bytearray) -> range:
    return range(len(content) // PAGE_BYTES)


def _page(content: bytearray, number: int) -> slice:
    del content
    return slice(number * PAGE_BYTES, (number + 1) * PAGE_BYTES)


def _swap_pages(content: bytearray, scene: Scene) -> None:
    one, other = (slice(at, at + PAGE_BYTES) for at in scene.draw.sample(log_leaves(content), 2))
    content[one], content[other] = content[other], content[one]


def _double_page(content: bytearray, scene: Scene) -> None:
    one, other = (slice(at, at + PAGE_BYTES) for at in scene.draw.sample(log_leaves(content), 2))
    content[other] = content[one]


def _zero_page(content: bytearray, scene: Scene) -> None:
    content[_page(content, scene.draw.choice(_pages(content)))] = bytes(PAGE_BYTES)


def _garble_page(content: bytearray, scene: Scene) -> None:
    number = scene.draw.choice(_pages(content))
    content[_page(content, number)] = scene.draw.randbytes(PAGE_BYTES)


def _add_garbage(content: bytearray, scene: Scene) -> None:
    content += scene.draw.randbytes(PAGE_BYTES)


def _any_cell(content: bytearray, scene: Scene) -> Cell:
    return scene.draw.choice(cells(content, scene.draw.choice(log_leaves(content))))


def _huge_record(content: bytearray, scene: Scene) -> None:
    cell = _any_cell(content, scene)
    content[cell.start : cell.start + len(HUGE)] = HUGE


def _huge_body(content: bytearray, scene: Scene) -> None:
    at = _any_cell(content, scene).types + BODY_COLUMN
    content[at : at + len(HUGE)] = HUGE


def _null_in_record(content: bytearray, scene: Scene) -> None:
    content[_any_cell(content, scene).types + EPOCH_COLUMN] = NULL_TYPE


def _text_in_record(content: bytearray, scene: Scene) -> None:
    # A text's type code is the next one after a blob's of the same length.
    content[_any_cell(content, scene).types + BODY_COLUMN] += TEXT_TYPE_OF_BODY


def _endless_overflow(content: bytearray, scene: Scene) -> None:
    """Let a record of a leaf claim to go on in its own page, again and again."""
    cell = _any_cell(content, scene)
    page = cell.start // PAGE_BYTES
    content[cell.start : cell.start + 3] = b"\x84\x80\x00"
    content[page * PAGE_BYTES + PAGE_BYTES - 4 : (page + 1) * PAGE_BYTES] = (page + 1).to_bytes(
        4, "big"
    )


def _loop_in_tree(content: bytearray, scene: Scene) -> None:
    """Let every inner page of a table name itself as its last child."""
    del scene
    for number in _pages(content):
        at = number * PAGE_BYTES
        if number and content[at] == 5:
            content[at + 8 : at + 12] = (number + 1).to_bytes(4, "big")


def _set(at: int, value: bytes) -> Edit:
    def edit(content: bytearray, scene: Scene) -> None:
        del scene
        content[at : at + len(value)] = value

    return edit


def _free_live_pages(content: bytearray, scene: Scene) -> None:
    """Name a live page as the trunk of the list of free ones: the next writer would fill it."""
    page = scene.draw.choice(log_leaves(content)) // PAGE_BYTES + 1
    content[FREE_TRUNK_AT : FREE_TRUNK_AT + 4] = page.to_bytes(4, "big")
    content[FREE_COUNT_AT : FREE_COUNT_AT + 4] = (1).to_bytes(4, "big")


def _remove(target: Target) -> Act:
    def act(scene: Scene) -> None:
        target(scene).unlink()

    return act


def _cut_young(scene: Scene) -> None:
    path = _newest_wal(scene)
    path.write_bytes(path.read_bytes()[: scene.originals.young_wal_bytes])


def _drop_head(content: bytearray, scene: Scene) -> None:
    lines = content.splitlines(keepends=True)
    del lines[scene.draw.randrange(len(lines))]
    content[:] = b"".join(lines)


_HARMLESS_OR = Demand.FOUND_OR_HARMLESS

KINDS = (
    Kind("bit flipped in a file", _HARMLESS_OR, _edit(_any_file, _flip)),
    Kind("bits flipped in a file", _HARMLESS_OR, _edit(_any_file, _flip_several)),
    Kind("bit flipped in the -wal", Demand.FOUND_OR_YOUNG, _edit(_newest_wal, _flip), True),
    Kind("bit flipped in the heads", _HARMLESS_OR, _edit(_heads, _flip)),
    Kind("bit flipped in a marker", _HARMLESS_OR, _edit(_marker, _flip)),
    Kind("file cut short", _HARMLESS_OR, _edit(_any_file, _cut)),
    Kind("file cut in half", Demand.FOUND, _edit(_whole_file, _cut_half)),
    Kind("-wal cut short", Demand.FOUND_OR_YOUNG, _edit(_newest_wal, _cut), True),
    Kind("-wal cut before its young rows", Demand.OUTSIDE, _cut_young, True),
    Kind("-wal lost", Demand.FOUND, _remove(_newest_wal), True),
    Kind("heads cut short", _HARMLESS_OR, _edit(_heads, _cut)),
    Kind("heads emptied", Demand.FOUND, _edit(_heads, lambda content, scene: content.clear())),
    Kind("heads lost", Demand.FOUND, _remove(_heads)),
    Kind("a head removed", _HARMLESS_OR, _edit(_heads, _drop_head)),
    Kind("marker lost", Demand.FOUND, _remove(_marker)),
    Kind("pages swapped", Demand.FOUND, _edit(_whole_file, _swap_pages)),
    Kind("page doubled", Demand.FOUND, _edit(_whole_file, _double_page)),
    Kind("page zeroed", _HARMLESS_OR, _edit(_any_file, _zero_page)),
    Kind("page garbled", _HARMLESS_OR, _edit(_any_file, _garble_page)),
    Kind("garbage after the end", _HARMLESS_OR, _edit(_any_file, _add_garbage)),
    Kind("record of giant length", Demand.FOUND, _edit(_whole_file, _huge_record)),
    Kind("body of giant length", Demand.FOUND, _edit(_whole_file, _huge_body)),
    Kind("NULL in a record", Demand.FOUND, _edit(_whole_file, _null_in_record)),
    Kind("text in a record", Demand.FOUND, _edit(_whole_file, _text_in_record)),
    Kind("record that never ends", Demand.FOUND, _edit(_whole_file, _endless_overflow)),
    Kind("tree with a loop", Demand.FOUND, _edit(_whole_file, _loop_in_tree)),
    Kind("magic changed", Demand.FOUND, _edit(_whole_file, _set(MAGIC_AT, b"SQLite format 4"))),
    Kind("page size changed", Demand.FOUND, _edit(_whole_file, _set(PAGE_SIZE_AT, b"\x04\x00"))),
    Kind("reserved space changed", _HARMLESS_OR, _edit(_any_file, _set(RESERVED_AT, b"\x20"))),
    Kind("encoding changed", _HARMLESS_OR, _edit(_any_file, _set(ENCODING_AT, b"\0\0\0\x02"))),
    Kind("old journal mode", _HARMLESS_OR, _edit(_any_file, _set(WRITE_VERSION_AT, b"\1\1"))),
    Kind("unknown write version", _HARMLESS_OR, _edit(_any_file, _set(WRITE_VERSION_AT, b"\7\7"))),
    Kind("change counter changed", _HARMLESS_OR, _edit(_any_file, _set(CHANGE_COUNTER_AT, HUGE))),
    Kind("number of pages changed", _HARMLESS_OR, _edit(_any_file, _set(PAGES_AT, b"\0\0\0\3"))),
    Kind("schema cookie changed", _HARMLESS_OR, _edit(_any_file, _set(SCHEMA_COOKIE_AT, HUGE))),
    Kind("live page listed as free", Demand.FOUND, _edit(_whole_file, _free_live_pages)),
)
