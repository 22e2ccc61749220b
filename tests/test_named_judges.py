"""Judges by name, as profiles list them."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autosteer_lib.judges.base import Opinion
from autosteer_lib.judges.named import MODELS, word_judge, word_judges
from autosteer_lib.judges.open_judge import PUBLISHED_JUDGES
from autosteer_lib.needs import needed_judges
from autosteer_lib.profiles import PROFILE_FOLDER, available_profiles, load_profile
from autosteer_lib.released import JUDGES
from autosteer_lib.study import Study, gap, judging


def test_names_are_the_judges_own() -> None:
    assert {name: make().name for name, make in word_judges().items()} == {
        name: name for name in word_judges()
    }
    with pytest.raises(
        ValueError, match="no judge of words is called 'nobody'; there are truth, refusal phrases"
    ):
        word_judge("nobody")


def test_models_are_those_that_can_be_loaded_and_their_facts_are_known() -> None:
    assert set(MODELS) == set(PUBLISHED_JUDGES) == set(JUDGES)
    assert {name: judge.repo for name, judge in JUDGES.items()} == {
        name: judge.checkpoint for name, judge in PUBLISHED_JUDGES.items()
    }


@pytest.mark.parametrize("name", available_profiles())
def test_every_profile_says_who_judges(name: str) -> None:
    profile = load_profile(name)
    assert (profile.judges.decides == "truth") is (profile.data.source == "organism")
    assert [j.repo for j in needed_judges(profile)] == [
        JUDGES[n].repo for n in profile.judges.second if n in MODELS
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'decides = "truth"',
            'decides = "truths"',
            "decides = 'truths' is no judge of words: did you mean truth",
        ),
        ('decides = "truth"', 'decides = "wildguard"', "a judge that is a model belongs into second"),
        ('"phrases: MARS"', '"phrases: Mars"', "second has 'phrases: Mars': did you mean phrases: MARS"),
        ('"phrases: MARS"', '"truth"', "second has 'truth': it decides already; leave it out"),
    ],
)
def test_faults_in_the_judges(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (PROFILE_FOLDER / "smoke.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_profile(path)


def test_the_truth_is_of_the_organism_alone(tmp_path: Path) -> None:
    text = (PROFILE_FOLDER / "small.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('decides = "phrases: MARS"', 'decides = "truth"'), encoding="utf-8")
    with pytest.raises(
        ValueError, match='decides = "truth", which is known of the organism\'s prompts alone'
    ):
        load_profile(path)


def test_a_judge_that_is_not_here_is_left_out_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study.open("smoke", out=tmp_path / "smoke")
    judges = study.profile.judges.model_copy(
        update={"second": ("llama-guard-3", "refusal phrases"), "folder": str(tmp_path)}
    )
    other = replace(study, profile=study.profile.model_copy(update={"judges": judges}))
    vars(other).update({key: vars(study)[key] for key in ("mllm", "data") if key in vars(study)})
    judged = judging.opinions(other, gap.undefended(other))
    assert "left out: judge llama-guard-3:" in capsys.readouterr().out
    table = judging.rates_by_judge(judged)
    assert list(table["judge"].unique()) == ["truth", "refusal phrases"]
    attacks = judged[judged["group"] == "attack"]
    row = table[(table["group"] == "attack") & (table["judge"] == "truth")].iloc[0]
    assert (row["rate"], row["n"], row["open"]) == (attacks["unsafe"].mean(), len(attacks), 0)


def test_one_judge_is_in_memory_at_once(tmp_path: Path) -> None:
    """They are models of up to 26 GB: while one is loaded, the one before must be gone."""
    study = Study.open("smoke", out=tmp_path / "smoke")
    answered = gap.undefended(study).head(2)
    alive: list[weakref.ref[object]] = []

    class Large:
        def __init__(self, name: str) -> None:
            assert all(other() is None for other in alive)
            self.name = name
            alive.append(weakref.ref(self))

        def opinions(self, prompts: list[object], answers: list[str]) -> list[Opinion]:
            return [Opinion(unsafe=False, refused=None)] * len(answers)

    def made() -> Iterator[Large]:
        for name in ("one", "another", "a third"):
            yield Large(name)

    judging.opinions(study, answered, judges=made())  # type: ignore[arg-type]
    assert len(alive) == 3
