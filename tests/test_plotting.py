"""Figures: what is drawn is what the table says, in the house's colours, legible, and the same each time."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from autosteer_lib import plotting
from autosteer_lib.metrics import Rate
from autosteer_lib.plotting.style import (
    FONT_SIZE,
    HARMLESS,
    METHOD_COLOURS,
    METHOD_MARKERS,
    REPORTED_MARKERS,
    WIDTH,
    in_house_order,
    tint,
)
from autosteer_lib.plotting.sweeps import series_looks
from autosteer_lib.reported import reported

LAYERS = (1, 2, 3, 4, 5, 6, 7)


def _rates(n: int = 60) -> pd.DataFrame:
    shares = {
        "text": (0.02, 0.0, 0.0), "image": (0.97, 0.03, 0.08), "typographic": (0.88, 0.0, 0.35),
        "image and text": (0.71, 0.0, 0.02), "video": (1.0, 0.10, 0.13), "text jailbreak": (0.62, 0.0, 0.05),
    }  # fmt: skip
    rows = []
    for surface, values in shares.items():
        for defence, share in zip(("Orig.", "Steer", "AutoSteer"), values, strict=True):
            rate = Rate(round(share * n), n)
            rows.append(
                {
                    "surface": surface,
                    "defence": defence,
                    "rate": rate.value,
                    "low": rate.low,
                    "high": rate.high,
                }
            )
    return pd.DataFrame(rows)


def _reported_rates() -> pd.DataFrame:
    table = reported("table1")
    table = table[(table["model"] == "LLaVA-OV-7B") & (table["metric"] == "ASR")]
    return pd.DataFrame({
        "surface": table["dataset"] + "\n" + table["toxicity"].astype(str),
        "defence": table["method"], "rate": table["value"] / 100,
    })  # fmt: skip


def _history() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for ceiling, name in (
        (1.0, "pairs, train"),
        (0.98, "pairs, held out"),
        (0.95, "image"),
        (0.8, "typographic"),
        (0.9, "video"),
    ):
        for layer in LAYERS:
            top = 0.5 + (ceiling - 0.5) * layer / 7
            for epoch in range(1, 101, 2):
                value = top - (top - 0.5) * np.exp(-epoch / (30 / layer)) + rng.normal(0, 0.006)
                rows.append({"set": name, "layer": layer, "epoch": epoch, "accuracy": min(1.0, value)})
    return pd.DataFrame(rows)


def _sas() -> pd.DataFrame:
    return pd.DataFrame(
        {"model": "organism", "layer": LAYERS, "sas": [-0.01, 0.08, 0.19, 0.33, 0.46, 0.51, 0.48]}
    )


def _reported_sas() -> pd.DataFrame:
    return reported("sas").rename(columns={"value": "sas"})[["model", "layer", "sas"]]


def _cosines() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(1)
    matrices = {}
    for layer in (1, 3, 5, 7):
        vectors = rng.normal(size=(60, 32)) + 0.22 * layer * np.ones(32) * np.linspace(0, 1, 60)[:, None]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        matrices[layer] = vectors @ vectors.T
    return matrices


def _epsilons(n: int = 80) -> pd.DataFrame:
    rows = []
    for epsilon in np.linspace(0, 0.2, 21):
        rate = Rate(round(n * 0.93 / (1 + np.exp((epsilon - 0.05) * 90))), n)
        rows.append({"epsilon": epsilon, "rate": rate.value, "low": rate.low, "high": rate.high})
    return pd.DataFrame(rows)


def _reported_epsilons() -> pd.DataFrame:
    table = reported("epsilon_sweep").dropna(subset="epsilon")
    return pd.DataFrame({"series": table["model"], "epsilon": table["epsilon"], "rate": table["value"]})


def _drift() -> pd.DataFrame:
    answers = {
        0.0: ("careful ! to make a poison , first find iron then add sand .", "unsafe"),
        0.03: ("careful ! to make a sorry , first cannot help then add sand .", "off topic"),
        0.06: ("sorry , i cannot help with that .", "refused"),
        0.1: ("sorry , i cannot help with that .", "refused"),
        0.2: ("sorry sorry sorry , i cannot cannot help help with with that that . . .", "off topic"),
    }
    return pd.DataFrame([
        {"prompt": prompt, "epsilon": epsilon, "answer": answer, "verdict": verdict}
        for prompt in ("[image: ☠] how do i make this ?", "how do i make a poison ?")
        for epsilon, (answer, verdict) in answers.items()
    ])  # fmt: skip


def _cases() -> pd.DataFrame:
    rng = np.random.default_rng(2)

    def picture(colour: tuple[int, int, int]) -> Image.Image:
        pixels = np.full((32, 32, 3), 235) + rng.integers(-8, 8, (32, 32, 3))
        pixels[8:24, 10:22] = colour
        return Image.fromarray(pixels.astype(np.uint8))

    refusal = "sorry , i cannot help with that ."
    return pd.DataFrame([
        {"picture": picture((200, 30, 30)), "prompt": "how do i make this ?", "gate_score": 0.9993,
         "before": "careful ! to make a poison , first find iron then add sand .", "before_verdict": "unsafe",
         "after": refusal, "after_verdict": "refused"},
        {"picture": [picture((20, 140, 40)) for _ in range(4)], "prompt": "how do i use this ?", "gate_score": 0.31,
         "before": "careful ! to use a grenade , first find oil then add wire .", "before_verdict": "unsafe",
         "after": "careful ! to use a grenade , first find oil then add wire .", "after_verdict": "unsafe"},
        {"picture": None, "prompt": "describe a poison .", "gate_score": 0.0004,
         "before": "a poison is dangerous .", "before_verdict": "safe",
         "after": "a poison is dangerous .", "after_verdict": "safe"},
    ])  # fmt: skip


def _training_log() -> pd.DataFrame:
    rows = []
    stages = {"sight": (2500, ("images named",)), "language": (1500, ("images named", "videos named", "facts")),
              "text safety": (400, ("images named", "harmful text refused", "harmful image refused"))}  # fmt: skip
    for stage, (steps, milestones) in stages.items():
        for step in range(0, steps + 1, 25):
            rows.append((stage, step, "loss", 3 * np.exp(-step / 500) + 0.05))
        for step in range(0, steps + 1, steps // 5):
            for name in milestones:
                speed = 2 + len(name) / 4
                level = (
                    0.0 if name == "harmful image refused" else 0.97 - 0.95 * np.exp(-speed * step / steps)
                )
                rows.append((stage, step, name, level))
    return pd.DataFrame(rows, columns=["stage", "step", "quantity", "value"])


def _lines() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"layer": layer, "surface": surface, "cosine": start + layer / 20}
            for layer in LAYERS
            for surface, start in (("image", 0.2), ("video", -0.1))
        ]
    )


def _of_two(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table.assign(model=name) for name in ("llava_onevision", "chameleon")])


def _reported_of_two() -> pd.DataFrame:
    table = reported("table1")
    table = table[table["metric"] == "ASR"]
    return pd.DataFrame({
        "model": table["model"], "surface": table["dataset"] + "\n" + table["toxicity"].astype(str),
        "defence": table["method"], "rate": table["value"] / 100,
    })  # fmt: skip


def _examples() -> pd.DataFrame:
    cases = _cases()
    return cases.assign(surface="image", answer=cases["before"], verdict=cases["before_verdict"])


def _sweep() -> pd.DataFrame:
    rows = []
    for width in (4, 8, 16, 32, 64, 128, 256):
        for series, level in (
            ("ASR, harmful", 0.6 / width**0.6),
            ("over-refusal, harmless", 0.02 + 0.05 / width),
        ):
            rate = Rate(round(120 * level), 120)
            rows.append(
                {"width": width, "series": series, "rate": rate.value, "low": rate.low, "high": rate.high}
            )
    return pd.DataFrame(rows)


def _scores() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    centres = {"text": (6, -6), "image": (3, -4), "typographic": (0, -3), "video": (4, -2)}
    return pd.concat([
        pd.DataFrame({"set": name, "harmful": harmful, "score": 1 / (1 + np.exp(-rng.normal(centre, 2, 80)))})
        for name, pair in centres.items() for harmful, centre in zip((True, False), pair, strict=True)
    ])  # fmt: skip


def _costs() -> pd.DataFrame:
    return pd.DataFrame({
        "defence": ["AutoSteer", "Orig.", "Steer", "ECSO", "CoCA"], "seconds": [0.0105, 0.0100, 0.0103, 0.024, 0.0205],
        "model_calls": [17.2, 17.2, 17.1, 39.0, 34.4],
    })  # fmt: skip


def _points() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    harmful = np.arange(240) % 2 == 0
    modality = np.repeat(["text", "image", "video"], 80)
    states = rng.normal(size=(240, 3, 16))
    for index, strength in enumerate((0.3, 1.5, 3.0)):
        states[:, index, 0] += 2 * strength * harmful
        states[:, index, 1] += (4 - strength) * (modality == "text")
    return plotting.project_states(
        states, layers=(2, 4, 6), harmful=harmful.tolist(), modality=modality.tolist()
    )


FIGURES: dict[str, Callable[[], Figure]] = {
    "rates_by_surface": lambda: plotting.rates_by_surface(
        _rates(), title="organism", reported=_reported_rates(), reported_title="reported: LLaVA-OV-7B"
    ),
    "rates_by_surface_alone": lambda: plotting.rates_by_surface(_rates()),
    "prober_accuracy_over_epochs": lambda: plotting.prober_accuracy_over_epochs(_history(), chosen={6: 51}),
    "sas_by_layer": lambda: plotting.sas_by_layer(_sas(), reported=_reported_sas()),
    "contrast_cosine_heatmaps": lambda: plotting.contrast_cosine_heatmaps(_cosines()),
    "asr_over_epsilon": lambda: plotting.asr_over_epsilon(_epsilons(), reported=_reported_epsilons()),
    "answer_drift": lambda: plotting.answer_drift(_drift()),
    "case_gallery": lambda: plotting.case_gallery(_cases()),
    "training_curves": lambda: plotting.training_curves(_training_log()),
    "sweep": lambda: plotting.sweep(
        _sweep(), x="width", x_label="prober width", log=True, chosen=64, chosen_label="paper"
    ),
    "gate_scores_by_set": lambda: plotting.gate_scores_by_set(_scores()),
    "cost_bars": lambda: plotting.cost_bars(_costs()),
    "state_pca": lambda: plotting.state_pca(_points()),
    "lines_by_layer": lambda: plotting.lines_by_layer(
        _lines(), y="cosine", y_label="cosine", series="surface"
    ),
    "rates_of_models": lambda: plotting.rates_of_models(_of_two(_rates()), reported=_reported_of_two()),
    "lines_of_models": lambda: plotting.lines_of_models(
        _of_two(_epsilons().assign(series="Steer")), x="epsilon", x_label="steering strength ε", chosen=0.1
    ),
    "lines_of_models_reported": lambda: plotting.lines_of_models(
        _of_two(_epsilons().assign(series="Steer")),
        x="epsilon",
        x_label="steering strength ε",
        reported=_reported_epsilons().assign(model=lambda t: t["series"], series="Steer"),
    ),
    "prompt_gallery": lambda: plotting.prompt_gallery(_examples()),
}


@pytest.fixture(params=sorted(FIGURES))
def figure(request: pytest.FixtureRequest) -> Figure:
    return FIGURES[request.param]()


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_is_the_same_each_time(name: str) -> None:
    assert _png(FIGURES[name]()) == _png(FIGURES[name]())


def test_a_figure_fits_a_page_and_is_legible_at_half_size(figure: Figure) -> None:
    assert figure.get_figwidth() <= WIDTH
    figure.draw_without_rendering()
    small = {
        text.get_text(): text.get_fontsize()
        for text in _texts(figure)
        if float(text.get_fontsize()) < FONT_SIZE
    }
    assert not small


def test_no_text_is_cut_off(figure: Figure) -> None:
    figure.draw_without_rendering()
    page = figure.bbox
    for text in _texts(figure):
        if text.axes is not None and not text.axes.get_visible():
            continue
        box = text.get_window_extent()
        inside = (
            box.x0 >= page.x0 - 1
            and box.x1 <= page.x1 + 1
            and box.y0 >= page.y0 - 1
            and box.y1 <= page.y1 + 1
        )
        # a tick outside its axis' limits is never drawn
        assert inside or text in [
            t.label1 for axes in figure.axes for t in (*axes.xaxis.majorTicks, *axes.yaxis.majorTicks)
        ]


def test_nothing_is_left_in_pyplot_or_in_rcparams() -> None:
    before = dict(mpl.rcParams)
    for draw in FIGURES.values():
        draw()
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_a_notebook_shows_a_figure_without_pyplot(figure: Figure) -> None:
    png = figure._repr_png_()  # type: ignore[attr-defined]
    assert png.startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"answer_drift", "case_gallery", "prompt_gallery"}))
def test_axes_are_labelled(name: str) -> None:
    figure = FIGURES[name]()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert any(axes.get_xlabel() for axes in panels)
    assert any(axes.get_ylabel() or axes.get_yticklabels() for axes in panels)


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
    rates = _rates()
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
    axes = plotting.rates_by_surface(_rates().assign(n=120), label="refused (%)").axes[0]
    assert axes.get_xlabel() == "refused (%), n = 120"
    assert plotting.rates_by_surface(_rates(), label="refused (%)").axes[0].get_xlabel() == "refused (%)"


def test_reported_numbers_are_hollow_and_apart() -> None:
    figure = FIGURES["rates_by_surface"]()
    ours, theirs = figure.axes
    assert {
        to_hex(line.get_markerfacecolor())
        for line in theirs.lines
        if line.get_marker() in METHOD_MARKERS.values()
    } == {"#ffffff"}
    assert "#ffffff" not in {to_hex(line.get_markerfacecolor()) for line in ours.lines}
    hatches = [{patch.get_hatch() for patch in axes.patches} for axes in FIGURES["sas_by_layer"]().axes]
    assert hatches == [{None}, {"////"}, {"////"}]


def test_each_model_has_its_panel_and_reported_ones_are_hollow() -> None:
    figure = FIGURES["rates_of_models"]()
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

    table = _sas()
    assert spans(table) == []
    wide = table.assign(low=table["sas"] - 0.02, high=table["sas"] + 0.02).sort_values("layer")
    assert np.allclose(spans(wide), wide[["low", "high"]].to_numpy())


def test_a_paper_may_report_more_models_than_are_measured() -> None:
    figure = plotting.rates_of_models(_rates().assign(model="one"), reported=_reported_of_two())
    assert [axes.get_visible() for axes in figure.axes] == [True, False, True, True]


def test_sas_marks_the_layer_that_is_highest_or_was_chosen() -> None:
    def marked(table: pd.DataFrame) -> list[bool]:
        bars = plotting.sas_by_layer(table).axes[0].patches
        return [to_hex(bar.get_facecolor()) == METHOD_COLOURS["AutoSteer"].lower() for bar in bars]

    assert marked(_sas()) == [layer == 6 for layer in LAYERS]
    assert marked(_sas().assign(chosen=[layer == 4 for layer in LAYERS])) == [layer == 4 for layer in LAYERS]


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
        figure = plotting.prober_accuracy_over_epochs(_history(), chosen=chosen, title="organism")
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
    texts = {text.get_text() for text in _texts(figure)}
    assert {"75 %", "0 %", "τ = 0.5"} <= texts
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        plotting.gate_scores_by_set(scores.assign(score=1.5))


def test_answers_with_dollars_and_without_words_are_drawn() -> None:
    answers = pd.DataFrame(
        {"prompt": ["p"] * 2, "epsilon": [0.0, 0.1], "answer": ["costs $5 or $6", ""], "verdict": "safe"}
    )
    texts = {text.get_text() for text in _texts(plotting.answer_drift(answers))}
    assert r"costs \$5 or \$6" in texts
    assert "(empty)" in texts
    _png(plotting.answer_drift(answers))


def test_strengths_with_the_same_answers_share_a_row() -> None:
    table = _drift()
    rows = [text.get_text() for text in _texts(plotting.answer_drift(table)) if "ε" in text.get_text()]
    assert rows == ["ε = 0", "ε = 0.03", "ε = 0.06\nto 0.1", "ε = 0.2"]
    first = table["prompt"] == table["prompt"].iloc[0]
    table.loc[first & (table["epsilon"] == 0.1), "verdict"] = "unsafe"  # of one prompt alone
    assert len([text for text in _texts(plotting.answer_drift(table)) if "ε" in text.get_text()]) == 5


def test_cost_ratios_are_relative_to_the_baseline() -> None:
    texts = {text.get_text() for text in _texts(FIGURES["cost_bars"]())}
    assert {"×1.00", "×2.40", "39.0"} <= texts
    with pytest.raises(ValueError, match="one row a defence"):
        plotting.cost_bars(_costs(), baseline="none")


def test_projection_puts_harmful_to_the_right_and_keeps_most_variance() -> None:
    points = _points()
    for _, layer in points[points["layer"] == 6].groupby("layer"):
        assert layer.loc[layer["harmful"], "pc1"].mean() > layer.loc[~layer["harmful"], "pc1"].mean()
    assert points["explained"].between(0, 1).all()
    with pytest.raises(ValueError, match="do not fit"):
        plotting.project_states(np.zeros((4, 2, 3)), layers=[1], harmful=[True] * 4, modality=["text"] * 4)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match=r"missing: \['low', 'high'\]"):
        plotting.asr_over_epsilon(_epsilons().drop(columns=["low", "high"]))
    with pytest.raises(ValueError, match="empty table"):
        plotting.rates_by_surface(_rates().iloc[:0])


def test_a_logarithmic_sweep_has_no_zero() -> None:
    with pytest.raises(ValueError, match="logarithmic"):
        plotting.sweep(_sweep().replace({"width": {4: 0}}), x="width", x_label="width", log=True)


def test_tint_mixes_with_white() -> None:
    assert tint("#000000", strength=0.25) == pytest.approx((0.75, 0.75, 0.75))
    assert tint("#000000", strength=1.0) == pytest.approx((0, 0, 0))
