"""One INA chip at one address of an I2C bus: found out what it is, set up, asked, and left alone while it is away."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple, Protocol

from msgspec import Meta

from reading import Value
from workers._calibration import CalibratedDevice, calibrated_a
from workers._ina import (
    BUS,
    CALIBRATION,
    CONFIG,
    CURRENT,
    DIE_ID,
    MANUFACTURER_ID,
    MODELS,
    POWER,
    RESET,
    TEXAS_INSTRUMENTS,
    Model,
    ModelName,
    Settings,
    ends_at_a,
    keeps,
    measured,
    settings,
    swapped,
)

_FIRST_PAUSE_S: Final = 1.0
_LAST_PAUSE_S: Final = 60.0
_LOWEST_BUS_V: Final = -0.1  # an offset of nothing, not a voltage
# No acknowledgement: the first is what a Raspberry Pi says, the others what other controllers do.
ABSENT: Final = frozenset({errno.EREMOTEIO, errno.ENXIO, errno.ENODEV})


class Device(CalibratedDevice, frozen=True, kw_only=True):
    """`[[sources.<name>.devices]]`: one shunt."""

    address: Annotated[int, Meta(ge=0x40, le=0x4F)] = 0x40
    model: Literal["auto"] | ModelName = "auto"
    channel: Literal[1, 2, 3] = 1
    shunt_ohm: Annotated[float, Meta(gt=0, le=1000)] = 0.1
    max_current_a: Annotated[float, Meta(gt=0, le=10_000)] = 3.2
    averaging: Literal[1, 2, 4, 8, 16, 32, 64, 128] = 16


class WordBus(Protocol):
    """What we need of `smbus2.SMBus`. Every call may raise OSError."""

    def read_word_data(self, i2c_addr: int, register: int) -> int: ...
    def write_word_data(self, i2c_addr: int, register: int, value: int) -> None: ...


class Wrong(Exception):  # noqa: N818 - a state of the bus, not a fault of ours
    """A chip answers, but not as it should: why, by one of `vitals.REFUSALS`, and "what; what now"."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


class Told(NamedTuple):
    """What one device shows; no values where they would be meaningless, and the trouble says why."""

    device: Device
    values: dict[str, Value]
    trouble: str = ""
    refused: str = ""  # one of `vitals.REFUSALS`


