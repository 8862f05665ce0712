"""The shim and its simulators, through the real spidev and smbus2: what they promise the tests of the sources."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peers.process import wait_for
from tests.shim import build
from tests.shim.chips import Ina219, Mcp3008, code, level
from tests.shim.simulators import I2c, Simulator, Spi, simulated


def run(simulator: Simulator, script: str) -> str:
    """Run a script under the shim; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env=simulator.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.returncode, done.stderr
    return done.stdout


def eight_levels() -> Spi:
    return Spi(Mcp3008({channel: code(100 + channel) for channel in range(8)}))


def test_spidev_opens_sets_and_transfers_in_every_way() -> None:
    with simulated(spidev0_1=eight_levels()) as simulator:
        printed = run(
            simulator,
            """
            import spidev
            with spidev.SpiDev() as spi:
                spi.open_path("/dev/spidev0.1")
                spi.max_speed_hz, spi.mode = 1_350_000, 3
                print(spi.max_speed_hz, spi.mode, spi.bits_per_word)
                ask = b"\\1\\xb0\\0"
                print(spi.xfer2(ask)[2], spi.xfer(list(ask))[2], spi.xfer3(ask)[2], len(spi.readbytes(3)))
                spi.writebytes(ask)
                try:
                    spi.lsbfirst = True
                except OSError as error:
                    print(error.errno)
            """,
        )
        assert printed.split("\n")[:3] == ["1350000 3 8", "103 103 103 3", "22"]


def test_every_call_of_smbus2_reaches_a_register() -> None:
    with simulated(i2c_1=I2c({0x40: Ina219()})) as simulator:
        printed = run(
            simulator,
            """
            from smbus2 import SMBus, i2c_msg
            with SMBus(1) as bus:
                print(hex(bus.read_word_data(0x40, 0)), bus.read_byte_data(0x40, 0))
                print(bus.read_i2c_block_data(0x40, 0, 2))
                bus.write_word_data(0x40, 5, 0x0010)
                bus.write_i2c_block_data(0x40, 0, [0x3F, 0xFF])
                pointer, answer = i2c_msg.write(0x40, [0]), i2c_msg.read(0x40, 2)
                bus.i2c_rdwr(pointer, answer)
                bus.write_quick(0x40)
                bus.write_byte(0x40, 5)
                print(list(answer), bus.read_byte(0x40), hex(bus.process_call(0x40, 5, 0x0020)))
            """,
        )
        assert printed.splitlines() == ["0x9f39 57", "[57, 159]", "[63, 255] 16 0x20"]


@pytest.mark.parametrize("number", [121, 110, 5, 6])
def test_a_fault_of_a_chip_is_the_errno_of_the_call(number: int) -> None:
    chip = Ina219()
    chip.fail = number
    with simulated(i2c_1=I2c({0x40: chip, 0x41: Ina219()})) as simulator:
        printed = run(
            simulator,
            """
            from smbus2 import SMBus
            with SMBus(1) as bus:
                for address in (0x40, 0x41, 0x42):
                    try:
                        print(hex(bus.read_word_data(address, 0)))
                    except OSError as error:
                        print(error.errno)
            """,
        )
        assert printed.split() == [str(number), "0x9f39", "121"]


def test_a_forked_child_uses_the_open_file_at_the_same_time() -> None:
    with simulated(spidev0_0=eight_levels()) as simulator:
        printed = run(
            simulator,
            """
            import os, spidev
            spi = spidev.SpiDev()
            spi.open(0, 0)
            child = os.fork()
            channel = 1 if child else 2
            answers = {spi.xfer2(bytes([1, 0x80 | channel << 4, 0]))[2] for _ in range(2000)}
            if not child:
                os._exit(answers != {102})
            print(answers, os.waitpid(child, 0)[1])
            """,
        )
        assert printed.strip() == "{101} 0"


