"""Opening the page: ours, whole and of our layout, or refused with a sentence that says so."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.gate_fixtures import INSTRUMENTS, SCOPES, make_bench, make_names
from tripgate.errors import (
    PageDamagedError,
    PageError,
    PageForeignError,
    PageMissingError,
    PageReplacedError,
    PageTruncatedError,
    PageVersionError,
    StateUnwritableError,
    UsageError,
)
from tripgate.page import mapping
from tripgate.page.layout import (
    CONTROL_HEADER,
    COUNTERS_HEADER,
    HEADERS,
    LIMIT,
    LINE_BYTES,
    SUM,
    TABLES,
    Capacities,
    Table,
    layout_of,
)
from tripgate.page.mapping import Page, create_page, open_page
from tripgate.page.names import PageNames

SMALL = Capacities(nodes=2, instruments=1, strategies=1, keys=1, slots=17, roles=2, causes=1)
SEGMENTATION_FAULT = -11


@pytest.fixture
def folder(isolated_folders: Path) -> Path:
    make_bench(isolated_folders / "page" / "page")
    return isolated_folders / "page" / "page"


def write_word(path: Path, table: Table, field: str, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(table.offset(field))
        file.write(value.to_bytes(8, "little", signed=True))


def test_page_when_opened_again_then_names_words_and_epoch_are_the_same(folder: Path) -> None:
    page = open_page(folder, writable=False)
    assert page.names == make_names()
    assert (page.epoch, int(page.header["armed"])) == (7, 1)
    assert page.rows(LIMIT) is page.rows(LIMIT)


def test_page_when_mapped_by_a_client_then_control_cannot_be_written(folder: Path) -> None:
    page = open_page(folder)
    with pytest.raises(ValueError, match="read-only"):
        page.rows(LIMIT)["gross_max"][0] = 1
    page.rows(SUM)["gross"][0] = 1
    assert int(open_page(folder, control_writable=True).rows(SUM)["gross"][0]) == 1


@pytest.mark.jit_only
def test_page_when_a_client_stores_wildly_into_control_then_it_faults(folder: Path) -> None:
    before = (folder / "control").read_bytes()
    code = (
        "import sys; from pathlib import Path; from tripgate.page import atomics\n"
        "from tripgate.page.mapping import open_page\n"
        "atomics.store(open_page(Path(sys.argv[1])).control + 4096, 1)\n"
    )
    root = Path(__file__).parents[2]
    outcome = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=root)
    assert outcome.returncode == SEGMENTATION_FAULT
    assert (folder / "control").read_bytes() == before


def test_page_when_made_then_only_the_owner_may_look(folder: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {"control": 0o600, "counters": 0o600}


def test_page_when_missing_then_the_message_says_what_to_run(isolated_folders: Path) -> None:
    with pytest.raises(PageMissingError, match="is the instance running"):
        open_page(isolated_folders / "page")


@pytest.mark.parametrize("name", ["control", "counters"])
def test_page_when_open_to_others_then_it_is_refused(folder: Path, name: str) -> None:
    (folder / name).chmod(0o640)
    with pytest.raises(PageForeignError, match="open to others"):
        open_page(folder)


@pytest.mark.parametrize("name", ["control", "counters"])
def test_page_when_it_belongs_to_another_then_it_is_refused(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        os.chown(folder / name, 1, -1)
    else:  # only root can give a file away: be somebody else instead
        monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(PageForeignError, match="another user"):
        open_page(folder)


def test_page_when_it_is_a_link_then_it_is_not_followed(folder: Path) -> None:
    (folder / "control").rename(folder / "elsewhere")
    (folder / "control").symlink_to(folder / "elsewhere")
    with pytest.raises(PageMissingError, match="no page at"):
        open_page(folder)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("control", 100, "cut off"),
        ("counters", 0, "cut off"),
        ("control", 8192, "cut off"),
        ("counters", 8192, "cut off"),
    ],
)
def test_page_when_truncated_then_it_is_refused(
    folder: Path, name: str, size: int, words: str
) -> None:
    os.truncate(folder / name, size)
    with pytest.raises(PageTruncatedError, match=words):
        open_page(folder)


@pytest.mark.parametrize(
    ("name", "table", "field", "value", "fault"),
    [
        ("control", CONTROL_HEADER, "magic", 1, PageVersionError),
        ("counters", COUNTERS_HEADER, "magic", 1, PageVersionError),
        ("control", CONTROL_HEADER, "layout_version", 99, PageVersionError),
        ("counters", COUNTERS_HEADER, "layout_version", 99, PageVersionError),
        ("control", CONTROL_HEADER, "layout_hash", 1, PageVersionError),
        ("counters", COUNTERS_HEADER, "layout_hash", 1, PageVersionError),
        ("control", CONTROL_HEADER, "directory", 3, PageVersionError),
        ("control", CONTROL_HEADER, "directory", 60_000, PageTruncatedError),
        ("control", CONTROL_HEADER, "directory", 0, PageDamagedError),
        ("control", CONTROL_HEADER, "directory", -5, PageDamagedError),
        ("control", CONTROL_HEADER, "directory", 1 << 40, PageDamagedError),
        ("counters", COUNTERS_HEADER, "epoch", 8, PageReplacedError),
        ("control", CONTROL_HEADER, "names_bytes", 5, PageDamagedError),
        ("control", CONTROL_HEADER, "names_bytes", -1, PageDamagedError),
        ("control", CONTROL_HEADER, "names_offset", 1 << 40, PageDamagedError),
    ],
)
def test_page_when_a_header_word_is_wrong_then_it_is_refused(
    folder: Path, name: str, table: Table, field: str, value: int, fault: type[PageError]
) -> None:
    write_word(folder / name, table, field, value)
    with pytest.raises(fault):
        open_page(folder)


@pytest.mark.parametrize("control_writable", [True, False])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_page_when_something_else_has_the_name_then_it_is_refused(
    folder: Path, make: Callable[[Path, int], None], control_writable: bool
) -> None:
    (folder / "control").unlink()
    make(folder / "control", 0o700)
    with pytest.raises((PageDamagedError, PageMissingError)):
        open_page(folder, control_writable=control_writable)


@pytest.mark.parametrize(
    "garbage", [b"", b"\x00" * 40, b"\xff" * 40, b"{}", b"\xc1garbage"], ids=repr
)
def test_page_when_its_names_are_garbage_then_it_is_refused(folder: Path, garbage: bytes) -> None:
    offset = int(open_page(folder).header["names_offset"])
    with (folder / "control").open("r+b") as file:
        file.seek(offset)
        file.write(garbage.ljust(60, b"\x00"))
    with pytest.raises(PageDamagedError):
        open_page(folder)


@pytest.mark.parametrize(
    ("before", "after"), [(b"0.001", b"0.002"), (b"alpha", b"gamma"), (b"trend", b"other")]
)
def test_page_when_its_units_are_not_those_it_was_made_for_then_it_is_refused(
    folder: Path, before: bytes, after: bytes
) -> None:
    data = (folder / "control").read_bytes()
    assert before in data
    (folder / "control").write_bytes(data.replace(before, after))
    with pytest.raises(PageVersionError, match="other instruments"):
        open_page(folder)


def test_page_when_its_folder_is_open_to_others_then_it_is_neither_made_nor_opened(
    folder: Path,
) -> None:
    folder.chmod(0o777)
    with pytest.raises(PageForeignError, match="remove it"):
        open_page(folder)
    with pytest.raises(PageForeignError, match="remove it"):
        make_bench(folder)


def test_units_hash_when_limits_or_places_differ_then_it_is_the_same(folder: Path) -> None:
    page = open_page(folder, control_writable=True)
    page.rows(LIMIT)["gross_max"][:] = 1
    moved = replace(make_names({"alpha": "/elsewhere"}), state_folder="/elsewhere", instance="x")
    assert open_page(folder).names.units_hash == moved.units_hash
    other = replace(INSTRUMENTS[0], contract_size="10")
    changed = replace(moved, instruments=(other, *INSTRUMENTS[1:]))
    assert changed.units_hash != moved.units_hash


def test_page_when_it_has_several_quotes_then_it_opens_again(isolated_folders: Path) -> None:
    capacities = replace(SMALL, quotes=3)
    create_page(isolated_folders / "page", capacities, make_names(), epoch=1, shadow=False)
    assert open_page(isolated_folders / "page").layout.capacities == capacities


def test_page_when_replaced_by_a_new_run_then_the_old_mapping_stays_with_the_old_file(
    folder: Path,
) -> None:
    old = open_page(folder)
    make_bench(folder, epoch=8)
    assert (old.epoch, open_page(folder).epoch) == (7, 8)


def test_page_when_memory_is_full_then_the_message_says_to_free_space(
    isolated_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StateUnwritableError, match="free space"):
        make_bench(isolated_folders / "page")


def test_page_when_the_names_do_not_fit_then_it_is_refused(
    isolated_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "NAMES_BYTES", 64)
    with pytest.raises(PageError, match="too many instruments"):
        make_bench(isolated_folders / "page")
    assert list((isolated_folders / "page").iterdir()) == []


def test_address_when_the_row_is_outside_then_it_is_never_formed(isolated_folders: Path) -> None:
    page = make_bench(isolated_folders / "page").page
    assert page.address(SUM, len(SCOPES) - 1) < page.counters + page.layout.counters_bytes
    for row in (-1, len(SCOPES)):
        with pytest.raises(IndexError, match="sum has"):
            page.address(SUM, row)
    with pytest.raises(IndexError, match="control_header has 1 rows"):
        page.address(CONTROL_HEADER, 1)


def test_layout_when_laid_out_then_tables_are_apart_and_fields_are_whole_words() -> None:
    layout = layout_of(SMALL)
    ends = {"control": CONTROL_HEADER.row_bytes, "counters": COUNTERS_HEADER.row_bytes}
    for table in TABLES:
        start = layout.offsets[table.name]
        assert start >= ends[table.file]
        assert start % LINE_BYTES == 0
        ends[table.file] = start + table.row_bytes * SMALL.rows(table)
    assert ends["control"] <= layout.names_offset < layout.control_bytes
    assert ends["counters"] <= layout.counters_bytes
    for table in (*HEADERS, *TABLES):
        assert all(offset % 8 == 0 for offset in table.offsets.values())
        assert table.dtype.itemsize == table.row_bytes
        assert all(
            np.dtype(kind).base == np.int64
            for kind, *_ in table.dtype.fields.values()  # type: ignore[union-attr]
        )


def test_layout_when_any_capacity_differs_then_the_hash_does() -> None:
    hashes = {layout_of(SMALL).hash}
    for name in ("nodes", "instruments", "strategies", "keys", "slots", "roles", "causes"):
        hashes.add(layout_of(replace(SMALL, **{name: getattr(SMALL, name) + 1})).hash)
    assert len(hashes) == 8


def test_table_when_its_fields_do_not_fit_their_row_then_it_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="do not fit"):
        Table("wide", "control", ("many*9",), 64)


def test_names_when_asked_then_numbers_and_errors_that_list_what_there_is() -> None:
    names = make_names()
    assert names.instrument("beta", "BTC/USDT:USDT") == 2
    assert (names.strategy("hedge"), names.scope("venue:beta")) == (1, 2)
    assert (names.role("breaker"), names.role("router", "beta")) == (0, 3)
    assert [role.text for role in names.roles[:3]] == [
        "breaker", "position_keeper", "router(alpha)",
    ]  # fmt: skip
    assert INSTRUMENTS[0].scope == "instrument:alpha/BTC/USDT:USDT"
    with pytest.raises(UsageError, match="alpha/ETH/USDT:USDT"):
        names.instrument("alpha", "DOGE/USDT:USDT")
    with pytest.raises(UsageError, match="trend, hedge"):
        names.strategy("tend")
    with pytest.raises(UsageError, match="portfolio, venue:alpha"):
        names.scope("venue:gamma")
    with pytest.raises(UsageError, match=r"starts no router\(gamma\)"):
        names.role("router", "gamma")
    with pytest.raises(UsageError, match=r"starts no predictor$"):
        names.role("predictor")


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x01", make_names().pack()[:-1]])
def test_names_when_damaged_then_it_is_a_page_error(data: bytes) -> None:
    with pytest.raises(PageError, match="names are damaged"):
        PageNames.unpack(data)


def test_page_when_made_over_an_unfinished_one_then_it_starts_afresh(
    isolated_folders: Path,
) -> None:
    (isolated_folders / "page" / "control.new").write_bytes(b"left by a killed root")
    page = create_page(isolated_folders / "page", SMALL, make_names(), epoch=3, shadow=True)
    assert isinstance(page, Page)
    header = open_page(isolated_folders / "page").header
    assert (int(header["shadow"]), int(header["closed"]), int(header["armed"])) == (1, 1, 0)
