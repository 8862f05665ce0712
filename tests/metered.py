"""A history of some meters that were read every quarter of an hour, for whoever asks it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from config.settings import Site
from history.buckets import SECOND_NS
from reading import Quality, Record
from writer import Batch, Memo
from writer.outputs.history import History, Options

QUARTER_NS = 900 * SECOND_NS
HOUR_NS = 3600 * SECOND_NS
Load = Callable[[int], float]  # watts in the quarter that begins at a time


def metered(
    folder: Path,
    meters: Mapping[str, Load],
    from_ns: int,
    to_ns: int,
    *,
    metric: str = "energy_wh",
    silent: Mapping[str, Collection[range]] | None = None,
    counted: bool = False,
) -> None:
    """Read every meter at each quarter of [from_ns, to_ns], but where it is silent."""
    output = History(msgspec.convert({}, Options), Site(data_dir=str(folder)), Memo())
    registers = dict.fromkeys(meters, 0)  # µWh
    records = []
    for at_ns in range(from_ns, to_ns + 1, QUARTER_NS):
        for name, load in meters.items():
            if not any(at_ns in stretch for stretch in (silent or {}).get(name, ())):
                source, device = name.split("/")
                values: dict[str, float | str] = {metric: registers[name] / 1e6, "power_w": float(load(at_ns))}
                if counted:
                    values[f"device_{metric}"] = registers[name] / 1e6
                records.append(Record(source, device, at_ns, values, Quality.MEASURED))
            registers[name] += round(load(at_ns) * 250_000)
    output.write(Batch(records, ()))
    output.close()
