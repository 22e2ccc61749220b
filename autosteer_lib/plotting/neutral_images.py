"""How many neutral pictures re-centring needs: MARS' Table 9 as a figure.

Three lines over the number of pictures whose mean state is the centre; 0 is no re-centring. The model without any
defence is a dotted line. What the paper prints is hollow and dashed, in a panel of its own.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autosteer_lib.plotting.style import (
    MEASURE_COLOURS,
    MEASURE_MARKERS,
    line_with_band,
    measures_in_order,
    one_row_each,
    percent_axis,
    require,
    small_multiples,
    styled,
    surface_panels,
)


@styled
def refusal_by_neutral_images(
    frame: pd.DataFrame,
    *,
    reported: pd.DataFrame | None = None,
    title: str = "measured here",
    reported_title: str = "reported by the paper",
) -> Figure:
    """Draw refusals and utility over the number of neutral pictures.

    Args:
        frame: columns neutral_images (a row without a number is the undefended model), measure ("harmful refused",
            "harmless refused", "utility"), rate, low, high (of [0, 1]); optionally surface: then a panel each.
        reported: columns neutral_images, measure, rate, from a paper.
        title: says which model was measured.
        reported_title: says which paper and model.
    """
    require(frame, ["neutral_images", "measure", "rate", "low", "high"], figure="refusal_by_neutral_images")
    tables = [(f"{title}: {name}" if name else title, part, False) for name, part in surface_panels(frame)]
    if reported is not None:
        require(reported, ["neutral_images", "measure", "rate"], figure="refusal_by_neutral_images")
        tables.append((reported_title, reported, True))
    measures = measures_in_order(name for _, table, _ in tables for name in table["measure"])
    wide = len(tables) > 1
    figure, panels = small_multiples(
        len(tables), columns=2, head=0.6, row=2.0, width=6.5 if wide else 4.4, sharey=True
    )
    for panel, (name, table, hollow) in zip(panels, tables, strict=True):
        _panel(panel.axes, table, hollow=hollow)
        panel.axes.set_title(name)
        percent_axis(panel.axes, label="share of answers (%)" if panel.leftmost else "")
        panel.axes.set_xlabel("neutral pictures" if panel.lowest else "")
    handles = [
        Line2D([], [], color=MEASURE_COLOURS[name], marker=MEASURE_MARKERS[name], label=name)
        for name in measures
    ]
    with_line = [hollow for _, table, hollow in tables if table["neutral_images"].isna().any()]
    if with_line:
        label = "undefended, reported" if all(with_line) else "undefended"
        handles.append(Line2D([], [], color="black", linestyle=":", linewidth=1.2, label=label))
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=4 if wide else 2,
        handlelength=1.8,
        columnspacing=1.0,
    )
    return figure


def _panel(axes: Axes, table: pd.DataFrame, *, hollow: bool) -> None:
    one_row_each(table, ["neutral_images", "measure"], figure="refusal_by_neutral_images")
    undefended = table["neutral_images"].isna()
    for measure in measures_in_order(table["measure"]):
        colour, here = MEASURE_COLOURS[measure], table["measure"] == measure
        line_with_band(
            axes, table[here & ~undefended], x="neutral_images", y="rate", colour=colour,
            marker=MEASURE_MARKERS[measure], hollow=hollow,
        )  # fmt: skip
        for rate in table.loc[here & undefended, "rate"]:
            axes.axhline(rate, color=colour, linewidth=1.2, linestyle=":", zorder=0)
    axes.set_xticks(sorted(set(table.loc[~undefended, "neutral_images"].astype(int))))
