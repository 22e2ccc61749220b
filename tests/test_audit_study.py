"""Chapter 10's tables: what was found, pinned, and what must hold of any table."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from autosteer_lib.mars_readings import MarsReading
from autosteer_lib.plotting import cells_by_size, fall_on_clean_rows, stated_against_cells
from autosteer_lib.study import Study, audit, audit_open, audit_sizes, audit_sums, over_things, report
from autosteer_lib.study.compared_data import compared_data


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.open("smoke", out=tmp_path_factory.mktemp("audit") / "smoke")


def _one(table: pd.DataFrame, **choice: object) -> dict[Any, Any]:
    """The one row with these values."""
    for column, value in choice.items():
        table = table[table[column] == value]
    assert len(table) == 1, f"{len(table)} rows with {choice}"
    return table.to_dict("records")[0]


def test_95_test_queries_are_training_queries_over_other_pictures() -> None:
    table = audit.overlaps()
    here = table[(table["of"] == "vlsafe/test") & (table["among"] == "vlsafe/train")]
    assert dict(zip(here["by"], here["rows"], strict=True)) == {
        "exact": 94,
        "folded": 95,
        "words": 95,
        "beside": 0,
    }
    folded = _one(here, by="folded")
    assert (folded["n"], folded["distinct"]) == (500, 78)
    assert _one(table, of="vlsafe/twins", by="beside")["rows"] == 3000  # twins share the picture
    assert _one(table, of="figstep/tiny")["rows"] == 50


def test_sources_that_jailbreakbench_names() -> None:
    table = audit.claimed_sources()
    found = _one(table, source="AdvBench")
    assert (found["claimed"], found["same_words"], found["alike_60"]) == (18, 11, 18)
    found = _one(table, source="TDC/HarmBench")
    assert (found["claimed"], found["same_words"]) == (27, 9)


def test_rows_are_shown_by_number_and_hash_alone() -> None:
    table = audit.examples(count=200)
    assert len(table) == 95
    assert table["case_alone"].sum() == 1
    assert table["exact"].str.fullmatch("[0-9a-f]{16}").all()


def test_likeness_counts_grow_as_the_threshold_falls() -> None:
    table = audit.alike("vlsafe/test", "vlsafe/train")
    assert table["rows"].is_monotonic_increasing
    assert [_one(table, threshold=t)["rows"] for t in (1.0, 0.8)] == [98, 197]


def test_split_sizes_and_what_they_hold_twice() -> None:
    table = audit.duplicates()
    for split, rows, distinct in (("vlsafe/test", 500, 479), ("vlsafe/train", 3000, 2681)):
        found = _one(table, split=split)
        assert (found["rows"], found["distinct"]) == (rows, distinct)
    assert (table["rows"] - table["repeated"] == table["distinct"]).all()
    assert (table["repeated_whole"] == 0).all()


def test_bounds_hold_the_reported_numbers_and_widen_with_what_is_set_aside() -> None:
    falls = audit.clean_falls()
    assert (falls["least"] <= falls["reported"] + 1e-9).all()
    assert (falls["most"] >= falls["reported"] - 1e-9).all()
    for _, rows in falls.groupby(["set", "model"]):
        rows = rows.sort_values("excluded")
        assert rows["least"].is_monotonic_decreasing
    whole = falls[falls["excluded"] == 0]
    assert whole["least"].tolist() == pytest.approx(whole["reported"].tolist())
    copies = falls[falls["set_aside"].str.contains("letter case")]
    assert copies["least"].tolist() == pytest.approx([100 * (205 - 21) / 405, 100 * (244 - 77) / 405])
    rates = audit.clean_rates()
    assert (rates["wilson_low"] <= rates["low"]).all()
    assert (rates["high"] <= rates["wilson_high"]).all()


def test_mm_vet_says_nothing_of_questions_outside_the_fit() -> None:
    table = audit.graded_on_training()
    assert set(table["left"]) == {18}
    assert set(table["low"]) == {0.0}
    assert set(table["high"]) == {100.0}


def test_own_test_prompts_are_in_no_fit(study: Study) -> None:
    table = audit.own_splits(study)
    assert len(table) == 7 * 4
    # The world has six role-plays, and the two methods that need texts which get through are fitted on all of them.
    played = {p.text for p in audit.fitted_on(study)["texts with role-plays (AdaSteer, transfer)"]}
    assert {p.text for p in compared_data(study).texts.unsafe} <= played
    assert played > {p.text for p in study.text_data.texts.unsafe}
    assert table["same_prompt"].sum() == 0
    assert (table["same_prompt"] <= table["same_words"]).all()
    probed = table[table["fitted"].str.startswith("probe") & (table["group"] == "utility")]
    assert probed["same_words"].item() > 0  # the same questions about other pictures
    repeats = audit.own_repeats(study)
    assert repeats["n"].sum() == len(study.data.tests)
    assert (repeats["distinct_words"] <= repeats["distinct"]).all()


def test_intervals_over_things_are_wide_where_the_thing_decides(study: Study) -> None:
    attacks = study.data.test(group="attack")
    things = pd.Series([p.metadata["thing"] for p in attacks])
    frame = pd.DataFrame(
        {
            "prompt_id": [p.id for p in attacks],
            "group": "attack",
            "surface": [p.surface for p in attacks],
            "defence": "Orig.",
            "unsafe": things == things.mode()[0],
        }
    ).assign(refused=False, correct=None)
    found = _one(over_things.by_things(study, frame), surface="all")
    assert found["things"] == things.nunique()
    assert found["n"] == len(attacks)
    assert found["design"] > 1
    assert found["low_things"] <= found["low"] <= found["rate"] <= found["high"] <= found["high_things"]


def test_a_prompt_that_was_fitted_on_would_be_found(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    leaked = tuple(study.data.test(group="attack")[:3])
    monkeypatch.setattr(audit, "fitted_on", lambda study: {"leak": leaked})
    found = _one(audit.own_splits(study), group="attack")
    assert found["same_prompt"] >= 3
    assert found["alike_80"] >= 3


def test_autosteers_changes_add_up_and_six_of_safesteers_means_do_not() -> None:
    table = audit_sums.sums()
    wrong = table[~table["agrees"]]
    assert "AutoSteer" not in set(wrong["paper"])
    assert (wrong["paper"] == "SafeSteer").sum() == 6
    assert _one(wrong, paper="MARS", rule="multiple")["stated"] == "2.9"
    video = table[table["where"] == "Table 10"].pivot(index="what", columns="rule", values="agrees")
    assert video.any(axis=1).all()  # every overall rate is one of the two means
    only_items = video.index[~video["plain mean"]]
    assert len(only_items) == 3
    assert only_items.str.contains("AdaSteer").all()
    assert audit_sums.summary(table, by=["paper"])["checked"].sum() == len(table)


def test_each_repair_makes_its_mean_hold() -> None:
    table = audit_sums.repairs()
    assert len(table) == 6 * 3
    slips = table[(table["model"] == "Qwen3-VL-8B") & ~table["possible"]]
    assert slips["printed"].tolist() == ["0.48", "0.28"]
    assert set(slips["nearest"]) == {"0.78"}
    assert (table["low"] < table["high"]).all()


def test_numbers_that_are_printed_twice() -> None:
    table = audit_sums.repeated()
    assert len(table) == 81
    wrong = table[~table["agrees"]]
    assert len(wrong) == 6
    assert set(wrong["paper"]) == {"MARS"}
    assert "95.8; 92.0" in set(wrong["printed"])


def test_impossible_percentages() -> None:
    table = audit_sizes.granularity()
    table["left"] = table["cells"] - table["possible"]
    assert table.loc[table["paper"] == "AutoSteer", "left"].sum() == 4
    assert table.loc[table["paper"] == "MARS", "left"].sum() == 0
    assert _one(table, set="VLGuard (U)")["left"] == 1
    image = _one(table, paper="AutoSteer", set="ToViLaG+ (image)")
    assert "29.3 (Chameleon-7B, Steer)" in image["impossible"]


def test_mm_safety_bench_has_the_size_that_the_library_takes() -> None:
    expected = audit_sizes.SUBSET_OF_MM_SAFETY_BENCH
    found = audit_sizes.size_search("SafeSteer", "MM-SafetyBench (", least=1100, most=1200)
    best = _one(found, possible=found["possible"].max())
    assert (best["n"], best["possible"], best["cells"]) == (expected, 31, 36)
    assert audit_sizes.fitting_sizes("AutoSteer", "ToViLaG+ (image)", "Chameleon-7B", most=500)[-1] == 492
    with pytest.raises(ValueError, match="'MARS' reports no rates of 'POPE'; there are: ViSU"):
        audit_sizes.size_search("MARS", "POPE", most=200)


def test_noise_compares_each_papers_own_method() -> None:
    table = audit_sizes.noise()
    assert set(table["paper"]) == {"AutoSteer", "SafeSteer", "MARS"}
    assert (table["p_least"] <= table["p_most"]).all()
    assert table["percent"].between(table["low"] - 0.1, table["high"] + 0.1).all()
    assert not (table["method"] == table["other"]).any()
    sure = _one(table, model="LLaVA-OV-7B", set="VLSafe (text)", other="Orig.")
    assert sure["verdict"] == "beyond noise"
    close = _one(table, model="LLaVA-1.5-7B", set="FigStep", other="ECSO")
    assert close["verdict"] == "depends on the pairs"


def test_open_points_are_the_readings_fields() -> None:
    table = audit_open.options()
    mars = table[table["paper"] == "MARS"]
    assert mars["point"].tolist() == list(vars(MarsReading()))
    assert (table["choices"] >= 2).all()
    ways = audit_open.ways()
    assert dict(zip(ways["paper"], ways["ways"], strict=True)) == {
        "AutoSteer": 2**11,
        "MARS": 648,
        "SafeSteer": 192,
    }
    assert set(audit_open.unstated()["paper"]) == {"AutoSteer", "SafeSteer", "MARS"}
    assert set(audit_open.read()["paper"]) == {"AutoSteer", "SafeSteer", "MARS"}


def test_figures_draw_every_row(tmp_path: Path) -> None:
    falls = audit.clean_falls()
    falls = falls[falls["threshold"].notna()]
    figure = fall_on_clean_rows(falls)
    assert len(figure.axes) == falls["model"].nunique()
    sums = audit_sums.sums()
    wrong = sums[~sums["agrees"]]
    axes = stated_against_cells(wrong).axes[0]
    assert len(axes.get_yticklabels()) == len(wrong)
    found = audit_sizes.size_search("SafeSteer", "MM-SafetyBench (", least=1150, most=1170)
    assert "n = 1159" in " ".join(
        text.get_text() for text in cells_by_size(found, expected=1165).axes[0].texts
    )
    with pytest.raises(ValueError, match="missing"):
        fall_on_clean_rows(falls.drop(columns="least"))


def test_the_report_shows_no_figure_of_a_later_notebook(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    falls = audit.clean_falls()
    study.table(falls, "report_falls")
    drawn = falls[falls["threshold"].notna()]
    for notebook, name in (("03_prober_training", "report_before"), ("10_audit", "report_after")):
        monkeypatch.setenv("AUTOSTEER_NOTEBOOK", notebook)
        study.figure(fall_on_clean_rows(drawn), name, tables=["report_falls"])
    shown = {notebook: [title for title, _ in some] for notebook, some in report.figures(study).items()}
    assert shown == {"03_prober_training": ["report before"]}
