"""From edges to pulses, and from pulses to watts: pure arithmetic, and the tally of one channel.

Energy is counted in whole pulses, never by integrating power. What the kernel or a killed reader lost between two edges
shows as a gap in the numbers of the edges and is counted, never hidden.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec import Struct

from workers._gpio import Edge

_MODULUS: Final = 2**32  # of `line_seqno`
_JOULES_PER_WH: Final = 3600.0
_JOULES_PER_KWH: Final = 3.6e6
# EN 62053-31: an S0 output conducts for at least 30 ms and pauses for at least 30 ms.
S0_MOST_HZ: Final = 1 / 0.060


def power_w(wh_per_pulse: float, interval_s: float, since_s: float, timeout_s: float) -> float:
    """Return the power that one interval between pulses tells, `since_s` after the last pulse.

    As long as no further pulse comes, the power can only be less than one pulse in the time since; after `timeout_s`
    it is called zero.

    >>> [round(power_w(1.0, 2.0, since_s, timeout_s=300)) for since_s in (0, 1, 2, 5, 10, 60, 300, 301)]
    [1800, 1800, 1800, 720, 360, 60, 12, 0]
    """
    if since_s > timeout_s:
        return 0.0
    return _JOULES_PER_WH * wh_per_pulse / max(interval_s, since_s)


def interval_s(imp_per_kwh: float, ct_ratio: float, power_w: float) -> float:
    """Return the time between two pulses at a power.

    >>> [interval_s(1000, 1, 100), interval_s(800, 1, 10_000), round(interval_s(3200, 1, 10_000), 4)]
    [36.0, 0.45, 0.1125]
    >>> round(1 / interval_s(3200, 1, 69_000), 1)  # Hz, three phases of 100 A
    61.3
    """
    return _JOULES_PER_KWH * ct_ratio / (imp_per_kwh * power_w)


def s0_most_w(imp_per_kwh: float, ct_ratio: float) -> float:
    """Return the power above which an S0 output cannot tell its pulses apart.

    >>> [round(s0_most_w(imp_per_kwh, 1)) for imp_per_kwh in (800, 1000, 3200)]
    [75000, 60000, 18750]
    """
    return _JOULES_PER_KWH * ct_ratio / imp_per_kwh * S0_MOST_HZ


class Rules(Struct, frozen=True):
    """What is a pulse on one channel."""

    lead: int  # the edge that begins one
    both: bool  # whether the edge that ends it comes too
    min_pulse_ns: int = 0  # shorter ones are bounces; only known with both edges
    min_interval_ns: int = 0  # from one to the next; nearer ones are bounces
    timeout_ns: int = 300 * 10**9  # after so long a pulse tells nothing of the power before it


class Found(NamedTuple):
    """What one edge told."""

    pulse_ns: int = 0  # when the pulse began that is complete now, 0 if none is
    bounces: int = 0
    lost_edges: int = 0
    hidden: int = 0  # pulses among the lost edges: counted, and nobody knows when they were


_NOTHING: Final = Found()


class Tally(Struct):
    """One channel: its count, and how far its edges are understood. It is all that a successor needs to go on."""

    boot: str  # changes whenever the count starts again
    wh_per_pulse: float  # what the count is worth: another worth, another count
    pulses: int = 0
    since_ns: int = 0  # when the lines were requested
    number: int = 0  # of the last edge
    seen_ns: int = 0  # when that edge was, or when the lines were requested
    active: bool = False  # at the level that a pulse has
    lead_ns: int = 0  # since when; 0 if nobody saw it begin
    pulse_ns: int = 0  # when the last pulse began; 0 if there was none
    interval_ns: int = 0  # from the pulse before to that one; 0 if that one only armed
    hidden: int = 0  # pulses after that one that were lost and counted

    def start_again(self, now_ns: int, *, active: bool) -> None:
        """Begin with a new request: its numbers start at one, and what happened before it nobody knows."""
        self.since_ns = self.seen_ns = now_ns
        self.active = active
        self.number = self.lead_ns = self.pulse_ns = self.interval_ns = self.hidden = 0

    def take(self, edge: Edge, rules: Rules) -> Found:
        """Book one edge."""
        lost = (edge.number - self.number - 1) % _MODULUS
        if lost >= _MODULUS // 2:
            return _NOTHING  # it is older than the last one: it is booked
        ends = edge.kind != rules.lead
        hidden, bounces = self._hidden_by(lost, edge, rules, ends=ends) if lost else (0, 0)
        self.pulses += hidden
        self.hidden += hidden
        self.number, self.seen_ns = edge.number, edge.at_ns
        pulse_ns = 0
        if not rules.both:
            pulse_ns = 0 if ends else edge.at_ns
        elif not ends:
            # A second beginning means that an end was too near to it for the kernel to see both: the first one counts.
            if lost or not self.lead_ns:
                self.lead_ns = edge.at_ns
            self.active = True
        else:
            if hidden:
                self._place(edge.at_ns, rules)  # the last one of them ends here
            elif not lost and self.active and self.lead_ns and edge.at_ns - self.lead_ns >= rules.min_pulse_ns:
                pulse_ns = self.lead_ns
            elif not lost and not (self.active and not self.lead_ns):
                bounces = 1
            self.active, self.lead_ns = False, 0
        if pulse_ns and self._is_too_near(pulse_ns, rules):
            pulse_ns, bounces = 0, bounces + 1
        if pulse_ns:
            self.pulses += 1
            self.hidden += 1
            self._place(pulse_ns, rules)
        return Found(pulse_ns, bounces, lost, hidden)

    def power_w(self, now_ns: int, rules: Rules) -> float | None:
        """Return the power, None while nobody can know it: the first pulse after a start or a pause only arms."""
        if not self.interval_ns:
            silent_ns = now_ns - (self.pulse_ns or self.since_ns)
            return 0.0 if silent_ns > rules.timeout_ns else None
        since_s = (now_ns - self.pulse_ns) / 1e9
        return power_w(self.wh_per_pulse, self.interval_ns / 1e9, since_s, rules.timeout_ns / 1e9)

    def _hidden_by(self, lost: int, edge: Edge, rules: Rules, *, ends: bool) -> tuple[int, int]:
        """Return how many pulses ended among lost edges, and how many more there would be than can have been.

        Edges alternate, so what was last seen says which half of the lost ones were ends; an end that is seen while
        its beginning was lost makes one more.
        """
        hidden = (lost + self.active) // 2 + ends if rules.both else lost
        if not rules.min_interval_ns:
            return hidden, 0
        room = max(0, edge.at_ns - self.seen_ns) // rules.min_interval_ns + 1
        return min(hidden, room), max(0, hidden - room)

    def _is_too_near(self, pulse_ns: int, rules: Rules) -> bool:
        return bool(self.pulse_ns) and not self.hidden and pulse_ns - self.pulse_ns < rules.min_interval_ns

    def _place(self, pulse_ns: int, rules: Rules) -> None:
        """Let the last of the `hidden` pulses have been at `pulse_ns`, the others evenly before it."""
        interval_ns = (pulse_ns - self.pulse_ns) // self.hidden if self.pulse_ns else 0
        self.interval_ns = interval_ns if 0 < interval_ns <= rules.timeout_ns else 0
        self.pulse_ns, self.hidden = pulse_ns, 0
