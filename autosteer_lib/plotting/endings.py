"""How answers end under each variant: what Table 3 of SafeSteer counts, and what it does not.

A panel a set, a bar a variant, stacked to 100 %: an attack is carried out, refused, or neither (off topic); a harmless
request is answered rightly, refused, or neither. The first and the last stand at the ends, so a bar is read from both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from autosteer_lib.plotting.style import (
    VERDICT_COLOURS,
    WIDTH,
    one_row_each,
    require,
    small_multiples,
    styled,
    tint,
)

LABELS = {
    "unsafe": "carried out",
    "refused": "refused",
    "off topic": "off topic",
    "safe": "answered rightly",
}
STACKED = ("unsafe", "safe", "off topic", "refused")  # from the left, in bars and legend
COLUMNS = 4
ROW_HEIGHT = 0.21  # inches a bar: 9 pt names never touch
LETTER, NUMBER = 0.07, 0.18  # inches: a letter of a name; two digits with a hair of space around them


@styled
def endings_by_variant(frame: pd.DataFrame, *, over: str = "variant") -> Figure:
    """Draw sets × variants.

    Args:
        frame: columns <over>, set, ending ("unsafe", "refused", "off topic", "safe"), rate (of [0, 1]); order of
            variants and sets kept.
        over: the column that tells variants apart.
    """
    require(frame, [over, "set", "ending", "rate"], figure="endings_by_variant")
    unknown = sorted(set(frame["ending"]) - set(LABELS))
    if unknown:
        raise ValueError(f"ending {unknown} is not known; allowed: {list(LABELS)}")
    one_row_each(frame, [over, "set", "ending"], figure="endings_by_variant")
    variants, sets = list(dict.fromkeys(frame[over])), list(dict.fromkeys(frame["set"]))
    # "attacks, image"; "attacks, mm_safetybench/typo" is longer than its panel
    titles = [name.replace(", ", ",\n").replace("/", "\n/") for name in sets]
    lines = max(2, *(title.count("\n") + 1 for title in titles))
    # Long names leave narrow panels, whose short bars have no room for a number.
    room = WIDTH - LETTER * max(len(str(name)) for name in variants)
    least = NUMBER / (room / min(COLUMNS, len(sets)) - 0.3)
    row = 0.35 + 0.15 * lines + ROW_HEIGHT * len(variants)
    figure, panels = small_multiples(len(sets), columns=COLUMNS, head=0.4, row=row, sharex=True, sharey=True)
    for panel, name, title in zip(panels, sets, titles, strict=True):
        _bars(panel.axes, frame[frame["set"] == name], variants, over=over, least=least)
        panel.axes.set_title(title)
        panel.axes.tick_params(labelbottom=panel.lowest)
        panel.axes.set_xlabel("answers (%)" if panel.lowest else "")
    present = [ending for ending in STACKED if ending in set(frame["ending"])]
    figure.legend(
        handles=[Patch(color=_colour(ending), label=LABELS[ending]) for ending in present],
        loc="outside upper left", ncols=len(present), handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
    return figure


def _bars(axes: Axes, table: pd.DataFrame, variants: Sequence[str], *, over: str, least: float) -> None:
    for row, variant in enumerate(variants):
        here = table[table[over] == variant].set_index("ending")["rate"]
        left = 0.0
        for ending in STACKED:
            width = float(here.get(ending, 0.0))
            axes.barh(row, width, left=left, height=0.74, color=_colour(ending), linewidth=0)
            if width >= least:  # narrower than its number otherwise
                axes.text(
                    left + width / 2, row, f"{100 * width:.0f}", ha="center", va="center",
                    color="black" if ending == "off topic" else "white",
                )  # fmt: skip
            left += width
    axes.set_yticks(range(len(variants)), variants)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100"])
    first, *_, last = axes.xaxis.get_major_ticks()  # inside the panel: the next one's 0 would touch 100
    first.label1.set_horizontalalignment("left")
    last.label1.set_horizontalalignment("right")


def _colour(ending: str) -> str | tuple[float, float, float]:
    # What is neither is no outcome of its own: pale, so that the two that matter stand out.
    return tint(VERDICT_COLOURS[ending], strength=0.35) if ending == "off topic" else VERDICT_COLOURS[ending]
