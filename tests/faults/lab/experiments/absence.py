"""Seven days without Graphite and InfluxDB, the days simulated, the house and its return real."""

from __future__ import annotations

import time

import psutil

from reading import Reading
from tests.faults.house import House, Oracle
from tests.faults.lab.bench import Bench
from tests.faults.lab.counting import CountingCarbon, CountingInflux
from tests.faults.lab.proxy import Proxy, Way
from tests.peers.process import wait_for
from writer.clock import boot_id, wall_minus_monotonic_ns
from writer.ledger_copy import LedgerCopy
from writer.outbox import Intake, Stamp, Watermark
from writer.rows import SYNCED
from writer.salvage import open_outbox

PROMISE = "seven days of absence cost nothing: the newest first, within 10 s; the rest behind it; memory stays flat"
_DAYS = 7
_EVERY_S = 10  # each of the devices is read
_DEVICES = 20
_A_COMMIT_S = 60
_NEWEST_WITHIN_S = 10.0
_TIMES_REAL_TIME = 20
_MOST_GROWTH_MB = 40.0
_STILL_AWAY_S = 15.0


def run(bench: Bench) -> None:
    with (
        CountingCarbon() as carbon,
        CountingInflux() as influx,
        Proxy(carbon.port, answers=False) as to_carbon,
        Proxy(int(influx.url.rpartition(":")[2])) as to_influx,
    ):
        outputs = (
            f"[outputs.graphite]\nport = {to_carbon.port}\n"
            f'[outputs.influx]\nurl = "http://127.0.0.1:{to_influx.port}"\n'
        )
        house = House(bench.directory / "house", outputs, ["live"], commit_interval_s=1.0)
        days_s = round(_DAYS * 86_400 * bench.scale)
        away = pile_up(house, days_s)
        sinks = {"graphite": carbon.tally, "influx": influx.tally}
        proxies = {"graphite": to_carbon, "influx": to_influx}
        for proxy in proxies.values():
            proxy.breaks(Way.REFUSED)
        try:
            house.start()  # and it will not call itself ready
            wait_for(
                lambda: house.metric("wattherd_output_pending", output="influx"), "the house to show what waits", 60
            )
            oracle = Oracle(house, 0.5).start()
            time.sleep(min(_STILL_AWAY_S, _STILL_AWAY_S * bench.scale + 3))
            before_mb = pss_mb(house)
            returned_s = time.monotonic()
            for proxy in proxies.values():
                proxy.mends()
            newest, newest_s, drained_s = oracle.newest, {}, {}
            most_mb = before_mb
            while len(drained_s) < len(sinks) and time.monotonic() - returned_s < 600:
                for output, tally in sinks.items():
                    if output not in newest_s and tally.has(*newest):
                        newest_s[output] = time.monotonic() - returned_s
                    if output not in drained_s and (house.metric("wattherd_output_pending", output=output) or 99) < 5:
                        drained_s[output] = time.monotonic() - returned_s
                most_mb = max(most_mb, pss_mb(house))
                time.sleep(0.02)
            oracle.finish()
            for output in sinks:
                wait_for(lambda output=output: house.metric("wattherd_output_pending", output=output) == 0, output, 60)
            bench.expect(house.stop() == 0, "the house did not stop well")
        finally:
            house.kill()
        posted = len(oracle.posted)
        for output, balance in house.balance().items():
            has = {device: sinks[output].different(device) for device in [*away, "live"]}
            lost = sum({**away, "live": posted}.values()) - sum(has.values())
            bench.count(output, balance, sent=sum(away.values()) + posted, lost=lost)
            bench.expect(not lost, f"{output}: {lost} lost")
            bench.expect(balance.holds and not balance.pending, f"{output}: {balance}")
            bench.figure(f"newest at {output} after its return (s)", newest_s.get(output, -1.0))
            bench.expect_within(newest_s.get(output, 1e9), _NEWEST_WITHIN_S, f"{output} to have the newest")
            bench.figure(f"{output} has it all after (s)", drained_s[output])
            bench.figure(f"{output} drains so many times real time", round(days_s / drained_s[output]))
            bench.expect(days_s / drained_s[output] >= _TIMES_REAL_TIME, f"{output} took {drained_s[output]:.0f} s")
        bench.figure("days away", days_s / 86_400)
        bench.figure("memory of the writer before and at most (MB PSS)", f"{before_mb:.0f} and {most_mb:.0f}")
        bench.expect(most_mb - before_mb < _MOST_GROWTH_MB, f"memory rose from {before_mb:.0f} to {most_mb:.0f} MB")


def pile_up(house: House, days_s: int) -> dict[str, int]:
    """Let the outbox have what a house of so many seconds has taken while both were away; return how much of whom."""
    house.data_dir.mkdir(parents=True, exist_ok=True)
    copy = LedgerCopy(house.data_dir / "ledger.copy")
    outbox, _ = open_outbox(house.data_dir / "outbox.db", copy, reserve_bytes=0, quota_bytes=10**9)
    outbox._connection.execute("PRAGMA synchronous = OFF")  # the days are simulated, the disk may be too
    outbox.serve(["graphite", "influx"])
    stamp = Stamp(boot_id(), wall_minus_monotonic_ns(), SYNCED)
    begin_ns = time.monotonic_ns() - days_s * 10**9
    numbers = {f"plug-{device}": 0 for device in range(_DEVICES)}
    for commit in range(days_s // _A_COMMIT_S):
        readings = []
        for second in range(0, _A_COMMIT_S, _EVERY_S):
            at_ns = begin_ns + (commit * _A_COMMIT_S + second) * 10**9
            for device in numbers:
                numbers[device] += 1
                numbered = numbers[device]
                values = {"pulses": numbered, "power_w": float(numbered % 997), "voltage_v": 230.1, "current_a": 1.25}
                readings.append(Reading(device, at_ns, values))
        taken = Intake(
            readings={"plugs": readings}, watermarks={"plugs": Watermark(1, commit + 1)}, count=len(readings)
        )
        outbox.commit(taken, stamp, dict(outbox.progress))
    outbox.close()
    return numbers


def pss_mb(house: House) -> float:
    pid = house.pid("writer")
    return float(psutil.Process(pid).memory_full_info().pss) / 1e6 if pid else 0.0
