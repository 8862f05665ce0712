"""Whether what the owner says of channels fits to the sources that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from config.lines import Place
from config.settings import Appliance, ChannelTable, ReconciliationTable, SourceTable, TariffTable
from config.words import nearest


def check_channels(
    channels: Mapping[str, ChannelTable], sources: Mapping[str, SourceTable], tariffs: Mapping[str, TariffTable]
) -> Iterator[tuple[Place, str]]:
    """Yield the mistakes of `[channels.*.*]`, and where they stand."""
    for name, table in channels.items():
        place = ("channels", *name.split("/"))
        if what := _no_channel(name, sources):
            yield place, what
        if table.tariff and table.tariff not in tariffs:
            near = nearest(table.tariff, tariffs, listed=True) if tariffs else "; there is none yet"
            yield (*place, "tariff"), f"there is no [tariffs.{table.tariff:.70}]{near}"


def check_views(
    reconciliations: Mapping[str, ReconciliationTable], sources: Mapping[str, SourceTable]
) -> Iterator[tuple[Place, str]]:
    """Yield the mistakes of `[reconciliations.*]`."""
    for name, table in reconciliations.items():
        for channel in [one for view in table.channels for one in view]:
            if what := _no_channel(channel, sources):
                yield ("reconciliations", name, "views"), f"{channel:.140}: {what}"


def check_appliances(
    appliances: Sequence[Appliance], sources: Mapping[str, SourceTable]
) -> Iterator[tuple[Place, str]]:
    """Yield the mistakes of `[api] appliances`."""
    for number, appliance in enumerate(appliances):
        if what := _no_channel(appliance.channel, sources):
            yield ("api", "appliances", number, "channel"), f"{appliance.channel:.140}: {what}"


def _no_channel(channel: str, sources: Mapping[str, SourceTable]) -> str:
    """Say why there is no such channel, or nothing. A source that names no devices has what it has."""
    source, slash, device = channel.partition("/")
    if not slash:
        return "a channel is named source/device"
    if source not in sources:
        return f"there is no source {source!r:.70}{nearest(source, sources, listed=True) if sources else ''}"
    devices = [one.name for one in getattr(sources[source], "devices", ())]
    if devices and device not in devices:
        return f"source {source} has no device {device!r:.70}{nearest(device, devices, listed=True)}"
    return ""
