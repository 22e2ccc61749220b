"""A study: profiles become prompts, models and fitted parts, once; and its chapters' own algebra."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from autosteer_lib.models import MLLM
from autosteer_lib.profiles import load_profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.sas import safety_awareness_score
from autosteer_lib.study import Study, gap, layers, outcome, probing, sas_selection, steering, surfaces
from autosteer_lib.study.prompt_data import group_of, prompt_data


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.open("smoke", out=tmp_path_factory.mktemp("smoke"))


def test_fit_and_test_prompts_share_nothing(study: Study) -> None:
    data = study.data
    fitted = {p.fingerprint for p in (*data.pairs.toxic, *data.pairs.safe, *data.refusals)}
    assert not fitted & {p.fingerprint for p in data.tests}


def test_refusal_prompts_hold_words_and_pictures(study: Study) -> None:
    surfaces = [p.surface for p in study.data.refusals]
    assert len(surfaces) == study.profile.data.refusal_prompts
    assert set(surfaces) == {"words", "image"}


def test_asking_for_prompts_that_are_not_there_lists_those_that_are(study: Study) -> None:
    with pytest.raises(ValueError, match=r"there are .*attack/image"):
        study.data.test(group="attack", surface="smell")


def test_surfaces_that_are_not_attacked_are_left_out(study: Study) -> None:
    assert study.data.attacked(["image", "smell", "text"]) == ["image", "text"]
    with pytest.raises(ValueError, match=r"no attacks on 'smell'; there are some on text, .*image"):
        study.data.attacked(["smell"])


def test_jackknife_equals_leaving_pairs_out_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    toxic, safe = (torch.randn(9, 2, 5, generator=generator) + shift for shift in (0.7, 0.0))
    left_out = torch.stack(
        [
            safety_awareness_score(toxic[kept], safe[kept])
            for kept in ([j for j in range(9) if j != i] for i in range(9))
        ]
    )
    expected = (8 / 9 * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
    alone = range(9)
    torch.testing.assert_close(sas_selection.jackknife_error(toxic, safe, groups=alone), expected)
    lead = left_out - left_out[:, [1]]
    expected = (8 / 9 * (lead - lead.mean(0)).square().sum(0)).sqrt()
    found = sas_selection.jackknife_error(toxic, safe, groups=alone, against=1)
    torch.testing.assert_close(found, expected)


def test_pairs_about_one_thing_are_left_out_together() -> None:
    generator = torch.Generator().manual_seed(0)
    toxic, safe = (torch.randn(9, 2, 5, generator=generator) + shift for shift in (0.7, 0.0))
    things = ["acid", "cup", "acid", "trap", "cup", "trap", "trap", "acid", "dice"]
    left_out = torch.stack(
        [
            safety_awareness_score(toxic[kept], safe[kept])
            for kept in ([i for i in range(9) if things[i] != name] for name in dict.fromkeys(things))
        ]
    )
    expected = (3 / 4 * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
    torch.testing.assert_close(sas_selection.jackknife_error(toxic, safe, groups=things), expected)


def test_copies_of_a_pair_make_no_score_surer() -> None:
    generator = torch.Generator().manual_seed(0)
    toxic, safe = (torch.randn(12, 1, 64, generator=generator) + shift for shift in (0.5, 0.0))
    copied = [side.repeat(20, 1, 1) for side in (toxic, safe)]
    honest = sas_selection.jackknife_error(toxic, safe, groups=range(12))
    by_thing = sas_selection.jackknife_error(*copied, groups=[*range(12)] * 20)
    by_pair = sas_selection.jackknife_error(*copied, groups=range(240))
    assert float(by_thing) > 0.8 * float(honest)
    assert float(by_pair) < 0.4 * float(honest)


def test_pairs_alike_in_two_things_are_counted_in_both_ways_and_once() -> None:
    generator = torch.Generator().manual_seed(0)
    things, twins = [*range(8)] * 30, torch.randint(0, 8, (240,), generator=generator).tolist()
    kinds = 0.7 * torch.randn(2, 8, 1, 64, generator=generator)
    toxic = 0.3 + 0.1 * torch.randn(240, 1, 64, generator=generator) + kinds[0][things]
    safe = kinds[1][twins]
    one_way = [float(sas_selection.jackknife_error(toxic, safe, groups=names)) for names in (things, twins)]
    of_both = float(sas_selection.jackknife_error(toxic, safe, groups=list(zip(things, twins, strict=True))))
    both = float(sas_selection.two_way_error(toxic, safe, groups=(things, twins)))
    assert both**2 == pytest.approx(one_way[0] ** 2 + one_way[1] ** 2 - of_both**2)
    assert both > 1.2 * max(one_way)
    # Where a pair's two things are one, the second way adds nothing.
    same = sas_selection.two_way_error(toxic, safe, groups=(things, things))
    assert float(same) == pytest.approx(one_way[0])


def test_the_difference_of_layers_that_see_the_same_pairs_is_surer_than_either() -> None:
    # One layer is the other with a share of noise of its own: their scores vary together, and their difference little.
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(40, 1, 8, generator=generator) + 1.0
    toxic = torch.cat([shared, shared + 0.05 * torch.randn(40, 1, 8, generator=generator)], dim=1)
    safe = torch.zeros_like(toxic)
    alone = sas_selection.jackknife_error(toxic, safe, groups=range(40))
    assert float(sas_selection.jackknife_error(toxic, safe, groups=range(40), against=0)[1]) < 0.2 * float(
        alone.min()
    )


def test_a_fitted_defence_is_read_back_and_answers_the_same(study: Study) -> None:
    first, second = study.autosteer(), study.autosteer()
    assert first is not second
    assert first.fingerprint == second.fingerprint
    folders = [place for place in (study.artefacts.build / "defences").iterdir() if place.is_dir()]
    assert len(folders) == 1


def test_a_fit_is_known_by_labels_and_by_the_end_of_the_prompt(study: Study) -> None:
    prompts, mllm = study.data.refusals, study.mllm

    def folder(mllm: MLLM, *prompts: Prompt) -> Path:
        return study._fitted_folder("head", mllm, profile={"head"}, prompts=prompts)

    first, *others = prompts
    folders = [
        folder(mllm, *prompts),
        folder(mllm, replace(first, harmful=not first.harmful), *others),
        folder(mllm, replace(first, surface="smell"), *others),
        folder(replace(mllm, add_generation_prompt=not mllm.add_generation_prompt), *prompts),
        folder(replace(mllm, template_options={"enable_thinking": False}), *prompts),
    ]
    assert len(set(folders)) == len(folders), "fits read labels, and states are of the last token"
    assert folder(mllm, replace(first, id="renamed"), *others) == folders[0]


def test_another_seed_is_another_defence_on_the_same_prompts(study: Study) -> None:
    assert study.autosteer(seed=7).fingerprint != study.autosteer(seed=0).fingerprint


def test_evaluation_knows_the_group_of_each_prompt(study: Study) -> None:
    frame = gap.undefended(study)
    groups = {p.id: group_of(p) for p in study.data.tests}
    assert (frame["group"] == frame["prompt_id"].map(groups)).all()
    rates = gap.group_rates(frame)
    assert set(rates["measure"]) == {"attack success", "refusal", "accuracy"}
    assert rates["n"].sum() == len(study.data.tests)


def test_the_probed_token_is_the_assistants_header(study: Study) -> None:
    end = gap.prompt_end(study)
    assert end[end["probed"]]["token"].tolist() == ["<assistant>"]
    other = study.model_for(outcome.readings(study)["probed token: end of the user's turn"])
    assert other.add_generation_prompt is False
    assert other.model is study.mllm.model, "the same weights: a card that holds a 7B model holds it once"
    assert study.mllm.origin is not None
    assert other.origin == replace(study.mllm.origin, add_generation_prompt=False), "what an actor loads"


def test_probers_of_all_layers_are_watched_on_every_twinned_surface(study: Study) -> None:
    fitted = probing.fit_probers(study)
    assert set(fitted.by_layer) == set(study.layers)
    assert set(fitted.history["set"]) == {probing.TRAIN, probing.HELD_OUT, *surfaces.twinned(study)}
    table = probing.chosen_accuracy(fitted)
    assert table["layer"].tolist() == list(study.layers)
    rates = probing.accuracy_by_layer(fitted)
    assert rates["rate"].tolist() == pytest.approx(
        table.drop(columns=["layer", "epoch"]).melt()["value"].tolist()
    )
    assert (rates["low"] <= rates["rate"]).all()
    assert (rates["rate"] <= rates["high"]).all()
    pairs = len(study.data.pairs)
    sizes = rates.groupby("series")["n"].first()
    assert sizes[probing.TRAIN] + sizes[probing.HELD_OUT] == 2 * pairs
    for surface in surfaces.twinned(study):
        assert sizes[surface] == sum(
            p.surface == surface for p in study.data.tests if p.metadata["group"] in {"attack", "benign"}
        )
    thin = probing.thinned(fitted.history, points=2)
    assert set(thin["epoch"]) == {1, study.profile.prober.epochs}
    gates = probing.gates_by_layer(study, fitted)
    assert set(gates["layer"]) == set(study.layers)
    assert set(gates["series"]) == {
        "harm that must be seen",
        "harm in words",
        "harmless twins",
        "borderline",
        "utility",
    }
    attacks = gates[gates["series"].str.startswith("harm ")].groupby("layer")["n"].sum()
    assert set(attacks) == {len(study.data.test(group="attack"))}  # each attack counts once a layer


def test_the_cosine_of_harm_directions_lies_in_its_interval(study: Study) -> None:
    table = layers.direction_cosines(study)
    text, image = (
        study.states(prompts)[:, -1].double()[[bool(p.harmful) for p in prompts]].mean(0)
        - study.states(prompts)[:, -1].double()[[not p.harmful for p in prompts]].mean(0)
        for prompts in (layers.labelled(study, "text"), layers.labelled(study, "image"))
    )
    row = table[(table["surface"] == "image") & (table["layer"] == study.layers[-1])]
    assert row["cosine"].item() == pytest.approx(float(torch.cosine_similarity(text, image, dim=0)), abs=1e-6)
    assert (table["low"] < table["high"]).all()
    assert (
        table["cosine"].between(table["low"] - 0.05, table["high"] + 0.05).all()
    )  # resampling shortens a cosine
    pd.testing.assert_frame_equal(layers.direction_cosines(study), table)


def test_the_gate_of_the_chapter_is_the_gate_of_the_defence(study: Study) -> None:
    defence = study.autosteer()
    scores = probing.gate_scores(study, defence.prober_, defence.layer_)
    expected = defence.score(study.mllm, study.data.tests, batch_size=16)
    torch.testing.assert_close(torch.tensor(scores["score"]), expected.double(), atol=1e-5, rtol=0)


def test_epsilon_zero_is_the_undefended_model(study: Study) -> None:
    defence = study.autosteer()
    swept = steering.epsilon_sweep(study, defence)
    plain = gap.undefended(study)
    attacked = plain[(plain["group"] == "attack") & (plain["surface"] == steering.swept(study))]
    zero = swept[(swept["epsilon"] == 0) & (swept["series"] == "attack succeeds")]
    assert zero["rate"].item() == attacked["unsafe"].mean()


def test_case_studies_follow_the_rule() -> None:
    verdicts = pd.Series({("unsafe", "AutoSteer"): False, ("refused", "AutoSteer"): True})
    assert outcome._outcome(verdicts, "AutoSteer") == "success"
    verdicts["refused", "AutoSteer"] = False
    assert outcome._outcome(verdicts, "AutoSteer") == "partial"
    verdicts["unsafe", "AutoSteer"] = True
    assert outcome._outcome(verdicts, "AutoSteer") == "failure"


def test_layers_outside_the_model_are_refused(study: Study) -> None:
    profile = study.profile.model_copy(
        update={"sas": study.profile.sas.model_copy(update={"candidates": (3, 40)})}
    )
    other = Study(profile, 0, study.artefacts)
    with pytest.raises(ValueError, match=r"layers \[40\]; .* has the candidates 1…7"):
        _ = other.layers


def _file_profile(tmp_path: Path, rows: dict[str, list[dict[str, object]]]) -> tuple[object, Path]:
    folder = tmp_path / "sets"
    folder.mkdir()
    for name, prompts in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in prompts))
    profile = load_profile("smoke")
    data = profile.data.model_copy(update={"source": "files", "folder": "sets"})
    return profile.model_copy(update={"data": data}), tmp_path


PAIRED = [
    {"id": f"{i}{side}", "text": f"{side} {i}", "harmful": side == "bad", "pair_id": str(i)}
    for i in range(3)
    for side in ("bad", "good")
]
REFUSED: list[dict[str, object]] = [{"id": "r", "text": "bad", "harmful": True}]
TESTED: list[dict[str, object]] = [{"id": "t", "text": "bad", "harmful": True, "surface": "text"}]


def test_prompts_can_come_from_files(tmp_path: Path) -> None:
    profile, root = _file_profile(tmp_path, {"pairs": PAIRED, "refusals": REFUSED, "tests": TESTED})
    data = prompt_data(profile, root=root)  # type: ignore[arg-type]
    assert len(data.pairs) == 3
    assert data.surfaces("attack") == ["text"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"pairs": PAIRED[:-1], "refusals": REFUSED, "tests": TESTED}, "without a twin: 2"),
        ({"pairs": [{**PAIRED[0], "colour": "red"}]}, "unknown fields colour: allowed: frames"),
        ({"pairs": [{**PAIRED[0], "group": "odd"}]}, "group 'odd'; allowed are attack"),
        ({}, "sets/pairs.jsonl does not exist"),
    ],
)
def test_faulty_files_are_named_with_the_remedy(
    tmp_path: Path, rows: dict[str, list[dict[str, object]]], message: str
) -> None:
    profile, root = _file_profile(tmp_path, rows)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prompt_data(profile, root=root)  # type: ignore[arg-type]


def test_every_training_seed_answers_the_same_first_prompts(study: Study) -> None:
    frame = outcome.seed_answers(study, per_set=1)
    seeds = study.profile.evaluation.seeds
    per_seed = [set(rows["prompt_id"]) for _, rows in frame.groupby("seed")]
    assert per_seed == [{p.id for p in outcome.first_of_each_set(study.data.tests, 1)}] * len(seeds)
    assert set(outcome.over_seeds(frame)["seeds"]) == {len(seeds)}
