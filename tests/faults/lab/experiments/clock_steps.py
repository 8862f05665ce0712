"""The wall clock of a running house is turned again and again, by seconds and by decades, after a boot without one."""

from __future__ import annotations

from tests.faults.house import csv_rows
from tests.faults.lab.bench import Bench
from tests.faults.turned import TurnedHouse
from tests.peers.process import wait_for

PROMISE = "however the clock is turned every reading has the time that the clock showed, and no energy comes or goes"
_SECOND = 10**9
_YEAR = 365 * 86_400 * _SECOND
_SLACK_S = 0.5
_A_PULSE_IS = 7  # of the numbers that a TurnedHouse posts


def run(bench: Bench) -> None:
    turned = TurnedHouse(bench.directory / "house", "require_sync = true")
    house, clock = turned.house, turned.clock
    steps, ahead_s = bench.times(40, least=4), [0.0]  # how far the clock was ahead when each reading was posted
    try:
        clock.turn(-56 * _YEAR, is_set=False)
        house.start()
        wait_for(lambda: house.metric("wattherd_process_up", process="api"), "the api")
        turned.post(5)
        wait_for(lambda: house.metric("wattherd_writer_held_records") == 5, "the readings to be held")
        clock.turn(0, is_set=True)
        turned.has(5)
        ahead_s += [0.0] * 5  # dated when the time was known
        for step in range(1, steps + 1):
            size_ns = bench.chance.choice((5, 90, 3600, 86_400, 365 * 86_400, 20 * 365 * 86_400)) * _SECOND
            ahead_ns = bench.chance.choice((-1, 1)) * size_ns if clock.ahead_ns == 0 else 0
            clock.turn(ahead_ns, is_set=True)
            wait_for(lambda step=step: house.metric("wattherd_clock_steps_total") == step, f"step {step} to be seen")
            turned.post(3)
            turned.has(len(turned.posted))
            ahead_s += [ahead_ns / 1e9] * 3
        bench.expect(house.stop() == 0, "the house did not stop well")
    finally:
        house.kill()
    rows = turned.rows()
    for number, (at_s, _) in rows.items():
        off_s = at_s - ahead_s[number] - turned.posted[number]
        bench.expect(abs(off_s) < _SLACK_S, f"reading {number} is {off_s:.1f} s off")
    written = csv_rows(house.data_dir / "csv")
    registers = sorted(float(row[4]) for row in written if row[3] == "energy_wh")
    expected = [float(_A_PULSE_IS * number) for number in range(len(turned.posted))]
    bench.expect(registers == expected, f"the registers are {registers[:5]} … {registers[-5:]}")
    sent, doubled = len(turned.posted), sum(row[3] == "pulses" for row in written) - len(rows)
    account = house.balance()["csv"]
    bench.count("csv", account, sent=sent, lost=sent - len(rows), doubled=doubled)
    bench.expect(account.holds and account.delivered == sent, f"{sent} sent: {account}")
    bench.expect(len(rows) == sent and not doubled, f"{sent - len(rows)} lost, {doubled} doubled")
    bench.figure("steps", steps)
    bench.figure("held until the clock was set", 5)
    bench.figure("energy error (Wh)", registers[-1] - expected[-1])
