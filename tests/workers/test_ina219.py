"""Shunts on I2C: the registers of four models, and the source through the real smbus2, with everything that fails."""

from __future__ import annotations

import errno
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import workers.ina219
from tests.faults.house import House, csv_rows
from tests.peers.process import wait_for
from tests.shim.bench import Bench, Round
from tests.shim.chips import Ina219 as Chip
from tests.shim.chips import Ina226, Ina260, Ina3221, Pca9685
from tests.shim.simulators import I2c, simulated
from workers import SourceError, source_class
from workers._ina import MODELS, ends_at_a
from workers._ina_chip import Device
from workers.ina219 import Ina219, Options


def table(*devices: dict[str, Any], **options: Any) -> dict[str, Any]:
    named = [{"name": f"d{number}", **device} for number, device in enumerate(devices)]
    return {"kind": "ina219", "devices": named, **options}


# What a user configures


def test_the_example_of_the_docstring_is_the_table_with_its_defaults() -> None:
    text = "\n".join(line[4:] for line in (workers.ina219.__doc__ or "").splitlines() if line.startswith("    "))
    example = tomllib.loads(text)["sources"]["rails"]
    assert msgspec.convert(example, Options) == Options(kind="ina219", devices=(Device(name="fridge-12v"),))
    assert {*example} == {*Options.__struct_fields__}
    assert {*example["devices"][0]} == {*Device.__struct_fields__}
    assert source_class("ina219") is Ina219


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": []}, "no device is configured"),
        (table({"name": "a"}, {"name": "a", "address": 0x41}), "configured twice"),
        (table({}, {}), "two units at one address cannot be told apart"),
        (table({"address": 0x3F}), "address"),
        (table({"address": 0x50}), "address"),
        (table({"model": "ina228"}), "model"),
        (table({"averaging": 3}), "averaging"),
        (table({"shunt_ohm": 0}), "shunt_ohm"),
        (table({"model": "ina219", "channel": 2}), "only for an INA3221"),
        (table({"channel": 4}), "channel"),
        (table({"model": "ina3221", "address": 0x44}), "0x40 to 0x43"),
        (table({"model": "ina219"}, {"channel": 2}), "the chip at 0x40"),
        (table({"model": "ina219", "max_current_a": 3.3}), "ends at 3.2 A"),
        (table({"model": "ina226"}), "an INA226 with shunt_ohm = 0.1 ends at 0.819 A"),
        (table({"model": "ina3221"}), "ends at 1.64 A"),
        (table({"model": "ina260", "max_current_a": 16.0}), "ends at 15 A"),
        (table({"max_current_a": 16.0}), "can never be reached"),
    ],
)
def test_a_wrong_table_is_refused_in_plain_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert({"kind": "ina219", **options}, Options)


def test_addresses_may_be_written_as_on_the_board() -> None:
    text = 'kind = "ina219"\n[[devices]]\nname = "a"\naddress = 0x4F\n'
    assert msgspec.convert(tomllib.loads(text), Options).devices[0].address == 79


# The source, through the real smbus2


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.clear()


def round_of(bench: Bench, within_s: float = 10.0) -> Round:
    """Return the first round that has values."""
    found: list[Round] = []

    def has_values() -> bool:
        found.append(bench.read())
        return bool(found[-1].values)

    wait_for(has_values, "values", within_s)
    return found[-1]


def test_the_four_models_are_recognised_and_read_rightly(bench: Bench) -> None:
    chips = {
        0x40: Chip(amps=1.5, volts=12),
        0x41: Ina226(amps=-0.5, volts=30, shunt_ohm=0.01),
        0x44: Ina260(amps=10, volts=5),
        0x43: Ina3221({1: (1, 3.2), 2: (-0.5, 5), 3: (0.25, 12)}),
    }
    devices = [
        {"address": 0x40},
        {"address": 0x41, "shunt_ohm": 0.01, "max_current_a": 8.0},
        {"address": 0x44, "max_current_a": 15.0},
        *({"address": 0x43, "channel": channel, "max_current_a": 1.6} for channel in (1, 2, 3)),
    ]
    with bench.opened(table(*devices), i2c_1=I2c(chips)):
        for _ in range(3):
            round_ = bench.read()
            assert round_.values == {
                "d0": {"voltage_v": 12.0, "current_a": 1.5, "power_w": 18.0},
                "d1": {"voltage_v": 30.0, "current_a": -0.5, "power_w": -15.0},
                "d2": {"voltage_v": 5.0, "current_a": 10.0, "power_w": 50.0},
                "d3": {"voltage_v": 3.2, "current_a": 1.0, "power_w": 3.2},
                "d4": {"voltage_v": 5.0, "current_a": -0.5, "power_w": -2.5},
                "d5": {"voltage_v": 12.0, "current_a": 0.25, "power_w": 3.0},
            }
            assert not round_.troubles
            assert not round_.refused
        assert chips[0x40].registers[5] == 4096


