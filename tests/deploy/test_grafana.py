"""The dashboards are what Grafana expects, as far as can be told without one: made anew, whole, consistent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.dashboards import FILES, GRAFANA, ROOT, load, panels

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import units
    from grafana_foundation_sdk.models.dashboard import Dashboard

NAMES = [file.name for file in FILES]
UNITS = {value for name, value in vars(units).items() if isinstance(value, str) and not name.startswith("_")}
# What Grafana itself fills in.
BUILT_IN = {"__interval", "__rate_interval", "__range", "__timeFilter"}


@pytest.fixture(params=NAMES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def provisioned(kind: str) -> dict[str, Any]:
    return dict(yaml.safe_load((GRAFANA / "provisioning" / kind / "wattherd.yaml").read_text()))


def everything(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [*dashboard["panels"], *(inner for outer in dashboard["panels"] for inner in outer.get("panels", ()))]


def test_what_is_committed_is_what_the_generator_makes(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "deploy" / "grafana" / "generate.py", "--into", tmp_path]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    fresh = {str(file.relative_to(tmp_path)): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert fresh
    assert {name: (GRAFANA / name).read_bytes() for name in fresh} == fresh, "make dashboards"
    assert {f"dashboards/{name}" for name in NAMES} <= {*fresh}, "a dashboard that nobody generates"


def test_another_currency_is_one_word(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "deploy" / "grafana" / "generate.py", "--into", tmp_path, "--currency", "EUR"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    text = "".join(file.read_text() for file in tmp_path.rglob("*.json"))
    assert "currencyEUR" in text
    assert "currencyGBP" not in text


def test_grafanas_own_types_read_it_and_lose_nothing(dashboard: dict[str, Any]) -> None:
    """The kit's types are made from Grafana's schema; a field that they do not know would be gone afterwards."""
    again = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
    for one in (dashboard, again):
        one.pop("links")  # its type insists on a menu that older versions of Grafana do not have
        one["panels"] = sorted(one["panels"], key=lambda panel: panel["id"])
    for before, after in zip(dashboard.pop("panels"), again.pop("panels"), strict=True):
        assert {key for key in before if key not in after} == set()
        assert {key: after[key] for key in before} == before
    assert {key: again.get(key) for key in dashboard} == dashboard


def test_each_dashboard_says_what_it_is_and_has_an_address_of_its_own() -> None:
    all_of_them = [load(name) for name in NAMES]
    assert len({each["uid"] for each in all_of_them}) == len({each["title"] for each in all_of_them}) == len(NAMES)
    for each in all_of_them:
        assert each["description"]
        assert each["tags"] == ["wattherd"]
        assert re.fullmatch(r"[a-z0-9-]{8,40}", each["uid"])
        assert each["weekStart"] == "monday"


def test_panels_have_numbers_of_their_own_and_do_not_lie_upon_each_other(dashboard: dict[str, Any]) -> None:
    found = everything(dashboard)
    assert max(Counter(panel["id"] for panel in found).values()) == 1
    squares: Counter[tuple[int, int]] = Counter()
    for panel in found:
        place = panel["gridPos"]
        assert 0 < place["w"] <= 24 - place["x"], panel["title"]
        squares.update(
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        )
    assert max(squares.values()) == 1
    lowest = max(y for _, y in squares)
    assert {x for x, _ in squares} == {*range(24)}
    assert {y for _, y in squares} == {*range(lowest + 1)}


def test_each_panel_has_a_title_a_description_a_unit_and_a_word_for_nothing(dashboard: dict[str, Any]) -> None:
    titles = Counter(panel.title for panel in panels(dashboard))
    assert max(titles.values()) == 1
    for panel in panels(dashboard):
        assert panel.raw["description"].endswith("."), panel.title
        defaults = panel.raw["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS | {"currencyGBP"}, panel.title
        assert defaults["noValue"] == "–"
        for override in panel.raw["fieldConfig"]["overrides"]:
            named = [one["value"] for one in override["properties"] if one["id"] == "unit"]
            assert {*named} <= UNITS, panel.title


def test_a_line_ends_where_nothing_was_measured(dashboard: dict[str, Any]) -> None:
    for panel in panels(dashboard):
        if panel.raw["type"] in ("timeseries", "state-timeline"):
            custom = panel.raw["fieldConfig"]["defaults"]["custom"]
            assert custom.get("spanNulls", False) in (False, 300_000), panel.title
            assert custom.get("insertNulls", False) is False


def test_no_data_source_is_named_but_ours_is_where_the_choice_begins(dashboard: dict[str, Any]) -> None:
    [variable] = [each for each in dashboard["templating"]["list"] if each["type"] == "datasource"]
    [ours] = [each for each in provisioned("datasources")["datasources"] if each["uid"] == variable["current"]["value"]]
    assert (ours["type"], ours["name"]) == (variable["query"], variable["current"]["text"])
    named = re.findall(r'"uid": "([^"]*)"', json.dumps({**dashboard, "uid": ""}))
    assert {*named} == {"", "${datasource}"}
    for panel in panels(dashboard):
        for target in panel.targets:
            assert target["datasource"] == {"type": ours["type"], "uid": "${datasource}"}


def test_every_variable_is_used_and_every_one_used_is_there(dashboard: dict[str, Any]) -> None:
    variables = dashboard["templating"]["list"]
    defined = [each["name"] for each in variables]
    assert len({*defined}) == len(defined)
    for variable in variables:
        assert variable["label"]
        assert variable["description"]
    asks = [
        [target for panel in panels(dashboard) for target in panel.targets],
        [panel.get("datasource") for panel in everything(dashboard)],
        [(each.get("query"), each.get("definition")) for each in variables if each["type"] == "query"],
        dashboard["links"],
    ]
    used = {one or other for one, other in re.findall(r"\$\{(\w+)[^}]*\}|\$(\w+)", json.dumps(asks))}
    assert used - BUILT_IN == {*defined}


def test_each_query_has_a_letter_of_its_own_which_no_step_of_a_table_asks_for(dashboard: dict[str, Any]) -> None:
    """Graphite's answers come back without their letters."""
    for panel in panels(dashboard):
        letters = [target["refId"] for target in panel.targets]
        assert len({*letters}) == len(letters)
        assert not [step for step in panel.raw.get("transformations", ()) if "filter" in step]


def test_every_dashboard_leads_to_the_page_of_the_house_and_to_the_other_dashboards(dashboard: dict[str, Any]) -> None:
    assert {link["type"] for link in dashboard["links"]} == {"link", "dashboards"}
    [page] = [link for link in dashboard["links"] if link["type"] == "link"]
    assert page["url"] == "${wattherd}/"


def test_secrets_and_addresses_come_from_the_environment() -> None:
    for source in provisioned("datasources")["datasources"]:
        assert re.fullmatch(r"\$\{[A-Z_]+\}", source["url"])
        for secret in source.get("secureJsonData", {}).values():
            assert re.fullmatch(r"\$\{[A-Z_]+\}", secret)


def test_the_page_about_grafana_tells_of_each_dashboard_and_each_variable_of_the_environment() -> None:
    text = (ROOT / "docs" / "grafana.md").read_text()
    for name in NAMES:
        assert name in text
    sources = (GRAFANA / "provisioning" / "datasources" / "wattherd.yaml").read_text()
    for variable in re.findall(r"\$\{([A-Z_]+)\}", sources):
        assert variable in text
