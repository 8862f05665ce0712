"""Examples for the documentation of the interface: one evening in one house."""

from __future__ import annotations

from typing import Final

from api import documents as d

_NOW: Final = "2026-11-28T18:30:05.120Z"

HOUSE: Final = d.House(
    site="home",
    timezone="Europe/London",
    currency="GBP",
    version="0.1.0",
    simulated=False,
    demo=False,
    time=_NOW,
    started="2026-11-01T07:00:00.000Z",
    hint=None,
    history=True,
)
_METER: Final = d.Device(
    source="meter",
    device="esp32-meter",
    kind="esp32_http",
    role="grid",
    time="2026-11-28T18:30:03.900Z",
    age_s=1.22,
    stale=False,
    quality="measured",
    clock="synced",
    values={"cost": 112.84, "energy_wh": 451250.5, "power_w": 1492.3, "pulses": 91234},
)
_FRIDGE: Final = d.Device(
    source="plugs",
    device="fridge",
    kind="kasa",
    role="part",
    time="2026-11-28T18:21:40.000Z",
    age_s=505.12,
    stale=True,
    quality="measured",
    clock="synced",
    values={},
    last_values={"energy_wh": 8120.0, "power_w": 86.5, "voltage_v": 238.1},
)
LIVE: Final = d.Live(
    _NOW, d.HousePower(1492.3, 1492.3, 0.0, complete=True, stale=False, of=["meter/esp32-meter"]), [_METER, _FRIDGE]
)
HEALTH: Final = d.Health(
    ready=False,
    simulated=False,
    reasons=[d.Reason("output influx", "down: connection refused", "start InfluxDB, or mend url")],
    sources=[d.SourceHealth("meter", "esp32_http", "reading", "good", 1.2, 91234, 0, "")],
    outputs=[
        d.OutputHealth("csv", "csv", "up", "good", 91234, 91230, 4, 0, 1.2, ""),
        d.OutputHealth("influx", "influx", "down", "bad", 91234, 90000, 1234, 0, 410.0, "connection refused"),
    ],
    writer=d.WriterHealth(9120, 0, 8400896, 0.8),
    clock=d.ClockHealth(synced=True, steps=0),
)
STREAM: Final = "retry: 1000\n\nevent: live\ndata: " + d.encode(LIVE).decode() + "\n\n"
DEVICES: Final = d.Devices(
    [
        d.KnownDevice(
            source="meter",
            device="esp32-meter",
            kind="esp32_http",
            role="grid",
            title="Whole house",
            metrics=["cost", "energy_wh", "power_w", "pulses"],
            first="2026-11-01T07:00:00.000Z",
            last="2026-11-28T18:30:03.900Z",
            appliance_id=1,
            tariff="main",
        )
    ]
)
SERIES: Final = d.Series(
    source="meter",
    device="esp32-meter",
    metric="power_w",
    unit="W",
    kind="gauge",
    step_s=300,
    time_s=[1795890000, 1795890300],
    n=[30, 30],
    mean=[412.5, 1490.0],
    min=[398.0, 410.2],
    max=[455.1, 2954.0],
    last=[411.0, 1492.3],
    increase=[None, None],
)
STACK: Final = d.Stack(
    "power_w",
    "W",
    300,
    [1795890000, 1795890300],
    [
        d.StackedSeries("meter", "esp32-meter", "grid", [412.5, 1490.0]),
        d.StackedSeries("plugs", "fridge", "part", [86.5, None]),
    ],
)
GAPS: Final = d.Gaps(
    [
        d.Gap(
            "plugs",
            "fridge",
            from_="2026-11-28T03:10:00.000Z",
            to="2026-11-28T04:02:30.000Z",
            over=True,
            length_s=3150.0,
            cause="device",
            what="it does not answer; energy: known: its counter went on by 0.042 kWh, spread over the gap",
            energy_known=True,
            expected=False,
        )
    ]
)
CSV: Final = (
    "time,source,device,metric,n,mean,min,max,last,increase\n"
    "2026-11-28T09:30:00.000Z,meter,esp32-meter,power_w,30,412.5,398.1,455.25,411,\n"
)
_DAYS: Final = [
    d.Period("2026-11-27T00:00:00+00:00", "2026-11-28T00:00:00+00:00"),
    d.Period("2026-11-28T00:00:00+00:00", "2026-11-29T00:00:00+00:00"),
]
ENERGY: Final = d.Energy(
    by="day",
    timezone="Europe/London",
    currency="GBP",
    periods=_DAYS,
    house=d.HouseEnergy([9120.0, 7480.5], [None, None], [2.27, 1.86], [False, False], ["meter/esp32-meter"]),
    channels=[
        d.ChannelEnergy("meter", "esp32-meter", "grid", "energy_wh", [9120.0, 7480.5], [False, False], [2.27, 1.86])
    ],
)
COST: Final = d.Cost(
    "day",
    "Europe/London",
    "GBP",
    _DAYS,
    [d.ChannelCost("meter", "esp32-meter", [2.27, 1.86])],
    d.HouseCost([2.27, 1.86]),
)
