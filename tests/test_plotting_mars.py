"""MARS' figures: what is drawn is what the table says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from autosteer_lib import plotting
from autosteer_lib.plotting.safety_plane import unbeaten
from autosteer_lib.plotting.style import (
    HARMFUL,
    HARMLESS,
    MEASURE_COLOURS,
    MEASURE_MARKERS,
    METHOD_COLOURS,
    SURFACE_COLOURS,
    SURFACE_MARKERS,
    measures_in_order,
    surface_panels,
)
from tests import mars_figures as made
from tests.reading_figures import bars_of, coloured_lines, data_lines, segments_of, xs, ys


def test_a_surface_and_a_measure_have_one_look_of_their_own() -> None:
    assert len(set(SURFACE_COLOURS.values())) == len(set(SURFACE_MARKERS.values())) == len(SURFACE_COLOURS)
    assert set(SURFACE_MARKERS) == set(SURFACE_COLOURS)
    assert set(MEASURE_MARKERS) == set(MEASURE_COLOURS) == set(made.MEASURES)
    assert not set(SURFACE_COLOURS.values()) & {HARMFUL, HARMLESS, *METHOD_COLOURS.values()}


def test_a_surface_keeps_its_colour_whatever_else_is_drawn() -> None:
    lines = pd.DataFrame(
        [
            {"layer": layer, "surface": s, "cosine": 0.1 * layer}
            for s in made.SURFACES
            for layer in made.LAYERS
        ]
    )
    for some in (made.SURFACES, ("video", "image"), ("image", "other", "text")):
        table = pd.concat([lines.assign(surface=s)[lines["surface"] == "text"] for s in some])
        axes = plotting.lines_by_layer(table, y="cosine", y_label="cosine", series="surface").axes[0]
        drawn = [line for line in axes.lines if len(xs(line)) > 2]
        colours = {str(line.get_label()): to_hex(line.get_color()) for line in drawn}
        assert list(colours) == list(some)
        known = {name: colour.lower() for name, colour in SURFACE_COLOURS.items()}
        assert all(colour == known.get(name, colour) for name, colour in colours.items())
        assert len(set(colours.values())) == len(some)


def test_the_star_is_where_the_gap_is_largest() -> None:
    figure = made.FIGURES["refusal_by_layer"]()
    rates = made.by_layer()
    for axes, surface in zip(figure.axes, made.SURFACES, strict=False):
        here = rates[rates["surface"] == surface]
        (line,) = data_lines(axes, HARMFUL)
        assert ys(line) == here.loc[here["harmful"], "rate"].tolist()
        stars = [line for line in axes.lines if line.get_marker() == "*"]
        title = axes.get_title(loc="left")
        if surface == "typographic":
            assert stars == []
            assert title == "typographic, n = 120\nno gap at any layer"
        else:
            sides = here.pivot(index="layer", columns="harmful", values="rate")
            layer = int(np.argmax((sides[True] - sides[False]).to_numpy()))
            assert xs(stars[0]) == [layer]
            assert f"★ layer {layer}: +" in title


def test_a_gap_within_the_intervals_has_no_star() -> None:
    near = made.by_layer().assign(rate=lambda t: np.where(t["harmful"], 0.03, 0.0), low=0.0, high=0.1)
    for axes in plotting.refusal_by_layer(near).axes[: len(made.SURFACES)]:
        assert [line for line in axes.lines if line.get_marker() == "*"] == []
        assert axes.get_title(loc="left").endswith("no clear gap: +3 at most")


def test_scores_that_coincide_are_both_seen() -> None:
    same = made.scores().assign(value=lambda t: np.where(t["score"] == "sum", t["value"], 1.0))
    widths = [line.get_linewidth() for line in plotting.layer_scores_and_sum(same).axes[0].lines[:3]]
    assert widths == sorted(set(widths), reverse=True)


def test_panels_of_unequal_length_have_rows_of_one_height() -> None:
    many = made.categories().rename(columns={"category": "surface"})
    few = many[many["surface"].isin(["1-kind", "2-kind", "3-kind"])]
    ours, theirs = plotting.rates_by_surface(few, reported=many).axes
    heights = [axes.get_position().height / rows for axes, rows in ((ours, 3), (theirs, 13))]
    assert heights[0] == pytest.approx(heights[1])
    assert ours.get_position().y1 == pytest.approx(theirs.get_position().y1)


def test_layers_that_would_be_drawn_twice_are_refused() -> None:
    twice = pd.concat([made.by_layer(), made.by_layer().assign(alpha=2.0)])
    with pytest.raises(ValueError, match=r"one row for each surface, harmful, layer.*choose"):
        plotting.refusal_by_layer(twice)
    with pytest.raises(ValueError, match="one row for each method"):
        plotting.safety_against_cost(pd.concat([made.plane(), made.plane()]))


def test_bars_of_a_strength_are_its_three_rates_and_reported_ones_are_hatched() -> None:
    image, video, theirs = made.FIGURES["refusal_by_strength"]().axes
    table = made.by_strength()
    for axes, surface in ((image, "image"), (video, "video")):
        here = table[table["surface"].isin([surface, "all kinds"])]
        for measure in made.MEASURES:
            colour = MEASURE_COLOURS[measure].lower()
            bars = [bar.get_height() for bar in bars_of(axes) if to_hex(bar.get_facecolor()) == colour]
            assert bars == here.loc[here["measure"] == measure, "rate"].tolist()
        whiskers = segments_of(axes, "black")
        assert sorted(segment[1, 1] for segment in whiskers) == sorted(here["high"])
    assert {bar.get_hatch() for bar in bars_of(theirs)} == {"////"}
    assert {bar.get_hatch() for bar in bars_of(image)} == {None}
    assert [bar.get_height() for bar in bars_of(theirs)] == [0.14, 0.47, 0.94, 1.0, 0.0, 0.01, 0.56, 1.0]


def test_separation_is_drawn_raw_and_re_centred() -> None:
    table = made.separations()
    for axes, surface in zip(made.FIGURES["separation_by_layer"]().axes, made.SURFACES, strict=False):
        (line,) = data_lines(axes, METHOD_COLOURS["MARS"])
        here = table[(table["surface"] == surface) & (table["centring"] == "re-centred")]
        assert ys(line) == here["separation"].tolist()
        assert axes.get_title(loc="left") == surface
    with pytest.raises(ValueError, match=r"centring \['whitened'\] is not known; allowed: \['raw', 're-"):
        plotting.separation_by_layer(table.assign(centring="whitened"))


def test_states_stand_before_and_after_with_their_surface_s_marker() -> None:
    figure = made.FIGURES["centred_states"]()
    titles = [axes.get_title(loc="left").rsplit(",", 1)[0] for axes in figure.axes]
    assert titles == ["layer 5, raw", "layer 5, re-centred", "layer 6, raw", "layer 6, re-centred"]
    points = made.points()
    for axes, (_, here) in zip(figure.axes, points.groupby(["layer", "centring"], sort=False), strict=False):
        assert {line.get_marker() for line in axes.lines} == {
            SURFACE_MARKERS["text"],
            SURFACE_MARKERS["image"],
        }
        assert sum(len(xs(line)) for line in axes.lines) == len(here)


def test_the_selected_layer_is_marked_even_where_it_is_not_the_highest() -> None:
    above, below = plotting.layer_scores_and_sum(
        made.scores().assign(selected=lambda t: t["layer"] == 5)
    ).axes
    filled = [to_hex(bar.get_facecolor()) == METHOD_COLOURS["MARS"].lower() for bar in below.patches]
    assert filled == [False, True, False, False]
    assert [text.get_text() for text in below.texts] == ["layer 5"]
    assert len(above.get_legend_handles_labels()[1]) == 3
    with pytest.raises(ValueError, match=r"one selected layer, received \[\]"):
        plotting.layer_scores_and_sum(made.scores().assign(selected=False))
    with pytest.raises(ValueError, match="needs the scores"):
        plotting.layer_scores_and_sum(made.scores().query("score != 'margin'"))


def test_ablation_draws_each_variant_and_the_full_method_s_line() -> None:
    figure = plotting.ablation_dots(made.variants())
    table = made.variants()
    for axes, measure in zip(figure.axes, made.MEASURES, strict=True):
        here = table[table["measure"] == measure]
        (dots,) = data_lines(axes, MEASURE_COLOURS[measure])
        assert np.asarray(dots.get_xdata()).tolist() == here["rate"].tolist()
        assert [(s[0, 0], s[1, 0]) for s in segments_of(axes, MEASURE_COLOURS[measure])] == list(
            zip(here["low"], here["high"], strict=True)
        )
        full = here.loc[here["variant"] == "full", "rate"].tolist()
        assert full * 2 in [xs(line) for line in coloured_lines(axes, MEASURE_COLOURS[measure])]
        assert axes.get_xlabel() == f"{measure}\n(%)"
    with pytest.raises(ValueError, match="full method 'MARS' is not among the variants"):
        plotting.ablation_dots(made.variants(), full="MARS")


def test_the_full_method_s_line_is_seen_where_the_grid_has_one() -> None:
    table = made.variants()
    table.loc[table["variant"] == "full", ["rate", "low", "high"]] = 0.5
    figure = plotting.ablation_dots(table)
    for axes, measure in zip(figure.axes, made.MEASURES, strict=True):
        (line,) = [one for one in coloured_lines(axes, MEASURE_COLOURS[measure]) if xs(one) == [0.5, 0.5]]
        boundaries = [one for one in axes.lines if xs(one) == [0, 1] and one is not line]
        assert line.get_zorder() > max(axes.xaxis.get_zorder(), *(one.get_zorder() for one in boundaries))


def test_a_grid_that_is_not_full_has_rows_as_close_as_a_full_one() -> None:
    def gap(surfaces: int) -> float:
        parts = [made.separations().assign(surface=f"surface {index}") for index in range(surfaces)]
        table = pd.concat(parts).drop_duplicates(["surface", "centring", "layer"])
        figure = plotting.separation_by_layer(table)
        figure.draw_without_rendering()
        boxes = [axes.get_position() for axes in figure.axes]
        return float(boxes[0].y0 - boxes[3].y1)

    assert gap(5) == pytest.approx(gap(6), abs=0.01)
    figure = plotting.separation_by_layer(made.separations())
    labels = [axes.get_xlabel() for axes in figure.axes if axes.get_visible() and axes.xaxis.get_visible()]
    assert labels.count("layer") == 3


def test_ablation_tells_surfaces_apart_and_utility_belongs_to_none() -> None:
    harmful, _, utility = made.FIGURES["ablation_dots_by_surface"]().axes
    for surface in ("image", "typographic", "video"):
        assert len(data_lines(harmful, SURFACE_COLOURS[surface])) == 1
        assert data_lines(utility, SURFACE_COLOURS[surface]) == []
    assert len(data_lines(utility, MEASURE_COLOURS["utility"])) == 1


def test_neutral_images_has_a_line_a_measure_and_the_undefended_model_s() -> None:
    ours, theirs = made.FIGURES["refusal_by_neutral_images"]().axes
    table = made.neutral()
    for measure in made.MEASURES:
        here = table[table["measure"] == measure]
        (line,) = data_lines(ours, MEASURE_COLOURS[measure])
        assert xs(line) == [0, 8, 24, 48, 64, 128]
        assert ys(line) == here["rate"].tolist()[1:]
        coloured = coloured_lines(ours, MEASURE_COLOURS[measure])
        dotted = [ys(rule) for rule in coloured if rule.get_linestyle() == ":"]
        assert dotted == [here["rate"].tolist()[:1] * 2]
    dashed = [line for line in theirs.lines if line.get_linestyle() == "--"]
    assert {to_hex(line.get_markerfacecolor()) for line in dashed} == {"#ffffff"}


def test_the_undefended_model_s_line_is_called_reported_where_only_the_paper_has_it() -> None:
    measured = made.neutral().dropna(subset="neutral_images")
    for table, label in ((made.neutral(), "undefended"), (measured, "undefended, reported")):
        figure = plotting.refusal_by_neutral_images(
            table, reported=made.neutral().drop(columns=["low", "high"])
        )
        assert figure.legends[0].get_texts()[-1].get_text() == label


def test_a_method_of_strokes_reaches_out_of_a_marker_on_the_same_point() -> None:
    table = pd.DataFrame({"method": ["MRD", "ECSO"], "x": [0.2, 0.2], "y": [0.1, 0.1]})
    plane = plotting.Plane(title="reported", table=table, x_label="refused (%)", reported=True)
    sizes = [line.get_markersize() for line in plotting.method_planes([plane]).axes[0].lines]
    assert sizes == [10, 7]


def test_the_plane_has_a_dot_and_a_cross_for_each_method() -> None:
    ours, theirs = made.FIGURES["safety_against_cost"]().axes
    for row in made.plane().to_dict("records"):
        colour = METHOD_COLOURS[row["method"]]
        (dot,) = coloured_lines(ours, colour)
        assert (xs(dot), ys(dot)) == ([row["x"]], [row["y"]])
        across, down = segments_of(ours, colour)
        assert [across[0, 0], across[1, 0]] == [row["x_low"], row["x_high"]]
        assert [down[0, 1], down[1, 1]] == [row["y_low"], row["y_high"]]
    assert "#ffffff" in {to_hex(line.get_markerfacecolor()) for line in theirs.lines}
    assert not segments_of(theirs, METHOD_COLOURS["MARS"])


def test_a_paper_s_plane_has_axes_of_its_own_and_says_so() -> None:
    low = pd.DataFrame({"method": ["Orig.", "MARS"], "x": [0.001, 0.024], "y": [0.08, 0.003]})
    ours, theirs = plotting.safety_against_cost(made.plane(), reported=low).axes
    assert [label.get_text() for label in theirs.get_xticklabels()][-1] == "5"
    assert [label.get_text() for label in theirs.get_yticklabels()][-1] == "10"
    assert [label.get_text() for label in ours.get_yticklabels()][-1] == "100"
    assert theirs.get_title(loc="left").endswith("(other axes)")
    assert "other" not in ours.get_title(loc="left")


def test_the_ablation_says_what_its_thin_lines_are() -> None:
    for name in ("ablation_dots", "ablation_dots_by_surface"):
        (legend,) = made.FIGURES[name]().legends
        assert legend.get_texts()[-1].get_text() == "value of 'full'"


def test_the_front_holds_the_methods_that_none_beats() -> None:
    assert unbeaten(made.plane(), x_better="lower")["method"].tolist() == [
        "Orig.",
        "AutoSteer",
        "MARS",
        "Steer",
    ]
    useful = pd.DataFrame({"method": ["a", "b", "c"], "x": [0.9, 0.8, 0.7], "y": [0.5, 0.1, 0.1]})
    assert unbeaten(useful, x_better="higher")["method"].tolist() == ["b", "a"]


def test_video_by_category_takes_the_category_for_a_surface() -> None:
    ours, theirs = made.FIGURES["rates_by_category"]().axes
    assert [label.get_text() for label in ours.get_yticklabels()] == [f"{i}-kind" for i in range(1, 14)]
    assert theirs.get_yticklabels()[0].get_text() == "1-VC"


def test_utility_stands_in_every_surface_s_panel() -> None:
    panels = surface_panels(made.by_strength())
    assert [name for name, _ in panels] == ["image", "video"]
    assert all(len(table) == 12 for _, table in panels)
    ((name, whole),) = surface_panels(made.neutral())
    assert name == ""
    assert len(whole) == len(made.neutral())


def test_an_unknown_measure_is_named() -> None:
    assert measures_in_order(["utility", "harmful refused", "utility"]) == ["harmful refused", "utility"]
    with pytest.raises(ValueError, match=r"measure \['ASR'\] is not known; allowed: \['harmful refused'"):
        plotting.refusal_by_strength(made.by_strength().assign(measure="ASR"))
