"""What the configuration says of channels: their roles, their kinds, and after how long a silence they are stale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from config.settings import DeviceTable, PolledTable, Role, Settings

# A device that speaks when it likes may be silent for longer than one that is asked.
_LISTENED_STALE_S: Final = 300.0
_POLLED_STALE_S: Final = 30.0
_MISSED_ROUNDS: Final = 3


class Channels:
    """Looks things up by `source/device`. A source that names no devices has what it has."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sources = {name: table for name, table in settings.sources.items() if table.enabled}
        self._devices = {name: [*_devices(table)] for name, table in self._sources.items()}
        self._sleepers = {
            f"{source}/{device.name}"
            for source, table in self._sources.items()
            for device in getattr(table, "devices", ())
            if getattr(device, "silent_when_dark", False)
        }
        self._appliances = {one.channel: one for one in settings.api.appliances}

    @property
    def configured(self) -> Iterator[str]:
        """Every channel that has a name in the configuration."""
        return (f"{source}/{device}" for source, devices in self._devices.items() for device in devices)

    def is_ours(self, channel: str) -> bool:
        """Whether a channel belongs to the house as it is now; the history may know older ones."""
        source, device = parted(channel)
        return source in self._sources and (not self._devices[source] or device in self._devices[source])

    def sleeps(self, channel: str) -> bool:
        """Whether it may be silent while it is dark."""
        return channel in self._sleepers

    def kind(self, channel: str) -> str:
        table = self._settings.sources.get(channel.partition("/")[0])
        return table.kind if table else ""

    def role(self, channel: str) -> Role:
        table = self._settings.channels.get(channel)
        return table.role if table else "part"

    def tariff(self, channel: str) -> str | None:
        table = self._settings.channels.get(channel)
        return (table.tariff or None) if table else None

    @property
    def currency(self) -> str | None:
        """The currency of the house; None if it has none, or several, which nobody can add up."""
        used = {name for channel in self._settings.channels if (name := self.tariff(channel))}
        currencies = {self._settings.tariffs[name].currency for name in used}
        return currencies.pop() if len(currencies) == 1 else None

    def title(self, channel: str) -> str | None:
        appliance = self._appliances.get(channel)
        return appliance.name if appliance else None

    def appliance_id(self, channel: str) -> int | None:
        appliance = self._appliances.get(channel)
        return appliance.id if appliance else None

    def of_appliance(self, number: int) -> str | None:
        return next((one.channel for one in self._settings.api.appliances if one.id == number), None)

    def stale_after_s(self, channel: str) -> float:
        table = self._settings.sources.get(channel.partition("/")[0])
        if isinstance(table, PolledTable):
            return max(_POLLED_STALE_S, _MISSED_ROUNDS * table.interval_s)
        return _LISTENED_STALE_S

    def of_house(self, measured: Iterable[str]) -> list[str]:
        """Return the channels whose sum is the house: its meters, or where it has none all its parts."""
        grid = [name for name in self._settings.channels if self.role(name) == "grid" and self.is_ours(name)]
        return grid or sorted(name for name in measured if self.role(name) == "part")


def parted(channel: str) -> tuple[str, str]:
    """Part a channel into source and device.

    >>> parted("meter/esp32-meter")
    ('meter', 'esp32-meter')
    """
    source, _, device = channel.partition("/")
    return source, device


def _devices(table: object) -> Iterator[str]:
    for device in getattr(table, "devices", ()):
        if isinstance(device, DeviceTable):
            yield device.name
    if isinstance(device := getattr(table, "device", None), str):
        yield device
