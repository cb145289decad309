"""Recorded bars, played again: reader of the ``bars.npz`` panels.

A panel is checked before anything is started, because one that plays for an hour and then fails
looks like a fault of the engine. Files are data, never code: pickled objects are refused.

Invariants: V1 every price that leaves this module is positive and finite, or NaN where the panel
has no bar; V2 bars stand on a regular grid; V3 float32 becomes float64 exactly.
"""

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exchange_adapters.market.selection import bar_window, symbol_columns
from exchange_adapters.market.ticks import Bars, TickFeed
from exchange_adapters.simulator.instruments import symbol_of
from tripgate.errors import DataError

PANELS_VARIABLE = "TRIPGATE_PANELS"
PANEL_FILE = "bars.npz"
PRICE_KEYS = ("open", "high", "low", "close")
KEYS = ("ts", "symbols", *PRICE_KEYS, "volume")

PANEL_BYTES_MAX = 2**30
"""Largest unpacked panel. A small archive that unpacks without end must not take the host down."""

UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    TypeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    TokenError,
)
"""What zipfile, zlib and numpy raise for archives that are cut, damaged, encrypted or no arrays."""

MARKET_MS_MAX = 2**42
"""A time stamp beyond the year 2109 is not in ms."""


@dataclass(frozen=True)
class Panel:
    """A checked panel, as it stands in the file.

    Attributes
    ----------
    name
        Name of its folder.
    bases
        N base coins.
    open_ms
        Open times, ms since 1970, int64 [bar], regular.
    prices
        ``open``, ``high``, ``low``, ``close``: floating [bar, coin], quote currency, NaN = no bar.
    """

    name: str
    bases: tuple[str, ...]
    open_ms: NDArray[np.int64]
    prices: dict[str, NDArray[np.floating]]

    @property
    def bar_ms(self) -> int:
        """Length of a bar, ms."""
        return int(self.open_ms[1] - self.open_ms[0])

    def bars(self, window: slice, columns: Sequence[int]) -> Bars:
        """Return some of the bars and coins, as float64."""
        chosen = list(columns)
        parts = {
            key: values[window][:, chosen].astype(np.float64) for key, values in self.prices.items()
        }
        return Bars(
            symbols=tuple(symbol_of(self.bases[column]) for column in chosen),
            start_ms=int(self.open_ms[window.start or 0]),
            bar_ms=self.bar_ms,
            **parts,
        )


def panels_folder() -> Path | None:
    """Return the folder of panels, ``None`` where there is none.

    It is ``$TRIPGATE_PANELS``, else ``../shared/data`` beside the checkout.

    Raises
    ------
    DataError
        The variable is set and names no folder: silence would hide the mistake.
    """
    named = os.environ.get(PANELS_VARIABLE)
    if named:
        if not Path(named).is_dir():
            raise DataError(f"{PANELS_VARIABLE} names {named}, which is not a folder: correct it")
        return Path(named)
    sibling = Path(__file__).resolve().parents[3] / "shared" / "data"
    return sibling if sibling.is_dir() else None


