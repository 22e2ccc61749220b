"""SafeSteer's figures: what is drawn is what the table says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from autosteer_lib import plotting
from autosteer_lib.plotting.first_words import LOOKS
from autosteer_lib.plotting.probe_plane import KIND_COLOURS
from autosteer_lib.plotting.style import METHOD_COLOURS, VERDICT_COLOURS
from tests import safesteer_figures as made
from tests.reading_figures import xs, ys


def test_a_state_stands_where_its_row_says_in_its_kinds_colour() -> None:
    points = made.points(2)
    axes = plotting.probe_planes(points).axes[1]
    here = points[(points["panel"] == "step 1") & (points["kind"] == "refusing")]
    colour = KIND_COLOURS["refusing"].lower()
    drawn = [
        line for line in axes.lines if to_hex(line.get_markerfacecolor()) == colour and len(xs(line)) > 2
    ]
    assert sorted(np.concatenate([xs(line) for line in drawn])) == sorted(here["x"])
    (boundary,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert xs(boundary) == [0, 0]


def test_bars_add_up_and_begin_with_what_matters() -> None:
    figure = plotting.endings_by_variant(made.endings())
    first = figure.axes[0]
    assert [t.get_text() for t in first.get_yticklabels()] == list(made.VARIANTS)
    bars = [patch for patch in first.patches if patch.get_width() > 0]  # type: ignore[attr-defined]
    last_variant = [bar for bar in bars if bar.get_y() > 3.5]  # type: ignore[attr-defined]
    assert sum(bar.get_width() for bar in last_variant) == pytest.approx(1.0)  # type: ignore[attr-defined]
    assert to_hex(last_variant[0].get_facecolor()) == VERDICT_COLOURS["unsafe"].lower()
    assert last_variant[0].get_width() == pytest.approx(0.8)  # type: ignore[attr-defined]


def test_the_curve_and_the_least_loss_are_the_tables() -> None:
    axes = plotting.probe_loss(made.loss()).axes[0]
    colour = METHOD_COLOURS["SafeSteer"]
    (curve,) = [line for line in axes.lines if line.get_color() == colour]
    assert len(xs(curve)) == 100
    (least,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert ys(least) == [0.041, 0.041]


def test_a_words_dot_is_its_mean() -> None:
    axes = plotting.first_word_scores(made.words()).axes[0]
    (dots,) = [line for line in axes.lines if line.get_color() == LOOKS["refusal"][0]]
    assert xs(dots) == [-3.0, -2.0, -1.0, 0.0]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plotting.probe_planes(made.points().assign(kind="odd")), r"kind \['odd'\] is not known"),
        (lambda: plotting.endings_by_variant(made.endings().assign(ending="lost")), r"ending \['lost'\] is not known"),
        (lambda: plotting.endings_by_variant(pd.concat([made.endings()] * 2)), "one row for each"),
        (lambda: plotting.first_word_scores(made.words().assign(word="x")), r"word \['x'\] is not known"),
        (lambda: plotting.probe_loss(made.loss().query("solver == 'rds'")), 'one of "converged"; received 100 and 0'),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_drawn_is_refused(draw: Callable[[], Figure], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()
