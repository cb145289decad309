"""``tripgate init``: write a commented configuration to start from.

The template is a whole, working configuration of a simulated account, so that the first thing a
user edits is already correct. Its amounts are examples that stand in the file for all to see; the
program itself has no default for money.
"""

import errno
from pathlib import Path

from tripgate.cli.output import write_json, write_line
from tripgate.config.reader import parse_config
from tripgate.config.reference import SCHEMA_FILE, schema_text
from tripgate.durable import unwritable, write_durably
from tripgate.errors import UsageError

TEMPLATE = """\
#:schema ./tripgate.schema.json
# The limits of one trading set-up. `tripgate config check` finds every mistake in it at once.
# Amounts whose name says `reporting` are in the reporting currency. Every limit is mandatory;
# where none is wanted, write "none". The numbers below are examples: choose your own.

schema = 1
reporting_currency = "USDT"

[risk]
bar_s = 60                       # length of the bars of the risk models, seconds
window_bars = 1000               # bars that they look back
var_confidence = 0.99
var_horizon_s = 86400            # one day
var_budget_reporting = 4000      # value at risk that the whole book may carry
soft_factor = 0.5                # breaker level SOFT multiplies limits and order sizes by this

# Everything together.
[limits.portfolio]
gross_reporting_max = 50000      # sum of |positions|, open orders included
net_reporting_max = 30000        # |long minus short|
stress_loss_reporting_max = 12500 # loss if every asset fell 25 % at once; bounds gross exposure
loss_reporting_max = 20000       # total loss at which everything stops; never moves with profit

# Each base asset, venue and strategy has limits of its own; the tightest one speaks.
[limits.assets.BTC]
gross_reporting_max = 30000
net_reporting_max = 30000

[limits.assets.ETH]
gross_reporting_max = 20000
net_reporting_max = 20000

[limits.venues.binance-main]
gross_reporting_max = 50000
net_reporting_max = 30000

[limits.strategies.trend]
gross_reporting_max = 50000
net_reporting_max = 30000

# One table for each account at an exchange.
[venues.binance-main]
exchange = "binanceusdm"
kind = "simulated"               # "live" sends orders to the exchange
position_mode = "one-way"
starting_equity_reporting = 100000
margin_buffer_reporting = 2000   # margin that openings must leave untouched
margin_haircut = 0.95            # share of the account's equity that counts as margin
# api_key = "env:BINANCE_KEY"    # where the key is found: env:, file: or cmd:, never the key

# One table for each instrument, VENUE/BASE/QUOTE:SETTLE.
[instruments."binance-main/BTC/USDT:USDT"]
gross_reporting_max = 30000
net_reporting_max = 30000
order_reporting_max = 5000       # largest single opening order
collar_bps_max = 200             # farthest an order's price may be from the mark (200 = 2 %)
exit_collar_bps_max = 400        # farthest an exit's price is let go; default: twice the collar
resting_closes_max = 4           # closes of one position that may rest at the venue at once
# order_lots_max = 500           # also bounds a single opening order, in lots
# initial_margin_rate = 0.05     # margin ÷ notional; default: the simulated venue's own bracket
stop_distance_bps_max = 500      # farthest its protective stop may be (500 = 5 %)

[instruments."binance-main/ETH/USDT:USDT"]
gross_reporting_max = 20000
net_reporting_max = 20000
order_reporting_max = 4000
collar_bps_max = 200
stop_distance_bps_max = 500

# One table for each strategy: the process to start and what it may trade.
[strategies.trend]
command = ["python", "-m", "tripgate.demo.trend"]
instruments = ["binance-main/BTC/USDT:USDT", "binance-main/ETH/USDT:USDT"]
orders_per_second_max = 5
attempts_per_second_max = 1000   # what it may ask per second, denials included
duplicate_window_ms = 500        # an opening equal to the last one within this time is denied
repeated_orders_max = 20         # equal openings in a row within repeated_window_s; 0: no bound
repeated_window_s = 60
on_exit = "cancel_entries"       # resting entries are cancelled when the process ends

[alerts]
# Run when a level reaches MEDIUM or above; {scope}, {level} and {cause} are filled in.
# on_level_command = ["notify-send", "tripgate", "{scope} {level} {cause}"]
on_level_command = []

[audit]
# Further files, on other disks, that get every head of the audit log's chain.
# heads_copies = ["/mnt/other/heads.jsonl"]
heads_copies = []
keep_months = 84                 # `tripgate audit archive --prune` never removes a younger month
"""


def init(file: Path = Path("tripgate.toml"), *, force: bool = False, json: bool = False) -> int:
    """Write a commented configuration and, beside it, its JSON schema for editors.

    Parameters
    ----------
    file
        The file to write.
    force
        Replace files that are there already.
    json
        Print one JSON object instead of text.
    """
    # A template that does not pass its own check must never reach a user.
    parse_config(TEMPLATE, str(file))
    contents = {file: TEMPLATE, file.with_name(SCHEMA_FILE): schema_text()}
    for path, content in contents.items():
        _refuse_overwrite(path, content, is_forced=force)
    for path, content in contents.items():
        write_durably(path, content.encode())
    if json:
        write_json({"files": [str(path) for path in contents]})
        return 0
    write_line(f"wrote {file} and {SCHEMA_FILE}; next: tripgate config check {file}")
    return 0


def _refuse_overwrite(path: Path, content: str, *, is_forced: bool) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}: make it, or write elsewhere")
    if path.is_dir():
        raise unwritable(path, IsADirectoryError(errno.EISDIR, "it is a folder"))
    if is_forced or not path.exists():
        return
    is_same = path.name == SCHEMA_FILE and path.read_bytes() == content.encode()
    if not is_same:
        raise UsageError(f"{path} exists already: --force replaces it")
