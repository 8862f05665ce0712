"""The dashboard of the household: the same questions to whatever store it has."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana._parts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Look,
    Rows,
    Section,
    bars,
    data_source,
    gauges,
    laid_out,
    lines,
    listing,
    page,
    states,
    text_box,
    tile,
)
from deploy.grafana._store import Store, columns

POWER = Look("watt", 0, ((None, BLUE), (0, GREEN), (3000, ORANGE), (7000, RED)))
DEVICE_POWER = Look("watt", 0, ((None, GREEN), (500, ORANGE), (2000, RED)), minimum=0)
ENERGY = Look("kwatth", 2, ((None, GREEN), (15, ORANGE), (30, RED)))
DEVICE_ENERGY = Look("kwatth", 2, ((None, GREEN), (2, ORANGE), (5, RED)), minimum=0)
PLAIN_ENERGY = Look("kwatth", 2, ((None, GREY),))
VOLTAGE = Look("volt", 1, ((None, RED), (216.2, GREEN), (253, RED)))  # 230 V + 10 % - 6 %, as in Britain
FREQUENCY = Look("hertz", 2, ((None, RED), (49.5, GREEN), (50.5, RED)))
GAS = Look("m3", 2, ((None, BLUE),))

_OLD = "Nothing is shown when the newest reading is older than five minutes."
_RULE = "Work out anew by any tariff with `./orchestrator.py bill`; the standing charge is in the bill alone."


def home(store: Store, currency: str) -> models.Dashboard:
    """The dashboard for one store, with cost in one currency."""
    money = Look(f"currency{currency}", 2, ((None, GREEN),))
    made = page(
        f"Home Electricity ({store.name})",
        f"wattherd-home-{store.name.lower()}",
        f"The household's energy and what it costs, from {store.name}. Days begin at local midnight.",
        [
            data_source(store.plugin, store.uid, f"wattherd {store.name}"),
            *store.variables(),
            text_box("wattherd", "House page", "http://127.0.0.1:8000", "Where the page of the house is, for the link"),
        ],
    )
    return laid_out(
        made,
        [
            Section("The house", _house(store, money)),
            Section("Devices", _devices(store)),
            Section("Circuits", _circuits(store)),
            Section("Cost", _cost(store, money)),
            Section("Gas", _gas(store)),
            Section("States", _states(store)),
            Section("Mains", _mains(store)),
        ],
    )


def _house(store: Store, money: Look) -> Rows:
    now = tile("Now", f"Power of the whole house; negative is sent out. {_OLD}", store.house_now(), POWER)
    today = tile("Today", f"Energy used since midnight. {store.how}", store.house_days(1), ENERGY)
    yesterday = tile(
        "Yesterday", f"Energy used yesterday. {store.how}", store.house_days(1), PLAIN_ENERGY, calc="first"
    )
    sent = tile("Sent out today", "What the house gave away since midnight.", store.house_export_days(1), PLAIN_ENERGY)
    cost = tile("Cost today", f"Energy used less energy sold since midnight. {_RULE}", store.cost_days(1), money)
    week_text = f"The same since Monday. {_RULE}"
    week = tile("Cost this week", week_text, store.cost_since("now/w"), money, calc=store.since_calc)
    month_text = f"The same since the first of the month. {_RULE}"
    month = tile("Cost this month", month_text, store.cost_since("now/M"), money, calc=store.since_calc)
    power = lines(
        "Power", "Power of the whole house; below zero it is sent out. A gap is a gap.", store.house_power(), POWER
    )
    week_of_bars = bars(
        "Seven days",
        f"Used upwards, sent out downwards; the last bar is today. {store.how}",
        store.house_balance_days(7),
        PLAIN_ENERGY,
    )
    tiles = [(4, now), (4, today), (4, yesterday), (3, sent), (3, cost), (3, week), (3, month)]
    return [(5, tiles), (9, [(15, power), (9, week_of_bars)])]


def _devices(store: Store) -> Rows:
    table = listing(
        "Every device",
        f"Power now and energy since midnight. {_OLD} {store.how}",
        store.devices_now_and_today(),
        columns(DEVICE_POWER, DEVICE_ENERGY),
    )
    area_text = "Power of all devices, one upon the other. The meter of the house is not among them."
    area = lines("Power by device", area_text, store.devices_power(), DEVICE_POWER, stacked=True)
    days = bars("Energy by device and day", f"The last bar is today. {store.how}", store.devices_days(7), PLAIN_ENERGY)
    return [(10, [(10, table), (14, area)]), (9, [(24, days)])]


def _circuits(store: Store) -> Rows:
    power_text = "Power of each circuit that has a meter of its own: cooker, microwave and whatever is called so."
    power = lines("Power by circuit", power_text, store.circuits_power(), DEVICE_POWER)
    today_text = f"Energy of each circuit since midnight. {store.how}"
    today = gauges("Today by circuit", today_text, store.circuits_days(1), DEVICE_ENERGY)
    return [(8, [(15, power), (9, today)])]


def _cost(store: Store, money: Look) -> Rows:
    return [(7, [(24, bars("Cost by day", f"The last bar is today. {_RULE}", store.cost_days(14), money))])]


def _gas(store: Store) -> Rows:
    today = tile("Gas today", "Cubic metres since midnight.", store.gas_days(1), GAS)
    energy = tile("Gas today, energy", "Where the meter tells its energy too.", store.gas_energy_days(1), PLAIN_ENERGY)
    days = bars("Gas by day", "The last bar is today.", store.gas_days(7), GAS)
    return [(7, [(4, today), (4, energy), (16, days)])]


def _states(store: Store) -> Rows:
    if store.state_ranges:
        text = f"{store.name} keeps numbers only, so a state is told from the power; the thresholds are in the panel."
    else:
        text = "What each device with thresholds was doing: [channels.<source>.<device>] states."
    return [(9, [(24, states("What was on", text, store.states(), store.state_ranges))])]


def _mains(store: Store) -> Rows:
    volts = lines("Voltage", "230 V, 6 % less to 10 % more, is what the network promises.", store.voltage(), VOLTAGE)
    hertz = lines("Frequency", "It falls when the whole network has too little power.", store.frequency(), FREQUENCY)
    return [(8, [(12, volts), (12, hertz)])]
