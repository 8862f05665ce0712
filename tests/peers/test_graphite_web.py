"""The graphite-web of the tests shows what carbon has, and says no where a real one does."""

from __future__ import annotations

import time

import pytest

from graphite_helper import send
from tests.peers.carbon import Carbon
from tests.peers.graphite_web import GraphiteWeb, RenderError
from tests.peers.process import wait_for


def test_a_point_that_carbon_took_is_rendered_and_found(carbon: Carbon, graphite_web: GraphiteWeb) -> None:
    at_s = int(time.time()) - 60
    lines = [f"rendered.{name}.power_w {watts} {at_s}\n" for name, watts in (("fridge", 80.0), ("oven", 2000.0))]
    send("127.0.0.1", carbon.port, lines, timeout_s=5)

    def total() -> list[float]:
        series = graphite_web.render("sumSeries(rendered.*.power_w)", from_s=at_s - 5, until_s=at_s + 5)
        return [value for each in series for value, point_s in each["datapoints"] if value is not None]

    # A file is there as soon as carbon has made it, its points a moment later.
    assert wait_for(lambda: total() == [2080.0], "both points")
    assert graphite_web.find("rendered.*") == ["rendered.fridge", "rendered.oven"]
    assert graphite_web.render("rendered.nobody.power_w", from_s="-1h") == []


def test_a_target_that_is_wrong_is_an_error(graphite_web: GraphiteWeb) -> None:
    with pytest.raises(RenderError, match="400"):
        graphite_web.render("summarise(nothing.at.all, '1h')", from_s="-1h")
