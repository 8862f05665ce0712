"""The ESP32 reader with a bare LDR: calibrate() at the serial prompt, and what is counted with what it found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.micropython.interpreter import Interpreter, interpreter


@pytest.fixture(scope="module")
def esp32(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    with interpreter(tmp_path_factory.mktemp("esp32") / "log") as micropython:
        yield micropython


@pytest.mark.parametrize(
    ("where", "light"),
    [
        ("in the dark", "ldr({period}, 30, dark=1500, swing=30000)"),
        ("beside a lamp", "ldr({period}, 30, dark=9000, swing=30000, lamp=6000)"),
        ("while the sun rises", "ldr({period}, 40, dark=9000, swing=20000, sun=3000)"),
        ("with short blinks", "ldr({period}, 8, dark=20000, swing=12000)"),
        ("the other way round", "ldr({period}, 30, dark=50000, swing=-30000)"),
    ],
)
def test_a_calibrated_ldr_counts_every_blink(esp32: Interpreter, where: str, light: str) -> None:
    prompts, thresholds, total = esp32.run(f"""
    import config, json
    config.SENSOR = "ldr"
    hardware.light = {light.format(period=500)}
    prompts = answer_prompts("5", "y")
    from calibration import calibrate
    calibrate()
    hardware.light = {light.format(period=320)}        # more power than while it was calibrated
    clock.advance(50 - clock.now_ms % 320 + 320)
    monitor = boot()
    run(monitor, 6400, 100)
    result = [prompts, json.load(open("/calibration.json")), monitor._count.total]
    """)
    assert prompts[1] == "Is that what the meter did? Save it? [y/n] "
    assert thresholds["low"] < thresholds["high"]
    assert any("10 blinks: about 7200 W" in line for line in esp32.console), esp32.console
    assert total == 20, where
    assert "Saved. Press Ctrl-D to start with it." in esp32.console


@pytest.mark.parametrize(
    ("light", "said"),
    [
        ("lambda now_ms: 8000 + now_ms % 700", "No blink can be seen."),
        ("ldr(1000, 30, dark=9000, swing=0, lamp=20000)", "The blinks cannot be told from other light."),
        ("ldr(7000, 30, dark=9000, swing=20000)", "The blinks cannot be told from other light."),
    ],
)
def test_what_is_no_blinking_meter_is_told_and_changes_nothing(esp32: Interpreter, light: str, said: str) -> None:
    assert (
        esp32.run(f"""
    import config, os
    config.SENSOR = "ldr"
    hardware.light = {light}
    answer_prompts("5")
    from calibration import calibrate
    calibrate()
    result = "calibration.json" in os.listdir("/")
    """)
        is False
    )
    assert any(line.startswith(said) for line in esp32.console), esp32.console
    assert "Nothing was changed." in esp32.console[-1]


def test_light_that_only_wavers_around_a_threshold_is_one_pulse(esp32: Interpreter) -> None:
    assert (
        esp32.run("""
    import config, json
    config.SENSOR = "ldr"
    with open("/calibration.json", "w") as file:
        json.dump({"low": 8000, "high": 12000}, file)
    hardware.light = lambda now_ms: 3000 if now_ms < 1000 else 9000 + 5000 * (now_ms // 200 % 2)
    monitor = boot()
    run(monitor, 5000, 100)
    result = monitor._count.total
    """)
        == 1
    )


def test_a_person_may_mistype_and_may_say_no(esp32: Interpreter) -> None:
    prompts, kept = esp32.run("""
    import config, json
    config.SENSOR = "ldr"
    with open("/calibration.json", "w") as file:
        json.dump({"low": 1, "high": 2}, file)
    hardware.light = ldr(1000, 30, dark=1500, swing=30000)
    prompts = answer_prompts("soon", "4", "-8", " 6 ", "no")
    from calibration import calibrate
    calibrate()
    result = [prompts, json.load(open("/calibration.json"))]
    """)
    assert prompts == ["How many seconds shall I watch? [30] "] * 4 + ["Is that what the meter did? Save it? [y/n] "]
    assert kept == {"low": 1, "high": 2}


def test_calibrating_while_the_reader_runs_loses_no_pulse(esp32: Interpreter) -> None:
    assert esp32.run("""
    import config, json, time
    config.SENSOR = "ldr"
    with open("/calibration.json", "w") as file:
        json.dump({"low": 8000, "high": 12000}, file)
    hardware.light = ldr(1000, 30, dark=1500, swing=30000)
    clock.advance(500)
    real_sleep = time.sleep_ms
    def interrupted(pause_ms):
        raise KeyboardInterrupt
    time.sleep_ms = interrupted
    answer_prompts("5", "y")
    import main
    time.sleep_ms = real_sleep
    started_ms = clock.now_ms
    main.calibrate()
    seconds = (clock.now_ms - started_ms) // 1000
    clock.advance(1)
    import struct
    result = [seconds, struct.unpack("<2sQ", hardware.rtc_memory[:-4])[1], hardware.bites]
    """) == [10, 10, 0]


def test_other_sensors_have_nothing_to_calibrate(esp32: Interpreter) -> None:
    esp32.run("""
    from calibration import calibrate
    calibrate()
    """)
    assert esp32.console == ['Nothing to calibrate: SENSOR is "led". A board with a screw is set by its screw.']


def test_a_spoilt_calibration_is_asked_for_again(esp32: Interpreter) -> None:
    esp32.run("""
    import config
    config.SENSOR = "ldr"
    with open("/calibration.json", "w") as file:
        file.write('{"low": 8')
    import main
    """)
    assert esp32.console == ["the LDR is not calibrated; type calibrate()"]