class Chip:
    """Measures once a round, all its channels together; while it fails it is asked more and more seldom."""

    def __init__(self, address: int, devices: Sequence[Device]) -> None:
        self.address = address
        self.devices = devices
        self.trouble = ""  # why it is left alone at present
        self._known: tuple[Model, Settings] | None = None
        self._lost_settings = False
        self._ready_s = 0.0
        self._next_try_s = 0.0
        self._pause_s = _FIRST_PAUSE_S

    def is_due(self, now_s: float) -> bool:
        return now_s >= self._next_try_s

    def put_off(self, trouble: str, now_s: float) -> None:
        """Leave the chip alone for a while, then find out anew what it is."""
        self.trouble = trouble
        self._known = None
        self._next_try_s = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LAST_PAUSE_S)

    def start(self, bus: WordBus) -> None:
        """Begin a measurement. Raise OSError or `Wrong`."""
        if self._known:
            self._lost_settings = not self._keeps_settings(bus)
        else:
            self._known = self._meet(bus)
            self._lost_settings = False
        model, chosen = self._known
        if chosen.calibration:
            self._write(bus, CALIBRATION, chosen.calibration)
        if model.flags == BUS:
            self._read(bus, POWER)  # only this clears its ready flag for certain
        self._write(bus, CONFIG, chosen.config)
        self._ready_s = time.monotonic() + chosen.conversion_s

    def finish(self, bus: WordBus) -> list[Told]:
        """Wait for the measurement and return it, by device. Raise OSError or `Wrong`."""
        assert self._known is not None  # noqa: S101 - `start` comes first
        model, chosen = self._known
        overflows = bool(self._wait_until_ready(bus, model, chosen) & model.overflow)
        told = [self._tell(bus, model, chosen, device, overflows=overflows) for device in self.devices]
        if not self._keeps_settings(bus):
            raise Wrong(
                "malformed", "it lost its settings while it measured: its supply dips; check wires and contacts"
            )
        self.trouble, self._pause_s = "", _FIRST_PAUSE_S
        return told

    def _meet(self, bus: WordBus) -> tuple[Model, Settings]:
        """Find out what answers, before any number of it is believed."""
        wish = self.devices[0].model
        config = self._read(bus, CONFIG)
        if self._manufacturer(bus) == TEXAS_INSTRUMENTS:
            die = self._read(bus, DIE_ID)
            model = next((one for one in MODELS.values() if one.die_id == die & 0xFFF0), None)
            if model is None:
                raise Wrong(
                    "malformed", f"it is an unknown chip of Texas Instruments (id 0x{die:04X}); fit a known one"
                )
        else:
            model = MODELS["ina219"]
            if config & 0xC000 == 0:  # these two bits of an INA219 are always 0: so far it may be one
                self._write(bus, CONFIG, RESET)
                config = self._read(bus, CONFIG)
            if config != model.reset_config:
                raise Wrong(
                    "malformed",
                    f"what answers at 0x{self.address:02X} is no INA219 (its register 0 is 0x{config:04X});"
                    " correct the address: a PCA9685, say, is at 0x40 too",
                )
        if wish not in ("auto", model.name):
            raise Wrong("malformed", f'it is an {model.name.upper()}, not an {wish.upper()}; set model = "auto"')
        first, channels = self.devices[0], frozenset(device.channel for device in self.devices)
        if model.name != "ina3221" and channels != {1}:
            raise Wrong("malformed", f"it is an {model.name.upper()} with one channel; set channel = 1, on one device")
        return model, settings(
            model,
            shunt_ohm=first.shunt_ohm,
            max_current_a=first.max_current_a,
            averaging=max(device.averaging for device in self.devices),
            channels=channels,
        )

    def _manufacturer(self, bus: WordBus) -> int | None:
        try:
            return self._read(bus, MANUFACTURER_ID)
        except OSError as error:
            if error.errno in ABSENT:  # it answered a moment ago, so it has no such register
                return None
            raise

    def _wait_until_ready(self, bus: WordBus, model: Model, chosen: Settings) -> int:
        """Return the register with the flags, once the measurement is there."""
        give_up_s = self._ready_s + chosen.conversion_s + 0.05
        while True:
            if (pause_s := self._ready_s - time.monotonic()) > 0:
                time.sleep(pause_s)
            asked_s = time.monotonic()
            flags = self._read(bus, model.flags)
            if flags & model.ready:
                return flags
            if asked_s > give_up_s:
                raise Wrong("stale", "it does not measure any more; switch its supply off and on")
            self._ready_s = asked_s + chosen.conversion_s / 10

    def _tell(self, bus: WordBus, model: Model, chosen: Settings, device: Device, *, overflows: bool) -> Told:
        register = 2 * device.channel - 1
        one = measured(
            model,
            chosen,
            shunt=self._read(bus, register),
            bus=self._read(bus, register + 1),
            current=self._read(bus, CURRENT) if chosen.calibration and not overflows else None,
            shunt_ohm=device.shunt_ohm,
        )
        end_a = ends_at_a(model, device.shunt_ohm)
        if not one.agrees:
            words = "its registers contradict each other; look for two units at one address, or a bad contact"
            return Told(device, {}, words, "malformed")
        if one.at_end:
            range_a = chosen.shunt_end * model.shunt_step_v / (model.own_shunt_ohm or device.shunt_ohm)
            words = (
                f"more than ±{range_a:.3g} A flows, the end of its range; raise max_current_a, or fit a smaller shunt"
            )
            return Told(device, {}, words, "out_of_range")
        if not _LOWEST_BUS_V <= one.voltage_v <= model.most_bus_v:
            words = f"{one.voltage_v:.2f} V is more than it stands, {model.most_bus_v:g} V; disconnect it"
            return Told(device, {}, words, "out_of_range")
        current_a = calibrated_a(one.current_a, device, signed=True)
        values: dict[str, Value] = {
            "voltage_v": round(one.voltage_v, 5),
            "current_a": round(current_a, 6),
            "power_w": round(one.voltage_v * current_a, 6),
        }
        trouble = ""
        if self._lost_settings:
            trouble = "it had lost its settings and got them again: its supply dips; check wires and contacts"
        elif overflows or abs(one.current_a) > device.max_current_a:
            trouble = f"more flows than max_current_a = {device.max_current_a:g}; correct it, or look for the fault"
        elif end_a < device.max_current_a * 0.9999:
            trouble = (
                f"max_current_a = {device.max_current_a:g} can never be measured: an {model.name.upper()}"
                f" ends at {end_a:.3g} A with this shunt; set max_current_a = {end_a:.3g}"
            )
        return Told(device, values, trouble)

    def _keeps_settings(self, bus: WordBus) -> bool:
        assert self._known is not None  # noqa: S101 - only known chips have settings
        model, chosen = self._known
        if not keeps(model, chosen, self._read(bus, CONFIG)):
            return False
        return not chosen.calibration or self._read(bus, CALIBRATION) == chosen.calibration

    def _read(self, bus: WordBus, register: int) -> int:
        return swapped(bus.read_word_data(self.address, register))

    def _write(self, bus: WordBus, register: int, value: int) -> None:
        bus.write_word_data(self.address, register, swapped(value))
