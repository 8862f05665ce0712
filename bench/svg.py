"""Draws how costs grow: one small diagram each, both axes logarithmic, dots with the line that fits them best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 340, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 40, 34
_STYLE = (
    "text{font:11px sans-serif;fill:#333}.t{font-weight:bold}.g{stroke:#ddd}.f{stroke:#c60;fill:none}circle{fill:#046}"
)


class Curve(NamedTuple):
    """A cost at several sizes."""

    what: str
    unit: str
    costs: Mapping[int, float]


def picture(curves: Sequence[Curve]) -> str:
    """Return an SVG of all curves, two beside each other.

    >>> picture([Curve("CPU", "ms", {1: 2.0, 10: 20.0})]).count("<circle")
    2
    """
    rows = (len(curves) + 1) // 2
    parts = "".join(
        f'<g transform="translate({number % 2 * WIDTH},{number // 2 * HEIGHT})">{_one(curve)}</g>\n'
        for number, curve in enumerate(curves)
    )
    size = f'viewBox="0 0 {2 * WIDTH} {rows * HEIGHT}" width="{2 * WIDTH}" height="{rows * HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>\n{parts}</svg>\n'
    )


def _one(curve: Curve) -> str:
    sizes = [math.log10(size) for size in curve.costs]
    costs = [math.log10(cost) for cost in curve.costs.values()]
    fit = statistics.linear_regression(sizes, costs)
    low, high = math.floor(min(costs)), math.floor(max(costs)) + 1

    def x(size: float) -> float:
        return _LEFT + (size - sizes[0]) / (sizes[-1] - sizes[0]) * (WIDTH - _LEFT - _RIGHT)

    def y(cost: float) -> float:
        return HEIGHT - _BOTTOM - (cost - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text class="t" x="{_LEFT}" y="16">{escape(curve.what)}</text>']
    parts.append(f'<text x="{_LEFT}" y="31">{escape(curve.unit)}, grows with the power {fit.slope:.2f}</text>')
    for power in range(low, high + 1):
        parts.append(f'<path class="g" d="M{_LEFT} {y(power):.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(power) + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for size, at in zip(curve.costs, sizes, strict=True):
        parts.append(f'<text x="{x(at):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{size}</text>')
    ends = ((x(at), y(fit.intercept + fit.slope * at)) for at in (sizes[0], sizes[-1]))
    parts.append(f'<path class="f" d="M{"L".join(f"{left:.1f} {top:.1f}" for left, top in ends)}"/>')
    parts += [f'<circle cx="{x(at):.1f}" cy="{y(cost):.1f}" r="3"/>' for at, cost in zip(sizes, costs, strict=True)]
    return "".join(parts)