def test_a_child_that_is_killed_in_a_transfer_leaves_the_file_usable() -> None:
    with simulated(spidev0_0=eight_levels()) as simulator:
        printed = run(
            simulator,
            """
            import os, signal, spidev, time
            spi = spidev.SpiDev()
            spi.open(0, 0)
            for _ in range(20):
                child = os.fork()
                while not child:
                    spi.xfer2(b"\\1\\x90\\0")
                time.sleep(0.002)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                assert {spi.xfer2(b"\\1\\xa0\\0")[2] for _ in range(20)} == {102}
            print("fine")
            """,
        )
        assert printed.strip() == "fine"


def test_a_duplicate_lives_on_and_the_last_close_closes() -> None:
    with simulated(i2c_1=I2c({0x40: Ina219()})) as simulator:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import os, smbus2\nbus = smbus2.SMBus(1)\nbus.read_word_data(0x40, 0)\ncopy = os.dup(bus.fd)\n"
                "bus.close()\nbus.fd = copy\nprint(hex(bus.read_word_data(0x40, 0)), flush=True)\n"
                "os.close(copy)\nprint('closed', flush=True)\ninput()",
            ],
            env=simulator.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout and process.stdout.readline() == "0x9f39\n"
            assert process.stdout.readline() == "closed\n"
            wait_for(lambda: simulator.open_files == 0, "the simulator to see the close", within_s=5)
            process.communicate("\n")


def test_files_that_are_none_of_ours_are_untouched() -> None:
    with simulated() as simulator:
        printed = run(
            simulator,
            """
            import os, smbus2, spidev, tempfile
            with tempfile.TemporaryFile("w+") as file:
                file.write("text")
                file.seek(0)
                print(file.read(), len(os.urandom(8)), open("/dev/null").read() == "")
            for opened in (lambda: smbus2.SMBus(1), lambda: spidev.SpiDev().open(0, 0)):
                try:
                    opened()
                except FileNotFoundError:
                    print("absent")
            """,
        )
        assert printed.split() == ["text", "8", "True", "absent", "absent"]


@given(
    channel=st.integers(0, 7),
    single=st.booleans(),
    shift=st.integers(0, 20),
    number=st.integers(0, 1023),
    tail=st.integers(0, 40),
)
def test_the_start_bit_may_be_anywhere(channel: int, single: bool, shift: int, number: int, tail: int) -> None:
    chip = Mcp3008({channel: code(number), channel ^ 1: level(0)})
    bits = "0" * shift + "1" + str(int(single)) + f"{channel:03b}" + "0" * (12 + tail)
    bits = bits.ljust((len(bits) + 7) // 8 * 8, "0")
    back = chip.exchange(int(bits, 2).to_bytes(len(bits) // 8, "big"))
    out = f"{int.from_bytes(back, 'big'):0{len(bits)}b}"
    assert out[shift + 6 : shift + 17] == f"0{number:010b}"
    assert (
        out[shift + 17 : shift + 26]
        == f"{number:010b}"[-2::-1].ljust(len(bits), "0")[: len(out[shift + 17 : shift + 26])]
    )


@pytest.mark.parametrize(
    ("number", "reply"),
    [(0, "FFF800"), (1, "FFF801"), (511, "FFF9FF"), (512, "FFFA00"), (682, "FFFAAA"), (1023, "FFFBFF")],
)
def test_the_replies_are_those_of_the_datasheet(number: int, reply: str) -> None:
    assert Mcp3008({3: code(number)}).exchange(b"\x01\xb0\x00").hex().upper() == reply


def test_a_missing_compiler_skips_or_fails_where_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    monkeypatch.delenv("REQUIRE_PEERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="sudo apt install gcc"):
        build.shim_library()
    monkeypatch.setenv("REQUIRE_PEERS", "1")
    with pytest.raises(pytest.fail.Exception, match="sudo apt install gcc"):
        build.shim_library()
