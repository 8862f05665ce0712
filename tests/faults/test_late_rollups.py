"""A house whose readings come hours late has them in the sums of a real InfluxDB, even if the writer dies meanwhile."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from statistics import fmean

from tests.commands.bench import orchestrator
from tests.faults.house import House
from tests.peers.influxd import Influxd
from tests.peers.process import wait_for


def test_what_came_hours_late_is_summed_up_although_the_writer_was_killed(tmp_path: Path, influxd: Influxd) -> None:
    house = House(
        tmp_path,
        f'[outputs.influx]\nurl = "{influxd.url}"\napi = "v1"\nbucket = "hours late"\n',
        ["late", "live"],
    )
    setup = orchestrator("influx", "setup", "--config", house.config)
    assert setup.returncode == 0, setup.stdout + setup.stderr
    hour_s = int(time.time()) // 3600 * 3600 - 2 * 3600
    watts = [100.0 + n for n in range(40)]
    house.started()
    try:
        house.post({"device": "live", "power_w": 1.0})
        for n, power_w in enumerate(watts):
            message = {"device": "late", "boot": "b", "seq": n + 1, "ts": hour_s + 5 + 20 * n, "power_w": power_w}
            assert house.post(message)[0] == 200

        def raw() -> int:
            points = influxd.points(
                'SELECT count("power_w") FROM "electricity" WHERE "device" = \'late\'', "hours late"
            )
            return points[0]["count"] if points else 0

        wait_for(lambda: raw() == len(watts), "the late readings themselves")
        killed = house.pid("writer")
        assert killed
        time.sleep(1.0)  # three commits, so that what was delivered is known to be
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: house.pid("writer") not in (None, killed), "another writer")

        def hours() -> list[dict[str, float]]:
            house.post({"device": "live", "power_w": 1.0})
            select = 'SELECT "power_w", "power_w_min", "power_w_max" FROM "PowerLogger_1h"."electricity"'
            return influxd.points(f"{select} WHERE \"device\" = 'late'", "hours late")

        hour = {"time": hour_s * 10**9, "power_w": fmean(watts), "power_w_min": min(watts), "power_w_max": max(watts)}
        wait_for(lambda: hours() == [hour], "the hour to be summed up, one field after the other")

        def minutes() -> list[float]:
            select = 'SELECT "power_w" FROM "PowerLogger_1m"."electricity"'
            return [row["power_w"] for row in influxd.points(f"{select} WHERE device='late'", "hours late")]

        expected = [fmean(watts[n : n + 3]) for n in range(0, 40, 3)]
        wait_for(lambda: minutes() == expected, "the minutes to be summed up")
        wait_for(lambda: "late readings are in the rollups now" in house.log, "a line in the log")
        assert house.stop() == 0
    finally:
        house.kill()
    assert house.balance()["influx"].holds
