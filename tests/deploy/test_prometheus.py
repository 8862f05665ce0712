"""The rules for Prometheus ring when they should and keep quiet when they should, by Prometheus' own judgement."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from api.reconciliations import _Series

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
CASES = """
rule_files: [{rules}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'wattherd_reconciliation_outside{{reconciliation="house", view="meter/led"}}'
        values: '0x60 1x90'
      - series: 'wattherd_reconciliation_negative{{reconciliation="house", view="meter/led"}}'
        values: '1x10 0x10 1x130'
      - series: 'wattherd_reconciliation_complete{{reconciliation="house"}}'
        values: '0x150'
    alert_rule_test:
      - {{alertname: WattherdMetersDisagree, eval_time: 115m, exp_alerts: []}}
      - alertname: WattherdMetersDisagree
        eval_time: 125m
        exp_alerts:
          - exp_labels: {{severity: warning, reconciliation: house, view: meter/led}}
            exp_annotations:
              summary: meter/led and the meter to trust of house disagreed yesterday
              description: ./orchestrator.py compare house says by how much and what to do
      - {{alertname: WattherdMoreThanThereIs, eval_time: 30m, exp_alerts: []}}
      - alertname: WattherdMoreThanThereIs
        eval_time: 40m
        exp_alerts:
          - exp_labels: {{severity: warning, reconciliation: house, view: meter/led}}
            exp_annotations:
              summary: meter/led shows more power than the meter to trust of house has
              description: a clamp on the wrong wire, a circuit that is counted twice, or one that is fed by the sun
      - {{alertname: WattherdMetersNotCompared, eval_time: 150m, exp_alerts: []}}
"""


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if not found:
        if os.environ.get("REQUIRE_PEERS") == "1":
            pytest.fail("promtool is missing: make peers")
        pytest.skip("promtool is missing: apt install prometheus")
    return found


def test_promtool_understands_the_rules(promtool: str) -> None:
    checked = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "3 rules found" in checked.stdout


def test_the_rules_ring_after_a_while_and_not_before(promtool: str, tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(CASES.format(rules=RULES))
    tested = subprocess.run([promtool, "test", "rules", cases], capture_output=True, text=True, timeout=60)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_rules_ask_only_for_series_that_there_are() -> None:
    asked = set(re.findall(r"wattherd_\w+", " ".join(re.findall(r"expr: (.*)", RULES.read_text()))))
    assert asked
    assert asked <= {family.name for family in _Series().families}
