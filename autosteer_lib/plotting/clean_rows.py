"""How much of a fall is certain on test rows unlike any training row: bounds over how alike a row may be.

The band is every fall that the published numbers allow on the rows left; the dashed line is what was reported on all.
The lower the threshold, the fewer rows are left, and the less is certain.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import NEUTRAL, method_colour, new_figure, require, styled


@styled
def fall_on_clean_rows(
    table: pd.DataFrame, *, label: str = "fall of attack success\nunder AutoSteer (points)"
) -> Figure:
    """Draw one panel a model.

    Args:
        table: columns model, threshold (of likeness), n (rows left), reported, least, most (points); optionally set,
            said in the title.
        label: of the y axis.
    """
    require(table, ["model", "threshold", "n", "reported", "least", "most"], figure="fall_on_clean_rows")
    models = list(dict.fromkeys(table["model"]))
    figure = new_figure(2.9)
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    colour = method_colour("AutoSteer")
    for axes, model in zip(panels, models, strict=True):
        rows = table[table["model"] == model].sort_values("threshold", ascending=False)
        places = range(len(rows))
        axes.fill_between(
            places, rows["least"], rows["most"], color=colour, alpha=0.18, linewidth=0, label="possible"
        )
        axes.plot(places, rows["least"], color=colour, marker="o", label="least that is certain")
        axes.axhline(
            rows["reported"].iloc[0],
            color=NEUTRAL,
            linestyle="--",
            linewidth=1.2,
            label="reported, all 500 rows",
        )
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
        names = [f"{t:.1f}\n{n}" for t, n in zip(rows["threshold"], rows["n"], strict=True)]
        axes.set_xticks(list(places), names)
        axes.set_xlabel("set aside: rows at least so alike to a\ntraining query; below, the rows left")
        sets = ", ".join(dict.fromkeys(rows["set"])) if "set" in rows else ""
        axes.set_title(f"{sets}: {model}" if sets else model)
        axes.set_ylim(min(-60.0, float(table["least"].min()) - 8), 103)
    panels[0].set_ylabel(label)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=3)
    return figure
