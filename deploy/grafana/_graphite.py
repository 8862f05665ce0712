"""The household's questions as Graphite targets.

The register `energy_wh` only ever rises, so the energy of a day is the sum of its steps. A slot without a reading takes
over the last one first (`keepLastValue`), or the step over it would be lost. Days are counted in 24 hours from local
midnight of the first one, which the panels ask for: Graphite knows no days of 23 or 25 hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana._parts import BLUE, GREEN, GREY, RED, Answer, Target, asked, text_box
from deploy.grafana._store import Store

_ALL_DEVICES = "$prefix.$source.$device"
# Five minutes at most: what is older is not shown as the present.
_FRESH = "keepLastValue(summarize({path}, '1min', '{how}'), 4)"


class Graphite(Store):
    """Paths are `<prefix>.<source>.<device>.<metric>`."""

    name: ClassVar = "Graphite"
    plugin: ClassVar = "graphite"
    uid: ClassVar = "wattherd-graphite"
    how: ClassVar = "The sum of all steps of the register `energy_wh` between midnight and midnight."
    since_calc: ClassVar = "sum"
    state_ranges: ClassVar = (
        (None, 1, "off", GREY),
        (1, 15, "idle", BLUE),
        (15, 1000, "on", GREEN),
        (1000, None, "heavy", RED),
    )

    def variables(self) -> Sequence[Builder[models.VariableModel]]:
        return [
            text_box(
                "prefix", "Prefix", "home.electricity", "`prefix` of [outputs.graphite]; a demo adds `.simulated`"
            ),
            asked(
                "house",
                "House",
                "expand($prefix.*.*.power_w)",
                "meter.esp32-meter",
                "The meter of the whole house",
                regex=r"/([^.]+\.[^.]+)\.power_w$/",
            ),
            asked(
                "source", "Source", "$prefix.*", "", "Whose devices are shown", regex="/^(?!simulated$)/", several="*"
            ),
            asked("device", "Device", "$prefix.$source.*", "", "Which devices are shown", several="*"),
            text_box("circuit", "Circuits", "circuit", "The source whose devices are circuits of the consumer unit"),
            asked(
                "gas",
                "Gas",
                "expand($prefix.*.*.gas_m3)",
                "glow.gas",
                "The gas meter",
                regex=r"/([^.]+\.[^.]+)\.gas_m3$/",
            ),
        ]

    def house_now(self) -> Answer:
        return _ask(f"alias({_fresh('$prefix.$house.power_w', 'last')}, 'house')", time_from="now-1h")

    def house_power(self) -> Answer:
        return _ask("alias($prefix.$house.power_w, 'house')")

    def house_days(self, days: int) -> Answer:
        return _ask(f"alias({_kwh_by_day('$prefix.$house.energy_wh')}, 'used')", time_from=_since(days))

    def house_export_days(self, days: int) -> Answer:
        return _ask(f"alias({_kwh_by_day('$prefix.$house.energy_export_wh')}, 'sent out')", time_from=_since(days))

    def house_balance_days(self, days: int) -> Answer:
        sent_out = f"scale({_kwh_by_day('$prefix.$house.energy_export_wh')}, -1)"
        used = self.house_days(days).targets[0]
        return Answer((used, _target(f"alias({sent_out}, 'sent out')")), time_from=_since(days))

    def devices_now_and_today(self) -> Answer:
        power = f"consolidateBy(timeSlice({_devices('power_w')}, '-5min'), 'last')"
        targets = _target(_cell("Power", power)), _target(_cell("Today", _kwh_by_day(_devices("energy_wh"))))
        return Answer(
            targets,
            (
                ("reduce", {"mode": "seriesToRows", "reducers": ["lastNotNull"]}),
                ("extractFields", {"source": "Field", "format": "kvp", "replace": False, "keepTime": False}),
                ("groupingToMatrix", {"rowField": "Device", "columnField": "Metric", "valueField": "Last *", **_NULL}),
                ("organize", {"renameByName": {"Device\\Metric": "Device"}}),
            ),
            time_from=_since(1),
            points=200,
        )

    def devices_power(self) -> Answer:
        return _ask(_named(_fresh(_devices("power_w"), "avg")))

    def devices_days(self, days: int) -> Answer:
        return _ask(_named(_kwh_by_day(_devices("energy_wh"))), time_from=_since(days))

    def circuits_power(self) -> Answer:
        return _ask("aliasByNode($prefix.$circuit.*.power_w, -2)")

    def circuits_days(self, days: int) -> Answer:
        return _ask(f"aliasByNode({_kwh_by_day('$prefix.$circuit.*.energy_wh')}, -2)", time_from=_since(days))

    def cost_days(self, days: int) -> Answer:
        return _ask(f"alias(summarize({_COST}, '1d', 'sum', true), 'cost')", time_from=_since(days))

    def cost_since(self, since: str) -> Answer:
        # By the hour, and fewer points than Graphite is allowed: when it has to thin out, it leaves out the first ones.
        hourly = f"alias(summarize({_COST}, '1h', 'sum', true), 'cost')"
        return Answer((_target(hourly),), time_from=since, points=1000)

    def gas_days(self, days: int) -> Answer:
        return _ask(
            f"alias(summarize({_steps('$prefix.$gas.gas_m3')}, '1d', 'sum', true), 'gas')", time_from=_since(days)
        )

    def gas_energy_days(self, days: int) -> Answer:
        return _ask(f"alias({_kwh_by_day('$prefix.$gas.energy_wh')}, 'gas')", time_from=_since(days))

    def states(self) -> Answer:
        return _ask(_named(_fresh(_devices("power_w"), "max")))

    def voltage(self) -> Answer:
        return _ask(f"aliasByNode({_ALL_DEVICES}.voltage_v, -3, -2)")

    def frequency(self) -> Answer:
        return _ask(f"aliasByNode({_ALL_DEVICES}.frequency_hz, -3, -2)")


_NULL = {"emptyValue": "null"}
# Costs may fall, when energy is sold or its price is negative.
_COST = "derivative(keepLastValue($prefix.$house.cost))"


def _target(target: str) -> Target:
    return Target(target=target, textEditor=True)


def _ask(*targets: str, time_from: str = "") -> Answer:
    return Answer(tuple(_target(target) for target in targets), time_from=time_from)


def _since(days: int) -> str:
    """Local midnight so many days ago. The first step is lost with it, so no panel's number begins with it alone."""
    return f"now-{days}d/d"


def _steps(path: str) -> str:
    return f"nonNegativeDerivative(keepLastValue({path}))"


def _kwh_by_day(path: str) -> str:
    return f"scale(summarize({_steps(path)}, '1d', 'sum', true), 0.001)"


def _fresh(path: str, how: str) -> str:
    return _FRESH.format(path=path, how=how)


def _devices(metric: str) -> str:
    """All that was chosen but the meters of the house and of the gas, which are no part of it."""
    return f"exclude({_ALL_DEVICES}.{metric}, '[.]($house|$gas)[.]')"


def _cell(column: str, target: str) -> str:
    """Name a series after the row and the column of a table that it is for.

    The answers to several targets come back as one heap, so the name has to say it. A series without a number has to
    go: Grafana would take the column for one that has no numbers.
    """
    return f"aliasSub({_named(f'removeEmptySeries({target})')}, '^(.*)', 'Device=\\1 Metric={column}')"


def _named(target: str) -> str:
    return f"aliasByNode({target}, -3, -2)"
