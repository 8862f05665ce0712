"""The ESP32 reader counts: the very files of deploy/esp32, in a real MicroPython, on a fake board."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.micropython.interpreter import Interpreter, interpreter
from workers import _pulse

FIRMWARE = Path(__file__).parents[2] / "deploy" / "esp32"


@pytest.fixture(scope="module")
def esp32(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    with interpreter(tmp_path_factory.mktemp("esp32") / "log") as micropython:
        yield micropython


def test_each_file_can_be_imported_by_itself(esp32: Interpreter) -> None:
    names = sorted(file.stem for file in FIRMWARE.glob("*.py"))
    assert {"main", "config", "monitor"} < {*names}
    imported = esp32.run(f"""
        import os, sys
        result = []
        for name in {names}:
            for each in {names}:
                sys.modules.pop(each, None)
            # main is the whole program: without passwords it says so and ends.
            os.rename("/secrets.py", "/kept") if name == "main" else None
            __import__(name)
            os.rename("/kept", "/secrets.py") if name == "main" else None
            result.append(sys.modules[name].__name__)
        result.append(list(sys.implementation.version[:2]))
    """)
    assert imported == [*names, [1, 27]]
    assert len(esp32.console) == 1


# ---- what is a pulse


def test_a_led_sensor_counts_each_blink_once_however_it_bounces(esp32: Interpreter) -> None:
    rng = random.Random(4)
    at_ms, planned = 2000, []
    for _ in range(300):
        at_ms += rng.randrange(144, 400)
        # An even number of flips within the pulse, and bounces after it that are one more plan.
        planned.append([at_ms, rng.choice([3, 30]), sorted(rng.sample(range(1, 3), 2))])
        planned.append([at_ms + rng.randrange(32, 60), 1, []])
    counted = esp32.run(f"""
    monitor = boot()
    for at_ms, length_ms, edges in {planned}:
        pulse(at_ms, length_ms, edges=edges)
    run(monitor, {at_ms + 500}, 100)
    result = [monitor._count.total, monitor._pulses.bounces]
    """)
    assert counted[0] == 300
    assert counted[1] > 300  # the bounces did arrive


def test_an_s0_output_counts_pulses_of_any_length_and_no_spikes(esp32: Interpreter) -> None:
    assert (
        esp32.run("""
    import config
    config.SENSOR = "s0"
    monitor = boot()
    for number, length_ms in enumerate((30, 31, 50, 80, 119, 120)):
        pulse(1000 + 150 * number, length_ms)                        # clean ones
    for number in range(5):
        pulse(3000 + 300 * number, 100, edges=(1, 2, 4, 5, 97, 98))  # that bounce at both ends
    for number in range(20):
        pulse(6000 + 300 * number, 3)                                # motors that are switched on
    run(monitor, 12500)
    result = monitor._count.total
    """)
        == 11
    )


def test_a_pulse_that_came_while_flash_was_erased_counts_too(esp32: Interpreter) -> None:
    assert esp32.run("""
    import config
    result = []
    for sensor in ("s0", "led"):
        config.SENSOR = sensor
        monitor = boot()
        run(monitor, 300)
        for begins_ms in (5, 40, -20, 21):                # within, up to the end, from before, to after the stall
            pulse(clock.now_ms + 30 + begins_ms, 30)
            run(monitor, 30)
            clock.stall(45)
            run(monitor, 300)
        result.append(monitor._count.total)
    """) == [4, 4]


def test_more_bounces_than_calls_can_wait_make_one_pulse(esp32: Interpreter) -> None:
    counted, dropped = esp32.run("""
    import config
    config.SENSOR = "s0"
    monitor = boot()
    run(monitor, 100)
    pulse(clock.now_ms + 1, 90, edges=tuple(range(1, 31)))
    clock.stall(40)
    run(monitor, 400)
    result = [monitor._count.total, clock.dropped]
    """)
    assert counted == 1
    assert dropped > 0


def test_a_pulse_that_goes_on_during_a_restart_counts_once(esp32: Interpreter) -> None:
    assert esp32.run("""
    import config
    config.SENSOR = "s0"
    monitor = boot()
    pulse(clock.now_ms + 1000, 100)
    run(monitor, 1050)
    monitor = boot("reset")
    run(monitor, 200)
    first = monitor._count.total
    pulse(clock.now_ms + 1000, 100)
    run(monitor, 1120)
    monitor = boot("reset")
    run(monitor, 200)
    result = [first, monitor._count.total]
    """) == [1, 2]


# ---- time


def test_pulses_and_ages_are_right_when_the_ticks_begin_anew(esp32: Interpreter) -> None:
    result = esp32.run("""
    import json
    clock.ticks_offset = TICKS - 60000                 # 12.4 days after the power came, in a minute
    hardware.peer = HttpPeer()
    monitor = boot()
    pulses(500, 1000, 119)
    run(monitor, 120000, 50)
    said = [[at, json.loads(body)] for at, body in hardware.peer.bodies]
    result = [monitor._count.total, monitor._pulses.bounces, said]
    """)
    assert result[:2] == [119, 0]
    for at_ms, message in result[2]:
        created_ms = at_ms - message["age_ms"]
        assert abs(created_ms - 30_000 * (message["seq"] - 1)) <= 50
        assert message["pulses_total"] == max(0, (created_ms + 500) // 1000)
        assert message.get("power_w") in (None, 3600.0)


def test_the_first_pulse_after_a_week_of_silence_counts(esp32: Interpreter) -> None:
    assert esp32.run("""
    import config
    config.WATCHDOG_S = 0
    monitor = boot()
    pulses(1000, 200, 3)
    run(monitor, 5000, 100)
    for _ in range(9 * 24):                            # ticks that are more than 6.2 days apart cannot be compared
        monitor.step()
        clock.advance(3600 * 1000)
    pulses(clock.now_ms + 1000, 200, 3)
    run(monitor, 5000, 100)
    result = [monitor._count.total, monitor._pulses.bounces, monitor._uptime.now_ms() == clock.now_ms]
    """) == [6, 0, True]


def test_the_power_is_that_of_the_pulses_and_falls_while_none_comes(esp32: Interpreter) -> None:
    said = esp32.run("""
    import json
    hardware.peer = HttpPeer()
    monitor = boot()
    pulses(1500, 2000, 40)                             # 1800 W until 79.5 s
    pulses(425000, 1000, 60)                           # 3600 W after a silence
    run(monitor, 485000, 500)
    result = [[at, json.loads(body)] for at, body in hardware.peer.bodies]
    """)
    powers = {round((at_ms - message["age_ms"]) / 30_000): message.get("power_w") for at_ms, message in said}
    assert [powers[0], powers[1], powers[2]] == [None, None, 1800.0]
    for number in range(3, 14):
        expected = _pulse.power_w(1.0, 2.0, 30 * number - 79.5, timeout_s=300)
        assert powers[number] == pytest.approx(expected, abs=0.5), number
    assert powers[12] > powers[13] == powers[14] == 0
    assert [powers[15], powers[16]] == [None, 3600.0]


# ---- what outlives what


def test_a_reset_loses_nothing_and_a_power_cut_at_most_what_was_never_reported(esp32: Interpreter) -> None:
    result = esp32.run("""
    result = []
    for after in ("reset", "power cut"):
        new_board()
        monitor = boot()
        pulses(clock.now_ms + 1000, 1000, 80)
        run(monitor, 75500, 100)
        result.append([monitor._count.total, monitor._reported[0]])
        result.append(boot(after)._count.total)
    """)
    assert result[0] == [75, 60]
    assert result[1] == 75
    assert result[2] == [75, 60]
    assert result[3] == 60


def test_a_power_cut_at_any_moment_keeps_all_that_was_reported_and_doubles_nothing(esp32: Interpreter) -> None:
    """The power goes before the first use of the hardware, before the second, and so on: notes, saves, sends."""
    result = esp32.run("""
    import config, json
    config.REPORT_S = 10
    result = []
    cut = 0

    def said():
        return [json.loads(body)["pulses_total"] for at, body in hardware.peer.bodies if body[0] == "{"]

    while True:
        cut += 1
        new_board()
        hardware.flash = {"pulses0": 1000}
        hardware.cut_at = cut
        hardware.wifi_takes_ms = 300
        hardware.peer = HttpPeer(after_ms=200)
        monitor = boot()
        pulses(2200, 1100, 20)
        try:
            run(monitor, 22000, 300)
        except PowerCut:
            pass
        was_cut = hardware.operations >= cut
        counted = monitor._count.total
        hardware.cut_at = None
        known = said()
        level(32, 1)
        monitor = boot()
        goes_on_from = monitor._count.total
        run(monitor, 2500, 250)
        result.append([counted, known, goes_on_from, said()[len(known):]])
        if not was_cut:
            break
    """)
    assert len(result) > 30
    for counted, known, goes_on_from, after in result:
        assert known == sorted(known)
        assert max([1000, *known]) <= goes_on_from <= counted  # nothing that was known is taken back or doubled
        assert counted - goes_on_from <= 10  # the pulses of one report
        assert after[0] == goes_on_from
    assert result[-1][0] == 1019


def test_a_count_beyond_what_one_number_in_flash_holds_goes_on(esp32: Interpreter) -> None:
    result = esp32.run("""
    limit = 1 << 30
    result = []
    for cut in range(1, 6):
        new_board()
        hardware.flash = {"pulses0": limit - 3}
        monitor = boot()
        pulses(clock.now_ms + 1000, 1000, 5)
        run(monitor, 29000, 200)
        hardware.operations, hardware.cut_at = 0, cut
        try:
            run(monitor, 2000, 200)
        except PowerCut:
            pass
        hardware.cut_at = None
        result.append(boot()._count.total - limit)
    result.append(sorted(hardware.flash))
    """)
    assert [*dict.fromkeys(result[:-1])] == [-3, 2]  # all or nothing
    assert result[-1] == ["pulses0", "pulses1"]


def test_flash_is_written_at_most_once_a_report_and_never_for_nothing(esp32: Interpreter) -> None:
    writes = esp32.run("""
    monitor = boot()
    pulses(1000, 150, 2000)                            # 300 s at 24 kW
    run(monitor, 331000, 500)
    busy = hardware.flash_writes
    run(monitor, 3600000, 5000)
    result = [busy, hardware.flash_writes]
    """)
    assert writes == [11, 11]


def test_flash_that_is_worn_out_is_told_and_counting_goes_on(esp32: Interpreter) -> None:
    counted = esp32.run("""
    hardware.flash_fails = True
    monitor = boot()
    pulses(1000, 1000, 30)
    run(monitor, 35000, 100)
    result = [monitor._count.total, boot("reset")._count.total]
    """)
    assert counted == [30, 30]
    assert any("the count cannot be saved" in line and "replace the board" in line for line in esp32.console)


def test_rtc_memory_with_anything_in_it_is_not_believed(esp32: Interpreter) -> None:
    assert esp32.run("""
    import binascii, struct
    note = struct.pack("<2sQ", b"wh", 77)
    sound = note + struct.pack("<I", binascii.crc32(note))
    result = []
    for memory in (sound, b"", b"wh", bytes(14), b"\\xff" * 14, sound[:-1] + b"!", sound + b"!", b"x" + sound[1:],
                   sound[:3] + b"\\x01" + sound[4:]):
        start_anew("reset")
        hardware.flash = {"pulses0": 5}
        hardware.rtc_memory = memory
        result.append(boot("reset")._count.total)
    hardware.flash = {"pulses0": 78}                   # saved just after the last note
    hardware.rtc_memory = sound
    result.append(boot("reset")._count.total)
    """) == [77, *[5] * 8, 78]


# ---- the program


def test_at_the_prompt_it_goes_on_counting_and_feeds_its_watchdog(esp32: Interpreter) -> None:
    counted = esp32.run("""
    import time
    hardware.peer = HttpPeer()
    real_sleep = time.sleep_ms
    def sleep_ms(pause_ms):
        real_sleep(40)
        if clock.now_ms >= 10000:
            raise KeyboardInterrupt
    time.sleep_ms = sleep_ms
    pulses(1000, 500, 600)
    import main                                        # Ctrl-C after ten seconds
    time.sleep_ms = real_sleep
    for _ in range(2400):                              # the prompt, for two minutes
        time.sleep_ms(50)
    result = [hardware.bites, len(hardware.peer.bodies), hardware.peer.bodies[-1][1]]
    """)
    assert counted[:2] == [0, 5]
    assert '"pulses_total": 238' in counted[2] or '"pulses_total": 239' in counted[2]
    assert "It goes on counting. Ctrl-D starts it anew." in esp32.console


def test_a_program_that_hangs_is_started_anew_by_the_watchdog(esp32: Interpreter) -> None:
    assert esp32.run("""
    monitor = boot()
    run(monitor, 5000, 100)
    pulses(clock.now_ms + 1000, 1000, 50)
    monitor._wifi.step = lambda now_ms: clock.advance(61000)
    try:
        run(monitor, 5000, 100)
        result = "it goes on"
    except Reset:
        result = ["started anew", boot("reset")._count.total]
    """) == ["started anew", 50]


def test_an_error_that_nobody_foresaw_is_shown_and_starts_it_anew(esp32: Interpreter) -> None:
    assert (
        esp32.run("""
    import monitor
    def broken(self):
        raise RuntimeError("nobody foresaw this")
    monitor.Monitor.step = broken
    try:
        import main
        result = "it goes on"
    except Reset:
        result = "started anew"
    """)
        == "started anew"
    )
    assert any("nobody foresaw this" in line for line in esp32.console)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('config.SENSOR = "ldr"', "the LDR is not calibrated; type calibrate()"),
        ('config.SENSOR = "light"', 'SENSOR is "led", "s0" or "ldr"'),
        ('config.SEND = "udp"', 'SEND is "http" or "mqtt"'),
        ('config.SERVER = "raspberrypi.local"', "SERVER is an address such as 192.168.1.10, no name"),
        ('config.DEVICE = "my meter"', "DEVICE needs letters"),
        ("config.IMP_PER_KWH = 0", "IMP_PER_KWH"),
        ("config.MAX_POWER_W = 0", "MAX_POWER_W"),
        ("config.REPORT_S = 1", "REPORT_S is at least 5"),
        ("config.WATCHDOG_S = 5", "WATCHDOG_S is 0, or at least 10"),
        ('import os; os.remove("/secrets.py")', "there is no secrets.py; fill in secrets.py.example"),
    ],
)
def test_a_wrong_setting_is_told_with_what_to_do_and_leaves_the_prompt(
    esp32: Interpreter, setting: str, said: str
) -> None:
    esp32.run(f"""
    import config
    {setting}
    import main
    result = hardware.watchdog_ms
    """)
    assert said in esp32.console[-1]


def test_the_light_flashes_at_each_pulse_and_is_on_while_nothing_can_be_delivered(esp32: Interpreter) -> None:
    seen = esp32.run("""
    hardware.peer = HttpPeer()
    monitor = boot()
    run(monitor, 5000, 100)
    def look():
        seen = []
        pulse(clock.now_ms + 10)
        for _ in range(4):
            run(monitor, 25)
            seen.append(hardware.levels[2])
        return seen
    result = [look()]
    hardware.wifi_is_up = False
    run(monitor, 130000, 100)
    result.append(look())
    """)
    assert [[*dict(itertools.groupby(each))] for each in seen] == [[1, 0], [0, 1]]