@pytest.mark.parametrize(
    ("model", "averaging", "most_a"),
    [
        (kind, averaging, most)
        for kind, most in (("219", 3.2), ("226", 0.8), ("3221", 1.6))
        for averaging in (1, 16, 128)
    ],
)
def test_a_reading_is_always_a_new_measurement(bench: Bench, model: str, averaging: int, most_a: float) -> None:
    chip: Any = {"219": Chip, "226": Ina226}[model](volts=5) if model != "3221" else Ina3221({1: (0, 5)})
    device = {"averaging": averaging, "model": f"ina{model}", "max_current_a": most_a}
    with bench.opened(table(device), i2c_1=I2c({0x40: chip})):
        for tenths in range(5):
            chip.amps = tenths / 10
            chip.channels = {1: (tenths / 10, 5)}
            assert bench.read().values["d0"]["current_a"] == pytest.approx(tenths / 10, abs=1e-3)


def test_a_calibration_of_the_owner_is_applied(bench: Bench) -> None:
    device = {"current_offset_a": 0.001, "current_gain": 1.02, "noise_floor_a": 0.002}
    chip = Chip(amps=1.001, volts=10)
    with bench.opened(table(device), i2c_1=I2c({0x40: chip})):
        assert bench.read().values["d0"] == {"voltage_v": 10.0, "current_a": 1.02, "power_w": 10.2}
        chip.amps = 0.0025
        assert bench.read().values["d0"] == {"voltage_v": 10.0, "current_a": 0.0, "power_w": 0.0}


def test_a_brown_out_is_noticed_and_the_calibration_written_again(bench: Bench) -> None:
    chip = Chip(amps=1, volts=5)
    with bench.opened(table({}), i2c_1=I2c({0x40: chip})):
        assert not bench.read().troubles
        chip.brown_out()
        assert chip.registers[5] == 0
        round_ = bench.read()
        assert round_.values["d0"]["current_a"] == 1
        assert "it had lost its settings" in round_.troubles["d0"]
        assert chip.registers[5] == 4096
        round_ = bench.read()
        assert round_.values["d0"]["current_a"] == 1
        assert not round_.troubles


def test_a_brown_out_in_mid_measurement_invents_no_zero(bench: Bench) -> None:
    class Dips(Chip):
        dips = False

        def _take(self) -> None:
            if self.dips:
                self.dips = False
                self.brown_out()
            super()._take()

    chip = Dips(amps=1, volts=5)
    with bench.opened(table({}), i2c_1=I2c({0x40: chip})):
        assert bench.read().values["d0"]["current_a"] == 1
        chip.dips = True
        round_ = bench.read()
        assert not round_.values
        assert sum(round_.refused.values()) == 1
        assert round_of(bench).values["d0"]["current_a"] == 1


def test_what_is_beyond_the_range_is_refused_and_counted(bench: Bench) -> None:
    chip = Chip(amps=3.1, volts=12)
    with bench.opened(table({}), i2c_1=I2c({0x40: chip})):
        assert bench.read().values["d0"]["current_a"] == 3.1
        chip.amps = -9
        round_ = bench.read()
        assert not round_.values
        assert "more than ±3.2 A flows" in round_.troubles["d0"]
        chip.amps, chip.volts = 1, 26.5
        round_ = bench.read()
        assert not round_.values
        assert "26.50 V is more than it stands, 26 V" in round_.troubles["d0"]
        assert round_.refused == {"out_of_range": 2}
        chip.volts = 12
        assert not bench.read().troubles


