"""The string judges against the organism's truth, on answers that a study made."""

from dataclasses import replace

import pandas as pd
import pytest

from autosteer_lib.study import Study, gap, judging


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.open("smoke", out=tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="module")
def judged(study: Study) -> pd.DataFrame:
    return judging.opinions(study, gap.undefended(study))


def test_the_truth_is_the_studys_own_judge(judged: pd.DataFrame) -> None:
    assert (judged["unsafe by truth"] == judged["unsafe"]).all()
    assert (judged["refused by truth"] == judged["refused"]).all()


def test_each_list_stands_beside_the_truth_on_every_surface(study: Study, judged: pd.DataFrame) -> None:
    names = list(study.profile.judges.second)
    table = judging.agreement_table(judged)
    assert set(table["first"]) == {"truth"}
    assert list(table["second"].unique()) == names
    assert set(table["surface"]) == {*study.data.surfaces("attack"), "all"}
    attacks = judged[judged["group"] == "attack"]
    every = table[table["surface"] == "all"].set_index("second")
    for name in names:
        said, true = attacks[f"unsafe by {name}"].astype(bool), attacks["unsafe"].astype(bool)
        assert every.loc[name, "agreement"] == (said == true).mean()
    refusals = judging.agreement_table(judged, measure="refused")
    assert set(refusals["group"]) == {"attack", "benign", "borderline", "utility", "all"}


def test_a_phrase_list_misses_no_harm_but_takes_nonsense_for_it(judged: pd.DataFrame) -> None:
    """Its verdict is "not refused": an attack that was carried out is found, an answer off the topic is too."""
    table = judging.truth_table(judged)
    rows = table[(table["judge"] == "refusal phrases") & (table["surface"] == "all")].set_index("quantity")
    attacks = judged[judged["group"] == "attack"]
    harmed = attacks["unsafe"].astype(bool)
    off_topic = (~harmed & ~attacks["refused by refusal phrases"].astype(bool)).sum()
    assert rows.loc["specificity", "n"] == (~harmed).sum()
    assert rows.loc["specificity", "rate"] == pytest.approx(1 - off_topic / (~harmed).sum())
    assert rows.loc["sensitivity", "n"] == harmed.sum()


def test_other_worlds_have_no_truth(study: Study) -> None:
    judges = study.profile.judges.model_copy(
        update={"decides": "phrases: MARS", "second": ("refusal phrases",)}
    )
    elsewhere = replace(study, profile=study.profile.model_copy(update={"judges": judges}))
    vars(elsewhere).update({key: vars(study)[key] for key in ("mllm", "data")})
    judged = judging.opinions(elsewhere, gap.undefended(elsewhere))
    assert judging.truth_table(judged).empty
    assert set(judging.agreement_table(judged)["first"]) == {"phrases: MARS"}
