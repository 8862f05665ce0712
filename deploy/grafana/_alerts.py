"""Alert rules for Grafana's own alerting, for those who have no Alertmanager: a file for each store.

Those for Prometheus are the rules of deploy/prometheus/alerts.yml, word for word. Graphite and InfluxDB know the
household only: too much power, a device left on, nobody heard of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

_RULES: Final = Path(__file__).parents[1] / "prometheus" / "alerts.yml"
_EXPRESSIONS: Final = "__expr__"  # Grafana's name for its own reductions and comparisons

# What is to be set in your copy: the meter of the house, what is too much for it, and what must not be left on.
PREFIX: Final = "home.electricity"
HOUSE: Final = ("meter", "esp32-meter")
MOST_W: Final = 7000
IRON: Final = ("plugs", "iron")
ON_W: Final = 20
BUCKET: Final = "PowerLogger_raw"


def alert_files() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file."""
    for store, rules in (
        ("graphite", [*_graphite()]),
        ("influxdb", [*_influx()]),
        ("prometheus", [*_prometheus()]),
    ):
        group = {"orgId": 1, "name": f"wattherd-{store}", "folder": "wattherd", "interval": "1m", "rules": rules}
        text = json.dumps({"apiVersion": 1, "groups": [group]}, indent=2, ensure_ascii=False)
        yield f"provisioning/alerting/wattherd-{store}.json", text + "\n"


def _graphite() -> Iterator[dict[str, Any]]:
    """A silent device has been heard of within a day; files of devices that are gone stay for ever."""
    house, iron = ".".join((PREFIX, *HOUSE)), ".".join((PREFIX, *IRON))
    high = _query("wattherd-graphite", 900, target=f"alias({house}.power_w, 'house')")
    yield _rule("graphite", _HIGH, [high, _reduced("min"), _compared("gt", MOST_W)])
    # At each moment the most of the quarter of an hour before it: a thermostat switches off for some minutes.
    left_on = _query("wattherd-graphite", 4 * 3600, target=f"aliasByNode(movingMax({iron}.power_w, '15min'), -2)")
    yield _rule("graphite", _LEFT_ON, [left_on, _reduced("min"), _compared("gt", ON_W)])
    fresh = f"keepLastValue(summarize(removeEmptySeries({PREFIX}.*.*.power_w), '1min', 'last'), 4)"
    silent = _query("wattherd-graphite", 86_400, target=f"aliasByNode({fresh}, -3, -2)", maxDataPoints=1500)
    unheard = _math("is_nan($B) || is_null($B)")
    yield _rule(
        "graphite",
        _silent("{{ $labels.name }}"),
        [silent, _reduced("last", drop_nothing=True), unheard],
        no_data="Alerting",
    )


def _influx() -> Iterator[dict[str, Any]]:
    def read(which: tuple[str, str] | None, since: str) -> str:
        one = f' and r.source == "{which[0]}" and r.device == "{which[1]}"' if which else ""
        return (
            f'from(bucket: "{BUCKET}")\n    |> range(start: {since})\n'
            f'    |> filter(fn: (r) => r._measurement == "electricity" and r._field == "power_w"{one})'
        )

    high = _query("wattherd-influxdb", 900, query=read(HOUSE, "-15m"))
    yield _rule("influxdb", _HIGH, [high, _reduced("min"), _compared("gt", MOST_W)])
    quarters = (
        f'import "date"\n\n{read(IRON, "-255m")}\n    |> aggregateWindow(every: 5m, period: 15m, fn: max)\n'
        "    |> filter(fn: (r) => r._time >= date.sub(from: now(), d: 4h))"
    )
    left_on = _query("wattherd-influxdb", 4 * 3600, query=quarters)
    yield _rule("influxdb", _LEFT_ON, [left_on, _reduced("min"), _compared("gt", ON_W)])
    age_s = "float(v: int(v: now()) - int(v: r._time)) / 1000000000.0"
    ages = f"{read(None, '-24h')}\n    |> last()\n    |> map(fn: (r) => ({{r with _value: {age_s}}}))"
    silent = _query("wattherd-influxdb", 86_400, query=ages)
    yield _rule(
        "influxdb",
        _silent("{{ $labels.device }} of {{ $labels.source }}"),
        [silent, _reduced("last"), _compared("gt", 300)],
        no_data="Alerting",
    )


def _prometheus() -> Iterator[dict[str, Any]]:
    """Whatever a rule has for an answer rings, whatever its value is."""
    for group in yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            words = rule["annotations"]
            about = (rule["alert"], words["summary"], words["description"], rule.get("for", "0s"), rule["labels"])
            asks = _query("wattherd-prometheus", 600, expr=" ".join(rule["expr"].split()), instant=True, range=False)
            yield _rule("prometheus", about, [asks, _reduced("last"), _math("is_number($B)")])


_HIGH: Final = (
    "High usage",
    f"the house has used more than {MOST_W} W for a quarter of an hour",
    "the table of devices shows who",
    "1m",
    {"severity": "warning"},
)
_LEFT_ON: Final = (
    "Device left on",
    f"the {IRON[1]} of {IRON[0]} has been on for four hours",
    f"it had more than {ON_W} W in each quarter of an hour",
    "1m",
    {"severity": "warning"},
)


def _silent(who: str) -> tuple[str, str, str, str, dict[str, str]]:
    summary = f"nothing has been heard of {who} for five minutes"
    return "No data", summary, "is it switched on and in reach? /readyz of the house says more", "1m", _HIGH[-1]


def _rule(
    store: str, about: tuple[str, str, str, str, dict[str, str]], steps: list[dict[str, Any]], no_data: str = "OK"
) -> dict[str, Any]:
    """Put a rule together from its query A, what makes one number of it, B, and the condition C."""
    title, summary, description, wait, labels = about
    short = re.sub("[^a-z]+", "-", title.removeprefix("Wattherd").lower())
    data = [
        {
            "refId": letter,
            "relativeTimeRange": {"from": step.pop("from_s", 0), "to": 0},
            "datasourceUid": step.pop("uid", _EXPRESSIONS),
            "model": {"refId": letter, **step},
        }
        for letter, step in zip("ABC", steps, strict=True)
    ]
    words = {"summary": summary, "description": description}
    return {
        "uid": f"wattherd-{store}-{short}",
        "title": title,
        "condition": "C",
        "data": data,
        "noDataState": no_data,
        "execErrState": "Error",
        "for": wait,
        "labels": labels,
        "annotations": {name: _in_grafanas_words(text) for name, text in words.items()},
    }


def _query(uid: str, from_s: int, **fields: object) -> dict[str, Any]:
    return {"uid": uid, "from_s": from_s, "intervalMs": 1000, "maxDataPoints": 43_200, **fields}


def _reduced(how: str, *, drop_nothing: bool = False) -> dict[str, Any]:
    """One number of each series; slots without a number do not count, unless they do."""
    return {"type": "reduce", "expression": "A", "reducer": how, "settings": {"mode": "" if drop_nothing else "dropNN"}}


def _compared(how: str, with_what: float) -> dict[str, Any]:
    return {
        "type": "threshold",
        "expression": "B",
        "conditions": [{"evaluator": {"type": how, "params": [with_what]}}],
    }


def _math(expression: str) -> dict[str, Any]:
    return {"type": "math", "expression": expression}


def _in_grafanas_words(text: str) -> str:
    """The value of an alert is that of one of its steps."""
    return text.replace("$value", "$values.B.Value")
