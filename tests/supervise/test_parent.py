"""The parent with real processes: what it does when they end, hang, change, or when it is killed itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervise.states import State
from tests.peers.process import wait_for

ROOT = Path(__file__).parents[2]


class RunningHouse:
    def __init__(self, data_dir: Path, settings: dict[str, object], environment: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(exist_ok=True)
        self.configure(settings)
        self.log_path = data_dir / "log"
        self.environment = {**os.environ, **(environment or {})}
        self.start()

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.supervise.scenario", str(self.data_dir)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    def configure(self, settings: dict[str, object]) -> None:
        new = self.data_dir / "house.new"
        new.write_text(json.dumps(settings))
        new.rename(self.data_dir / "house.json")

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def events(self, *pattern: str) -> list[list[str]]:
        """Every event whose words begin with `pattern`."""
        with contextlib.suppress(FileNotFoundError):
            lines = [line.split(" ") for line in (self.data_dir / "events").read_text().splitlines()]
            return [words for words in lines if words[: len(pattern)] == list(pattern)]
        return []

    def pid(self, name: str, start: int = -1) -> int:
        wait_for(lambda: len(self.events(name, "started")) > (start if start >= 0 else 0), f"{name} to start")
        return int(self.events(name, "started")[start][2])

    def pid_other_than(self, name: str, pid: int, within_s: float = 10.0) -> int:
        wait_for(lambda: self.pid(name) != pid, f"a successor of {name}", within_s)
        return self.pid(name)

    def state(self, name: str) -> State:
        return State(json.loads((self.data_dir / "board.json").read_text())[name]["state"])

    def running(self, *names: str) -> None:
        """Wait until the board shows `names` as running."""

        def all_run() -> bool:
            with contextlib.suppress(FileNotFoundError, KeyError):
                return all(self.state(name) is State.RUNNING for name in names)
            return False

        wait_for(all_run, f"{names} to run")

    def stop(self, within_s: float = 15.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)


HouseMaker = Callable[..., RunningHouse]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[HouseMaker]:
    made: list[RunningHouse] = []

    def maker(environment: dict[str, str] | None = None, **settings: object) -> RunningHouse:
        settings = {"writer": "", "api": "", **settings}
        made.append(RunningHouse(tmp_path / "house", settings, environment))
        return made[-1]

    yield maker
    for house in made:
        house.process.kill()
        house.process.wait()
        wait_for(lambda house=house: not any(alive(pid) for pid in pids(house)), "all children to be gone", 5)


def pids(house: RunningHouse) -> list[int]:
    return [int(words[2]) for words in house.events() if words[1] == "started"]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_process_is_replaced_at_once(make: HouseMaker) -> None:
    house = make(meter="")
    house.running("meter", "writer", "api")
    for name in ("meter", "writer", "api"):
        before = house.pid(name)
        os.kill(before, signal.SIGKILL)
        killed_at_s = time.monotonic()
        house.pid_other_than(name, before)
        assert time.monotonic() - killed_at_s < 1.0
    assert "meter ended killed by SIGKILL; it starts again at once" in house.log


def test_the_parent_has_one_thread_whatever_happens(make: HouseMaker) -> None:
    house = make(meter="", other="exits 1")
    house.running("meter")
    os.kill(house.pid("meter"), signal.SIGKILL)
    house.pid_other_than("meter", house.pid("meter"))
    house.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "reloaded" in house.log, "the reload")
    status = Path(f"/proc/{house.process.pid}/status").read_text()
    assert re.search(r"^Threads:\s+1$", status, re.MULTILINE)


def test_a_hung_process_prints_its_stack_and_is_replaced(make: HouseMaker) -> None:
    house = make(meter="", supervise={"hung_after_s": 0.5})
    house.running("meter")
    before = house.pid("meter")
    os.kill(before, signal.SIGSTOP)
    house.pid_other_than("meter", before)
    assert not alive(before)
    assert "meter has hung" in house.log


def test_a_process_that_beats_no_more_leaves_its_stack_in_the_log(make: HouseMaker) -> None:
    house = make(one="hangs", two="hangs", supervise={"hung_after_s": 0.5})
    wait_for(lambda: "Fatal Python error: Aborted" in house.log and "in be" in house.log, "the stack")


def test_a_process_that_keeps_failing_waits_longer_and_shows_as_degraded(make: HouseMaker) -> None:
    house = make(meter="exits 3", supervise={"longest_pause_s": 0.2})
    wait_for(lambda: len(house.events("meter", "started")) >= 6, "six starts")
    wait_for(lambda: house.state("meter") is State.DEGRADED, "the state")
    assert "meter ended with status 3" in house.log


def test_a_process_that_cannot_work_with_its_configuration_is_not_tried_in_a_loop(make: HouseMaker) -> None:
    house = make(meter="exits 78")
    wait_for(lambda: "it cannot work with this configuration; it starts again in 60 s" in house.log, "the log line")
    time.sleep(1.0)
    assert len(house.events("meter", "started")) == 1
    house.configure({"writer": "", "api": "", "meter": ""})
    house.process.send_signal(signal.SIGHUP)
    house.running("meter")


def test_sources_stop_before_the_writer(make: HouseMaker) -> None:
    house = make(meter="slow-to-leave", other="")
    house.running("meter", "other", "writer", "api")
    assert house.stop() == 0
    order = [words[0] for words in house.events() if words[1] == "stopped"]
    assert order.index("writer") > order.index("meter") > order.index("other")
    assert order[-1] in ("writer", "api")


def test_whoever_tells_the_whole_group_to_stop_gets_a_writer_that_stays_until_all_is_taken(make: HouseMaker) -> None:
    house = make(meter="slow-to-leave", supervise={"stop_within_s": 60.0})
    house.running("meter", "writer", "api")
    first = house.pid("writer")
    house.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping (SIGTERM)" in house.log, "the parent to stop")
    for name in ("writer", "api"):
        os.kill(house.pid(name), signal.SIGTERM)
    assert house.process.wait(30) == 0
    assert house.pid("writer") != first, "what the source says last is still taken"
    assert len(house.events("api", "started")) == 1
    assert "WARNING" not in house.log


def test_a_process_deaf_to_sigterm_is_killed_in_time(make: HouseMaker) -> None:
    house = make(meter="deaf", supervise={"stop_within_s": 1.0})
    house.running("meter")
    asked_at_s = time.monotonic()
    assert house.stop() == 0
    assert time.monotonic() - asked_at_s < 3.0
    assert house.events("writer", "stopped")


def test_a_second_ctrl_c_stops_at_once(make: HouseMaker) -> None:
    house = make(meter="deaf", writer="deaf", supervise={"stop_within_s": 60.0})
    house.running("meter", "writer")
    house.process.send_signal(signal.SIGINT)
    wait_for(lambda: "stopping (SIGINT)" in house.log, "the first")
    house.process.send_signal(signal.SIGINT)
    assert house.process.wait(5) == 0


def test_nobody_survives_the_death_of_the_parent(make: HouseMaker) -> None:
    house = make(meter="", deaf="deaf")
    house.running("meter", "deaf", "writer", "api")
    house.process.kill()
    house.process.wait()
    wait_for(lambda: not any(alive(pid) for pid in pids(house)), "everyone to be gone", 2)
    assert house.events("writer", "stopped"), "the writer is asked to leave, so that it can empty the channels"


def test_a_new_parent_waits_until_the_old_writer_has_let_go(make: HouseMaker) -> None:
    house = make(writer="slow-to-leave")
    house.running("writer")
    old = house.pid("writer")
    house.process.kill()
    house.process.wait()
    house.start()
    new = house.pid_other_than("writer", old)
    assert house.events().index(["writer", "stopped", str(old)]) < next(
        number for number, words in enumerate(house.events()) if words[:3] == ["writer", "started", str(new)]
    )


def test_a_second_parent_in_the_same_place_is_refused_in_words(make: HouseMaker) -> None:
    house = make()
    house.running("writer")
    second = subprocess.run(
        [sys.executable, "-m", "tests.supervise.scenario", str(house.data_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert f"another wattherd (process {house.process.pid}) works in" in second.stderr
    assert "Traceback" not in second.stderr


def test_incarnations_never_repeat(make: HouseMaker) -> None:
    house = make(meter="", supervise={"longest_pause_s": 0.1})
    for _ in range(3):
        house.running("meter", "writer")
        before = house.pid("meter")
        os.kill(before, signal.SIGKILL)
        house.pid_other_than("meter", before)
        house.process.kill()
        house.process.wait()
        (house.data_dir / "board.json").unlink()
        house.start()
    house.running("meter", "writer")
    numbers = [int(words[3]) for words in house.events() if words[1] == "started"]
    assert len(numbers) == len(set(numbers))
    for name in ("meter", "writer", "api"):
        of_one = [int(words[3]) for words in house.events(name, "started")]
        assert of_one == sorted(of_one)


def test_what_a_worker_deposits_outlives_it(make: HouseMaker) -> None:
    house = make(meter="deposits")
    house.running("meter")
    before = house.pid("meter")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: house.events("meter", "kept"), "the successor to find it")
    assert house.events("meter", "kept") == [["meter", "kept", "pipe", "left", "behind"]]


def test_what_a_worker_deposits_in_its_last_moment_is_there_for_its_successor(make: HouseMaker) -> None:
    house = make(meter="deposits-and-dies", supervise={"longest_pause_s": 0.1})
    wait_for(lambda: house.events("meter", "kept"), "the successor to find it")
    assert len(house.events("meter", "started")) == 2


def test_a_child_has_only_the_descriptors_that_are_its_own(make: HouseMaker) -> None:
    house = make(meter="", other="")
    house.running("meter", "other", "writer", "api")
    own = {words[0]: int(words[4]) for words in house.events() if words[1] == "started"}
    standard = 3
    assert own == {
        "meter": standard + 2,  # its end of the report channel, its way to the parent
        "other": standard + 2,
        "writer": standard + 4,  # two report channels, its end of the tap, the lock
        "api": standard + 1,  # its end of the tap
    }


def test_a_reload_leaves_alone_what_did_not_change(make: HouseMaker) -> None:
    house = make(same="", changed="a", gone="")
    house.running("same", "changed", "gone", "writer")
    same, changed, gone, writer = (house.pid(name) for name in ("same", "changed", "gone", "writer"))
    house.configure({"writer": "", "api": "", "same": "", "changed": "b", "new": ""})
    house.process.send_signal(signal.SIGHUP)
    house.running("new")
    house.pid_other_than("changed", changed)
    house.pid_other_than("writer", writer)
    wait_for(lambda: not alive(gone), "the removed source to end")
    house.running("same", "changed", "new", "writer")
    assert house.pid("same") == same
    assert alive(same)
    assert "gone" not in json.loads((house.data_dir / "board.json").read_text())
    assert "ended" not in house.log, "what was asked to end did not fail"


def test_a_bad_configuration_changes_nothing(make: HouseMaker) -> None:
    house = make(meter="")
    house.running("meter", "writer", "api")
    before = pids(house)
    (house.data_dir / "house.json").write_text("{ broken")
    house.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "nothing was changed" in house.log, "the refusal")
    time.sleep(0.3)
    assert pids(house) == before
    assert all(alive(pid) for pid in before)


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(10)

    def next(self, beginning: str) -> tuple[str, list[int]]:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 4)
            if message.decode().startswith(beginning):
                return message.decode(), list(descriptors)


def test_systemd_is_told_what_it_wants_to_know(make: HouseMaker, tmp_path: Path) -> None:
    with contextlib.closing(Systemd(tmp_path / "notify").socket) as listening:
        systemd = Systemd.__new__(Systemd)
        systemd.socket, systemd.path = listening, tmp_path / "notify"
        house = make({"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "400000"}, meter="deposits")
        message, descriptors = systemd.next("FDSTORE=1")
        assert "FDNAME=meter.pipe" in message
        assert len(descriptors) == 1
        os.close(descriptors[0])
        systemd.next("READY=1")
        for _ in range(3):
            systemd.next("WATCHDOG=1")
        house.process.send_signal(signal.SIGTERM)
        systemd.next("STOPPING=1")
        assert house.process.wait(10) == 0


def test_what_systemd_kept_comes_back_to_the_worker(make: HouseMaker) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"kept by systemd")
    house = make(meter="")
    house.stop()
    # LISTEN_PID must be the pid of the program itself, so a shell puts it there and becomes the program.
    command = (
        f"export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=meter.pipe; exec 3<&{reading}; "
        f'exec "{sys.executable}" -m tests.supervise.scenario "{house.data_dir}"'
    )
    house.process = subprocess.Popen(["bash", "-c", command], cwd=ROOT, pass_fds=[reading])
    wait_for(lambda: house.events("meter", "kept"), "the descriptor to come back")
    assert house.events("meter", "kept") == [["meter", "kept", "pipe", "kept", "by", "systemd"]]
    for descriptor in (reading, writing):
        os.close(descriptor)
