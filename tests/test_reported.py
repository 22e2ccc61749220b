"""The papers' numbers: all there, in range, consistent with themselves, and labelled as theirs."""

from pathlib import Path

import pandas as pd
import pytest

from autosteer_lib.reported import COLUMNS, TRUST, available, reported
from autosteer_lib.study import mars_paper_numbers

HEADER = ",".join(COLUMNS)
FIVE = ("Gemma3-4B", "Molmo2-8B", "InternVL3.5-8B", "Qwen3-VL-8B", "Qwen3.5-9B")
MARS_ROWS = {
    "refusal": 5 * 5 * 2,  # methods, models, sides
    "hades": 5 * 5 * 2,  # methods, models, refusal and safety
    "utility": 5 * 5 * 2,
    "ablation": 8 * 5 * 3,
    "video": 5 * 4 + 4 + 4 * 5 * 14 + 1,  # Table 5, its multiples, Table 10 with its overall rates, the text
    "mmsafety": 5 * 5,
    "prompt_effect": 3 * 5 + 1,
    "neutral_images": 7 * 5 * 3,
    "llava15": 6 + 2,
    "fixed_strength": 12 + 3 * 2 + 1,  # bars; stars and their heights; the text's peak
    "layers": 5 * 3,
}
# How many items of Video-SafetyBench's benign half are in each category: every rate is a multiple of 1/n.
VIDEO_ITEMS = {
    "1-VC": 96, "2-NC": 96, "3-SC": 60, "4-CSE": 60, "5-Def": 96, "6-SA": 96, "7-Pvy": 96, "8-IP": 96, "9-IW": 100,
    "10-H": 100, "11-Sh": 96, "12-SC": 60, "13-EL": 80,
}  # fmt: skip
ROW = "autosteer,t,LLaVA-OV-7B,Steer,VLSafe,ASR,epsilon=0.1,2.0,percent,printed in a table,Table 1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "autosteer_t.csv").write_text(f"{HEADER}\n{ROW}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("paper", "table", "arxiv"),
    [
        *(("autosteer", table, "2507.13255") for table in available()),
        *(("mars", table, "2606.31876") for table in available(paper="mars")),
    ],
)
def test_every_shipped_table_loads_and_names_its_source(paper: str, table: str, arxiv: str) -> None:
    frame = reported(table, paper=paper)
    assert set(frame["trust"]) <= set(TRUST)
    assert frame["source"].str.contains(arxiv, regex=False).all()
    assert set(frame["table"]) == {table}
    assert set(frame["paper"]) == {paper}


def test_all_tables_of_the_papers_are_there() -> None:
    assert available() == ("epsilon_sweep", "prober", "sas", "table1")
    assert set(available(paper="mars")) == set(MARS_ROWS)


def test_table1_is_whole_and_its_brackets_are_its_differences() -> None:
    table = reported("table1")
    counts = table.groupby("model").size()
    # six sets for LLaVA-OV, five for Chameleon; three rates and two changes each
    assert dict(counts) == {"LLaVA-OV-7B": 30, "Chameleon-7B": 25}
    keys = ["model", "dataset", "toxicity"]
    table = table.assign(toxicity=table["toxicity"].fillna("none"))
    for metric in ("ASR", "accuracy"):
        rates = table[table["metric"] == metric].pivot(index=keys, columns="method", values="value")
        changes = table[table["metric"] == f"{metric} change vs Orig."]
        changes = changes.pivot(index=keys, columns="method", values="value")
        for method in ("Steer", "AutoSteer"):
            pd.testing.assert_series_equal(
                rates[method] - rates["Orig."], changes[method], check_names=False, atol=0.051
            )


def test_table1_headline_numbers() -> None:
    table = reported("table1")
    llava = table[(table["model"] == "LLaVA-OV-7B") & (table["metric"] == "ASR")]
    image = llava[llava["toxicity"] == "image"].set_index("method")["value"]
    assert dict(image) == {"Orig.": 70.6, "Steer": 0.0, "AutoSteer": 0.0}


def test_sas_selects_the_layers_that_the_paper_probes() -> None:
    sas = reported("sas")
    best = sas.loc[sas.groupby("model")["value"].idxmax()].set_index("model")["layer"]
    assert dict(best) == {"Chameleon-7B": 24.0, "LLaVA-OV-7B": 20.0}
    assert dict(sas.groupby("model").size()) == {"Chameleon-7B": 7, "LLaVA-OV-7B": 6}


def test_points_that_a_machine_read_off_a_curve_are_marked() -> None:
    sweep = reported("epsilon_sweep")
    points = sweep[sweep["metric"] == "ASR"]
    assert set(points["trust"]) == {"read by machine off a figure"}
    assert dict(points.groupby("model").size()) == {"Chameleon-7B": 12, "LLaVA-OV-7B": 12}
    assert set(sweep[sweep["metric"] != "ASR"]["trust"]) == {"stated in the text"}


