"""Reading figures: what of them a reader sees, where, and in which colour."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text


def png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def drawn_texts(figure: Figure) -> list[Text]:
    """Texts that a reader sees: a tick outside its axis' limits, or of a hidden panel, is not drawn."""
    figure.draw_without_rendering()
    hidden: set[Text] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = {id(tick) for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high}
            hidden |= {t.label1 for t in axis.majorTicks if id(t) not in shown} | {
                t.label2 for t in axis.majorTicks
            }
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
        and (text.axes is None or text.axes.get_visible())
    ]  # fmt: skip


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata()).tolist()


def ys(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()


def coloured_lines(axes: Axes, colour: str) -> list[Line2D]:
    return [line for line in axes.lines if to_hex(line.get_color()) == colour.lower()]


def data_lines(axes: Axes, colour: str) -> list[Line2D]:
    """Lines of data in this colour, without the rules that span the panel."""
    return [line for line in coloured_lines(axes, colour) if len(xs(line)) > 2]


def bars_of(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def segments_of(axes: Axes, colour: str) -> list[np.ndarray]:
    return [
        segment
        for lines in axes.collections
        if isinstance(lines, LineCollection) and to_hex(np.asarray(lines.get_colors())[0]) == to_hex(colour)
        for segment in lines.get_segments()
    ]
