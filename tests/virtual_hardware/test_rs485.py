"""A PZEM on a real USB adapter's driver, pulled out in the middle of a conversation."""

from __future__ import annotations

from pathlib import Path

from tests.peers.process import wait_for
from tests.virtual_hardware.devices import Adapter, patient_house, values_of

TABLE = """
[outputs.csv]
[sources.shunts]
kind = "pzem"
port = "/dev/ttyUSB0"
interval_s = 0.3
[[sources.shunts.devices]]
name = "battery"
unit = 1
model = "017"
shunt_a = 100
"""


def test_an_adapter_that_is_pulled_out_costs_no_process_and_comes_back(tmp_path: Path, adapter: Adapter) -> None:
    wait_for(Path("/dev/ttyUSB0").exists, "the adapter", within_s=30)
    with patient_house(tmp_path, TABLE) as house:

        def volts() -> list[str]:
            return values_of(house, "shunts", "battery", "voltage_v")

        wait_for(lambda: len(volts()) > 3, "readings of the battery", within_s=300)
        worker = house.pid("source.shunts")
        adapter.move("unplug")
        wait_for(lambda: "is gone" in house.log or "is not there" in house.log, "words about it", within_s=60)
        before = len(volts())
        adapter.move("plug")
        wait_for(lambda: len(volts()) > before + 3, "readings after the adapter is back", within_s=90)
        assert house.pid("source.shunts") == worker is not None
        assert {*volts()} == {"12.6"}
        assert house.stop(within_s=60) == 0
        assert "Traceback" not in house.log
