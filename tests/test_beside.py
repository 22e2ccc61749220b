"""Models side by side: each measured under its own profile, all in one build, told apart by name."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autosteer_lib.models import load
from autosteer_lib.profiles import load_profile
from autosteer_lib.provenance import repository_root
from autosteer_lib.scale_out.cluster import Cluster
from autosteer_lib.study import Study, beside, gap, paper_numbers

SHIPPED = "data/organisms/llava_onevision"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The smoke profile, beside it a copy of its model under another name and with fewer prompts."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(repository_root() / SHIPPED, folder / "other_model")
    text = (Path(beside.__file__).parents[1] / "profiles" / "smoke.toml").read_text()
    tests = load_profile("smoke").data.tests_per_surface
    other = text.replace(SHIPPED, str(folder / "other_model")).replace(
        f"tests_per_surface = {tests}", f"tests_per_surface = {tests - 1}"
    )
    (folder / "other.toml").write_text(other)
    (folder / "both.toml").write_text(text.replace("beside = []", f'beside = ["{folder / "other.toml"}"]'))
    return Study.open(folder / "both.toml", out=folder / "build")


def test_each_model_is_measured_under_its_own_profile(study: Study) -> None:
    table = beside.side_by_side(study, lambda one: gap.group_rates(gap.undefended(one)))
    assert list(dict.fromkeys(table["model"])) == ["llava_onevision", "other_model"]
    attacks = table[table["group"] == "attack"].groupby("model", sort=False)["n"].max()
    tests = study.profile.data.tests_per_surface
    assert attacks.tolist() == [tests, tests - 1]
    assert table.columns[:2].tolist() == ["model", "group"]
    # one build for both, and what it was measured on says so
    assert {one.artefacts.build for one in beside.studies(study)} == {study.artefacts.build}
    assert study.artefacts.facts["beside"] == study.profile.run.beside


def test_a_model_is_loaded_once(study: Study) -> None:
    first, second = (beside.studies(study)[1].mllm for _ in range(2))
    assert first is second


@pytest.mark.usefixtures("as_a_user")
def test_two_models_of_one_name_cannot_be_told_apart(study: Study) -> None:
    alone = Study(load_profile("smoke"), 0, study.artefacts)
    twice = replace(alone)
    vars(twice)["beside"] = (alone,)
    with pytest.raises(ValueError, match="need different names, received llava_onevision, llava_onevision"):
        beside.studies(twice)


def test_models_side_by_side_share_their_actors(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(address="local")
    monkeypatch.setattr(Cluster, "from_environment", lambda: cluster)
    first, second = (replace(one).answerer for one in beside.studies(study))
    assert first is second, "a second crew would wait for the cores of the first"


def test_alone_is_a_table_of_one_model(study: Study) -> None:
    alone = beside.studies(study)[1]
    assert beside.studies(alone) == (alone,)


def test_a_model_is_shown_beside_the_papers_model_of_its_kind(study: Study) -> None:
    chameleon = load(repository_root() / "data/organisms/chameleon", device="cpu")
    assert [paper_numbers.nearest(mllm) for mllm in (study.mllm, chameleon)] == list(paper_numbers.MODELS)
    rates = [paper_numbers.table1(model=model)["rate"] for model in paper_numbers.MODELS]
    assert len(rates[0]) == len(rates[1])
    assert rates[0].tolist() != rates[1].tolist()
