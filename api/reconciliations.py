"""What `/metrics` tells of channels that should agree: asked of the history once a minute, however often one scrapes.

Yesterday is compared, the newest day that is whole; where it cannot be, there is no difference and not an older one.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from config.intervals import file_interval_s
from config.settings import ReconciliationTable, Settings
from history.queries import History
from reconcile import days_of, is_outside, midnight_before, names, percent, present

log = logging.getLogger("api.reconciliations")

_KEPT_NS: Final = 60 * 10**9


class ReconciliationCollector(Collector):
    """Some series for each view of each reconciliation; none without a history."""

    def __init__(self, settings: Settings, utc_now_ns: Callable[[], int]) -> None:
        self._tables = settings.reconciliations
        self._timezone = settings.site.timezone
        self._path = settings.data_dir / "history.db"
        self._lag_s = file_interval_s(settings.writer.file_interval_s, settings.data_dir)
        self._utc_now_ns = utc_now_ns
        self._history = History(self._path)
        self._asked_ns = 0
        self._answer: list[Metric] = []
        self._trouble = ""

    def collect(self) -> Iterator[Metric]:
        now_ns = time.monotonic_ns()
        if not self._asked_ns or now_ns - self._asked_ns >= _KEPT_NS:
            self._answer = self._ask()
            self._asked_ns = now_ns
        yield from self._answer

    def close(self) -> None:
        self._history.close()

    def _ask(self) -> list[Metric]:
        if not self._tables or not self._path.exists():
            return []
        series = _Series()
        trouble = ""
        try:
            for name, table in self._tables.items():
                self._look(series, name, table)
        except sqlite3.Error as error:
            trouble = f"{self._path} cannot be read: {error}; nothing is compared until the writer has mended it"
        if trouble and trouble != self._trouble:
            log.warning(trouble)
        self._trouble = trouble
        return [] if trouble else series.families

    def _look(self, series: _Series, name: str, table: ReconciliationTable) -> None:
        now_ns = self._utc_now_ns()
        today_ns = midnight_before(now_ns, self._timezone)
        yesterday_ns = midnight_before(today_ns - 1, self._timezone)
        [day] = days_of(self._history, table, yesterday_ns, today_ns, self._timezone)
        now = present(self._history, table, now_ns, self._lag_s)
        series.complete.add_metric([name], day.complete)
        for view, title in enumerate(names(table)):
            labels = [name, title]
            difference_wh, trusted_wh = day.difference_wh(view), day.energies_wh[0]
            if view and day.complete and difference_wh is not None and trusted_wh is not None:
                series.outside.add_metric(labels, is_outside(difference_wh, trusted_wh, table.tolerance_percent))
                if (share := percent(difference_wh, trusted_wh)) is not None:
                    series.difference.add_metric(labels, share / 100)
            if view and (left_w := now.unaccounted_w(view)) is not None:
                series.unaccounted.add_metric(labels, left_w)
                series.negative.add_metric(labels, now.is_negative(view, table.tolerance_percent))


class _Series:
    """The series while they are put together."""

    def __init__(self) -> None:
        of_view = ["reconciliation", "view"]
        self.complete = GaugeMetricFamily(
            "wattherd_reconciliation_complete",
            "1 if every channel of the reconciliation was measured about both midnights of yesterday",
            labels=of_view[:1],
        )
        self.difference = GaugeMetricFamily(
            "wattherd_reconciliation_difference_ratio",
            "By how much this view measured more than the one to trust yesterday, as a part of the latter",
            labels=of_view,
        )
        self.outside = GaugeMetricFamily(
            "wattherd_reconciliation_outside", "1 if that is more than the tolerance", labels=of_view
        )
        self.unaccounted = GaugeMetricFamily(
            "wattherd_reconciliation_unaccounted_watts",
            "Power now of the view to trust less that of this one; absent while one of them is unknown",
            labels=of_view,
        )
        self.negative = GaugeMetricFamily(
            "wattherd_reconciliation_negative",
            "1 while this view shows more than the one to trust, beyond the tolerance",
            labels=of_view,
        )

    @property
    def families(self) -> list[Metric]:
        return [self.complete, self.difference, self.outside, self.unaccounted, self.negative]