@pytest.mark.parametrize("chip", [Chip(amps=1.5, volts=12, shunt_ohm=0.05), Ina226(amps=1.5, volts=12, shunt_ohm=0.05)])
def test_an_overflow_of_the_chips_own_arithmetic_does_not_touch_our_current(bench: Bench, chip: Chip | Ina226) -> None:
    with bench.opened(table({"max_current_a": 1.0, "shunt_ohm": 0.05}), i2c_1=I2c({0x40: chip})):
        round_ = bench.read()
        assert chip.overflow
        assert round_.values["d0"]["current_a"] == 1.5
        assert "more flows than max_current_a = 1" in round_.troubles["d0"]
        chip.amps = 0.9
        assert not bench.read().troubles


def test_registers_that_contradict_each_other_are_refused(bench: Bench) -> None:
    class Two(Chip):
        """Two units at one address pull the data line low together."""

        def _take(self) -> None:
            super()._take()
            self.registers[4] &= 0x0F0F

    with bench.opened(table({}), i2c_1=I2c({0x40: Two(amps=1.234, volts=5)})):
        round_ = bench.read()
        assert not round_.values
        assert "two units at one address" in round_.troubles["d0"]
        assert round_.refused == {"malformed": 1}


def test_a_chip_that_measures_no_more_is_stale_and_not_repeated(bench: Bench) -> None:
    chip = Chip(amps=1, volts=5)
    with bench.opened(table({"averaging": 1}), i2c_1=I2c({0x40: chip})):
        assert bench.read().values
        chip.never_ready = True
        round_ = bench.read()
        assert not round_.values
        assert "does not measure any more" in round_.troubles["d0"]
        assert round_.refused == {"stale": 1}
        chip.never_ready = False
        assert round_of(bench).values["d0"]["current_a"] == 1


@pytest.mark.parametrize("number", [errno.EREMOTEIO, errno.ENXIO])
def test_an_absent_chip_troubles_only_itself_and_is_asked_ever_more_seldom(bench: Bench, number: int) -> None:
    bus = I2c({0x40: Chip(amps=1, volts=5), 0x41: (absent := Chip(amps=2, volts=5))})
    absent.fail = number
    with bench.opened(table({}, {"address": 0x41}), i2c_1=bus):
        begin_s = time.monotonic()
        for _ in range(20):
            round_ = bench.read()
            assert round_.values.keys() == {"d0"}
            assert round_.troubles == {
                "d1": "nothing answers at 0x41; check supply, SDA and SCL, and: i2cdetect -y 1",
            }
        assert bus.transfers.count(0x41) <= 2 + (time.monotonic() - begin_s)
        absent.fail = 0
        wait_for(lambda: bench.read().values.keys() == {"d0", "d1"}, "both chips", within_s=5)
        assert not bench.read().troubles


def test_a_chip_with_broken_answers_does_not_stop_the_others(bench: Bench) -> None:
    bus = I2c({0x40: Chip(amps=1, volts=5), 0x41: (broken := Chip(amps=2, volts=5))})
    broken.fail = errno.EIO
    with bench.opened(table({}, {"address": 0x41}), i2c_1=bus):
        round_ = bench.read()
        assert round_.values.keys() == {"d0"}
        assert "0x41 fails (Input/output error)" in round_.troubles["d1"]


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EIO])
def test_a_stuck_bus_closes_the_source_and_it_can_be_opened_again(bench: Bench, number: int) -> None:
    bus = I2c({0x40: Chip(amps=1, volts=5), 0x41: Chip(volts=5)})
    with bench.source(table({}, {"address": 0x41}), i2c_1=bus):
        bench.open()
        assert bench.read().values
        bus.fail = number
        with pytest.raises(SourceError, match=r"the bus /dev/i2c-1 is stuck .*; look for a unit without supply"):
            bench.read()
        bench.close()
        wait_for(lambda: bench.simulator.open_files == 0, "the file to be closed")
        bus.fail = 0
        bench.open()
        assert bench.read().values.keys() == {"d0", "d1"}


