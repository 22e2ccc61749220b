"""Chapter 06 on the smoke profile: what its tables hold, and that nothing of the tests enters the fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from autosteer_lib.defences import SafeSteer
from autosteer_lib.profiles import load_profile
from autosteer_lib.provenance import repository_root
from autosteer_lib.study import Study, safesteer_outcome
from autosteer_lib.study import safesteer_ablation as ablation
from autosteer_lib.study import safesteer_candidates as candidates
from autosteer_lib.study import safesteer_states as states
from autosteer_lib.study.probe_data import other_sets, probe_data


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.open("smoke", out=tmp_path_factory.mktemp("smoke"))


def test_the_mixture_is_the_papers_and_shares_nothing_with_the_tests(study: Study) -> None:
    sets, wanted = study.probe_sets, study.profile.safesteer
    counts = [len(s) for s in (sets.image_attacks, sets.text_attacks, sets.other_attacks, sets.harmless)]
    assert counts == [wanted.image_attacks, wanted.text_attacks, wanted.other_attacks, wanted.harmless]
    assert [p.surface for p in sets.other_attacks] == ["typographic"] * 2 + ["both"] * 2
    assert [p.surface for p in sets.harmless] == [
        "naming", "naming", "colour", "counting", "image", "image", "words", "words",
    ]  # fmt: skip
    assert {p.modality for p in (*sets.image_attacks, *sets.other_attacks, *sets.harmless)} == {"image"}
    tests = study.data.tests
    fitted = (*sets.attacks, *sets.harmless)
    assert not {p.fingerprint for p in tests} & {p.fingerprint for p in fitted}
    assert not {p.metadata["thing"] for p in tests} & {p.metadata["thing"] for p in fitted}


def test_other_sets_change_one_kind_each(study: Study) -> None:
    sets = study.probe_sets
    plain, asked = other_sets(study.profile, sets).values()
    assert {p.modality for p in sets.text_attacks} == {"text"}
    assert {p.modality for p in plain.text_attacks} == {"image"}
    assert [p.text for p in plain.text_attacks] == [p.text for p in sets.text_attacks]
    assert plain.harmless == sets.harmless
    assert asked.text_attacks == sets.text_attacks
    assert len(asked.harmless) == len(sets.harmless)
    assert {p.surface for p in asked.harmless} == {"naming", "colour", "counting"}


def test_sets_from_a_file_are_split_by_group(tmp_path: Path) -> None:
    profile = load_profile("smoke")
    rows = [
        {"id": f"{group}{i}", "text": f"{group} {i}", "harmful": group != "harmless", "group": group}
        for group in ("text", "other", "harmless")
        for i in range(12)
    ]
    (tmp_path / "probe.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    updates = {
        "data": profile.data.model_copy(update={"source": "files", "folder": str(tmp_path)}),
        "safesteer": profile.safesteer.model_copy(update={"beside_words": "plain"}),
    }
    found = probe_data(profile.model_copy(update=updates), root=repository_root())
    assert [len(s) for s in (found.image_attacks, found.text_attacks, found.other_attacks, found.harmless)] == [
        0, 4, 4, 8,
    ]  # fmt: skip
    assert all(p.images for p in found.text_attacks)


def test_a_fitted_safesteer_is_read_back(study: Study) -> None:
    first, second = study.safesteer(), study.safesteer()
    assert first is not second
    assert first.fingerprint == second.fingerprint
    plain, _ = other_sets(study.profile, study.probe_sets).values()
    assert study.safesteer(sets=plain).fingerprint != first.fingerprint


def test_the_gate_of_the_table_is_the_gate_of_the_answers(study: Study) -> None:
    defence, prompts = study.safesteer(), study.data.test(group="attack", surface="image")
    table = states.judged(study, defence, prompts)
    answered = study.evaluate({"SafeSteer": defence}, prompts)
    assert table["rate"].item() == pytest.approx(answered["triggered"].astype(bool).mean())


def test_the_plane_keeps_the_boundary_and_the_side(study: Study) -> None:
    probe = study.safesteer().probe_
    some = torch.randn(20, study.mllm.dim, generator=torch.Generator().manual_seed(1))
    x, y = states.plane(probe, some)
    torch.testing.assert_close(
        torch.tensor(x).float() * probe.weight_.norm(), probe.score(some), rtol=1e-4, atol=1e-4
    )
    assert abs(float(np.corrcoef(x, y)[0, 1])) < 1
    assert torch.tensor(y).float().norm() <= probe.project(some).norm()


def test_steps_are_those_of_the_plain_answer(study: Study) -> None:
    defence = study.safesteer()
    prompts = [
        *study.data.test(group="attack", surface="text"),
        *study.data.test(group="utility", surface="naming"),
    ]
    points = states.answer_steps(study, defence, prompts, steps=(0, 1, "last"))
    assert list(dict.fromkeys(points["step"])) == ["0", "1", "last"]
    at_start = points[points["step"] == "0"]
    assert at_start.groupby("surface")["kind"].first().to_dict() == {
        "questions": "harmless",
        "text": "refusing",
    }
    scores = defence.score(study.mllm, prompts).logit()
    assert sorted(at_start["score"]) == pytest.approx(sorted(scores.tolist()), abs=1e-3)
    table = states.step_table(points)
    assert (table["n"] == study.profile.data.tests_per_surface).all()
    assert table["judged_harmful"].between(0, 1).all()


def test_layers_are_the_papers_at_its_depths_and_exist_at_ours(study: Study) -> None:
    assert list(states.layers_shown(28)) == ["block 1", "block 14", "block 24", states.LAST_BLOCK]
    prompts = states.shown_prompts(study, surfaces=["image"])
    points, rates = states.by_layer(study, prompts)
    assert list(dict.fromkeys(points["panel"])) == list(states.layers_shown(study.mllm.layers))
    assert set(rates["group"]) == {"attack", "benign", "utility"}
    assert (rates["explained"] <= 1 + 1e-6).all()


def test_no_recipe_ends_below_the_least_loss(study: Study) -> None:
    table = states.training_loss(study)
    curve, least = (table[table["solver"] == name]["loss"] for name in ("rds", "converged"))
    # "converged" pays a penalty on its weights, so its own loss is the least up to that.
    assert curve.iloc[-1] < curve.iloc[0]
    assert least.item() < curve.iloc[0]


def test_a_word_in_reach_stays_in_reach_with_more_candidates(study: Study) -> None:
    prompts = study.data.test(group="attack", surface="text")
    table = candidates.reach(study, study.safesteer(), prompts, ks=(1, 5, study.mllm.unembedding.shape[0]))
    plain = table[table["shift"] == "no shift"].sort_values("k")["rate"].tolist()
    assert plain == [1.0, 1.0, 1.0]
    assert (table[table["k"] == table["k"].max()]["rate"] == 1).all()
    assert set(table["shift"]) == set(candidates.SHIFTS)


def test_odds_fall_with_rank_and_stay_below_one(study: Study) -> None:
    table = candidates.odds(study, study.data.test(group="attack", surface="image"), ranks=(1, 2, 5))
    assert table["mean"].is_monotonic_decreasing
    assert table["mean"].sum() <= 1


def test_the_refusals_score_is_that_of_the_candidate_it_is(study: Study) -> None:
    """Plainly refused prompts: the model's own first word is the refusal's."""
    prompts = study.data.test(group="attack", surface="text")
    scores, wins = candidates.prefer(study, study.safesteer(), prompts)
    mean = scores.set_index("word")["mean"]
    assert mean["refusal"] == pytest.approx(mean["own"], abs=1e-3)
    assert wins.set_index("against").loc["own", "rate"] == 1.0


def test_what_was_taken_is_what_the_answer_says(study: Study) -> None:
    defence = study.safesteer().retuned(threshold=0.0)
    prompts = study.data.test(group="attack", surface="image")[:1]
    table = candidates.taken(study, defence, prompts)
    answer = defence.respond(study.mllm, prompts, settings=study.settings)[0].text
    assert len(table) == study.profile.safesteer.step
    assert answer.startswith(table["chosen"].iloc[0])
    assert table["place"].between(1, study.profile.safesteer.k).all()


def test_endings_add_up_and_a_variant_changes_one_part(study: Study) -> None:
    variants = ablation.variants(study)
    assert list(variants) == ["full", "no probe", "no MSAV", "neither"]
    assert len({d.fingerprint for d in variants.values()}) == 4
    frame = ablation.answers(study, variants, over="variant")
    table = ablation.endings(frame, over="variant")
    total = table.groupby(["variant", "set"])["rate"].sum()
    assert total.to_numpy() == pytest.approx(1.0)
    attacks = frame[
        (frame["variant"] == "full") & (frame["group"] == "attack") & (frame["surface"] == "image")
    ]
    row = table[
        (table["variant"] == "full") & (table["set"] == "attacks, image") & (table["ending"] == "unsafe")
    ]
    assert row["rate"].item() == pytest.approx(attacks["unsafe"].astype(bool).mean())
    tests = ablation.paired(frame, over="variant", baseline="neither")
    assert set(tests["measure"]) == {"unsafe", "refused"}
    assert set(tests["defence"]) == {"full", "no probe", "no MSAV"}
    whole = ablation.overall(frame, over="variant")
    assert set(whole["series"]) == {
        "attacks carried out", "attacks refused", "twins answered rightly", "questions answered rightly",
    }  # fmt: skip


def test_readings_differ_and_step_zero_ranks_nothing(study: Study) -> None:
    found = ablation.readings(study)
    prints = [d.fingerprint for d in found.values()]
    assert len(set(prints)) == len(prints) == 9
    assert ablation.signs(study.safesteer())["chosen"].sum() == 1
    none = ablation.by_step(study)["0"]
    assert isinstance(none, SafeSteer)
    assert not none.rerank
    assert len(ablation.alignment_alone(study)) == 6


def test_table_one_counts_what_stands_for_each_set(study: Study) -> None:
    frame = safesteer_outcome.answers(study)
    table = safesteer_outcome.table1(frame)
    assert set(table["set"]) == set(safesteer_outcome.STANDS_FOR)
    mine = table[(table["set"] == "MM-SafetyBench") & (table["defence"] == "SafeSteer")]
    assert mine["n"].item() == 3 * study.profile.data.tests_per_surface
    attacks = frame[
        (frame["defence"] == "SafeSteer")
        & (frame["group"] == "attack")
        & frame["surface"].isin(["words", "image", "typographic"])
    ]
    assert mine["rate"].item() == pytest.approx(attacks["unsafe"].astype(bool).mean())
    useful = frame["group"] == "utility"
    kinds = list(frame.loc[useful, "surface"].unique())
    asked = frame.assign(surface=frame["surface"].replace({kinds[0]: "mm_vet", kinds[1]: "mmmu"}))
    table = safesteer_outcome.table1(asked)
    its_own = table[(table["set"] == "MM-Vet") & (table["defence"] == "SafeSteer")]
    graded = (asked["surface"] == "mm_vet") & (asked["defence"] == "SafeSteer")
    assert its_own["n"].tolist() == [graded.sum()], "no other published set stands for it"
    assert its_own["surfaces"].tolist() == ["mm_vet"]
    ungraded = asked.assign(correct=asked["correct"].where(asked["surface"] != "mm_vet"))
    assert "MM-Vet" not in set(safesteer_outcome.table1(ungraded)["set"])


def test_candidates_cost_wider_passes_and_hardly_more_of_them(study: Study) -> None:
    found = safesteer_outcome.passes(study, batch=2).to_dict("records")
    rows = {(row["batch"], row["defence"]): row for row in found}
    wanted = study.profile.safesteer
    for batch in ("attacks", "questions"):
        row, plain = rows[batch, "SafeSteer"], rows[batch, "Orig."]
        ranked = wanted.step if row["opened"] else 0
        assert row["passes"] == max(row["new_tokens"], ranked + 1)
        assert row["positions"] == row["passes"] - 1 + ranked * (wanted.k - 1)
        assert plain["passes"] == plain["new_tokens"]
