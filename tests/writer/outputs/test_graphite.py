"""A batch is at carbon, or it is not and comes again."""

from __future__ import annotations

import inspect
import textwrap
import time
import tomllib
from typing import Any

import msgspec
import pytest

from config.settings import Site
from reading import Record
from tests.peers.carbon import Carbon
from tests.peers.fakes import CarbonMood, RecordingCarbon
from tests.peers.process import free_ports, wait_for
from writer import Batch, Memo, OutputDown, OutputRefused, output_class
from writer.outputs import graphite as module
from writer.outputs.graphite import Graphite, Options


def output(**options: Any) -> Graphite:
    return Graphite(msgspec.convert(options, Options), Site(), Memo())


def records(count: int, at_s: int = 0) -> list[Record]:
    at_s = at_s or int(time.time()) - 20_000
    return [Record("kasa", "fridge", (at_s + n) * 10**9, {"power_w": 1.5 * n, "state": "on"}) for n in range(count)]


def test_the_example_of_the_docstring_lists_every_option_with_its_default() -> None:
    lines = (inspect.getdoc(module) or "").splitlines()
    example = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    table = tomllib.loads(example)["outputs"]["graphite"]
    assert msgspec.convert(table, Options) == Options()
    assert set(table) == set(Options.__struct_fields__) - {"kind", "enabled"}


def test_it_is_the_output_that_its_file_is_named_after() -> None:
    assert output_class("graphite") is Graphite


@pytest.mark.parametrize("prefix", ["", ".", "a..b", "a.", "ä", "a b", "a\nb", "a" * 51, "a\n"])
def test_a_prefix_that_carbon_would_stumble_over_is_refused(prefix: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="prefix"):
        msgspec.convert({"prefix": prefix}, Options)


def test_real_carbon_keeps_what_was_written(carbon: Carbon) -> None:
    at_s = int(time.time()) - 100
    graphite = output(port=carbon.port, prefix="kept")
    graphite.write(Batch(records(50, at_s)))
    graphite.close()
    path = "kept.kasa.fridge.power_w"
    assert wait_for(lambda: carbon.fetch(path, at_s + 49), "the last point") == 73.5
    assert [carbon.fetch(path, at_s + n) for n in range(50)] == [1.5 * n for n in range(50)]
    assert "kept.kasa.fridge.state" not in carbon.series()


def test_a_batch_larger_than_a_connection_arrives_whole_and_in_order() -> None:
    batch = Batch(records(10_000))
    with RecordingCarbon() as carbon:
        output(port=carbon.port).write(batch)
        assert carbon.connections > 1
        assert [float(line.split()[1]) for line in carbon.lines] == [1.5 * n for n in range(10_000)]


def test_records_of_text_only_count_as_written_and_need_no_carbon() -> None:
    output(port=free_ports(1)[0]).write(Batch([Record("kasa", "fridge", 1, {"state": "on"})]))


@pytest.mark.parametrize(
    "mood", [CarbonMood.RESETS, CarbonMood.NEVER_CLOSES, CarbonMood.DRIPS, CarbonMood.LEAVES_EARLY]
)
def test_whatever_goes_wrong_on_the_way_is_down_within_the_deadline(mood: CarbonMood) -> None:
    with RecordingCarbon(mood) as carbon:
        start_s = time.monotonic()
        with pytest.raises(OutputDown, match=f"carbon at 127.0.0.1:{carbon.port}: ") as down:
            output(port=carbon.port, timeout_s=0.3).write(Batch(records(3000)))
        assert time.monotonic() - start_s < 3
        assert not down.value.remedy


def test_nobody_listening_is_down_and_the_batch_arrives_when_it_comes_again() -> None:
    graphite = output(port=free_ports(1)[0])
    with pytest.raises(OutputDown, match="refused"):
        graphite.write(Batch(records(3)))
    with RecordingCarbon() as carbon:
        graphite.options = msgspec.structs.replace(graphite.options, port=carbon.port)
        graphite.write(Batch(records(3)))
        assert len(carbon.lines) == 3


def test_what_graphite_can_never_hold_is_refused_and_the_rest_is_there() -> None:
    before_1970 = Record("kasa", "fridge", -1, {"power_w": 1.0})
    no_file_name = Record("kasa", "fridge", 1, {"x" * 200: 1.0})
    good = records(2)
    with RecordingCarbon() as carbon:
        with pytest.raises(OutputRefused, match="1970") as refused:
            output(port=carbon.port).write(Batch([before_1970, good[0], no_file_name, good[1]]))
        assert refused.value.indices == {0, 2}
        assert len(carbon.lines) == 2
