"""When the audit lease may be renewed, and when a failed disk is tried again."""

from dataclasses import replace

from tripgate.clock import NS_PER_MS, NS_PER_S
from tripgate.machines.log_health import (
    CALM_NS,
    RETRY_MAX_NS,
    RETRY_MIN_NS,
    UNDRAINED_NS,
    LogHealth,
    failed,
    needs_proof,
    proved,
    why_not_vouch,
)

LEASE_NS = NS_PER_S
START_NS = 1_000 * NS_PER_S


def test_vouch_when_the_disk_is_proved_and_nothing_waits_then_nothing_is_against_it() -> None:
    health = proved(LogHealth(), START_NS, START_NS)
    for age_ns in (0, LEASE_NS - 1):
        assert why_not_vouch(health, None, LEASE_NS, START_NS + age_ns) is None
    assert why_not_vouch(health, START_NS - UNDRAINED_NS, LEASE_NS, START_NS) is None


def test_vouch_when_a_proof_is_as_old_as_the_lease_then_it_is_refused() -> None:
    health = proved(LogHealth(), START_NS, START_NS + 5 * NS_PER_S)
    assert why_not_vouch(health, None, LEASE_NS, START_NS + LEASE_NS) == "the disk does not answer"
    assert why_not_vouch(LogHealth(), None, LEASE_NS, START_NS) is not None


def test_vouch_when_a_tree_record_waits_too_long_then_it_is_refused() -> None:
    health = proved(LogHealth(), START_NS, START_NS)
    oldest_ns = START_NS - UNDRAINED_NS - 1
    assert "wait too long" in str(why_not_vouch(health, oldest_ns, LEASE_NS, START_NS))


def test_vouch_when_a_write_failed_then_the_first_reason_is_told_until_one_succeeds() -> None:
    health = failed(proved(LogHealth(), START_NS, START_NS), "first", START_NS + 1)
    health = failed(health, "second", START_NS + 2)
    assert why_not_vouch(health, None, LEASE_NS, START_NS + 3) == "first"
    assert health.failed_ns == START_NS + 1
    health = proved(health, START_NS + 3, START_NS + 4)
    assert why_not_vouch(health, None, LEASE_NS, START_NS + 5) is None


def test_retry_when_failures_go_on_then_the_waiting_grows_to_its_bound() -> None:
    health, now_ns, waits = LogHealth(), START_NS, []
    for _ in range(40):
        health = failed(health, "broken", now_ns)
        waits.append(health.retry_ns - now_ns)
        now_ns = health.retry_ns
    assert waits[:3] == [RETRY_MIN_NS, 2 * RETRY_MIN_NS, 4 * RETRY_MIN_NS]
    assert waits == sorted(waits)
    assert waits[-1] == RETRY_MAX_NS


def test_retry_when_a_disk_flaps_then_only_a_calm_minute_starts_the_waiting_over() -> None:
    health = failed(failed(LogHealth(), "a", START_NS), "b", START_NS)
    well_ns = START_NS + NS_PER_S
    health = proved(health, well_ns, well_ns)
    flapping = proved(health, well_ns + CALM_NS - 1, well_ns + CALM_NS - 1)
    assert failed(flapping, "c", well_ns).retry_ns - well_ns == 4 * RETRY_MIN_NS
    calm = proved(health, well_ns + CALM_NS, well_ns + CALM_NS)
    assert failed(calm, "c", well_ns).retry_ns - well_ns == RETRY_MIN_NS


def test_probe_when_nothing_was_written_lately_then_it_is_due() -> None:
    health = replace(LogHealth(), proved_ns=START_NS)
    assert not needs_proof(health, START_NS + 199 * NS_PER_MS)
    assert needs_proof(health, START_NS + 200 * NS_PER_MS)