def test_settings_become_columns(folder: Path) -> None:
    frame = reported("t", folder=folder)
    assert frame.loc[0, "epsilon"] == 0.1
    assert frame.loc[0, "value"] == 2.0


def test_an_unknown_table_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no table 'table9'.*there are: t$"):
        reported("table9", folder=folder)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (ROW.replace(",2.0,", ",200,"), "outside"),
        (ROW.replace(",2.0,", ",,"), "line 3: value is empty"),
        (ROW.replace("printed in a table", "surely"), "trust is 'surely'; allowed"),
        (ROW.replace("percent", "apples"), "unit is 'apples'; allowed"),
        (ROW.replace("2.0", "3.0"), "same quantity"),
        (ROW.replace("epsilon=0.1", "epsilon 0.1"), "name=value"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(folder: Path, row: str, complaint: str) -> None:
    path = folder / "autosteer_t.csv"
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(ValueError, match=complaint):
        reported("t", folder=folder)


def test_wrong_columns_are_refused(folder: Path) -> None:
    (folder / "autosteer_t.csv").write_text("paper,value\nautosteer,1\n")
    with pytest.raises(ValueError, match="they must be"):
        reported("t", folder=folder)


@pytest.mark.parametrize("table", sorted(MARS_ROWS))
def test_mars_tables_are_whole(table: str) -> None:
    assert len(reported(table, paper="mars")) == MARS_ROWS[table]


@pytest.mark.parametrize(
    ("table", "choice", "values"),
    [  # in the order of FIVE, as printed
        ("refusal", {"method": "Zero-shot", "side": "unsafe"}, (18.2, 0.2, 11.2, 14.2, 22.9)),
        ("refusal", {"method": "MARS", "side": "unsafe"}, (43.3, 68.1, 70.4, 78.5, 51.1)),
        ("refusal", {"method": "MARS", "side": "safe"}, (1.3, 7.3, 10.3, 2.2, 0.6)),
        ("refusal", {"method": "SASA", "side": "safe"}, (71.1, 15.2, 4.9, 2.5, 13.7)),
        ("hades", {"method": "MARS", "metric": "refusal"}, (59.2, 95.8, 88.3, 98.3, 99.5)),
        ("hades", {"method": "ECSO", "metric": "safety (Llama Guard 3.1)"}, (35.2, 91.3, 65.7, 97.0, 92.2)),
        ("utility", {"method": "MARS", "dataset": "MMMU"}, (39.8, 50.1, 51.4, 50.8, 38.2)),
        ("utility", {"method": "AdaSteer", "dataset": "MMMU-Pro"}, (26.4, 34.7, 36.1, 39.6, 41.0)),
        ("ablation", {"variant": "no centring", "side": "safe"}, (4.0, 99.2, 63.9, 14.8, 5.3)),
        ("ablation", {"variant": "no layer selection", "side": "unsafe"}, (0.8, 0.6, 75.5, 0.0, 0.0)),
        ("ablation", {"variant": "no separability", "dataset": "MMMU-Pro"}, (26.5, 34.4, 36.6, 39.3, 24.5)),
        ("ablation", {"method": "Zero-shot", "side": "safe"}, (0.0, 0.1, 0.5, 0.5, 39.3)),  # shifted, as printed
        ("neutral_images", {"method": "Zero-shot", "side": "safe"}, (0.0, 0.1, 0.5, 0.0, 0.1)),
        ("neutral_images", {"neutral_images": 48.0, "side": "unsafe"}, (42.5, 67.8, 70.6, 78.3, 51.2)),
        ("mmsafety", {"method": "MARS"}, (32.5, 81.3, 55.9, 85.3, 76.9)),
        ("prompt_effect", {"method": "Zero-shot", "prompt": "unsafe"}, (85.7, 89.4, 76.6, 94.7, 96.5)),
        ("layers", {"metric": "selected layer"}, (26, 22, 25, 23, 22)),
        ("layers", {"metric": "last candidate layer"}, (33, 35, 35, 35, 31)),
    ],
)  # fmt: skip
def test_mars_rows_are_as_printed(table: str, choice: dict[str, object], values: tuple[float, ...]) -> None:
    frame = reported(table, paper="mars")
    for column, value in choice.items():
        frame = frame[frame[column] == value]
    assert tuple(frame.set_index("model")["value"].loc[list(FIVE)]) == values


def test_mars_tables_that_share_a_run_agree_wherever_no_note_says_otherwise() -> None:
    """Tables 1, 3, 4, 8 and 9 print the undefended model and the full method; so do 2 and 7, and 5 and 10."""
    tables = {name: mars_paper_numbers.tidy(name) for name in MARS_ROWS if name != "layers"}
    ablation, neutral = tables["ablation"], tables["neutral_images"]
    same = {
        "pictures": [
            tables["refusal"][tables["refusal"]["method"].isin(["Orig.", "MARS"])],
            tables["utility"][
                tables["utility"]["method"].isin(["Orig.", "MARS"]) & (tables["utility"]["set"] == "MMMU-Pro")
            ],
            ablation[ablation["variant"].isna() | (ablation["variant"] == "full")],
            neutral[neutral["neutral_images"].isna() | (neutral["neutral_images"] == 128)],
        ],
        "no centring": [
            ablation[ablation["variant"] == "no centring"],
            neutral[neutral["neutral_images"] == 0],
        ],
        "HADES": [tables["hades"], tables["prompt_effect"][tables["prompt_effect"]["prompt"] == "neutral"]],
        "video": [
            tables["video"][tables["video"]["category"].isna() | (tables["video"]["category"] == "overall")]
        ],
    }
    compared = 0
    for run in same.values():
        for _, cells in pd.concat(run).groupby(["model", "method", "set", "measure"]):
            compared += len(cells) > 1
            noted = cells["note"].str.contains("Table|shifted").any()
            assert (cells["percent"].nunique() > 1) <= noted, cells
    assert compared >= 30 + 15 + 10 + 20


def test_mars_video_rates_are_whole_answers_and_their_overall_rate_is_one_of_two_means() -> None:
    table = mars_paper_numbers.tidy("video")
    table = table[table["category"].notna()]
    assert sum(VIDEO_ITEMS.values()) == 1132
    for (_, method), rows in table.groupby(["model", "method"]):
        percent = dict(zip(rows["category"], rows["percent"], strict=True))
        answers = {name: round(percent[name] * n / 100) for name, n in VIDEO_ITEMS.items()}
        for name, n in VIDEO_ITEMS.items():
            assert percent[name] == pytest.approx(100 * answers[name] / n, abs=0.0501)
        over_items = 100 * sum(answers.values()) / 1132
        plain = sum(100 * answers[name] / n for name, n in VIDEO_ITEMS.items()) / 13
        expected = over_items if method == "AdaSteer" else plain  # as the notes of AdaSteer's rows say
        assert percent["overall"] == pytest.approx(expected, abs=0.0501)


def test_mars_multiples_and_gains_follow_from_the_rates_that_their_notes_name() -> None:
    video = reported("video", paper="mars")
    video = video[video["source"].str.endswith("Table 5")]
    rates = video[video["metric"] == "refusal"].pivot(index="model", columns="method", values="value")
    times = video[video["unit"] == "times"].set_index("model")["value"]
    # printed to one digit, ×2.9 cut off rather than rounded
    found = (rates["MARS"] / rates["Zero-shot"]).loc[times.index].tolist()
    assert found == pytest.approx(times.tolist(), abs=0.085)
    llava = reported("llava15", paper="mars")
    hades = llava[llava["dataset"] == "HADES"].set_index(["method", "metric"])["value"]
    assert hades["MARS", "refusal"] / hades["Zero-shot", "refusal"] == pytest.approx(1615)
    assert hades["MARS", "refusal, times zero-shot"] == 1615


def test_mars_cells_in_the_wrong_place_are_marked_and_table_9_puts_them_right() -> None:
    ablation = reported("ablation", paper="mars")
    shifted = ablation[ablation["trust"] == "printed in the wrong cell"]
    assert sorted(shifted["value"]) == [0.0, 0.5, 14.2, 39.3]
    assert shifted["note"].str.contains("Table 9 prints").all()
    for model in ("Qwen3-VL-8B", "Qwen3.5-9B"):
        ours = mars_paper_numbers.ablation(model=model)
        theirs = mars_paper_numbers.neutral_images(model=model)
        undefended = ours[ours["variant"] == "undefended"].set_index("measure")["rate"]
        pd.testing.assert_series_equal(
            undefended, theirs[theirs["neutral_images"].isna()].set_index("measure")["rate"]
        )


@pytest.mark.parametrize(
    ("table", "notes"),
    [
        ("refusal", {("Gemma3-4B", "Zero-shot", 0.1), ("Qwen3-VL-8B", "Zero-shot", 0.1)}),
        ("hades", {
            ("Molmo2-8B", "MARS", 95.8), ("InternVL3.5-8B", "Zero-shot", 16.7), ("Qwen3.5-9B", "Zero-shot", 65.3),
            ("Gemma3-4B", "Zero-shot", 37.4), ("InternVL3.5-8B", "MARS", 79.8), ("Molmo2-8B", "SASA", 92.2),
        }),
        ("utility", {("Qwen3.5-9B", "MARS", 38.2), ("Qwen3.5-9B", "MARS", 24.5)}),
        ("prompt_effect", {("Molmo2-8B", "MARS", 92.0), ("Molmo2-8B", "MARS", 74.8)}),
        ("neutral_images", {("Gemma3-4B", "Zero-shot", 0.0), ("Qwen3-VL-8B", "Zero-shot", 0.0)}),
        ("fixed_strength", {("Qwen3-VL-8B", "Fixed strength", 19.0), ("Qwen3-VL-8B", "Fixed strength", 16.0)}),
        ("mmsafety", set()),
    ],
)  # fmt: skip
def test_mars_numbers_that_something_stands_against_have_a_note(
    table: str, notes: set[tuple[str, str, float]]
) -> None:
    frame = reported(table, paper="mars")
    noted = frame[frame["note"] != ""]
    assert set(zip(noted["model"], noted["method"], noted["value"], strict=True)) == notes


def test_mars_numbers_read_off_figures_are_marked() -> None:
    strengths = reported("fixed_strength", paper="mars")
    assert set(strengths["trust"]) == {"read by machine off a figure", "stated in the text"}
    assert set(strengths.loc[strengths["trust"] == "stated in the text", "metric"]) == {"layer of the peak"}
    layers = mars_paper_numbers.layers()
    assert set(layers["model"]) == set(FIVE)
    assert ((layers["first"] <= layers["selected"]) & (layers["selected"] <= layers["last"])).all()


def test_contradictions_quote_numbers_that_the_tables_hold() -> None:
    found = mars_paper_numbers.contradictions()
    assert list(found.columns) == ["kind", "number", "where", "printed", "disagrees"]
    assert set(found["kind"]) == {"contradiction", "weak point"}
    assert found["number"].is_unique
    known = {f"{value:.1f}" for name in MARS_ROWS for value in reported(name, paper="mars")["value"]}
    quoted = found["printed"].str.findall(r"(?<!\w)\d+\.\d").explode().dropna()
    assert len(quoted) > 25
    assert set(quoted) <= known


def test_mars_numbers_take_the_figures_shapes() -> None:
    rates = mars_paper_numbers.rates("refusal", model="Molmo2-8B", methods=["Orig.", "MARS"])
    assert rates.to_dict("list") == {
        "surface": ["ViSU, safe", "ViSU, unsafe"] * 2,
        "defence": ["Orig.", "Orig.", "MARS", "MARS"],
        "rate": pytest.approx([0.001, 0.002, 0.073, 0.681]),
    }
    video = mars_paper_numbers.rates("video", model="Molmo2-8B")
    assert dict(zip(video["defence"], video["rate"], strict=True))["MARS"] == pytest.approx(0.692)
    prompts = mars_paper_numbers.rates("prompt_effect", model="Gemma3-4B")["surface"]
    assert list(prompts) == ["HADES, unsafe prompt", "HADES, neutral prompt", "HADES, neutral prompt"]
    categories = mars_paper_numbers.video_by_category(model="Qwen3.5-9B", methods=["MARS"])
    assert list(categories["surface"]) == list(VIDEO_ITEMS)
    plane = mars_paper_numbers.safety_against_cost(model="InternVL3.5-8B").set_index("method")
    assert [plane["x"]["MARS"], plane["y"]["MARS"]] == pytest.approx([0.103, 0.202])
    assert set(mars_paper_numbers.ablation(model="Gemma3-4B")["measure"]) == {
        "harmful refused", "harmless refused", "utility",
    }  # fmt: skip


def test_a_model_that_mars_does_not_report_is_named() -> None:
    with pytest.raises(ValueError, match=r"no model 'Gemma3-4B' in 'video'; there are: Molmo2-8B"):
        mars_paper_numbers.video_by_category(model="Gemma3-4B")
    with pytest.raises(ValueError, match=r"could not be read for 'InternVL3.5-8B'"):
        mars_paper_numbers.by_strength(model="InternVL3.5-8B")


def test_a_note_may_stand_last_and_is_empty_where_nothing_is_said(folder: Path) -> None:
    path = folder / "autosteer_t.csv"
    path.write_text(f"{HEADER},note\n{ROW},\n{ROW.replace('0.1', '0.2')},printed twice\n")
    assert list(reported("t", folder=folder)["note"]) == ["", "printed twice"]
    path.write_text(f"{HEADER},remark\n{ROW},\n")
    with pytest.raises(ValueError, match="'note' may stand last"):
        reported("t", folder=folder)
