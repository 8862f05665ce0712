"""SIGHUP after SIGHUP under load, with good and bad configurations: sources come and go, settings change, mistakes."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.house import House
from tests.faults.lab.bench import Bench
from tests.faults.lab.rig import Rig, rig
from tests.peers.process import free_ports, wait_for

PROMISE = "a good configuration is taken over whole, a bad one changes nothing; neither loses or doubles a reading"
_MISTAKES = (
    "[sources.meter-0\n",
    "[sources.more]\nkind = 'nonsense'\n",
    "[sources.more]\nkind = 'esp32_http'\nport = 'five thousand'\n",
    "[outputs.csv2]\nkind = 'csv'\nprofile = 'untidy'\n",
    "[writer2]\ncommit_interval_s = 1\n",
    "[tariffs.main]\ncurrency = 'pounds'\n",
    "\0",
)


def run(bench: Bench) -> None:
    with rig(bench, pause_s=0.03) as made:
        house = made.house
        assert house.process
        text, pid = house.config.read_text(), house.process.pid
        spare = free_ports(1)[0]
        made.oracle.start()
        time.sleep(0.5)
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        reloads = bench.times(200, least=8)
        for number in range(reloads):
            change = _CHANGES[number % len(_CHANGES)]
            _reload(made, change(text, bench.chance, spare), good=change is not _a_mistake)
            bench.more(f"reloads with {change.__name__.strip('_').replace('_', ' ')}")
        _reload(made, text, good=True)
        made.settle(120)
        after = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        bench.figure("descriptors of the parent before and after", f"{descriptors} and {after}")
        bench.expect(after <= descriptors, f"the parent had {descriptors} descriptors and has {after}")
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        bench.expect(threads == 1, f"the parent has {threads} threads")
        bench.expect("Traceback" not in house.log, f"a traceback is in {house.log_path}")
        made.judge()


def _reload(made: Rig, text: str, *, good: bool) -> None:
    house = made.house
    assert house.process
    words = "INFO parent: reloaded" if good else "reload: nothing was changed"
    told = house.log.count(words)
    before = None if good else _at_rest(house, made.bench.busy)
    house.write(text)
    house.process.send_signal(signal.SIGHUP)
    wait_for(lambda: house.log.count(words) > told, f"the parent to say: {words}; log: {house.log_path}")
    if not good:
        now = _processes(house)
        made.bench.expect(before == now, f"a mistake changed {before} to {now}")


def _processes(house: House) -> dict[str, int | None]:
    return {name: house.pid(name) for name in ("writer", "api", *(f"source.{source}" for source in house.sources))}


def _at_rest(house: House, busy: float) -> dict[str, int | None]:
    """Wait until the reload before is through: nobody is being replaced any more."""

    def unchanged() -> dict[str, int | None] | None:
        first = _processes(house)
        time.sleep(0.5 * busy)
        return first if first == _processes(house) and first["writer"] and first["api"] else None

    return wait_for(unchanged, "the reload before to be through", 120) or {}


# ---- changes


def _a_source_less(text: str, chance: random.Random, _spare: int) -> str:
    """Its sender goes on trying, and what its channel still had is delivered."""
    name = f"meter-{chance.randrange(10)}"
    return re.sub(rf"\[sources\.{name}\]\n.*?max_power_w = 1e6\n", "", text, count=1, flags=re.DOTALL)


def _all_sources(text: str, _chance: random.Random, _spare: int) -> str:
    return text


def _a_source_more(text: str, _chance: random.Random, spare: int) -> str:
    return f'{text}\n[sources.more]\nkind = "esp32_http"\nport = {spare}\n[[sources.more.devices]]\nname = "more"\n'


def _an_output_more(text: str, _chance: random.Random, spare: int) -> str:
    return f'{text}\n[outputs.more]\nkind = "graphite"\nport = {spare}\n'


def _another_interval(text: str, chance: random.Random, _spare: int) -> str:
    return text.replace("commit_interval_s = 0.2", f"commit_interval_s = {chance.uniform(0.05, 1):.2f}")


def _another_device(text: str, chance: random.Random, _spare: int) -> str:
    return text.replace("max_power_w = 1e6", f"max_power_w = {chance.randrange(10**6, 10**7)}")


def _a_mistake(text: str, chance: random.Random, _spare: int) -> str:
    return text + chance.choice(_MISTAKES)


_CHANGES: tuple[Callable[[str, random.Random, int], str], ...] = (
    _a_source_less,
    _all_sources,
    _a_mistake,
    _a_source_more,
    _another_interval,
    _an_output_more,
    _a_mistake,
    _another_device,
)
