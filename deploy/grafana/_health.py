"""The dashboard of wattherd itself: whether everything measures and everything arrives, from Prometheus."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.models import dashboard as models

from deploy.grafana._parts import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Answer,
    Look,
    Rows,
    Section,
    Target,
    asked,
    bars,
    data_source,
    laid_out,
    lines,
    listing,
    page,
    states,
    text_box,
    tile,
)

HOUSE: Final = 'job="wattherd", instance="$instance"'
AGE: Final = Look("s", 0, ((None, GREEN), (60, ORANGE), (300, RED)), minimum=0)
COUNT: Final = Look("short", 0, ((None, GREEN),), minimum=0)
BAD: Final = Look("short", 0, ((None, GREEN), (1, RED)), minimum=0)
RATE: Final = Look("cpm", 1, minimum=0)  # a minute
BYTES: Final = Look("decbytes", 1, minimum=0)

_PROCESS_STATES: Final = ("starting", "running", "backoff", "degraded", "stopped")
_OUTPUT_STATES: Final = ("starting", "up", "down", "stopped")
_COLOURS: Final = {
    "starting": BLUE,
    "running": GREEN,
    "up": GREEN,
    "backoff": ORANGE,
    "down": ORANGE,
    "degraded": RED,
    "stopped": RED,
}


def health() -> models.Dashboard:
    """The dashboard for one of the houses that Prometheus asks."""
    made = page(
        "wattherd health",
        "wattherd-health",
        "Sources, outputs, the writer, the clock and the disk of a house that Prometheus asks.",
        [
            data_source("prometheus", "wattherd-prometheus", "wattherd Prometheus"),
            asked("instance", "House", "label_values(wattherd_info, instance)", "127.0.0.1:8000", "Which house"),
            text_box("wattherd", "House page", "http://127.0.0.1:8000", "Where the page of the house is, for the link"),
        ],
    )
    return laid_out(
        made,
        [
            Section("Is it well?", _well()),
            Section("Sources", _sources()),
            Section("Outputs", _outputs()),
            Section("Writer, disk and clock", _writer()),
            Section("Processes", _processes()),
            Section("Meters that should agree", _agreement()),
        ],
    )


def _well() -> Rows:
    yes_no = ((None, 0.5, "no", RED), (0.5, None, "yes", GREEN))
    ready = states(
        "Ready", "What /readyz says: everything measures and everything arrives.", _is("wattherd_ready"), yes_no
    )
    why = listing(
        "Why not",
        "The parts that are not well, and how many reasons /readyz has for each. Empty is good.",
        _table(f"wattherd_not_ready_reasons{{{HOUSE}}}", {"part": "Part", "Value": "Reasons"}),
        {"Reasons": COUNT},
    )
    newest = tile(
        "Newest reading",
        "Age of the newest reading of any source.",
        _one("min", "source_last_reading_age_seconds"),
        AGE,
    )
    late = tile(
        "Longest lag", "Age of the oldest reading that waits for an output.", _one("max", "output_lag_seconds"), AGE
    )
    lost = tile(
        "Dropped today",
        "Readings that an output will never get, within 24 hours. They are counted, never hidden.",
        _now(f"sum(increase(wattherd_output_dropped_total{{{HOUSE}}}[24h]))"),
        BAD,
    )
    free = Look("percentunit", 0, ((None, RED), (0.05, ORANGE), (0.1, GREEN)))
    share = f"min(wattherd_data_dir_free_bytes{{{HOUSE}}} / wattherd_data_dir_size_bytes{{{HOUSE}}})"
    disk = tile("Disk free", "Where the data is kept.", _now(share), free)
    return [(6, [(7, ready), (5, why), (3, newest), (3, late), (3, lost), (3, disk)])]


def _sources() -> Rows:
    age = lines(
        "Age of the newest reading",
        "A source that is asked every ten seconds saws between 0 and 10.",
        _each("wattherd_source_last_reading_age_seconds", "{{source}}"),
        AGE,
    )
    rate = lines(
        "Readings a minute",
        "Averaged over five minutes.",
        Answer((_range(f"wattherd:source_readings:rate5m{{{HOUSE}}} * 60", "{{source}}"),)),
        RATE,
    )
    trouble = lines(
        "Devices in trouble",
        "/readyz names them and says what to do.",
        _each("wattherd_source_devices_troubled", "{{source}}"),
        BAD,
    )
    stopped = bars(
        "Lost and stopped",
        "Lost: the backlog was full. Rejected: a value made no sense. Refused: not let in.",
        Answer(
            (
                _range(_rise("wattherd_source_dropped_total"), "{{source}} lost"),
                _range(_rise("wattherd_source_rejected_total"), "{{source}} rejected"),
                _range(f"sum by (source) ({_rise('wattherd_source_refused_total')})", "{{source}} refused"),
            )
        ),
        COUNT,
    )
    silences = listing(
        "Devices by silence",
        "How long ago each device was heard of. One that was never heard of has no age and is stale.",
        _joined(
            ("wattherd_device_stale", "Stale"),
            ("wattherd_device_last_reading_age_seconds", "Silent for"),
        ),
        {"Stale": BAD, "Silent for": AGE},
    )
    return [(8, [(12, age), (12, rate)]), (9, [(8, trouble), (8, stopped), (8, silences)])]


def _outputs() -> Rows:
    state = states(
        "State",
        "Down: tried again by itself. Stopped: waits for a person, /readyz says what to mend.",
        _state("wattherd_output_state", "output", _OUTPUT_STATES),
        _ranges(_OUTPUT_STATES),
    )
    lag = lines(
        "Lag",
        "Age of the oldest reading that waits. No line: nothing waits.",
        _each("wattherd_output_lag_seconds", "{{output}}"),
        AGE,
    )
    pending = lines(
        "Waiting", "Records in the outbox for each output.", _each("wattherd_output_pending", "{{output}}"), COUNT
    )
    delivered = lines(
        "Delivered a minute",
        "A backlog that drains is a peak.",
        Answer((_range(f"rate(wattherd_output_delivered_total{{{HOUSE}}}[$__rate_interval]) * 60", "{{output}}"),)),
        RATE,
    )
    dropped = bars(
        "Dropped",
        "Records that this output will never get, by reason.",
        Answer((_range(_rise("wattherd_output_dropped_total"), "{{output}} {{reason}}"),)),
        COUNT,
    )
    failing = lines(
        "Failing for",
        "Since an output began to fail; no line while it works.",
        _each("wattherd_output_failing_seconds", "{{output}}"),
        AGE,
    )
    return [(8, [(12, state), (12, lag)]), (8, [(6, pending), (6, delivered), (6, dropped), (6, failing)])]


def _writer() -> Rows:
    commit = lines(
        "Since the last commit", "What a power cut would cost.", _each("wattherd_writer_last_commit_age_seconds"), AGE
    )
    outbox = lines(
        "Outbox",
        "Its file does not shrink; it is full when it nears the quota while an output is away.",
        Answer(
            (
                _range(f"wattherd_outbox_size_bytes{{{HOUSE}}}", "size"),
                _range(f"wattherd_outbox_quota_bytes{{{HOUSE}}}", "quota"),
            )
        ),
        BYTES,
    )
    disk = lines("Free on the disk", "Where the data is kept.", _each("wattherd_data_dir_free_bytes"), BYTES)
    troubles = bars(
        "Troubles of the writer",
        "All of them should stay at nothing.",
        Answer(
            (
                _range(_rise("wattherd_writer_commit_failures_total"), "commits that failed"),
                _range(_rise("wattherd_writer_dead_letters_total"), "messages nobody can read"),
                _range(_rise("wattherd_outbox_salvages_total"), "outboxes salvaged"),
                _range(_rise("wattherd_writer_gaps_total"), "silences of a device over five minutes"),
            )
        ),
        COUNT,
    )
    yes_no = ((None, 0.5, "not set", RED), (0.5, None, "set", GREEN))
    clock = states("Clock", "Whether the time of day can be believed.", _is("wattherd_clock_synchronised"), yes_no)
    times = lines(
        "Waiting for the clock, and its jumps",
        "Readings are dated when it is set; a jump costs nothing.",
        Answer(
            (
                _range(f"wattherd_writer_held_records{{{HOUSE}}}", "records held"),
                _range(_rise("wattherd_clock_steps_total"), "jumps"),
            )
        ),
        COUNT,
    )
    return [
        (8, [(8, commit), (8, outbox), (8, disk)]),
        (7, [(8, troubles), (8, clock), (8, times)]),
    ]


def _processes() -> Rows:
    state = states(
        "State of each process",
        "Backoff: started again soon. Degraded: it ended too often of late.",
        _state("wattherd_process_state", "process", _PROCESS_STATES),
        _ranges(_PROCESS_STATES),
    )
    ends = bars(
        "Ended and hung",
        "Each was started again.",
        Answer(
            (
                _range(_rise("wattherd_process_failures_total"), "{{process}} ended"),
                _range(_rise("wattherd_process_hangs_total"), "{{process}} hung"),
            )
        ),
        COUNT,
    )
    beats = lines(
        "Since the last heartbeat",
        "After [supervise] hung_after_s a process is replaced.",
        _each("wattherd_heartbeat_age_seconds", "{{process}}"),
        Look("s", 1, ((None, GREEN), (10, ORANGE), (30, RED)), minimum=0),
    )
    uptime = lines(
        "Up for", "Since its last start.", _each("wattherd_process_uptime_seconds", "{{process}}"), Look("s", minimum=0)
    )
    requests = lines(
        "Requests a minute",
        "What the api answers.",
        Answer((_range(f"rate(wattherd_api_requests_total{{{HOUSE}}}[$__rate_interval]) * 60", "{{instance}}"),)),
        RATE,
    )
    return [(9, [(12, state), (12, ends)]), (8, [(8, beats), (8, uptime), (8, requests)])]


def _agreement() -> Rows:
    difference = lines(
        "Difference of yesterday",
        "By how much each view measured more than the one to trust.",
        _each("wattherd_reconciliation_difference_ratio", "{{reconciliation}} {{view}}"),
        Look("percentunit", 1),
    )
    unaccounted = lines(
        "Not accounted for, now",
        "Power of the meter to trust less that of the view.",
        _each("wattherd_reconciliation_unaccounted_watts", "{{reconciliation}} {{view}}"),
        Look("watt", 0),
    )
    return [(8, [(12, difference), (12, unaccounted)])]


def _range(expression: str, legend: str) -> Target:
    return Target(expr=expression, legendFormat=legend, range=True, instant=False, editorMode="code")


def _each(metric: str, legend: str = "{{instance}}") -> Answer:
    return Answer((_range(f"{metric}{{{HOUSE}}}", legend),))


def _is(metric: str) -> Answer:
    return _each(metric)


def _now(expression: str) -> Answer:
    return Answer((Target(expr=expression, legendFormat="", range=False, instant=True, editorMode="code"),))


def _one(how: str, metric: str) -> Answer:
    return _now(f"{how}(wattherd_{metric}{{{HOUSE}}})")


def _table(expression: str, names: dict[str, str]) -> Answer:
    asks = Target(expr=expression, format="table", range=False, instant=True, editorMode="code")
    away = {"Time": True, "__name__": True, "job": True}
    return Answer((asks,), (("organize", {"excludeByName": away, "renameByName": names}),))


def _joined(*columns: tuple[str, str]) -> Answer:
    """A row for each device, a column for each metric."""
    asks, names = [], {}
    for letter, (metric, name) in zip("AB", columns, strict=True):
        devices = f'sum by (Device) (label_join({metric}{{{HOUSE}}}, "Device", ".", "source", "device"))'
        asks.append(Target(expr=devices, format="table", range=False, instant=True, editorMode="code"))
        names[f"Value #{letter}"] = name
    shown = {"excludeByName": {"Time": True}, "renameByName": names}
    return Answer(tuple(asks), (("merge", {}), ("organize", shown)))


def _rise(counter: str) -> str:
    return f"increase({counter}{{{HOUSE}}}[$__rate_interval])"


def _state(metric: str, label: str, names: tuple[str, ...]) -> Answer:
    """The number of the state that holds: one series for each, where the metric has one for each state."""
    parts = [
        f'{number} * sum by (instance, {label}) ({metric}{{{HOUSE}, state="{name}"}})'
        for number, name in enumerate(names)
    ]
    return Answer((_range(" + ".join(parts), f"{{{{{label}}}}}"),))


def _ranges(names: tuple[str, ...]) -> tuple[tuple[float | None, float | None, str, str], ...]:
    return tuple((number - 0.5, number + 0.5, name, _COLOURS.get(name, GREY)) for number, name in enumerate(names))
