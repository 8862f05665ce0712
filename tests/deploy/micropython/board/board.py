"""A fake ESP32, for the real firmware in a real MicroPython: time that a script moves, pins that it pulls, a power
supply that it cuts. What is faked is what the chip does, with its limits; not a line of the firmware is.
"""

import builtins
import errno
import math
import sys
import time as real_time

PROGRAM = ("main", "monitor", "count", "pulses", "calibration", "backlog", "delivery", "wifi", "connection")
PROGRAM += ("send_http", "send_mqtt")
MOST_WAITING = 8  # calls from interrupts: MICROPY_SCHEDULER_DEPTH
TICKS = 1 << 30


class PowerCut(BaseException):
    """The supply is gone in the middle of something."""


class Reset(BaseException):
    """machine.reset(), or the watchdog."""


class Clock:
    """Time, and what is to happen in it."""

    def __init__(self):
        self.now_ms = 0
        self.ticks_offset = 0
        self.stalled = False  # the program hangs in C code: time goes on, interrupts only queue
        self.dropped = 0
        self._events = []
        self._waiting = []
        self._order = 0
        self._is_running = False

    def start_anew(self):
        """What the program waited for is forgotten; what the world has in mind is not."""
        self.stalled = self._is_running = False
        self._waiting = []

    def at(self, at_ms, call):
        self._order += 1
        event = (at_ms, self._order, call)
        place = len(self._events)
        while place and self._events[place - 1][:2] > event[:2]:
            place -= 1
        self._events.insert(place, event)

    def after(self, pause_ms, call):
        self.at(self.now_ms + pause_ms, call)

    def interrupt(self, handler, argument):
        """Have `handler` called when the program lets it; as on the chip, there is room for eight."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append((handler, argument))

    def advance(self, pause_ms):
        until_ms = self.now_ms + pause_ms
        while self._events and self._events[0][0] <= until_ms:
            at_ms, _, call = self._events.pop(0)
            self.now_ms = max(self.now_ms, at_ms)
            call()
            self.run_waiting()
        self.now_ms = until_ms
        self.run_waiting()
        hardware.look_at_watchdog()

    def stall(self, pause_ms):
        """Let the program hang in C code, as while flash is erased; what waited is called when it comes back."""
        self.stalled = True
        self.advance(pause_ms)
        self.stalled = False
        self.run_waiting()

    def run_waiting(self):
        while self._waiting and not self.stalled and not self._is_running:
            handler, argument = self._waiting.pop(0)
            self._is_running = True
            try:
                handler(argument)
            finally:
                self._is_running = False


class Hardware:
    """All that is not the program, and how much of it outlives what."""

    def __init__(self):
        self.flash = {}  # NVS, committed
        self.rtc_memory = b""
        self.operations = 0
        self.cut_at = None  # the number of the operation at which the power goes
        self.flash_writes = 0
        self.flash_fails = False
        self.levels = {}
        self.light = lambda now_ms: 0  # what an LDR gives, 0 to 65535
        self.wifi_is_up = True
        self.wifi_takes_ms = 3000
        self.wifi_status = 1001
        self.fed_ms = None
        self.watchdog_ms = None
        self.bites = 0
        self.pins = {}
        self.wlan = None
        self.sockets = []
        self.peer = None
        self.boots = 0

    def look_at_watchdog(self):
        if self.watchdog_ms and clock.now_ms - self.fed_ms > self.watchdog_ms:
            self.bites += 1
            self.watchdog_ms = None
            raise Reset()

    def operate(self):
        """Note that the program has used the hardware; the power may go just before it takes effect."""
        self.operations += 1
        if self.operations == self.cut_at:
            raise PowerCut()


clock = Clock()
hardware = Hardware()


def new_board():
    """Begin with a board that was never used, in a world without plans."""
    clock.__init__()
    hardware.__init__()


def boot(after="power cut"):
    """Start the firmware as after a power cut or a reset, and return a monitor."""
    start_anew(after)
    import monitor

    return monitor.Monitor()


def start_anew(after="power cut"):
    clock.start_anew()
    hardware.pins = {}
    hardware.sockets = []
    hardware.wlan = None
    hardware.fed_ms = hardware.watchdog_ms = None
    hardware.boots += 1
    if after == "power cut":
        hardware.rtc_memory = b"\xa5\x00\xff\x13" * 5 + b"wh"  # it comes up with anything in it
    for name in PROGRAM:
        sys.modules.pop(name, None)


def run(monitor, during_ms, pause_ms=5):
    """Be the main program for a while."""
    until_ms = clock.now_ms + during_ms
    while clock.now_ms < until_ms:
        monitor.step()
        clock.advance(min(pause_ms, until_ms - clock.now_ms))


def level(number, value):
    """Pull a pin to a level."""
    if hardware.levels.get(number, 1) == value:
        return
    hardware.levels[number] = value
    pin = hardware.pins.get(number)
    if pin and pin.handler and pin.trigger & (machine.Pin.IRQ_RISING if value else machine.Pin.IRQ_FALLING):
        clock.interrupt(pin.handler, pin)


def pulse(at_ms, length_ms=4, number=32, edges=()):
    """Plan a pulse that pulls a pin down, with bounces: `edges` are the milliseconds at which the level flips."""
    clock.at(at_ms, lambda: level(number, 0))
    value = 0
    for each in edges:
        value = 1 - value
        clock.at(at_ms + each, lambda value=value: level(number, value))
    clock.at(at_ms + length_ms, lambda: level(number, 1))


def pulses(first_ms, interval_ms, count, length_ms=4):
    """Plan pulses one after the other, so that long scripts have few events waiting."""

    def one(left):
        pulse(clock.now_ms, length_ms)
        if left > 1:
            clock.after(interval_ms, lambda: one(left - 1))

    clock.at(first_ms, lambda: one(count))


class FakeTime:
    ticks_diff = staticmethod(real_time.ticks_diff)
    ticks_add = staticmethod(real_time.ticks_add)

    def ticks_ms(self):
        return (clock.now_ms + clock.ticks_offset) % TICKS

    def sleep_ms(self, pause_ms):
        clock.advance(pause_ms)


class LiveTime(FakeTime):
    def ticks_ms(self):
        clock.now_ms = wires.now_ms()
        return clock.now_ms % TICKS


class Pin:
    IN, OUT, PULL_UP, IRQ_RISING, IRQ_FALLING = 1, 3, 2, 1, 2

    def __new__(cls, number, mode=None, pull=None):
        if number not in hardware.pins:
            hardware.pins[number] = object.__new__(cls)
            hardware.pins[number].number = number
            hardware.pins[number].handler = None
        return hardware.pins[number]

    def __init__(self, number, mode=None, pull=None):
        if mode == Pin.OUT and 34 <= number <= 39:
            raise ValueError("pin can only be input")

    def irq(self, handler, trigger):
        self.handler, self.trigger = handler, trigger

    def value(self, value=None):
        if value is None:
            return hardware.levels.get(self.number, 1)
        hardware.levels[self.number] = value
        return None


class ADC:
    ATTN_11DB = 3

    def __init__(self, pin, atten):
        assert atten == ADC.ATTN_11DB and 32 <= pin.number <= 39

    def read_u16(self):
        return hardware.light(clock.now_ms)


class Timer:
    PERIODIC = 1

    def __init__(self, number):
        assert 0 <= number <= 3

    def init(self, period, mode, callback):
        assert mode == Timer.PERIODIC

        boots = hardware.boots

        def fire():
            if hardware.boots == boots:
                clock.interrupt(callback, self)
                clock.after(period, fire)

        clock.after(period, fire)


class RTC:
    def memory(self, data=None):
        if data is None:
            return hardware.rtc_memory
        hardware.operate()
        assert len(data) <= 2048
        hardware.rtc_memory = bytes(data)
        return None


class WDT:
    def __init__(self, timeout):
        hardware.watchdog_ms, hardware.fed_ms = timeout, clock.now_ms

    def feed(self):
        hardware.fed_ms = clock.now_ms


def reset():
    raise Reset()


class machine:  # noqa: N801 - a module
    Pin, ADC, Timer, RTC, WDT = Pin, ADC, Timer, RTC, WDT
    reset = staticmethod(reset)


class NVS:
    def __init__(self, namespace):
        assert len(namespace) <= 15
        self._set = {}

    def set_i32(self, key, value):
        assert len(key) <= 15
        if not -(1 << 31) <= value < 1 << 31:
            raise OverflowError("overflow converting long int to machine word")
        hardware.operate()
        if hardware.flash_fails:
            raise OSError(-4357, "ESP_ERR_NVS_NOT_ENOUGH_SPACE")
        self._set[key] = value

    def get_i32(self, key):
        value = self._set.get(key, hardware.flash.get(key))
        if value is None:
            raise OSError(-4354, "ESP_ERR_NVS_NOT_FOUND")
        return value

    def commit(self):
        hardware.operate()
        hardware.flash.update(self._set)
        hardware.flash_writes += 1
        self._set = {}
        hardware.operate()


class esp32:  # noqa: N801 - a module
    NVS = NVS


class WLAN:
    """The station interface: it connects a while after it was told to, if there is somebody."""

    attempts = 0

    def __init__(self, _interface):
        hardware.wlan = self
        self._is_active = False
        self._asked_ms = None

    def active(self, is_active):
        self._is_active = is_active

    def connect(self, _name, _password):
        assert self._is_active
        if self._asked_ms is not None:
            raise OSError("Wifi Internal State Error")
        self._asked_ms = clock.now_ms
        WLAN.attempts += 1

    def disconnect(self):
        if self._asked_ms is None:
            raise OSError("Wifi Not Started")
        self._asked_ms = None

    def isconnected(self):
        if not hardware.wifi_is_up:
            if self._asked_ms is not None:
                self._asked_ms = max(self._asked_ms, clock.now_ms - hardware.wifi_takes_ms + 1)
            for each in hardware.sockets:
                each.break_off()
            return False
        return self._asked_ms is not None and clock.now_ms - self._asked_ms >= hardware.wifi_takes_ms

    def status(self):
        return hardware.wifi_status


class network:  # noqa: N801 - a module
    STA_IF = 0
    STAT_WRONG_PASSWORD, STAT_NO_AP_FOUND = 202, 201
    WLAN = WLAN
    name = None

    @staticmethod
    def hostname(name):
        if len(name) > 32:
            raise ValueError(None)
        network.name = name


class Socket:
    """A socket that does not block, with the limits of the one on the chip: small writes, and often none at all."""

    def __init__(self):
        if sum(not each.is_closed for each in hardware.sockets) >= 10:
            raise OSError(errno.ENOMEM if hasattr(errno, "ENOMEM") else 12)
        hardware.sockets.append(self)
        self.is_closed = self.is_broken = self.has_ended = self._is_tired = False
        self.opens_ms = None
        self.sent = b""
        self.inbox = b""
        self._blocks = True

    def setblocking(self, blocks):
        self._blocks = blocks

    def connect(self, address):
        assert not self._blocks, "this would wait"
        hardware.operate()
        self.address = address
        pause_ms = hardware.peer.opens_after_ms if hardware.peer else None
        self.opens_ms = None if pause_ms is None else clock.now_ms + pause_ms
        raise OSError(errno.EINPROGRESS)

    def events(self):
        if self.is_broken:
            return FakeSelect.POLLHUP | FakeSelect.POLLERR
        return FakeSelect.POLLOUT if self.opens_ms is not None and clock.now_ms >= self.opens_ms else 0

    def write(self, data):
        self._check()
        hardware.operate()
        self._is_tired = not self._is_tired
        if self._is_tired:
            return None
        taken = data[:300]
        self.sent += taken
        hardware.peer.hear(self)
        return len(taken)

    def read(self, most):
        self._check()
        if self.inbox:
            data, self.inbox = self.inbox[:most], self.inbox[most:]
            return data
        return b"" if self.has_ended else None

    def close(self):
        self.is_closed = True

    def break_off(self):
        self.is_broken = True

    def _check(self):
        assert not self.is_closed, "used after it was closed"
        if self.is_broken:
            raise OSError(errno.ECONNRESET)
        if not self.events():
            raise OSError(errno.ENOTCONN)


class LiveSocket(Socket):
    """The same over a real connection."""

    def connect(self, address):
        assert not self._blocks, "this would wait"
        self._wire = wires.open(address[0], address[1])
        raise OSError(errno.EINPROGRESS)

    def _check(self):
        self.is_broken = self._wire.state == "broken"
        super()._check()

    def events(self):
        states = {"opening": 0, "broken": FakeSelect.POLLHUP | FakeSelect.POLLERR}
        return states.get(self._wire.state, FakeSelect.POLLOUT)

    def write(self, data):
        self._check()
        taken = data[:300]
        self._wire.write(taken.hex())
        return len(taken)

    def read(self, most):
        came = self._wire.read()
        if came:
            return bytes.fromhex(came)
        return b"" if self._wire.state == "ended" else None

    def close(self):
        self.is_closed = True
        self._wire.close()


class FakeSelect:
    POLLIN, POLLOUT, POLLERR, POLLHUP = 1, 4, 8, 16

    class poll:  # noqa: N801 - as the real one
        def register(self, socket, mask):
            self._socket, self._mask = socket, mask | FakeSelect.POLLERR | FakeSelect.POLLHUP

        def poll(self, timeout_ms):
            assert timeout_ms == 0, "this would wait"
            events = self._socket.events() & self._mask
            return [(self._socket, events)] if events else []


class FakeSocketModule:
    socket = Socket


class FakeOs:
    """The real one, and what only the chip has."""

    drawn = 0

    def urandom(self, count):
        FakeOs.drawn += 1
        return FakeOs.drawn.to_bytes(count, "big")

    def __getattr__(self, name):
        return getattr(real_os, name)


class HttpPeer:
    """Who answers posts: `answer(body)` returns a status, "hangs", "breaks", or "half" for an answer cut in two."""

    def __init__(self, answer=lambda body: 200, after_ms=700):
        self.opens_after_ms = 20
        self.bodies = []
        self.taken = []  # bodies that were answered 200, whether or not that was heard
        self.heads = []
        self._answer = answer
        self._after_ms = after_ms

    def hear(self, socket):
        end = socket.sent.find(b"\r\n\r\n")
        if end < 0:
            return
        head = socket.sent[:end].decode()
        length = int(head.split("Content-Length:")[1].split("\r\n")[0])
        if len(socket.sent) < end + 4 + length:
            return
        body = socket.sent[end + 4 :].decode()
        self.heads.append(head)
        self.bodies.append([clock.now_ms, body])
        verdict = self._answer(body)
        if verdict in (200, "taken, but the answer is lost"):
            self.taken.append(body)
        if verdict == "breaks" or verdict == "taken, but the answer is lost":
            clock.after(self._after_ms, socket.break_off)
        elif verdict != "hangs":
            content = b'{"error": "as the test wants it \xc3\xa9"}'
            said = f"HTTP/1.1 {verdict} Said\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
            clock.after(self._after_ms, lambda: self._say(socket, said[:9]))
            clock.after(self._after_ms + 100, lambda: self._say(socket, said[9:]))

    def _say(self, socket, data):
        socket.inbox += data


class MqttPeer:
    """A broker that notes each packet and acknowledges what it is told to."""

    def __init__(self, code=0, acknowledges=lambda payload: True, pongs=True):
        self.opens_after_ms = 20
        self.packets = []
        self._code, self._acknowledges, self._pongs = code, acknowledges, pongs

    def hear(self, socket):
        while True:
            packet, rest = self._first(socket.sent)
            if packet is None:
                return
            socket.sent = rest
            self.packets.append([clock.now_ms, packet.hex()])
            kind = packet[0] >> 4
            if kind == 1:
                self._say(socket, bytes([0x20, 2, 0, self._code]))
            elif kind == 12 and self._pongs:
                self._say(socket, b"\xd0\x00")
            elif kind == 3:
                body = packet[1:]
                while body[0] & 0x80:
                    body = body[1:]
                body = body[1:]
                topic_end = 2 + body[1]
                if self._acknowledges(body[topic_end + 2 :]):
                    self._say(socket, b"\x40\x02" + body[topic_end : topic_end + 2])

    def _first(self, data):
        length = shift = 0
        for place in range(1, len(data)):
            length |= (data[place] & 0x7F) << shift
            shift += 7
            if not data[place] & 0x80:
                end = place + 1 + length
                return (data[:end], data[end:]) if len(data) >= end else (None, data)
        return None, data

    def _say(self, socket, data):
        def say():
            socket.inbox += data

        clock.after(30, say)


def ldr(period_ms, blink_ms, dark, swing, lamp=0, sun=0):
    """Return what an LDR makes of a blinking light: it follows slowly, sees the 100 Hz of a lamp, and the sun move."""

    def light(now_ms):
        since_ms = now_ms % period_ms
        if since_ms < blink_ms:
            reached = 1 - math.exp(-since_ms / 12)
        else:
            reached = (1 - math.exp(-blink_ms / 12)) * math.exp(-(since_ms - blink_ms) / 25)
        flicker = abs(now_ms % 10 - 5) / 5
        noise = (now_ms * 7919) % 200
        return min(65535, max(0, int(dark + swing * reached + lamp * flicker + sun * now_ms / 60000 + noise)))

    return light


def answer_prompts(*answers):
    """Type these at the prompts that come, and return the prompts."""
    prompts = []
    left = list(answers)

    def typed(prompt=""):
        prompts.append(prompt)
        return left.pop(0)

    builtins.input = typed
    return prompts


def go_live():
    """Have the real time, and real connections."""
    global wires
    import js

    wires = js.wires
    FakeSocketModule.socket = LiveSocket
    sys.modules["time"] = LiveTime()
    clock.now_ms = wires.now_ms()
    hardware.wifi_takes_ms = 0


def blink():
    """Pull the pin of the sensor once, in a live script."""
    level(32, 0)
    level(32, 1)
    clock.run_waiting()


import os as real_os  # noqa: E402 - before it is replaced

sys.modules["time"] = FakeTime()
sys.modules["machine"] = machine
sys.modules["esp32"] = esp32
sys.modules["network"] = network
sys.modules["socket"] = FakeSocketModule
sys.modules["select"] = FakeSelect
sys.modules["os"] = FakeOs()
