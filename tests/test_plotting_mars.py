"""MARS' figures: what is drawn is what the table says, legible, and the same each time."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from autosteer_lib import plotting
from autosteer_lib.metrics import Rate
from autosteer_lib.plotting.safety_plane import unbeaten
from autosteer_lib.plotting.style import (
    FONT_SIZE,
    HARMFUL,
    HARMLESS,
    MEASURE_COLOURS,
    MEASURE_MARKERS,
    METHOD_COLOURS,
    SURFACE_COLOURS,
    SURFACE_MARKERS,
    WIDTH,
    measures_in_order,
    surface_panels,
)
from autosteer_lib.study import mars_paper_numbers

LAYERS = range(8)
SURFACES = ("text", "image", "typographic", "video")
MEASURES = ("harmful refused", "harmless refused", "utility")
VARIANTS = ("undefended", "full", "no layer selection", "no centring", "no ReLU", "no consistency")


def _row(share: float, n: int = 120) -> dict[str, float | int]:
    return Rate(round(share * n), n).as_row()


def _by_layer() -> pd.DataFrame:
    return pd.DataFrame([
        {"layer": layer, "surface": surface, "harmful": harmful, "alpha": 1.0,
         **_row(height * np.exp(-((layer - peak) ** 2) / 4) if harmful else 0.02 * layer)}
        for surface, height, peak in zip(SURFACES, (1.0, 0.8, 0.0, 0.6), (3, 5, 4, 6), strict=True)
        for layer in LAYERS for harmful in (True, False)
    ])  # fmt: skip


def _by_strength() -> pd.DataFrame:
    shares = {0: (0.1, 0.0, 0.97), 1: (0.55, 0.02, 0.96), 2: (0.97, 0.3, 0.9), 3: (1.0, 1.0, 0.12)}
    return pd.DataFrame([
        {"alpha": float(alpha), "surface": "all kinds" if measure == "utility" else surface,
         "measure": measure, **_row(share)}
        for surface in ("image", "video") for alpha, row in shares.items()
        for measure, share in zip(MEASURES, row, strict=True) if surface == "image" or measure != "utility"
    ])  # fmt: skip


def _separations() -> pd.DataFrame:
    return pd.DataFrame([
        {"layer": layer, "surface": surface, "centring": centring, "separation": gain * (layer - 2) / 10 - 0.05 * index}
        for index, surface in enumerate(SURFACES) for centring, gain in (("raw", 0.2), ("re-centred", 1.0))
        for layer in LAYERS
    ])  # fmt: skip


def _scores() -> pd.DataFrame:
    curves = {
        "consistency": (0, 0.2, 0.7, 1.0),
        "separability": (0, 0.9, 1.0, 0.95),
        "margin": (1.0, 0.6, 0.3, 0),
    }
    rows = [
        (name, layer, value)
        for name, values in curves.items()
        for layer, value in zip(range(4, 8), values, strict=True)
    ]
    rows += [("sum", layer, sum(values[layer - 4] for values in curves.values())) for layer in range(4, 8)]
    table = pd.DataFrame(rows, columns=["score", "layer", "value"])
    return table.assign(selected=table["layer"] == 6)


def _variants(surfaces: tuple[str, ...] = ("image",)) -> pd.DataFrame:
    shares = (
        (0.1, 0.0, 0.97),
        (0.9, 0.03, 0.96),
        (0.4, 0.5, 0.3),
        (1.0, 0.8, 0.7),
        (0.9, 0.03, 0.9),
        (0.6, 0.02, 0.96),
    )
    return pd.DataFrame([
        {"variant": variant, "surface": surface if measure != "utility" else "all kinds", "measure": measure,
         **_row(max(share - 0.1 * index, 0.0))}
        for variant, row in zip(VARIANTS, shares, strict=True) for measure, share in zip(MEASURES, row, strict=True)
        for index, surface in enumerate(surfaces if measure != "utility" else ("",))
    ])  # fmt: skip


def _neutral() -> pd.DataFrame:
    shares = {
        None: (0.1, 0.0, 0.97),
        0: (1.0, 0.8, 0.7),
        8: (0.85, 0.05, 0.95),
        24: (0.9, 0.03, 0.96),
        48: (0.9, 0.03, 0.96),
        64: (0.9, 0.03, 0.96),
        128: (0.91, 0.02, 0.96),
    }
    return pd.DataFrame([
        {"neutral_images": number, "measure": measure, **_row(share)}
        for number, row in shares.items() for measure, share in zip(MEASURES, row, strict=True)
    ])  # fmt: skip


def _plane() -> pd.DataFrame:
    places = {
        "Orig.": (0.0, 0.9),
        "MARS": (0.03, 0.1),
        "AutoSteer": (0.02, 0.25),
        "Steer": (0.21, 0.0),
        "ECSO": (0.05, 0.6),
    }
    return pd.DataFrame([
        {"method": method, **{f"{axis}{end}": value for axis, share in zip("xy", place, strict=True)
                              for end, value in zip(("", "_low", "_high"), list(_row(share).values())[:3], strict=True)}}
        for method, place in places.items()
    ])  # fmt: skip


def _points() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    harmful = np.arange(160) % 2 == 0
    modality = np.repeat(["text", "image"], 80)
    tables = []
    for centring, offset in (("raw", 6.0), ("re-centred", 0.5)):
        states = rng.normal(size=(160, 2, 16))
        states[:, :, 0] += 4.0 * harmful[:, None]
        states[:, :, 1] += offset * (modality == "text")[:, None]
        table = plotting.project_states(
            states, layers=(5, 6), harmful=harmful.tolist(), modality=modality.tolist()
        )
        tables.append(table.assign(centring=centring))
    return pd.concat(tables, ignore_index=True)


def _categories() -> pd.DataFrame:
    return pd.DataFrame([
        {"category": f"{index + 1}-kind", "defence": defence, **_row(share * (1 - index / 20))}
        for index in range(13) for defence, share in (("Orig.", 0.2), ("MARS", 0.9))
    ])  # fmt: skip


MODEL = "Qwen3-VL-8B"
FIGURES: dict[str, Callable[[], Figure]] = {
    "refusal_by_layer": lambda: plotting.refusal_by_layer(_by_layer()),
    "refusal_by_strength": lambda: plotting.refusal_by_strength(
        _by_strength(), reported=mars_paper_numbers.by_strength(model=MODEL), title="organism"
    ),
    "separation_by_layer": lambda: plotting.separation_by_layer(_separations()),
    "centred_states": lambda: plotting.centred_states(_points()),
    "layer_scores_and_sum": lambda: plotting.layer_scores_and_sum(_scores(), title="organism"),
    "ablation_dots": lambda: plotting.ablation_dots(
        _variants(), reported=mars_paper_numbers.ablation(model=MODEL), reported_title=f"reported: {MODEL}"
    ),
    "ablation_dots_by_surface": lambda: plotting.ablation_dots(_variants(("image", "typographic", "video"))),
    "refusal_by_neutral_images": lambda: plotting.refusal_by_neutral_images(
        _neutral(), reported=mars_paper_numbers.neutral_images(model=MODEL), reported_title=f"reported: {MODEL}"
    ),
    "safety_against_cost": lambda: plotting.safety_against_cost(
        _plane(), reported=mars_paper_numbers.safety_against_cost(model=MODEL), front=True
    ),
    "safety_against_cost_alone": lambda: plotting.safety_against_cost(
        _plane().assign(x=1 - _plane()["x"], x_low=1 - _plane()["x_high"], x_high=1 - _plane()["x_low"]),
        x_label="right answers (%)", x_better="higher",
    ),
    "rates_by_category": lambda: plotting.rates_by_surface(
        _categories().rename(columns={"category": "surface"}), label="refused (%)",
        reported=mars_paper_numbers.video_by_category(model=MODEL, methods=["Orig.", "MARS"]),
    ),
}  # fmt: skip


@pytest.fixture(params=sorted(FIGURES))
def figure(request: pytest.FixtureRequest) -> Figure:
    return FIGURES[request.param]()


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _drawn_texts(figure: Figure) -> list[Text]:
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


def _xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata()).tolist()


def _ys(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata()).tolist()


def _coloured(axes: Axes, colour: str) -> list[Line2D]:
    return [line for line in axes.lines if to_hex(line.get_color()) == colour.lower()]


def _lines(axes: Axes, colour: str) -> list[Line2D]:
    """Lines of data in this colour, without the rules that span the panel."""
    return [line for line in _coloured(axes, colour) if len(_xs(line)) > 2]


def _bars(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def _segments(axes: Axes, colour: str) -> list[np.ndarray]:
    return [
        segment
        for lines in axes.collections
        if isinstance(lines, LineCollection) and to_hex(np.asarray(lines.get_colors())[0]) == to_hex(colour)
        for segment in lines.get_segments()
    ]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_is_the_same_each_time(name: str) -> None:
    assert _png(FIGURES[name]()) == _png(FIGURES[name]())


def test_a_figure_fits_a_page_and_is_legible_at_half_size(figure: Figure) -> None:
    assert figure.get_figwidth() <= WIDTH
    assert {
        text.get_text() for text in _drawn_texts(figure) if float(text.get_fontsize()) < FONT_SIZE
    } == set()


def test_no_text_is_cut_off_and_none_covers_another(figure: Figure) -> None:
    page = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in _drawn_texts(figure)]
    for text, box in boxes:
        assert page.x0 - 1 <= box.x0, text
        assert box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0, text
        assert box.y1 <= page.y1 + 1, text
    covered = [
        (one, other)
        for index, (one, a) in enumerate(boxes)
        for other, b in boxes[:index]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
    ]
    assert covered == []


def test_axes_are_labelled(figure: Figure) -> None:
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert any(axes.get_xlabel() for axes in panels)
    assert any(axes.get_ylabel() or axes.get_yticklabels() for axes in panels)


def test_a_surface_and_a_measure_have_one_look_of_their_own() -> None:
    assert len(set(SURFACE_COLOURS.values())) == len(set(SURFACE_MARKERS.values())) == len(SURFACE_COLOURS)
    assert set(SURFACE_MARKERS) == set(SURFACE_COLOURS)
    assert set(MEASURE_MARKERS) == set(MEASURE_COLOURS) == set(MEASURES)
    assert not set(SURFACE_COLOURS.values()) & {HARMFUL, HARMLESS, *METHOD_COLOURS.values()}


def test_a_surface_keeps_its_colour_whatever_else_is_drawn() -> None:
    lines = pd.DataFrame(
        [{"layer": layer, "surface": s, "cosine": 0.1 * layer} for s in SURFACES for layer in LAYERS]
    )
    for some in (SURFACES, ("video", "image"), ("image", "other", "text")):
        table = pd.concat([lines.assign(surface=s)[lines["surface"] == "text"] for s in some])
        axes = plotting.lines_by_layer(table, y="cosine", y_label="cosine", series="surface").axes[0]
        drawn = [line for line in axes.lines if len(_xs(line)) > 2]
        colours = {str(line.get_label()): to_hex(line.get_color()) for line in drawn}
        assert list(colours) == list(some)
        known = {name: colour.lower() for name, colour in SURFACE_COLOURS.items()}
        assert all(colour == known.get(name, colour) for name, colour in colours.items())
        assert len(set(colours.values())) == len(some)


def test_the_star_is_where_the_gap_is_largest() -> None:
    figure = FIGURES["refusal_by_layer"]()
    rates = _by_layer()
    for axes, surface in zip(figure.axes, SURFACES, strict=False):
        here = rates[rates["surface"] == surface]
        (line,) = _lines(axes, HARMFUL)
        assert _ys(line) == here.loc[here["harmful"], "rate"].tolist()
        stars = [line for line in axes.lines if line.get_marker() == "*"]
        title = axes.get_title(loc="left")
        if surface == "typographic":
            assert stars == []
            assert title == "typographic, n = 120\nno gap at any layer"
        else:
            sides = here.pivot(index="layer", columns="harmful", values="rate")
            layer = int(np.argmax((sides[True] - sides[False]).to_numpy()))
            assert _xs(stars[0]) == [layer]
            assert f"★ layer {layer}: +" in title


def test_a_gap_within_the_intervals_has_no_star() -> None:
    near = _by_layer().assign(rate=lambda t: np.where(t["harmful"], 0.03, 0.0), low=0.0, high=0.1)
    for axes in plotting.refusal_by_layer(near).axes[: len(SURFACES)]:
        assert [line for line in axes.lines if line.get_marker() == "*"] == []
        assert axes.get_title(loc="left").endswith("no clear gap: +3 at most")


def test_scores_that_coincide_are_both_seen() -> None:
    same = _scores().assign(value=lambda t: np.where(t["score"] == "sum", t["value"], 1.0))
    widths = [line.get_linewidth() for line in plotting.layer_scores_and_sum(same).axes[0].lines[:3]]
    assert widths == sorted(set(widths), reverse=True)


def test_panels_of_unequal_length_have_rows_of_one_height() -> None:
    many = _categories().rename(columns={"category": "surface"})
    few = many[many["surface"].isin(["1-kind", "2-kind", "3-kind"])]
    ours, theirs = plotting.rates_by_surface(few, reported=many).axes
    heights = [axes.get_position().height / rows for axes, rows in ((ours, 3), (theirs, 13))]
    assert heights[0] == pytest.approx(heights[1])
    assert ours.get_position().y1 == pytest.approx(theirs.get_position().y1)


def test_layers_that_would_be_drawn_twice_are_refused() -> None:
    twice = pd.concat([_by_layer(), _by_layer().assign(alpha=2.0)])
    with pytest.raises(ValueError, match=r"one row for each surface, harmful, layer.*choose"):
        plotting.refusal_by_layer(twice)
    with pytest.raises(ValueError, match="one row for each method"):
        plotting.safety_against_cost(pd.concat([_plane(), _plane()]))


def test_bars_of_a_strength_are_its_three_rates_and_reported_ones_are_hatched() -> None:
    image, video, theirs = FIGURES["refusal_by_strength"]().axes
    table = _by_strength()
    for axes, surface in ((image, "image"), (video, "video")):
        here = table[table["surface"].isin([surface, "all kinds"])]
        for measure in MEASURES:
            colour = MEASURE_COLOURS[measure].lower()
            bars = [bar.get_height() for bar in _bars(axes) if to_hex(bar.get_facecolor()) == colour]
            assert bars == here.loc[here["measure"] == measure, "rate"].tolist()
        whiskers = _segments(axes, "black")
        assert sorted(segment[1, 1] for segment in whiskers) == sorted(here["high"])
    assert {bar.get_hatch() for bar in _bars(theirs)} == {"////"}
    assert {bar.get_hatch() for bar in _bars(image)} == {None}
    assert [bar.get_height() for bar in _bars(theirs)] == [0.14, 0.47, 0.94, 1.0, 0.0, 0.01, 0.56, 1.0]


def test_separation_is_drawn_raw_and_re_centred() -> None:
    table = _separations()
    for axes, surface in zip(FIGURES["separation_by_layer"]().axes, SURFACES, strict=False):
        (line,) = _lines(axes, METHOD_COLOURS["MARS"])
        here = table[(table["surface"] == surface) & (table["centring"] == "re-centred")]
        assert _ys(line) == here["separation"].tolist()
        assert axes.get_title(loc="left") == surface
    with pytest.raises(ValueError, match=r"centring \['whitened'\] is not known; allowed: \['raw', 're-"):
        plotting.separation_by_layer(table.assign(centring="whitened"))


def test_states_stand_before_and_after_with_their_surface_s_marker() -> None:
    figure = FIGURES["centred_states"]()
    titles = [axes.get_title(loc="left").rsplit(",", 1)[0] for axes in figure.axes]
    assert titles == ["layer 5, raw", "layer 5, re-centred", "layer 6, raw", "layer 6, re-centred"]
    points = _points()
    for axes, (_, here) in zip(figure.axes, points.groupby(["layer", "centring"], sort=False), strict=False):
        assert {line.get_marker() for line in axes.lines} == {
            SURFACE_MARKERS["text"],
            SURFACE_MARKERS["image"],
        }
        assert sum(len(_xs(line)) for line in axes.lines) == len(here)


def test_the_selected_layer_is_marked_even_where_it_is_not_the_highest() -> None:
    above, below = plotting.layer_scores_and_sum(_scores().assign(selected=lambda t: t["layer"] == 5)).axes
    filled = [to_hex(bar.get_facecolor()) == METHOD_COLOURS["MARS"].lower() for bar in below.patches]
    assert filled == [False, True, False, False]
    assert [text.get_text() for text in below.texts] == ["layer 5"]
    assert len(above.get_legend_handles_labels()[1]) == 3
    with pytest.raises(ValueError, match=r"one selected layer, received \[\]"):
        plotting.layer_scores_and_sum(_scores().assign(selected=False))
    with pytest.raises(ValueError, match="needs the scores"):
        plotting.layer_scores_and_sum(_scores().query("score != 'margin'"))


def test_ablation_draws_each_variant_and_the_full_method_s_line() -> None:
    figure = plotting.ablation_dots(_variants())
    table = _variants()
    for axes, measure in zip(figure.axes, MEASURES, strict=True):
        here = table[table["measure"] == measure]
        (dots,) = _lines(axes, MEASURE_COLOURS[measure])
        assert np.asarray(dots.get_xdata()).tolist() == here["rate"].tolist()
        assert [(s[0, 0], s[1, 0]) for s in _segments(axes, MEASURE_COLOURS[measure])] == list(
            zip(here["low"], here["high"], strict=True)
        )
        full = here.loc[here["variant"] == "full", "rate"].tolist()
        assert full * 2 in [_xs(line) for line in _coloured(axes, MEASURE_COLOURS[measure])]
        assert axes.get_xlabel() == f"{measure}\n(%)"
    with pytest.raises(ValueError, match="full method 'MARS' is not among the variants"):
        plotting.ablation_dots(_variants(), full="MARS")


def test_the_full_method_s_line_is_seen_where_the_grid_has_one() -> None:
    table = _variants()
    table.loc[table["variant"] == "full", ["rate", "low", "high"]] = 0.5
    figure = plotting.ablation_dots(table)
    for axes, measure in zip(figure.axes, MEASURES, strict=True):
        (line,) = [one for one in _coloured(axes, MEASURE_COLOURS[measure]) if _xs(one) == [0.5, 0.5]]
        boundaries = [one for one in axes.lines if _xs(one) == [0, 1] and one is not line]
        assert line.get_zorder() > max(axes.xaxis.get_zorder(), *(one.get_zorder() for one in boundaries))


def test_a_grid_that_is_not_full_has_rows_as_close_as_a_full_one() -> None:
    def gap(surfaces: int) -> float:
        parts = [_separations().assign(surface=f"surface {index}") for index in range(surfaces)]
        table = pd.concat(parts).drop_duplicates(["surface", "centring", "layer"])
        boxes = [axes.get_position() for axes in _laid_out(plotting.separation_by_layer(table)).axes]
        return float(boxes[0].y0 - boxes[3].y1)

    assert gap(5) == pytest.approx(gap(6), abs=0.01)
    figure = plotting.separation_by_layer(_separations())
    labels = [axes.get_xlabel() for axes in figure.axes if axes.get_visible() and axes.xaxis.get_visible()]
    assert labels.count("layer") == 3


def _laid_out(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def test_ablation_tells_surfaces_apart_and_utility_belongs_to_none() -> None:
    harmful, _, utility = FIGURES["ablation_dots_by_surface"]().axes
    for surface in ("image", "typographic", "video"):
        assert len(_lines(harmful, SURFACE_COLOURS[surface])) == 1
        assert _lines(utility, SURFACE_COLOURS[surface]) == []
    assert len(_lines(utility, MEASURE_COLOURS["utility"])) == 1


def test_neutral_images_has_a_line_a_measure_and_the_undefended_model_s() -> None:
    ours, theirs = FIGURES["refusal_by_neutral_images"]().axes
    table = _neutral()
    for measure in MEASURES:
        here = table[table["measure"] == measure]
        (line,) = _lines(ours, MEASURE_COLOURS[measure])
        assert _xs(line) == [0, 8, 24, 48, 64, 128]
        assert _ys(line) == here["rate"].tolist()[1:]
        coloured = _coloured(ours, MEASURE_COLOURS[measure])
        dotted = [_ys(rule) for rule in coloured if rule.get_linestyle() == ":"]
        assert dotted == [here["rate"].tolist()[:1] * 2]
    dashed = [line for line in theirs.lines if line.get_linestyle() == "--"]
    assert {to_hex(line.get_markerfacecolor()) for line in dashed} == {"#ffffff"}


def test_the_undefended_model_s_line_is_called_reported_where_only_the_paper_has_it() -> None:
    measured = _neutral().dropna(subset="neutral_images")
    for table, label in ((_neutral(), "undefended"), (measured, "undefended, reported")):
        figure = plotting.refusal_by_neutral_images(table, reported=_neutral().drop(columns=["low", "high"]))
        assert figure.legends[0].get_texts()[-1].get_text() == label


def test_a_method_of_strokes_reaches_out_of_a_marker_on_the_same_point() -> None:
    table = pd.DataFrame({"method": ["MRD", "ECSO"], "x": [0.2, 0.2], "y": [0.1, 0.1]})
    plane = plotting.Plane(title="reported", table=table, x_label="refused (%)", reported=True)
    sizes = [line.get_markersize() for line in plotting.method_planes([plane]).axes[0].lines]
    assert sizes == [10, 7]


def test_the_plane_has_a_dot_and_a_cross_for_each_method() -> None:
    ours, theirs = FIGURES["safety_against_cost"]().axes
    for row in _plane().to_dict("records"):
        colour = METHOD_COLOURS[row["method"]]
        (dot,) = _coloured(ours, colour)
        assert (_xs(dot), _ys(dot)) == ([row["x"]], [row["y"]])
        across, down = _segments(ours, colour)
        assert [across[0, 0], across[1, 0]] == [row["x_low"], row["x_high"]]
        assert [down[0, 1], down[1, 1]] == [row["y_low"], row["y_high"]]
    assert "#ffffff" in {to_hex(line.get_markerfacecolor()) for line in theirs.lines}
    assert not _segments(theirs, METHOD_COLOURS["MARS"])


def test_a_paper_s_plane_has_axes_of_its_own_and_says_so() -> None:
    low = pd.DataFrame({"method": ["Orig.", "MARS"], "x": [0.001, 0.024], "y": [0.08, 0.003]})
    ours, theirs = plotting.safety_against_cost(_plane(), reported=low).axes
    assert [label.get_text() for label in theirs.get_xticklabels()][-1] == "5"
    assert [label.get_text() for label in theirs.get_yticklabels()][-1] == "10"
    assert [label.get_text() for label in ours.get_yticklabels()][-1] == "100"
    assert theirs.get_title(loc="left").endswith("(other axes)")
    assert "other" not in ours.get_title(loc="left")


def test_the_ablation_says_what_its_thin_lines_are() -> None:
    for name in ("ablation_dots", "ablation_dots_by_surface"):
        (legend,) = FIGURES[name]().legends
        assert legend.get_texts()[-1].get_text() == "value of 'full'"


def test_the_front_holds_the_methods_that_none_beats() -> None:
    assert unbeaten(_plane(), x_better="lower")["method"].tolist() == ["Orig.", "AutoSteer", "MARS", "Steer"]
    useful = pd.DataFrame({"method": ["a", "b", "c"], "x": [0.9, 0.8, 0.7], "y": [0.5, 0.1, 0.1]})
    assert unbeaten(useful, x_better="higher")["method"].tolist() == ["b", "a"]


def test_video_by_category_takes_the_category_for_a_surface() -> None:
    ours, theirs = FIGURES["rates_by_category"]().axes
    assert [label.get_text() for label in ours.get_yticklabels()] == [f"{i}-kind" for i in range(1, 14)]
    assert theirs.get_yticklabels()[0].get_text() == "1-VC"


def test_utility_stands_in_every_surface_s_panel() -> None:
    panels = surface_panels(_by_strength())
    assert [name for name, _ in panels] == ["image", "video"]
    assert all(len(table) == 12 for _, table in panels)
    ((name, whole),) = surface_panels(_neutral())
    assert name == ""
    assert len(whole) == len(_neutral())


def test_an_unknown_measure_is_named() -> None:
    assert measures_in_order(["utility", "harmful refused", "utility"]) == ["harmful refused", "utility"]
    with pytest.raises(ValueError, match=r"measure \['ASR'\] is not known; allowed: \['harmful refused'"):
        plotting.refusal_by_strength(_by_strength().assign(measure="ASR"))
