"""How each of the two dialects is asked: once who it is, then what it measures, with who it is in every answer."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from workers._kasa_answers import (
    Facts,
    Refused,
    Values,
    is_strip,
    legacy_facts,
    legacy_values,
    smart_facts,
    smart_ids,
    smart_method,
    smart_values,
)
from workers._kasa_network import Link

_WHO: Final[Mapping[str, Any]] = {"system": {"get_sysinfo": {}}}


class Heard:
    """What came of one round of questions: who answered, and what each outlet showed when."""

    def __init__(self, ids: frozenset[str]) -> None:
        self.ids = ids
        self.shown: dict[str, tuple[int, Values]] = {}  # by the id of the outlet, "" for a plug that is no strip
        self.refused: dict[str, Refused] = {}


class Dialect(Protocol):
    """What a plug speaks."""

    async def meet(self, link: Link) -> Facts:
        """Ask who it is and what it can."""

    async def ask(self, link: Link, facts: Facts, outlets: Sequence[str]) -> Heard:
        """Ask what it measures: some outlets of a strip, or `[""]`. Raise `PlugFault`, `Refused` or `NoMeter`."""


class Legacy:
    """Modules and commands, as plugs up to about 2022 have them."""

    async def meet(self, link: Link) -> Facts:
        return legacy_facts(await link.ask(_WHO))

    async def ask(self, link: Link, facts: Facts, outlets: Sequence[str]) -> Heard:
        [module] = facts.methods
        question: dict[str, Any] = {module: {"get_realtime": {}}}
        if not facts.outlets:
            answer = await link.ask({**_WHO, **question})
            heard = Heard(legacy_facts(answer).ids)
            _note(heard, "", functools.partial(legacy_values, answer, module))
            return heard
        # All questions go over one connection, so one look at who is at its other end is enough.
        heard = Heard(legacy_facts(await link.ask(_WHO)).ids)
        for outlet in outlets:
            answer = await link.ask({"context": {"child_ids": [outlet]}, **question})
            _note(heard, outlet, functools.partial(legacy_values, answer, module))
        return heard


class Smart:
    """Methods, as newer plugs have them."""

    async def meet(self, link: Link) -> Facts:
        answer = await link.ask({"component_nego": None, "get_device_info": None})
        if is_strip(answer):
            # One by one: some strips (P300) do not answer when both are asked at once.
            answer |= await link.ask({"get_child_device_component_list": None})
            answer |= await link.ask({"get_child_device_list": None})
        facts = smart_facts(answer)
        if not facts.has_meter:
            return facts
        outlet = next((outlet.id for outlet in facts.outlets if outlet.has_meter), "")
        # Which of the methods there are differs from model to model; from now on one of them is asked.
        return replace(facts, methods=(smart_method(await self._measure(link, facts, outlet)),))

    async def ask(self, link: Link, facts: Facts, outlets: Sequence[str]) -> Heard:
        if not facts.outlets:
            answer = await self._measure(link, facts, "")
            heard = Heard(smart_ids(answer))
            _note(heard, "", functools.partial(smart_values, answer))
            return heard
        heard = Heard(smart_ids(await link.ask({"get_device_info": None})))
        for outlet in outlets:
            answer = await self._measure(link, facts, outlet)
            _note(heard, outlet, functools.partial(smart_values, answer))
        return heard

    async def _measure(self, link: Link, facts: Facts, outlet: str) -> dict[str, Any]:
        if not outlet:
            return await link.ask({"get_device_info": None, **dict.fromkeys(facts.methods)})
        answers: dict[str, Any] = {}
        for method in facts.methods:
            request = {"device_id": outlet, "requestData": {"method": method, "params": None}}
            answers[method] = _unwrapped(await link.ask({"control_child": request}))
        return answers


def dialect(link: Link) -> Dialect:
    return Legacy() if link.connection.is_legacy else Smart()


def _note(heard: Heard, outlet: str, values: Callable[[], Values]) -> None:
    """Note what an outlet has just shown, or why it is not let in."""
    at_ns = time.monotonic_ns()
    try:
        heard.shown[outlet] = at_ns, values()
    except Refused as refusal:
        heard.refused[outlet] = refusal


def _unwrapped(answer: dict[str, Any]) -> Any:
    """Return what an outlet said out of what its strip said; nothing if it refused.

    >>> _unwrapped({"control_child": {"responseData": {"error_code": 0, "result": {"current_power": 5}}}})
    {'current_power': 5}
    >>> _unwrapped({"control_child": {"responseData": {"error_code": -1002}}}), _unwrapped({"control_child": -1})
    (None, None)
    """
    told: Any = answer.get("control_child")
    for key in ("responseData", "result"):
        told = told.get(key) if isinstance(told, dict) else None
    return told if isinstance(told, dict) else None