def find_panel(name: str) -> Path:
    """Return the folder of a panel, given as a path or as a bare name in the panels' folder.

    Raises
    ------
    DataError
        There is none; the message names the nearest one that exists.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise DataError(f"{name} is not a folder: name the folder that holds {PANEL_FILE}")
    folder = panels_folder()
    if folder is None or len(Path(name).parts) != 1:
        hint = "" if folder else f" (set {PANELS_VARIABLE} to name panels without their path)"
        raise DataError(f"there is no folder {name}: check the path{hint}")
    if (folder / name).is_dir():
        return folder / name
    names = sorted(path.parent.name for path in folder.glob(f"*/{PANEL_FILE}"))
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(names) or 'none'}"
    raise DataError(f"there is no folder {name}, neither here nor among the panels: {hint}")


def read_panel(folder: Path) -> Panel:
    """Read and check a panel.

    Raises
    ------
    DataError
        Missing, unreadable, or not what a panel must be.
    """
    path = folder / PANEL_FILE
    if not path.is_file():
        raise DataError(f"{folder} holds no {PANEL_FILE}: name the folder of a panel")
    try:
        arrays = _read_arrays(path)
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from error
    _check_shapes(path, arrays)
    _check_times(path, arrays["ts"])
    _check_prices(path, arrays)
    return Panel(
        name=folder.resolve().name,
        bases=tuple(str(base) for base in arrays["symbols"]),
        open_ms=arrays["ts"].astype(np.int64),
        prices={key: arrays[key] for key in PRICE_KEYS},
    )


def open_replay(
    name: str, *, start: str | None, stop: str | None, symbols: Sequence[str] | None
) -> TickFeed:
    """Return a panel as a feed.

    Parameters
    ----------
    name
        Folder, or bare name in the panels' folder.
    start, stop, symbols
        As for ``open_feed``.

    Raises
    ------
    UsageError, DataError
        As ``open_feed`` says.
    """
    panel = read_panel(find_panel(name))
    available = [symbol_of(base) for base in panel.bases]
    columns = symbol_columns(panel.name, available, symbols)
    first_ms = int(panel.open_ms[0])
    window = bar_window(panel.name, first_ms, panel.bar_ms, len(panel.open_ms), start, stop)
    return TickFeed(panel.bars(window, columns))


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        missing = [key for key in KEYS if f"{key}.npy" not in archive.namelist()]
    if unpacked > PANEL_BYTES_MAX:
        raise DataError(
            f"{path} unpacks to {unpacked} bytes, at most {PANEL_BYTES_MAX} are read: split it"
        )
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(missing)}: a panel has the keys {', '.join(KEYS)}"
        )
    with np.load(path, allow_pickle=False) as loaded:
        arrays = {key: loaded[key] for key in KEYS}
    foreign = [key for key, values in arrays.items() if not isinstance(values, np.ndarray)]
    if foreign:
        raise ValueError(f"{', '.join(foreign)} is not an array")
    return arrays


def _check_shapes(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    problems = []
    times, symbols = arrays["ts"], arrays["symbols"]
    if times.ndim != 1 or times.dtype.kind not in "iu" or len(times) < 2:
        problems.append(f"ts is {_described(times)}, expected at least 2 whole numbers in a row")
    if symbols.ndim != 1 or symbols.dtype.kind != "U" or not len(symbols):
        problems.append(f"symbols is {_described(symbols)}, expected a row of texts")
    elif len(set(symbols.tolist())) != len(symbols):
        problems.append("symbols names a coin twice")
    expected = (*times.shape[:1], *symbols.shape[:1])
    for key in (*PRICE_KEYS, "volume"):
        values = arrays[key]
        if values.dtype.kind != "f" or values.shape != expected:
            problems.append(f"{key} is {_described(values)}, expected floats of shape {expected}")
    if problems:
        raise DataError(
            "\n".join(f"{path}: {problem}: fetch or make it again" for problem in problems)
        )


def _described(values: NDArray[Any]) -> str:
    return f"{values.dtype} of shape {values.shape}"


def _check_times(path: Path, times: NDArray[Any]) -> None:
    # Compared as Python integers at the ends and as int64 between, so that no difference wraps.
    stamps = times.astype(np.int64)
    if not (0 <= int(times.min()) and int(times.max()) < MARKET_MS_MAX):
        raise DataError(f"{path}: ts is not in ms since 1970: convert it")
    steps = np.diff(stamps)
    if steps[0] <= 0 or bool((steps != steps[0]).any()):
        wrong = 0 if steps[0] <= 0 else int(np.argmax(steps != steps[0]))
        raise DataError(
            f"{path}: ts is not a regular ascending grid (after row {wrong} it moves by "
            f"{int(steps[wrong])} ms): put missing bars in as NaN rows"
        )


def _check_prices(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    prices = {key: np.asarray(arrays[key], dtype=np.float64) for key in PRICE_KEYS}
    for key, values in prices.items():
        bad = (values <= 0) | np.isinf(values)
        if bool(bad.any()):
            row, column = (int(place) for place in np.argwhere(bad)[0])
            raise DataError(
                f"{path}: {key} of {arrays['symbols'][column]} is {values[row, column]} in row "
                f"{row}, expected a positive number or NaN: repair or drop that bar"
            )
    # Comparisons with NaN are false, so a missing bar is not a wrong one.
    wrong = (prices["high"] < np.fmax(prices["open"], prices["close"])) | (
        prices["low"] > np.fmin(prices["open"], prices["close"])
    )
    if bool(wrong.any()):
        row, column = (int(place) for place in np.argwhere(wrong)[0])
        raise DataError(
            f"{path}: the bar of {arrays['symbols'][column]} in row {row} opens or closes outside "
            "its low to high: repair or drop that bar"
        )
