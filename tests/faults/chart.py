"""Lines over time as one SVG: a panel for each measure, a line for each process, a mark where something was broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 960, 200, 60, 110, 30, 50
COLOURS = ("#1b6ca8", "#c2410c", "#15803d", "#7e22ce", "#525252")

Lines = Mapping[str, Sequence[tuple[float, float]]]


def svg(panels: Mapping[str, Lines], marks: Sequence[float], seconds: float) -> str:
    """The picture; `marks` are seconds since the start, and so are the first numbers of each point of a line."""
    height = TOP + len(panels) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, (title, lines) in enumerate(panels.items()):
        parts += _panel(TOP + number * (PANEL + GAP), title, lines, marks, seconds)
    return "\n".join((*parts, "</svg>", ""))


def _panel(top: float, title: str, lines: Lines, marks: Sequence[float], seconds: float) -> list[str]:
    most = max((value for points in lines.values() for _, value in points), default=0) * 1.05 or 1
    across = (WIDTH - LEFT - RIGHT) / seconds

    def x(at: float) -> str:
        return f"{LEFT + at * across:.1f}"

    def y(value: float) -> str:
        return f"{top + PANEL - value / most * PANEL:.1f}"

    base = top + PANEL
    parts = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{escape(title)}</text>']
    parts += [f'<path d="M{x(at)} {top}V{base}" stroke="#e5e5e5"/>' for at in marks]
    for value in (0, most / 2, most):
        parts.append(f'<path d="M{LEFT} {y(value)}H{WIDTH - RIGHT}" stroke="#a3a3a3" stroke-dasharray="2 4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value)}" text-anchor="end">{value:.0f}</text>')
    for minute in range(int(seconds // 60) + 1):
        if minute % max(1, int(seconds // 600)) == 0:
            parts.append(f'<text x="{x(minute * 60)}" y="{base + 16}" text-anchor="middle">{minute} min</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        drawn = " ".join(f"{x(at)},{y(value)}" for at, value in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{top + 12 + 16 * number}" fill="{colour}">{escape(name)}</text>'
        )
    return parts
