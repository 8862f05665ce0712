"""A Tuya source with little patience, the file of its keys, and the devices that it reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from reading import Reading
from tests.peers.process import wait_for
from tests.workers.tuya_devices import Device, plugged_in
from workers._tuya_link import Patience
from workers.tuya import Options, Tuya

HASTY = Patience(beat_s=0.3, probe_s=1.0, measure_s=0.05, free_again_s=0.02, found_within_s=0.2)


def options(*devices: dict[str, Any], **changes: Any) -> Options:
    table = {"kind": "tuya", "interval_s": 0.1, "timeout_s": 3.0, "longest_pause_s": 1, "devices": devices, **changes}
    return msgspec.convert(table, Options)


def meter(device: Device, name: str = "plug", **changes: Any) -> dict[str, Any]:
    """The table of a device."""
    return {"name": name, "id": device.device_id, "host": device.host, "version": device.version, **changes}


def keys_file(folder: Path, *devices: Device, mode: int = 0o600, **fields: Any) -> Path:
    """What the wizard would write for these devices."""
    file = folder / "devices.json"
    listed = [{"name": f"Wizard {one.device_id}", "id": one.device_id, "key": one.key, **fields} for one in devices]
    file.write_text(json.dumps(listed, indent=4))
    file.chmod(mode)
    return file


class House:
    """A source that is open."""

    def __init__(self, source: Tuya) -> None:
        self.source = source
        self.readings: list[Reading] = []

    def round(self) -> list[Reading]:
        readings = self.source.read()
        self.readings += readings
        return readings

    def until(self, name: str, **values: Any) -> Reading:
        """Read until a device tells these values."""

        def there() -> Reading | None:
            self.round()
            return next((one for one in self.readings if one.device == name and one.values == values), None)

        try:
            return wait_for(there, f"{values} of {name}")
        finally:
            self.told = self.readings[-3:]

    def hears(self, name: str = "plug") -> Reading:
        """Read until a device tells anything new."""
        self.readings.clear()

        def there() -> Reading | None:
            self.round()
            return next((one for one in self.readings if one.device == name), None)

        return wait_for(there, f"{name} to tell something")

    def until_trouble(self, words: str, name: str = "plug") -> str:
        def there() -> str:
            self.round()
            trouble = self.source.troubles.get(name, "")
            return trouble if words in trouble else ""

        return wait_for(there, f"{words!r} about {name}")

    def until_well(self) -> None:
        def well() -> bool:
            self.round()
            return not self.source.troubles

        wait_for(well, f"an end of {self.source.troubles}")


def a_source(chosen: Options, patience: Patience = HASTY, **attributes: Any) -> Tuya:
    source = Tuya("plugs", chosen)
    source.round_s = 0.03
    source.patience = patience
    for name, value in attributes.items():
        setattr(source, name, value)
    return source


@contextmanager
def house(
    folder: Path,
    devices: Sequence[Device],
    *tables: dict[str, Any],
    patience: dict[str, float] | None = None,
    attributes: dict[str, Any] | None = None,
    **changes: Any,
) -> Iterator[House]:
    """A source with these tables, or with one for each device; everything is closed in the end."""
    chosen = tables or tuple(meter(one, f"plug{number or ''}") for number, one in enumerate(devices))
    file = changes.pop("keys_file", None) or keys_file(folder, *devices)
    source = a_source(
        options(*chosen, keys_file=str(file), **changes), replace(HASTY, **(patience or {})), **(attributes or {})
    )
    with plugged_in(*devices):
        try:
            source.open()
            yield House(source)
        finally:
            source.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
