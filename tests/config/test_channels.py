"""`[channels.*.*]` and `[reconciliations.*]`: what they say, and every mistake in plain words."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands._configuration import catalog
from config.load import ConfigurationError, load
from config.settings import Settings

HOUSE = """
[sources.meter]
kind = "esp32_http"
[[sources.meter.devices]]
name = "house"
[[sources.meter.devices]]
name = "shed"
[sources.demo]
kind = "simulated"
[tariffs.main]
currency = "GBP"
[[tariffs.main.periods]]
from = 2025-04-01
unit_rate_per_kwh = 0.2486
"""


def loaded(folder: Path, text: str) -> Settings:
    file = folder / "site.toml"
    file.write_text(HOUSE + text)
    return load(file, catalog())


def test_a_channel_has_its_terms_and_views_their_channels(tmp_path: Path) -> None:
    house = loaded(
        tmp_path,
        """
[channels.meter.house]
rated_power_w = 9000
states = ["idle", "running", "boost"]
thresholds_w = [50, 1500]
hysteresis_w = 10
tariff = "main"
[reconciliations.all]
views = ["meter/house", "meter/shed + demo/fridge"]
""",
    )
    table = house.channels["meter/house"]
    assert (table.rated_power_w, table.max_gap_s, table.tariff) == (9000, 300, "main")
    assert house.reconciliations["all"].channels == [["meter/house"], ["meter/shed", "demo/fridge"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[channels.metre.house]", "there is no source 'metre'; did you mean \"meter\""),
        ("[channels.meter.huose]", "source meter has no device 'huose'; did you mean \"house\""),
        ("[channels.meter]\nhouse = 3", "[channels.meter]: expected [channels.<source>.<device>]"),
        ("[channels.meter.house]\nrated_power = 3", 'unknown key; did you mean "rated_power_w"'),
        ('[channels.meter.house]\ntariff = "mian"', "there is no [tariffs.mian]; did you mean"),
        ('[channels.meter.house]\nstates = ["on"]\nthresholds_w = [5]', "1 thresholds lie between 2 states"),
        ('[channels.meter.house]\nstates = ["a", "b c"]\nthresholds_w = [5]', "no name of a state"),
        ('[channels.meter.house]\nstates = ["a", "b", "c"]\nthresholds_w = [5, 3]', "powers above zero that rise"),
        (
            '[channels.meter.house]\nstates = ["a", "b"]\nthresholds_w = [5]\nhysteresis_w = 9',
            "wider than the distance",
        ),
        ('[reconciliations.all]\nviews = ["meter/house"]', "one view alone agrees with itself"),
        ('[reconciliations.all]\nviews = ["meter/house", "meter/house"]', "meter/house is named twice"),
        ('[reconciliations.all]\nviews = ["meter/house", "house"]', "a channel is named source/device"),
        ('[reconciliations.all]\nviews = ["meter/house", "meter/hut"]', "source meter has no device 'hut'"),
    ],
)
def test_each_mistake_is_told_in_plain_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, text)
    told = "\n".join(caught.value.problems)
    assert words in told
    assert "site.toml:" in told
