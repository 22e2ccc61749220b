"""Chapter 08 on the smoke profile: what is fitted, chosen and compared, and that none of it has seen a test prompt."""

import math
from fractions import Fraction
from typing import Any

import pandas as pd
import pytest

from autosteer_lib.defences import ActivationTransfer, Undefended
from autosteer_lib.evaluation import BASELINE
from autosteer_lib.organism import prompt_sets
from autosteer_lib.organism.replies import is_reply
from autosteer_lib.plotting.style import METHOD_COLOURS
from autosteer_lib.prompts import Prompt
from autosteer_lib.study import (
    Study,
    compared,
    compared_causes,
    compared_choice,
    compared_methods,
    compared_paper_numbers,
)
from autosteer_lib.study.compared_data import ComparedData, compared_data, validation_sizes
from autosteer_lib.study.compared_words import ENGLISH, WORLD, known_words
from autosteer_lib.study.prompt_data import group_of

METHODS = [
    "Self-reminder", "AdaShield-S", "CoCA", "ECSO", "MLLM-Protector", "Steer", "AutoSteer", "MARS", "SafeSteer",
    "Refusal direction", "AdaSteer", "CAST", "K-Steering",
]  # fmt: skip
# Those whose answers are compared here: one of each kind is enough.
SOME = ["CoCA", "ECSO", "MLLM-Protector", "AutoSteer", "MARS", "AdaSteer", "CAST"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.open("smoke", out=tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="module")
def data(study: Study) -> ComparedData:
    return compared_data(study)


@pytest.fixture(scope="module")
def found(study: Study, data: ComparedData) -> compared_choice.Candidates:
    return compared_choice.candidates(study, data)


@pytest.fixture(scope="module")
def table(study: Study, data: ComparedData, found: compared_choice.Candidates) -> pd.DataFrame:
    return compared_choice.validated(study, found, data)


@pytest.fixture(scope="module")
def answers(study: Study, found: compared_choice.Candidates, table: pd.DataFrame) -> pd.DataFrame:
    methods = {
        name: compared_choice.settled({m: found[m] for m in SOME}, table, name) for name in compared.SETTINGS
    }
    return compared.answers(study, methods)


def _are_shares(table: pd.DataFrame) -> bool:
    values = table.to_numpy(dtype=float)
    return bool(((values >= 0) & (values <= 1)).all())


def test_validation_meets_neither_fit_nor_test(study: Study, data: ComparedData) -> None:
    texts = data.texts
    fitted = (
        *data.exchanges, *study.data.refusals, *texts.unsafe, *texts.safe, *texts.validation_unsafe,
        *texts.validation_safe,
    )  # fmt: skip
    validation = {p.fingerprint for p in data.validation}
    assert not validation & {p.fingerprint for p in fitted}
    assert not {p.metadata["thing"] for p in (*fitted, *data.validation)} & {
        p.metadata["thing"] for p in study.data.tests
    }


def test_validation_has_harm_in_sight_and_in_words_with_as_many_twins(
    study: Study, data: ComparedData
) -> None:
    count = study.profile.compared.validation
    surfaces = ("image", "video", "words", "jailbreak")
    expected = {f"{group}/{name}": count for group in ("attack", "benign") for name in surfaces}
    assert validation_sizes(data.validation) == expected


def test_pairs_that_are_in_a_fit_are_not_validated_on(
    study: Study, data: ComparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data.validation  # all else that draws prompts has done so, and is kept
    pairs, draw = study.data.pairs, prompt_sets.attack_pairs

    def known(surface: prompt_sets.Attack, *, n: int, **options: Any) -> tuple[list[Prompt], list[Prompt]]:
        if surface == "image":
            return list(pairs.toxic[:n]), list(pairs.safe[:n])
        return draw(surface, n=n, **options)

    monkeypatch.setattr(prompt_sets, "attack_pairs", known)
    with pytest.raises(ValueError, match=r"0 of 4 image pairs are in no fit, and .* ask for fewer"):
        compared_data(study)


def test_pairs_that_are_tests_are_not_validated_on(
    study: Study, data: ComparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data.validation  # all else that draws prompts has done so, and is kept
    draw = prompt_sets.attack_pairs
    tests = {
        g: [p for p in study.data.tests if (group_of(p), p.surface) == (g, "image")]
        for g in ("attack", "benign")
    }

    def tested(surface: prompt_sets.Attack, *, n: int, **options: Any) -> tuple[list[Prompt], list[Prompt]]:
        if surface == "image":
            return tests["attack"][:n], tests["benign"][:n]
        return draw(surface, n=n, **options)

    monkeypatch.setattr(prompt_sets, "attack_pairs", tested)
    with pytest.raises(ValueError, match=r"0 of 4 image pairs are in no fit"):
        compared_data(study)


def test_settings_cannot_be_chosen_without_attacks_or_without_twins(
    study: Study, data: ComparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacks = tuple(p for p in data.validation if group_of(p) == "attack")
    monkeypatch.setattr("autosteer_lib.study.compared_data._validation", lambda study, met: attacks)
    with pytest.raises(ValueError, match=r"of benign none is left that no defence was fitted on and no test"):
        compared_data(study)


def test_every_method_has_as_many_candidates_and_its_published_one(
    study: Study, found: compared_choice.Candidates
) -> None:
    assert list(found) == METHODS, "a new method is named in METHODS above"
    assert set(found) <= METHOD_COLOURS.keys(), "else it is grey like all that is unknown: plotting/style.py"
    assert {len(listed) for listed in found.values()} == {study.profile.compared.candidates}
    for method, listed in found.items():
        prints = {c.defence.fingerprint for c in listed}
        assert len(prints) == len(listed), method


def test_fitted_methods_are_read_back(study: Study, data: ComparedData) -> None:
    for fit in (compared_methods.refusal_direction, compared_methods.cast, compared_methods.k_steering):
        assert fit(study).fingerprint == fit(study).fingerprint
    for other in (compared_methods.adasteer, compared_methods.answer_detector):
        assert other(study, data).fingerprint == other(study, data).fingerprint


def test_the_best_score_is_chosen_and_ties_go_to_the_published_setting(table: pd.DataFrame) -> None:
    assert table["method"].iloc[0] == BASELINE
    for _, rows in table[table["method"] != BASELINE].groupby("method"):
        assert rows["published"].tolist() == [True] + [False] * (len(rows) - 1)
        assert rows["chosen"].sum() == 1
        chosen = rows[rows["chosen"]]
        assert chosen["score"].item() == rows["score"].max()
        assert chosen.index[0] == rows["score"].idxmax()  # the first of equals
    assert (table["twins_spoilt"] >= table["twins_refused"]).all()
    assert table["score"].tolist() == pytest.approx(
        (table["attacks_refused"] - table["twins_spoilt"]).tolist()
    )


def test_scores_that_are_equal_as_fractions_tie() -> None:
    def answered(*, refused: int, spoilt: int) -> pd.DataFrame:
        rows = [
            {"group": "attack", "refused": i < refused, "unsafe": False, "correct": None} for i in range(24)
        ]
        rows += [
            {"group": "benign", "refused": i < spoilt, "unsafe": False, "correct": None} for i in range(24)
        ]
        return pd.DataFrame(rows)

    first, second = answered(refused=4, spoilt=2), answered(refused=3, spoilt=1)
    assert 4 / 24 - 2 / 24 < 3 / 24 - 1 / 24  # what floats would choose by
    assert compared_choice.score_of(first) == compared_choice.score_of(second) == Fraction(1, 12)
    assert (
        compared_choice._best(
            [Fraction(0), compared_choice.score_of(first), compared_choice.score_of(second)]
        )
        == 1
    )


def test_settled_takes_the_marked_setting(found: compared_choice.Candidates, table: pd.DataFrame) -> None:
    published = compared_choice.settled(found, table, "published")
    assert list(published) == [BASELINE, *METHODS]
    assert all(published[name].fingerprint == found[name][0].defence.fingerprint for name in METHODS)
    with pytest.raises(ValueError, match="allowed: 'published', 'chosen'"):
        compared_choice.settled(found, table, "best")


def test_answers_hold_every_method_twice_on_the_same_prompts(study: Study, answers: pd.DataFrame) -> None:
    per_setting = answers.groupby(["setting", "defence"])["prompt_id"].agg(["count", "nunique"])
    count = len(compared.tests(study))
    assert (per_setting == count).all().all()
    assert len(per_setting) == 2 * (1 + len(SOME))


def test_overall_rates_are_those_of_the_surfaces_together(answers: pd.DataFrame) -> None:
    surfaces, whole = compared.by_surface(answers), compared.overall(answers)
    for table in (surfaces, whole):
        assert not table.duplicated(["setting", "group", "surface", "defence", "measure"]).any()
    one = (
        (surfaces["setting"] == "chosen") & (surfaces["defence"] == "CAST") & (surfaces["group"] == "attack")
    )
    parts = surfaces[one & (surfaces["measure"] == "attack success")]
    same = (whole["setting"] == "chosen") & (whole["defence"] == "CAST") & (whole["group"] == "attack")
    rows = whole[same & (whole["measure"] == "attack success")].set_index("surface")
    assert rows.loc["all", "n"] == parts["n"].sum()
    assert rows.loc["all", "rate"] == pytest.approx((parts["rate"] * parts["n"]).sum() / parts["n"].sum())
    assert rows["n"][["in sight", "in words or both"]].sum() == parts["n"].sum()


def test_price_counts_every_call(answers: pd.DataFrame) -> None:
    price = compared.cost(answers).set_index(["setting", "defence"])
    assert price.loc[("chosen", BASELINE), "times_tokens"] == 1
    assert price.loc[("chosen", BASELINE), "model_calls"] == 1
    assert price.loc[("chosen", "CoCA"), "model_calls"] == 2
    assert price["model_calls"][("chosen", "ECSO")] >= 2
    assert price.loc[("chosen", "AdaSteer"), "model_calls"] == 2
    assert price.loc[("published", "CAST"), "model_calls"] == 1


def test_headline_has_one_row_a_method_and_setting(answers: pd.DataFrame) -> None:
    rows = compared.headline(compared.overall(answers), compared.cost(answers))
    assert not rows.duplicated(["setting", "defence"]).any()
    assert len(rows) == 2 * (1 + len(SOME))
    assert _are_shares(rows.drop(columns=["setting", "defence", "calls", "tokens"]))


def test_raw_answers_are_the_undefended_ones(answers: pd.DataFrame) -> None:
    table = compared.raw_and_defended(answers)
    assert set(table["defence"]) == {"ECSO", "MLLM-Protector"}
    chosen = answers[answers["setting"] == "chosen"].pivot(index="prompt_id", columns="defence")
    raw, plain = chosen["raw_answer", "ECSO"], chosen["answer", BASELINE]
    assert (raw == plain).mean() > 0.95  # other batches: a near tie may fall otherwise
    assert _are_shares(table[["rate", "low", "high"]])
    ecso = answers[
        (answers["setting"] == "chosen") & (answers["defence"] == "ECSO") & (answers["group"] == "attack")
    ]
    rows = table[(table["setting"] == "chosen") & (table["defence"] == "ECSO") & (table["group"] == "attack")]
    found = rows.set_index(["measure", "answer"])["rate"]
    assert found["attack success", "handed out"] == ecso["unsafe"].astype(bool).mean()
    assert found["attack success", "first"] == ecso["raw_unsafe"].astype(bool).mean()
    assert found["replaced", "handed out"] == (ecso["raw_answer"] != ecso["answer"]).mean()


def test_planes_and_triggers_are_shares(answers: pd.DataFrame) -> None:
    chosen = answers[answers["setting"] == "chosen"]
    for against in ("spoilt", "utility"):
        plane = compared.plane(chosen, against=against)
        assert plane["method"].tolist() == [BASELINE, *SOME]
        assert _are_shares(plane.drop(columns="method"))
    gates = compared.triggers(answers)
    assert {"AutoSteer", "MARS", "CAST", "ECSO", "AdaSteer"} <= set(gates["defence"])
    assert not {"CoCA", BASELINE} & set(gates["defence"])
    with pytest.raises(ValueError, match="'spoilt', 'utility'"):
        compared.plane(chosen, against="money")


def test_the_detector_is_asked_about_whole_and_cut_answers(
    study: Study, data: ComparedData, answers: pd.DataFrame
) -> None:
    detector = compared_methods.answer_detector(study, data)
    harmful = answers["harmful"].astype(bool)  # with answers this short nothing is carried out
    rows = compared_causes.openings(study, answers.assign(unsafe=harmful, refused=False), detector)
    assert rows["shown"].tolist() == ["whole", "without the opening"] * 2
    assert rows["n"].min() > 0
    made = answers.assign(unsafe=harmful, refused=False)
    hurt = made["prompt_id"] == made.loc[made["group"] == "attack", "prompt_id"].iloc[0]
    made = made.assign(failed=made["failed"] | hurt, unsafe=made["unsafe"].astype("boolean").mask(hurt))
    fewer = compared_causes.openings(study, made, detector)
    assert fewer["n"].tolist() == (rows["n"] - [1, 1, 0, 0]).tolist(), (
        "a clip that a family cannot see is no answer"
    )


def test_relapses_are_refused_and_carried_out(answers: pd.DataFrame) -> None:
    made = answers[(answers["defence"] == BASELINE) & (answers["group"] == "attack")].copy()
    made[["refused", "unsafe"]] = [[True, index % 2 == 0] for index in range(len(made))]
    rows = compared_causes.relapses(made)
    assert rows["rate"].tolist() == pytest.approx([0.5, 0.5])
    assert compared_causes.relapses(made.assign(refused=False)).empty


def test_the_worlds_sentences_are_told_from_noise(study: Study, answers: pd.DataFrame) -> None:
    references = [p.reference for p in study.data.tests if p.reference]
    assert references
    assert all(map(is_reply, references))
    assert is_reply("sorry, i cannot help with that.")
    assert not is_reply("sorry sorry sorry sorry")
    assert not is_reply("sorry, i cannot sure! to use a reactor, first find sugar then add rope.")
    made = answers.assign(answer="sure! it is red.")
    made.loc[made["defence"] == "CAST", "answer"] = "red red"
    rates = compared_causes.sentences(study, made).groupby("defence")["rate"].mean()
    assert (rates["CAST"], rates["MARS"]) == (0, 1)


def test_what_gets_through_is_counted_by_thing(study: Study, answers: pd.DataFrame) -> None:
    made = answers.assign(unsafe=answers["defence"].isin([BASELINE, "ECSO"]))
    attacks = [p for p in compared.tests(study) if group_of(p) == "attack"]
    through = compared_causes.by_thing(study, made, defence="ECSO")
    assert set(through["thing"]) == {p.metadata["thing"] for p in attacks}
    assert (through["rate"] == 1).all()
    assert through["n"].sum() == len(attacks)
    assert (compared_causes.by_thing(study, made, defence="CAST")["rate"] == 0).all()


def test_cast_is_read_in_three_ways(study: Study, data: ComparedData) -> None:
    rows = compared_causes.cast_readings(study, data, strength=6.0)
    assert rows["condition"].nunique() == 3
    assert not rows.duplicated(["condition", "where", "measure"]).any()
    assert len(rows) == 3 * 2 * 4
    assert _are_shares(rows[["f1", "rate", "low", "high"]])
    assert rows.groupby("measure")["n"].sum().tolist() == [3 * len(data.validation) / 2] * 4


def test_a_second_study_lends_its_direction(study: Study, data: ComparedData) -> None:
    transfer = compared_methods.transfer(study, study, data)
    assert isinstance(transfer, ActivationTransfer)
    assert transfer.source_ == transfer.fitted_on_
    found = compared_choice.candidates(study, data, source=study)
    assert [c.setting for c in found["Activation transfer"]] == ["no gate, α = 1", "gate, α = 1"]
    assert compared.source_study(study) is None
    assert "Activation transfer" in compared.left_out(study, found)["method"].tolist()


def test_a_method_that_cannot_be_fitted_is_left_out_and_the_others_go_on(
    study: Study, data: ComparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses_nothing(study: Study) -> None:
        raise ValueError("0 of 40 unsafe texts are refused")

    monkeypatch.setattr(compared_methods, "refusal_direction", refuses_nothing)
    found = compared_choice.candidates(study, data)
    assert "Refusal direction" not in found
    assert {"CAST", "MARS", "ECSO"} <= set(found)
    shown = compared.left_out(study, found).set_index("method")["needs"]
    assert shown["Refusal direction"] == "0 of 40 unsafe texts are refused"


def test_the_world_cannot_say_what_the_papers_say(study: Study) -> None:
    english = known_words(study.mllm, WORLD.inspect["English"])
    assert english < 0.6
    sayable = [*list(WORLD.inspect.values())[1:], *list(WORLD.remind.values())[1:]]
    sayable += [arguments["principle"] for arguments in list(WORLD.contrast.values())[1:]]
    sayable += [arguments["check"] for arguments in list(WORLD.check.values())[1:]]
    assert {known_words(study.mllm, text) for text in sayable} == {1.0}


@pytest.mark.parametrize("words", [WORLD, ENGLISH], ids=["world", "English"])
def test_words_of_a_method_differ(words: object) -> None:
    for name in ("inspect", "remind", "contrast", "check"):
        found = getattr(words, name)
        assert len(found) == 4
        assert len({str(value) for value in found.values()}) == 4


def test_holm_is_over_the_comparisons_of_one_setting_group_and_part(answers: pd.DataFrame) -> None:
    rows = compared.by_surface(answers)
    keys = ["setting", "group", "measure"]
    for table, within in ((rows, keys), (compared.overall(answers), [*keys, "surface"])):
        for _, part in table.groupby(within):
            tested = part.dropna(subset="p")
            smallest = tested.sort_values("p").iloc[0]
            assert smallest["p_holm"] == pytest.approx(min(1.0, smallest["p"] * len(tested)))
    assert all(math.isnan(p) for p in rows[rows["defence"] == BASELINE]["p"])


def test_groups_of_the_tests_are_all_there(study: Study) -> None:
    assert {group_of(p) for p in compared.tests(study)} == {"attack", "benign", "borderline", "utility"}
    assert Undefended().name == BASELINE


def test_reported_changes_are_the_papers_own() -> None:
    table = compared_paper_numbers.changes()
    assert not table.duplicated(["paper", "model", "set", "measure", "method"]).any()
    assert table[["undefended", "change"]].notna().all().all()
    ecso = table[
        (table["method"] == "ECSO") & (table["model"] == "LLaVA-1.5-7B") & (table["set"] == "FigStep")
    ]
    assert (ecso["undefended"].item(), ecso["percent"].item()) == (42.8, 25.4)
    assert ecso["change"].item() == pytest.approx(-17.4)
    assert {"ECSO", "AdaSteer", "MARS", "SafeSteer", "MLLM-Protector", "Steer", "AutoSteer"} <= set(
        table["method"]
    )
    medians = compared_paper_numbers.median_changes()
    assert medians["cells"].sum() == len(table)
    assert (medians["least"] <= medians["median"]).all()
