"""A house for the tests of the page: a day of history, simulated sources that run, and one device that fell silent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from config.settings import Site
from reading import Quality, Reading, Record
from tests.faults.house import House
from workers.simulated import House as Model
from workers.simulated import Options as Simulated
from writer import Batch, Memo
from writer.outputs.history import History
from writer.outputs.history import Options as HistoryTable

ZONE = "Europe/London"
SILENT = "old-meter"  # said its last word half an hour before the house was started
_S = 10**9

_SOURCES = """
timezone = "{zone}"
[sources.house]
kind = "simulated"
interval_s = 0.5
hour_at_boot = {hour_at_boot}
[sources.cellar]
kind = "simulated"
interval_s = 1.0
seed = 2
[[sources.cellar.devices]]
name = "freezer"
load = "fridge"
[channels.house.house-meter]
role = "grid"
tariff = "main"
[channels.house.solar]
role = "generation"
{tariffs}
[tariffs.main]
currency = "GBP"
[[tariffs.main.periods]]
from = 2025-01-01
standing_charge_per_day = 0.53
unit_rate_per_kwh = 0.25
export_rate_per_kwh = 0.15
[outputs.csv]
[outputs.history]
"""
_PARTS = ("base", "fridge", "kettle", "cooker", "washing-machine")


def home(directory: Path) -> House:
    """Make the house; start it with `started()`. Its parent is patient with a source that a test holds still."""
    hour = _hour_at_boot()
    tariffs = "\n".join(f'[channels.house.{device}]\ntariff = "main"' for device in _PARTS)
    house = House(directory, "", [SILENT])
    text = _SOURCES.format(zone=ZONE, hour_at_boot=hour, tariffs=tariffs)
    site, rest = text.split("[sources.house]", 1)
    house.head = house.head.replace('name = "proof"', f'name = "proof"{site.rstrip()}')
    house.head = house.head.replace("[supervise]", "[supervise]\nhung_after_s = 600")
    house.configure("[sources.house]" + rest)
    house.data_dir.mkdir()
    remember(house.data_dir, hour)
    return house


def remember(data_dir: Path, hour_at_boot: float) -> None:
    """Write two days of the same simulated house, and some weeks more sparsely, as the output `history` does."""
    model = Model(Simulated(kind="simulated", hour_at_boot=hour_at_boot))
    now_ns, boot_ns = time.time_ns(), time.time_ns() - time.monotonic_ns()
    end_ns = now_ns - 20 * _S
    with closing(History(HistoryTable(), Site(data_dir=str(data_dir)), Memo())) as history:
        for number, batch in enumerate(_batches(model, boot_ns, end_ns)):
            history.write(Batch(batch, [number - 10_000] * len(batch)))


def _batches(model: Model, boot_ns: int, end_ns: int) -> Iterator[list[Record]]:
    records: list[Record] = []
    day = 86_400 * _S
    owed = {reading.device: _counted(reading, "device_energy_wh") for reading in model.readings(end_ns - boot_ns)}
    last_hour = range(end_ns - 3600 * _S, end_ns, 30 * _S)
    two_days, weeks = (
        range(end_ns - 2 * day, end_ns - 3600 * _S, 300 * _S),
        range(end_ns - 45 * day, end_ns - 2 * day, 21_600 * _S),
    )
    silent_from_ns, silent_to_ns = end_ns - 9 * 3600 * _S, end_ns - 8 * 3600 * _S
    for time_ns in (*weeks, *two_days, *last_hour):
        if silent_from_ns < time_ns < silent_to_ns:
            continue
        for reading in model.readings(time_ns - boot_ns):
            values = {"power_w": reading.values["power_w"], "energy_wh": _counted(reading, "device_energy_wh")}
            values["cost"] = 0.00025 * (values["energy_wh"] - owed[reading.device])  # so that the house begins at zero
            if "device_energy_export_wh" in reading.values:
                values["energy_export_wh"] = _counted(reading, "device_energy_export_wh")
            records.append(Record("house", reading.device, time_ns, values, Quality.SIMULATED))
        if time_ns < end_ns - 1800 * _S:
            records.append(Record("meter", SILENT, time_ns, {"power_w": 40.0, "energy_wh": time_ns / _S / 90.0}))
        if len(records) > 2000:
            yield records
            records = []
    yield records


def _counted(reading: Reading, counter: str) -> float:
    return 1e6 + float(reading.values[counter])


def _hour_at_boot() -> float:
    """The hour at which the simulated sun agrees with the clock on the wall."""
    local = datetime.now(ZoneInfo(ZONE))
    return round((local.hour + local.minute / 60 - time.monotonic() / 3600) % 24, 4)