def test_another_chip_at_the_address_is_not_believed_nor_harmed(bench: Bench) -> None:
    bus = I2c({0x40: (servo := Pca9685()), 0x41: Chip(amps=1, volts=5)})
    with bench.opened(table({}, {"address": 0x41}), i2c_1=bus):
        round_ = bench.read()
        assert round_.values.keys() == {"d1"}
        assert "what answers at 0x40 is no INA219" in round_.troubles["d0"]
        assert all(data[:2] == b"\x00\x80" for data in servo.writes)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"model": "ina219"}, 'it is an INA226, not an INA219; set model = "auto"'),
        ({"channel": 2}, "it is an INA226 with one channel"),
    ],
)
def test_another_model_than_configured_is_refused(bench: Bench, device: dict[str, Any], words: str) -> None:
    with bench.opened(table(device), i2c_1=I2c({0x40: Ina226(amps=0.5, volts=5)})):
        round_ = bench.read()
        assert not round_.values
        assert words in round_.troubles["d0"]
        assert round_.refused == {"malformed": 1}


def test_a_range_that_the_chip_turns_out_not_to_have_is_told(bench: Bench) -> None:
    with bench.opened(table({}), i2c_1=I2c({0x40: Ina226(amps=0.5, volts=5)})):
        round_ = bench.read()
        assert round_.values["d0"]["current_a"] == 0.5
        assert "an INA226 ends at 0.819 A with this shunt" in round_.troubles["d0"]
    assert ends_at_a(MODELS["ina226"], 0.1) == pytest.approx(0.819, abs=1e-3)


def test_an_address_that_the_kernel_holds_says_so(bench: Bench) -> None:
    bus = I2c({0x40: Chip(volts=5)})
    bus.held = {0x40}
    with bench.opened(table({}), i2c_1=bus):
        assert "a driver of the kernel holds 0x40" in bench.read().troubles["d0"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "there is no /dev/i2c-1; enable I2C: sudo raspi-config nonint do_i2c 0"),
        (errno.EACCES, "this user may not use /dev/i2c-1; add it to the group i2c: sudo usermod -aG i2c"),
        (errno.EIO, "/dev/i2c-1 cannot be opened"),
    ],
)
def test_a_bus_that_cannot_be_opened_says_what_to_do(bench: Bench, number: int, words: str) -> None:
    with bench.source(table({})):
        bench.simulator.files["/dev/i2c-1"] = number
        with pytest.raises(SourceError, match=words):
            bench.open()


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[list[House]]:
    made: list[House] = []
    yield made
    for house in made:
        house.kill()


def test_a_real_house_reads_its_shunts_and_survives_a_stuck_bus(
    tmp_path: Path, houses: list[House], monkeypatch: pytest.MonkeyPatch
) -> None:
    rails = """
[sources.rails]
kind = "ina219"
interval_s = 0.1
[[sources.rails.devices]]
name = "battery"
[[sources.rails.devices]]
name = "lamp"
address = 0x41
"""
    bus = I2c({0x40: (battery := Chip(amps=-1.25, volts=12.8))})
    with simulated(i2c_1=bus) as simulator:
        for name in ("LD_PRELOAD", "WATTHERD_SHIM_SOCKET"):
            monkeypatch.setenv(name, simulator.environment[name])
        house = House(tmp_path, "[outputs.csv]\n", ["esp32-meter"], more=rails)
        houses.append(house)
        house.start()

        def powers() -> list[float]:
            rows = csv_rows(house.data_dir / "csv")
            return [float(row[4]) for row in rows if row[2:4] == ["battery", "power_w"]]

        wait_for(powers, "the battery in the file")
        assert {*powers()} == {-16.0}
        assert "lamp: nothing answers at 0x41" in house.log
        bus.fail = errno.ETIMEDOUT
        wait_for(lambda: "the bus /dev/i2c-1 is stuck" in house.log, "the stuck bus in the log")
        battery.amps = 0.5
        bus.fail = 0
        wait_for(lambda: 6.4 in powers(), "the battery again")
        assert {*powers()} == {-16.0, 6.4}
        assert house.stop() == 0
