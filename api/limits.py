"""What `/metrics` tells beside the board: whether the house is ready, and the limits that its numbers are judged by."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.health import missed_after_s, reasons_not_ready
from api.snapshot import look
from config.settings import Settings
from vitals import Board


class LimitsCollector(Collector):
    """Works everything out when somebody asks, from the configuration, the board and the file system."""

    def __init__(self, settings: Settings, board: Board) -> None:
        self._settings = settings
        self._board = board

    def collect(self) -> Iterator[Metric]:
        yield from self._readiness()
        yield self._silences()
        quota_bytes = round(self._settings.writer.outbox_quota_mb * 1e6)
        yield GaugeMetricFamily(
            "wattherd_outbox_quota_bytes", "Rows that wait may take so much before the oldest are dropped", quota_bytes
        )
        yield from self._disk()

    def _readiness(self) -> Iterator[Metric]:
        reasons = Counter(reason.part for reason in reasons_not_ready(self._settings, look(self._board)))
        yield GaugeMetricFamily("wattherd_ready", "1 while /readyz says yes", not reasons)
        why = GaugeMetricFamily(
            "wattherd_not_ready_reasons",
            "Reasons of /readyz, by the part of the house; absent without",
            labels=["part"],
        )
        for part, count in reasons.items():
            why.add_metric([part], count)
        yield why

    def _silences(self) -> Metric:
        silence = GaugeMetricFamily(
            "wattherd_source_missed_after_seconds",
            "A source without a reading for longer than this is missing data",
            labels=["source"],
        )
        for name, source in self._settings.sources.items():
            if source.enabled:
                silence.add_metric([name], missed_after_s(self._settings, name))
        return silence

    def _disk(self) -> Iterator[Metric]:
        try:
            total_bytes, _, free_bytes = shutil.disk_usage(self._settings.data_dir)
        except OSError:
            return  # a file system that does not answer has no free bytes that anybody could name
        size = "Size of the file system that the data directory is on, in bytes"
        free = "What is free there for users that are not root, in bytes"
        yield GaugeMetricFamily("wattherd_data_dir_size_bytes", size, total_bytes)
        yield GaugeMetricFamily("wattherd_data_dir_free_bytes", free, free_bytes)
