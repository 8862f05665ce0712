"""What /metrics tells beside the board: readiness, limits and room on the disk."""

from __future__ import annotations

import shutil
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api import metrics
from api.limits import LimitsCollector
from config.settings import Site, Writer


def shown(house: Any) -> dict[tuple[str, ...], float]:
    text = metrics.render(house.board, "cottage", LimitsCollector(house.settings, house.board)).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name.removeprefix("wattherd_"), *sample.labels.values()): sample.value for sample in samples}


def test_a_house_that_is_well_is_ready_and_has_no_reasons(house):
    assert shown(house)["ready",] == 1
    assert not [key for key in shown(house) if key[0] == "not_ready_reasons"]


def test_each_part_that_is_unwell_is_named_with_the_number_of_its_reasons(house):
    house.put("worker", "meter", open=0, note="no port")
    house.put("output", "influx", state=2, oldest_pending_utc_ns=1)
    assert shown(house)["ready",] == 0
    assert shown(house)["not_ready_reasons", "source meter"] == 1
    assert shown(house)["not_ready_reasons", "output influx"] == 2


def test_a_source_is_missed_after_five_minutes_or_three_rounds_and_one_that_is_switched_off_never(house):
    found = {key[1]: number for key, number in shown(house).items() if key[0] == "source_missed_after_seconds"}
    assert found == {"meter": 300, "plugs": 3600}


def test_the_quota_is_in_bytes(house):
    house.settings = msgspec.structs.replace(house.settings, writer=Writer(outbox_quota_mb=12.5))
    assert shown(house)["outbox_quota_bytes",] == 12_500_000


def test_the_disk_is_the_one_that_the_data_lies_on(house, tmp_path):
    house.settings = msgspec.structs.replace(house.settings, site=Site(name="cottage", data_dir=str(tmp_path)))
    total_bytes, _, free_bytes = shutil.disk_usage(tmp_path)
    assert shown(house)["data_dir_size_bytes",] == total_bytes
    assert shown(house)["data_dir_free_bytes",] == pytest.approx(free_bytes, rel=0.05)


def test_a_disk_that_cannot_be_asked_has_no_free_bytes_rather_than_none_left(house, tmp_path):
    house.settings = msgspec.structs.replace(house.settings, site=Site(name="cottage", data_dir=str(tmp_path / "gone")))
    assert not [key for key in shown(house) if key[0].startswith("data_dir")]
