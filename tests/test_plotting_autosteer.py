"""AutoSteer's figures: what is drawn is what the table says, in the house's colours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from autosteer_lib import plotting
from autosteer_lib.plotting.style import (
    HARMLESS,
    METHOD_COLOURS,
    METHOD_MARKERS,
    REPORTED_MARKERS,
    in_house_order,
    tint,
)
from autosteer_lib.plotting.sweeps import series_looks
from tests import autosteer_figures as made
from tests.reading_figures import drawn_texts, png


def test_a_method_has_one_look_of_its_own() -> None:
    assert len(set(METHOD_COLOURS.values())) == len(METHOD_COLOURS)
    assert set(METHOD_MARKERS) == set(METHOD_COLOURS)
    assert len(set(METHOD_MARKERS.values())) == len(METHOD_MARKERS)
    every = (
        METHOD_MARKERS | REPORTED_MARKERS
    )  # those that only papers report are grey, so the marker tells them
    assert len(set(every.values())) == len(every) == len(METHOD_MARKERS) + len(REPORTED_MARKERS)
    assert in_house_order(["ours", "AutoSteer", "Orig.", "ours"]) == ["Orig.", "AutoSteer", "ours"]


def test_rates_are_drawn_where_they_are_with_their_intervals() -> None:
    rates = made.rates()
    axes = plotting.rates_by_surface(rates).axes[0]
    auto = rates[rates["defence"] == "AutoSteer"]
    (line,) = [line for line in axes.lines if to_hex(line.get_color()) == METHOD_COLOURS["AutoSteer"].lower()]
    assert np.asarray(line.get_xdata()).tolist() == auto["rate"].tolist()
    blue = METHOD_COLOURS["AutoSteer"].lower()
    bars = [lines for lines in axes.collections if isinstance(lines, LineCollection)]
    (segments,) = [
        lines.get_segments() for lines in bars if to_hex(np.asarray(lines.get_colors())[0]) == blue
    ]
    assert [tuple(segment[:, 0]) for segment in segments] == list(zip(auto["low"], auto["high"], strict=True))


def test_rates_say_over_how_many_answers_they_are() -> None:
    axes = plotting.rates_by_surface(made.rates().assign(n=120), label="refused (%)").axes[0]
    assert axes.get_xlabel() == "refused (%), n = 120"
    assert plotting.rates_by_surface(made.rates(), label="refused (%)").axes[0].get_xlabel() == "refused (%)"


def test_reported_numbers_are_hollow_and_apart() -> None:
    figure = made.FIGURES["rates_by_surface"]()
    ours, theirs = figure.axes
    assert {
        to_hex(line.get_markerfacecolor())
        for line in theirs.lines
        if line.get_marker() in METHOD_MARKERS.values()
    } == {"#ffffff"}
    assert "#ffffff" not in {to_hex(line.get_markerfacecolor()) for line in ours.lines}
    hatches = [{patch.get_hatch() for patch in axes.patches} for axes in made.FIGURES["sas_by_layer"]().axes]
    assert hatches == [{None}, {"////"}, {"////"}]


def test_each_model_has_its_panel_and_reported_ones_are_hollow() -> None:
    figure = made.FIGURES["rates_of_models"]()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:2] == ["measured here: llava_onevision", "measured here: chameleon"]
    assert [title.split(":")[0] for title in titles[2:]] == ["reported", "reported"]
    filled = [
        {to_hex(line.get_markerfacecolor()) for line in axes.lines if line.get_marker() in METHOD_MARKERS.values()}
        for axes in figure.axes
    ]  # fmt: skip
    assert ["#ffffff" in colours for colours in filled] == [False, False, True, True]


def test_a_group_of_prompts_looks_the_same_in_every_sweep_and_harm_is_never_drawn_as_harmless() -> None:
    alone, among = (
        series_looks(["harm that must be seen"]),
        series_looks(["attacks carried out", "utility", "harm that must be seen"]),
    )
    assert alone["harm that must be seen"] == among["harm that must be seen"]
    looks = series_looks(
        ["harm in words", "harm that must be seen", "harmless twins", "borderline", "utility", "rest"]
    )
    assert [name for name, (colour, _) in looks.items() if colour == HARMLESS] == ["harmless twins"]
    assert len(set(looks.values())) == len(looks)


def test_sas_draws_the_intervals_that_its_table_has() -> None:
    def spans(table: pd.DataFrame) -> list[tuple[float, float]]:
        lines = [
            line
            for line in plotting.sas_by_layer(table).axes[0].collections
            if isinstance(line, LineCollection)
        ]
        ends = [np.asarray(path.vertices)[:2, 1] for line in lines for path in line.get_paths()]
        return [(float(low), float(high)) for low, high in ends]

    table = made.sas()
    assert spans(table) == []
    wide = table.assign(low=table["sas"] - 0.02, high=table["sas"] + 0.02).sort_values("layer")
    assert np.allclose(spans(wide), wide[["low", "high"]].to_numpy())


def test_a_paper_may_report_more_models_than_are_measured() -> None:
    figure = plotting.rates_of_models(made.rates().assign(model="one"), reported=made.reported_of_two())
    assert [axes.get_visible() for axes in figure.axes] == [True, False, True, True]


def test_sas_marks_the_layer_that_is_highest_or_was_chosen() -> None:
    def marked(table: pd.DataFrame) -> list[bool]:
        bars = plotting.sas_by_layer(table).axes[0].patches
        return [to_hex(bar.get_facecolor()) == METHOD_COLOURS["AutoSteer"].lower() for bar in bars]

    assert marked(made.sas()) == [layer == 6 for layer in made.LAYERS]
    assert marked(made.sas().assign(chosen=[layer == 4 for layer in made.LAYERS])) == [
        layer == 4 for layer in made.LAYERS
    ]


def _scales(cosines: dict[int, np.ndarray]) -> tuple[set[tuple[float, float]], str]:
    figure = plotting.contrast_cosine_heatmaps(cosines)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left").startswith("layer")]
    bar = panels[0].collections[0].colorbar
    assert bar is not None
    return {axes.collections[0].get_clim() for axes in panels}, bar.extend


@pytest.mark.usefixtures("as_a_user")
def test_heatmaps_share_a_scale_that_their_cosines_fill() -> None:
    knows, draw = np.full((20, 20), 0.8), np.random.default_rng(5)
    stray = knows.copy()
    stray[0, 1:3] = stray[1:3, 0] = -0.3  # four of 800 cells
    assert _scales({1: knows, 2: knows}) == ({(0, 1)}, "neither")
    assert _scales({1: stray, 2: knows}) == ({(0, 1)}, "min")
    assert _scales({1: draw.uniform(-0.4, 0.6, (20, 20)), 2: knows}) == ({(-0.5, 1)}, "neither")
    with pytest.raises(ValueError, match="square"):
        plotting.contrast_cosine_heatmaps({1: np.zeros((2, 3))})
    with pytest.raises(ValueError, match="no layer"):
        plotting.contrast_cosine_heatmaps({})


def test_probers_say_what_their_dots_and_dotted_lines_are() -> None:
    def legend(chosen: dict[int, int]) -> list[str]:
        figure = plotting.prober_accuracy_over_epochs(made.history(), chosen=chosen, title="organism")
        (found,) = figure.legends
        assert found.get_title().get_text() == "organism"
        return [text.get_text() for text in found.get_texts()]

    assert legend({6: 51}) == ["epoch that is kept", "chance"]
    assert legend({}) == ["chance"]


def test_gate_scores_say_what_share_fires() -> None:
    rows = [
        ("a", True, 1.0),
        ("a", True, 0.5),
        ("a", True, 0.4),
        ("a", True, 0.9),
        ("b", False, 0.0),
        ("b", False, 0.1),
    ]
    scores = pd.DataFrame(rows, columns=["set", "harmful", "score"])
    figure = plotting.gate_scores_by_set(scores, threshold=0.5)
    texts = {text.get_text() for text in drawn_texts(figure)}
    assert {"75 %", "0 %", "τ = 0.5"} <= texts
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        plotting.gate_scores_by_set(scores.assign(score=1.5))


def test_answers_with_dollars_and_without_words_are_drawn() -> None:
    answers = pd.DataFrame(
        {"prompt": ["p"] * 2, "epsilon": [0.0, 0.1], "answer": ["costs $5 or $6", ""], "verdict": "safe"}
    )
    texts = {text.get_text() for text in drawn_texts(plotting.answer_drift(answers))}
    assert r"costs \$5 or \$6" in texts
    assert "(empty)" in texts
    png(plotting.answer_drift(answers))


def test_strengths_with_the_same_answers_share_a_row() -> None:
    table = made.drift()
    rows = [text.get_text() for text in drawn_texts(plotting.answer_drift(table)) if "ε" in text.get_text()]
    assert rows == ["ε = 0", "ε = 0.03", "ε = 0.06\nto 0.1", "ε = 0.2"]
    first = table["prompt"] == table["prompt"].iloc[0]
    table.loc[first & (table["epsilon"] == 0.1), "verdict"] = "unsafe"  # of one prompt alone
    assert len([text for text in drawn_texts(plotting.answer_drift(table)) if "ε" in text.get_text()]) == 5


def test_cost_ratios_are_relative_to_the_baseline() -> None:
    texts = {text.get_text() for text in drawn_texts(made.FIGURES["cost_bars"]())}
    assert {"×1.00", "×2.40", "39.0"} <= texts
    with pytest.raises(ValueError, match="one row a defence"):
        plotting.cost_bars(made.costs(), baseline="none")


def test_projection_puts_harmful_to_the_right_and_keeps_most_variance() -> None:
    points = made.points()
    for _, layer in points[points["layer"] == 6].groupby("layer"):
        assert layer.loc[layer["harmful"], "pc1"].mean() > layer.loc[~layer["harmful"], "pc1"].mean()
    assert points["explained"].between(0, 1).all()
    with pytest.raises(ValueError, match="do not fit"):
        plotting.project_states(np.zeros((4, 2, 3)), layers=[1], harmful=[True] * 4, modality=["text"] * 4)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"missing: \['low', 'high'\]"):
        plotting.asr_over_epsilon(made.epsilons().drop(columns=["low", "high"]))
    with pytest.raises(ValueError, match="empty table"):
        plotting.rates_by_surface(made.rates().iloc[:0])


def test_a_logarithmic_sweep_has_no_zero() -> None:
    with pytest.raises(ValueError, match="logarithmic"):
        plotting.sweep(made.sweep().replace({"width": {4: 0}}), x="width", x_label="width", log=True)


def test_tint_mixes_with_white() -> None:
    assert tint("#000000", strength=0.25) == pytest.approx((0.75, 0.75, 0.75))
    assert tint("#000000", strength=1.0) == pytest.approx((0, 0, 0))
