"""What hangs on the virtual machine, as a test moves it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.house import House
from tests.peers.process import wait_for

PACKAGES = Path(__file__).parents[2] / "build/virtual_hardware/packages"  # beside the locked ones
_CONFIGFS = Path("/sys/kernel/config/gpio-sim")
_RESULTS = Path("/run/results")


class SimulatedChip:
    """A GPIO chip of the kernel's gpio-sim, labelled as the one on the header of a Raspberry Pi 4."""

    LABEL = "pinctrl-bcm2711"
    LINES = 28

    def __init__(self, name: str) -> None:
        self._folder = _CONFIGFS / name
        bank = self._folder / "bank0"
        bank.mkdir(parents=True)
        (bank / "label").write_text(self.LABEL)
        (bank / "num_lines").write_text(str(self.LINES))
        self.plug_in()

    def plug_in(self) -> None:
        (self._folder / "live").write_text("1")
        device = (self._folder / "dev_name").read_text().strip()
        self.number = (self._folder / "bank0/chip_name").read_text().strip()
        self._pulls = [
            Path(f"/sys/devices/platform/{device}/{self.number}/sim_gpio{line}/pull") for line in range(self.LINES)
        ]

    def unplug(self) -> None:
        (self._folder / "live").write_text("0")

    @property
    def path(self) -> str:
        return f"/dev/{self.number}"

    def set(self, line: int, *, high: bool) -> None:
        with open(self._pulls[line], "w") as pull:
            pull.write("pull-up" if high else "pull-down")

    def pulse(self, line: int, count: int = 1, *, low_s: float = 0.0, high_s: float = 0.0) -> None:
        """Pull the line low and let it go, as an S0 output does."""
        for _ in range(count):
            self.set(line, high=False)
            time.sleep(low_s)
            self.set(line, high=True)
            time.sleep(high_s)

    def remove(self) -> None:
        self.unplug()
        (self._folder / "bank0").rmdir()
        self._folder.rmdir()


class Spi:
    """The MCP3008 of the SPI mock."""

    _input = Path("/sys/devices/platform/spi-mock/input")

    def set(self, channel: int, code: int, amplitude: int = 0, hz: float = 0.0) -> None:
        self._input.write_text(f"{channel} {code} {amplitude} {round(hz * 1000)}")


class I2c:
    """The two INA219 of the I2C mock, at 0x40 and 0x41 of bus 1."""

    _folder = Path("/sys/devices/platform/i2c-mock")

    def measure(self, address: int, shunt_v: float, bus_v: float) -> None:
        (self._folder / "measured").write_text(f"{address} {round(shunt_v / 10e-6)} {round(bus_v / 0.004)}")

    def fail(self, errno: int) -> None:
        (self._folder / "fail").write_text(str(errno))

    def brown_out(self) -> None:
        (self._folder / "brown_out").write_text("1")


class Adapter:
    """The USB adapter for RS-485; the host's hand pulls it out."""

    def move(self, wish: str) -> None:
        done = _RESULTS / "done"
        done.unlink(missing_ok=True)
        (_RESULTS / "ask").write_text(wish)
        deadline_s = time.monotonic() + 30
        while not done.exists():
            assert time.monotonic() < deadline_s, f"the host did not {wish}"
            time.sleep(0.05)


@contextlib.contextmanager
def patient_house(folder: Path, table: str) -> Iterator[House]:
    """Run the real house; in here everything takes twenty times as long, so nobody may be taken for hung."""
    house = House(folder / "house", table, ["unused"])
    house.head = house.head.replace("[supervise]\n", "[supervise]\nhung_after_s = 600\n")
    house.configure(table)
    try:
        house.start()
        wait_for(house.is_ready, "the house to be ready", within_s=300)
        yield house
    finally:
        house.kill()
        print(house.log, file=sys.stderr)


def values_of(house: House, source: str, device: str, metric: str) -> list[str]:
    """Return what stands in the CSV files by now; the last row may be half written."""
    text = "".join(file.read_text() for file in sorted((house.data_dir / "csv").glob("electricity-*.csv")))
    rows = [line.split(",") for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [row[4] for row in rows if row[1:4] == [source, device, metric]]
