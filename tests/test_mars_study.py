"""Chapter 05 on the smoke profile: what its tables hold, and that nothing of the tests enters the fit."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from scipy.stats import ttest_ind

from autosteer_lib.defences import Mars, Undefended
from autosteer_lib.profiles import load_profile
from autosteer_lib.provenance import repository_root
from autosteer_lib.study import (
    Study,
    confirmation,
    mars_ablation,
    mars_outcome,
    outcome,
    strengths,
    sweeps,
    transfer,
)
from autosteer_lib.study.layers import labelled
from autosteer_lib.study.text_data import text_data


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.open("smoke", out=tmp_path_factory.mktemp("smoke"))


def test_texts_and_tests_share_nothing(study: Study) -> None:
    texts = study.text_data.texts
    fitted = (*texts.unsafe, *texts.safe, *texts.validation_unsafe, *texts.validation_safe)
    tests = {p.fingerprint for p in study.data.tests}
    assert not tests & {p.fingerprint for p in fitted}
    assert not {p.metadata["thing"] for p in fitted} & {p.metadata["thing"] for p in study.data.tests}


def test_neutral_sights_ask_what_the_fit_split_asks(study: Study) -> None:
    data = study.text_data
    assert len(data.pictures) == len(data.clips) == study.profile.mars.neutral
    assert all(p.modality == "image" for p in data.pictures)
    assert all(p.modality == "video" for p in data.clips)
    assert all(" this" in p.text for p in data.pictures)


def test_a_fitted_mars_is_read_back(study: Study) -> None:
    first, second = study.mars(), study.mars()
    assert first is not second
    assert first.fingerprint == second.fingerprint


def test_separation_is_the_difference_of_mean_cosines(study: Study) -> None:
    table = transfer.separations(study)
    row = table[(table["surface"] == "text") & (table["centring"] == "raw") & (table["layer"] == 5)]
    prompts = labelled(study, "text")
    states = study.outputs(prompts)[:, 5]
    cosines = torch.cosine_similarity(states, study.mars().direction[5], dim=-1)
    harmful = torch.tensor([bool(p.harmful) for p in prompts])
    assert row["separation"].item() == pytest.approx(
        float(cosines[harmful].mean() - cosines[~harmful].mean()), abs=1e-6
    )
    welch = ttest_ind(cosines[harmful].double(), cosines[~harmful].double(), equal_var=False)
    error = row["separation"].item() / welch.statistic
    assert row["high"].item() - row["low"].item() == pytest.approx(2 * 1.96 * error, rel=1e-4)
    assert row["n"].item() == int(harmful.sum()) == int((~harmful).sum())


def test_the_sign_at_mars_layer_is_what_its_gate_decides(study: Study) -> None:
    table, mars = transfer.signs(study), study.mars()
    frame = study.evaluate({"MARS": mars}, study.data.tests)
    answered = frame[(frame["surface"] == "image") & (frame["group"] == "attack")]
    here = table[(table["surface"] == "image") & table["harmful"] & (table["layer"] == mars.layer_)]
    rate = here[here["centring"] == transfer.NEUTRAL]["rate"].item()
    assert rate == pytest.approx(answered["triggered"].astype(bool).mean())


def test_components_come_raw_and_recentred(study: Study) -> None:
    table = transfer.components(study, layers=[6, 7], surfaces=["text", "image"])
    assert set(table["centring"]) == {"raw", "re-centred"}
    assert set(table["layer"]) == {6, 7}
    assert len(table) == 2 * 2 * 4 * study.profile.data.tests_per_surface


def test_the_sum_of_scores_is_largest_where_mars_steers(study: Study) -> None:
    table = transfer.layer_choice(study.mars())
    total = table[table["score"] == "sum"].set_index("layer")["value"]
    assert total.idxmax() == study.mars().layer_
    assert table.loc[table["selected"], "layer"].unique().tolist() == [study.mars().layer_]


def test_a_sweep_measures_every_variant_on_the_same_prompts(study: Study) -> None:
    prompts = sweeps.sweep_prompts(study, surfaces=["image"])
    table = sweeps.sweep(study, {"plain": Undefended(), "MARS": study.mars()}, prompts)
    assert set(table["measure"]) == {sweeps.HARMFUL, sweeps.HARMLESS, sweeps.UTILITY}
    assert (table.groupby("measure")["n"].nunique() == 1).all()
    assert table[table["measure"] == sweeps.HARMFUL]["n"].eq(study.profile.mars.sweep_tests).all()


def test_fixed_strengths_cover_each_layer_raw_and_recentred(study: Study) -> None:
    table = strengths.by_layer(study, surfaces=["image"], alpha=1.0)
    assert len(table) == 2 * study.mllm.layers * 2
    over = strengths.by_strength(study, surfaces=["image"], layer=7, recentre=True)
    assert sorted(over["alpha"].unique()) == [0.0, *study.profile.mars.alphas]


def test_best_layer_leads_by_most_and_is_the_lowest_of_equals() -> None:
    rows = [(0, 0.1, 0.0), (1, 0.9, 0.4), (2, 0.6, 0.1)]
    table = pd.DataFrame(
        [
            {"layer": layer, "harmful": harmful, "rate": rate}
            for layer, attacks, twins in rows
            for harmful, rate in ((True, attacks), (False, twins))
        ]
    )
    assert strengths.best_layer(table) == 1


def test_the_ablation_changes_one_thing_at_a_time(study: Study) -> None:
    variants = mars_ablation.variants(study)
    full = variants[mars_ablation.FULL]
    assert isinstance(full, Mars)
    prints = [
        d.fingerprint for name, d in variants.items() if name in ("full", "no layer selection", "no centring")
    ]
    assert len(set(prints)) == 3
    readings = mars_ablation.readings(study)
    assert all(isinstance(d, Mars) for d in readings.values())
    table = mars_ablation.ablation(study, {"Orig.": Undefended(), "MARS": full}, surfaces=["video"])
    assert set(table["layer"]) == {"none", str(full.layer_)}


def test_no_neutral_sights_is_no_recentring_and_all_are_the_fit(study: Study) -> None:
    by_count = mars_ablation.by_neutral_count(study)
    first, *_, last = by_count.values()
    assert isinstance(first, Mars)
    assert isinstance(last, Mars)
    assert not first.recentre
    torch.testing.assert_close(last.neutral_["image"], study.mars().neutral_["image"])


def test_a_centre_of_its_own_balances_the_sign(study: Study) -> None:
    table = mars_ablation.centre_and_step(study, surfaces=["image"])
    assert set(table["centre"]) == {"none", "neutral", "own mean"}
    assert table["opens"].between(0, 1).all()
    assert (table["step"] >= 0).all()


def test_outcomes_are_counted_by_hand(study: Study) -> None:
    frame = mars_outcome.answers(study)
    assert set(frame["defence"]) == {"Orig.", "Steer", "AutoSteer", "MARS"}
    table = mars_outcome.refusals(frame)
    attacks = frame[
        (frame["surface"] == "video") & (frame["group"] == "attack") & (frame["defence"] == "MARS")
    ]
    row = table[(table["set"] == "Video-SafetyBench") & (table["defence"] == "MARS")].set_index("measure")
    assert row.loc["harmful refused", "rate"] == pytest.approx(attacks["refused"].mean())
    assert row.loc["safe", "rate"] == pytest.approx(1 - attacks["unsafe"].astype(bool).mean())
    alone = mars_outcome.refusals(frame[frame["group"] == "attack"])
    assert set(alone["measure"]) == {"harmful refused", "safe"}, "no rate of twins that nobody asked"
    effect = mars_outcome.prompt_effect(frame)
    assert effect["defence"].tolist() == ["Orig.", "Orig.", "MARS"]
    asked = frame.query("defence == 'MARS' and group == 'attack'")["surface"].value_counts()
    assert effect["n"].tolist() == [asked["both"], asked["image"], asked["image"]]
    plane = mars_outcome.plane(frame).set_index("method")
    assert plane.loc["Orig.", "y"] == pytest.approx(
        frame[(frame["defence"] == "Orig.") & (frame["group"] == "attack")]["unsafe"].astype(bool).mean()
    )
    by_kind = mars_outcome.by_category(study, frame)
    assert by_kind[by_kind["defence"] == "MARS"]["n"].sum() == len(attacks)
    gates = mars_outcome.triggered(frame)
    assert set(gates["defence"]) == {"AutoSteer", "MARS"}
    clipless = Study(study.profile, study.seed, study.artefacts)
    kept = tuple(p for p in study.data.tests if p.surface != "video")
    vars(clipless).update(data=replace(study.data, tests=kept))
    none = mars_outcome.by_category(clipless, frame[frame["surface"] != "video"])
    assert none.empty
    assert none.columns.tolist() == by_kind.columns.tolist()
    unsorted = Study(study.profile, study.seed, study.artefacts)
    bare = tuple(replace(p, metadata={"group": p.metadata["group"]}) for p in study.data.tests)
    vars(unsorted).update(data=replace(study.data, tests=bare))
    assert set(mars_outcome.by_category(unsorted, frame)["category"]) == {"not said"}, (
        "as files of one's own are"
    )
    nowhere = mars_outcome.prompt_effect(frame[frame["surface"] == "text"])
    assert nowhere.columns.tolist() == effect.columns.tolist()


def test_cases_of_another_defence_keep_the_rule(study: Study) -> None:
    frame = mars_outcome.answers(study)
    cases = outcome.cases(study, frame, defence="MARS", surfaces=["video"], per_surface=2)
    assert set(cases["surface"]) <= {"video"}
    assert (cases.groupby("outcome").size() <= 2).all()
    assert (cases["before_verdict"] == "unsafe").all()


def test_texts_from_a_file_are_split_by_group(tmp_path_factory: pytest.TempPathFactory) -> None:

    profile = load_profile("organism")
    folder = tmp_path_factory.mktemp("texts")
    rows = [
        {"id": f"{group}{harmful}{i}", "text": f"{group} {harmful} {i}", "harmful": harmful, "group": group}
        for group in ("direction", "validation")
        for harmful in (True, False)
        for i in range(12)
    ]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = profile.data.model_copy(update={"source": "files", "folder": str(folder)})
    mars = profile.mars.model_copy(
        update={"texts": 10, "validation": 4, "neutral": 3, "neutral_words": ("what is this?",)}
    )
    found = text_data(profile.model_copy(update={"data": data, "mars": mars}), root=repository_root())
    assert [len(s) for s in (found.texts.unsafe, found.texts.safe)] == [10, 10]
    assert [len(s) for s in (found.texts.validation_unsafe, found.texts.validation_safe)] == [4, 4]
    assert {p.text for p in found.pictures} == {"what is this?"}


def test_confirmation_is_on_prompts_that_no_test_has_seen(study: Study) -> None:
    prompts = confirmation.fresh_prompts(study)
    assert prompts is not None
    per_surface = study.profile.data.tests_per_surface
    assert len(prompts) == 2 * len(confirmation.SURFACES) * per_surface
    texts = study.text_data.texts
    seen = (*study.data.tests, *texts.unsafe, *texts.safe, *study.data.refusals)
    assert not {p.fingerprint for p in prompts} & {p.fingerprint for p in seen}
    table = confirmation.confirmation(study)
    assert table is not None
    assert list(dict.fromkeys(table["candidates"])) == [
        "undefended",
        "without the last block",
        "with the last block",
    ]
    assert (table["n"] == per_surface).all()
    assert table["layer"].isna().equals(table["candidates"] == "undefended")
    both = confirmation.paired(study)
    assert both is not None
    refused = table.assign(k=(table["rate"] * table["n"]).round()).pivot(
        index=["surface", "measure"], columns="candidates", values="k"
    )
    for row in both.to_dict("records"):
        k = refused.loc[(row["surface"], row["measure"])]
        assert row["only_without"] - row["only_with"] == k[confirmation.WITHOUT] - k[confirmation.WITH]
        assert row["n"] == per_surface
    assert both["p"].between(0, 1).all()


def test_without_a_world_there_is_nothing_fresh_to_draw(study: Study) -> None:
    data = study.profile.data.model_copy(update={"source": "files"})
    elsewhere = replace(study, profile=study.profile.model_copy(update={"data": data}))
    assert confirmation.confirmation(elsewhere) is None
    assert confirmation.paired(elsewhere) is None
