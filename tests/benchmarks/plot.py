"""A chart of lines over logarithmic axes, as SVG."""

from __future__ import annotations

import math
from typing import NamedTuple

_COLOURS = ("#d9480f", "#1c7ed6", "#2b8a3e", "#862e9c", "#5c5f66", "#0b7285", "#a61e4d")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 360, 260, 56, 44, 40


class Line(NamedTuple):
    """A named line of points."""

    name: str
    points: list[tuple[int, float]]


def drawn(title: str, panels: dict[str, list[Line]]) -> str:
    """The chart: one panel beside the other, all on one scale."""
    values = [value for lines in panels.values() for line in lines for _, value in line.points]
    low, high = 10 ** math.floor(math.log10(min(values))), max(values) * 1.1
    width = len(panels) * (_WIDTH + _LEFT) + 90
    total = _HEIGHT + _TOP + _BOTTOM
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{total}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{title}</text>',
    ]
    for number, (name, lines) in enumerate(panels.items()):
        out += _panel(number * (_WIDTH + _LEFT) + _LEFT, f"{name} in flight", lines, low, high)
    return "\n".join([*out, "</svg>", ""])


def _panel(left: int, title: str, lines: list[Line], low: float, high: float) -> list[str]:
    most = max(n for line in lines for n, _ in line.points)

    def x(n: float) -> float:
        return left + (_WIDTH - 40) * math.log(n) / math.log(most)

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (1 - math.log(value / low) / math.log(high / low))

    out: list[str] = []
    for value in _ticks(low, high):
        out.append(
            f'<line x1="{left}" x2="{left + _WIDTH - 40}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            'stroke="#dee2e6"/>'
            f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>'
        )
    bottom = _TOP + _HEIGHT
    for n, _ in lines[0].points:
        out.append(f'<text x="{x(n):.1f}" y="{bottom + 16}" text-anchor="middle">{n:,}</text>')
    out.append(f'<text x="{left}" y="{bottom + 34}">{title}</text>')
    labels: list[float] = []
    for line, colour in sorted(
        zip(lines, _COLOURS, strict=False), key=lambda p: p[0].points[-1][1]
    ):
        points = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value in line.points)
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = y(line.points[-1][1]) + 4
        if labels and labels[-1] - at < 13:
            at = labels[-1] - 13  # names do not overlap
        labels.append(at)
        out.append(f'<text x="{x(most) + 6:.1f}" y="{at:.1f}" fill="{colour}">{line.name}</text>')
    return out


def _ticks(low: float, high: float) -> list[float]:
    steps = [low * 10**power * m for power in range(6) for m in (1, 2, 5)]
    return [step for step in steps if step <= high]
