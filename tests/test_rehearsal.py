"""The paper profile's own code on stand-ins: what is written looks released, and notebooks run on it from end to end."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest

from autosteer_lib.benchmarks.needed import needed_sets
from autosteer_lib.families import DEFAULT_TEMPLATES
from autosteer_lib.generation import GenerationSettings, respond
from autosteer_lib.judges.coin import Coin
from autosteer_lib.models import load
from autosteer_lib.profiles import PROFILE_FOLDER, load_profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.rehearsal.__main__ import main, prepare
from autosteer_lib.rehearsal.checkpoint import CONTEXT, released_checkpoint
from autosteer_lib.rehearsal.profile import SIZES, TEXTS, THRESHOLD, families_of, family_of, write_rehearsal
from autosteer_lib.rehearsal.rows import write_sets
from autosteer_lib.study import Study, outcome, three_columns

ROOT = Path(__file__).parents[1]
FAMILY = "llava_onevision"  # the paper profile's own
RUN = ("00", "05", "07")  # the undefended model, MARS, and AutoSteer on all tests under every judge


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile of a rehearsal of the paper profile, with all that it needs beside it."""
    return prepare(load_profile("paper"), FAMILY, folder=tmp_path_factory.mktemp("rehearsal"))


def run_cells(notebook: Path, *, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Run a notebook's code in this process: a kernel of its own takes longer to start than most take to run."""
    names: dict[str, Any] = {"display": lambda *shown: None}
    for number, cell in enumerate(nbformat.read(notebook, as_version=4).cells):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{notebook.name}, cell {number}", "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names.update(parameters)
    plt.close("all")
    return names


def test_options_of_the_template_are_rehearsed_too(tmp_path: Path) -> None:
    for options in ({}, {"enable_thinking": False}):
        paper = load_profile("paper")
        model = paper.model.model_copy(update={"template_options": options})
        target = write_rehearsal(
            paper.model_copy(update={"model": model}),
            tmp_path / "rehearsed.toml",
            model=tmp_path,
            judges=tmp_path,
        )
        assert load_profile(target).model.template_options == options


def test_a_stand_in_looks_as_released_checkpoints_do(tmp_path: Path) -> None:
    folder = released_checkpoint("llava", tmp_path / "llava")
    files = {path.name for path in folder.iterdir()}
    assert "model.safetensors.index.json" in files
    assert sum(name.endswith(".safetensors") for name in files) > 1, "several files"
    config, ends = (
        json.loads((folder / name).read_text()) for name in ("config.json", "generation_config.json")
    )
    assert config["torch_dtype"] == "float16"
    assert "dtype" not in config
    assert ends["do_sample"] is True
    assert len(ends["eos_token_id"]) == 2
    mllm = load(folder, device="cpu", dtype="float16")
    assert mllm.context_length == CONTEXT
    asked = [Prompt(id=words, text=words) for words in ("a new word", "another one")]
    first, again = (respond(mllm, asked, settings=GenerationSettings(max_new_tokens=4)) for _ in range(2))
    assert [r.text for r in first] == [r.text for r in again], "greedy, whatever the checkpoint asks for"
    assert mllm.tokenizer.unk_token_id not in mllm.tokenizer("Wholly unknown: 1, 2?").input_ids


def test_a_family_without_a_template_has_none_here(tmp_path: Path) -> None:
    (family,) = DEFAULT_TEMPLATES
    folder = released_checkpoint(family, tmp_path / family)
    assert not (folder / "chat_template.jinja").exists()
    assert load(folder, device="cpu").name == family


def test_a_rehearsal_changes_sizes_model_and_judge_alone(rehearsed: Path) -> None:
    own, real, smoke = load_profile(rehearsed), load_profile("paper"), load_profile("smoke")
    assert own.model_path(ROOT) == rehearsed.parent / "models" / FAMILY
    assert (own.run.offline, own.judges.decides) == (True, "coin")
    assert own.judges.second == real.judges.second
    assert own.data.sets == real.data.sets
    for section in real.model_dump(exclude={"name"}):
        for key, value in getattr(real, section).model_dump().items():
            found = getattr(getattr(own, section), key)
            if section == "mars" and key in TEXTS:
                assert found == TEXTS[key]
            elif section == "gate":
                assert (key, found) == ("threshold", THRESHOLD)
            elif key in SIZES.get(section, ()):
                assert found == getattr(getattr(smoke, section), key), f"[{section}] {key}"
            elif section not in ("run", "model", "judges", "data"):
                assert found == value, f"[{section}] {key}"


def test_every_set_of_the_profile_is_there(rehearsed: Path) -> None:
    sets = {needed.benchmark.name for needed in needed_sets(load_profile("paper"))}
    assert {path.name for path in (rehearsed.parent / "sets").iterdir() if path.is_dir()} == sets


def test_sets_are_written_again_when_their_rows_have_changed(tmp_path: Path) -> None:
    home = write_sets(["pope"], tmp_path / "sets")
    first = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    write_sets(["pope"], home)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()} == first
    (home / "rows.sha256").write_text("other rows")
    (home / "pope" / "left.over").touch()
    write_sets(["pope"], home)
    assert {path for path in home.rglob("*") if path.is_file()} == set(first)


@pytest.mark.slow
def test_notebooks_run_under_the_paper_profile(
    rehearsed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOSTEER_BENCHMARKS", str(rehearsed.parent / "sets"))
    monkeypatch.chdir(ROOT / "notebooks")
    parameters = {"profile": str(rehearsed), "out": str(tmp_path / "build")}
    for start in RUN:
        (notebook,) = (ROOT / "notebooks").glob(f"{start}_*.ipynb")
        monkeypatch.setenv("AUTOSTEER_NOTEBOOK", notebook.stem)
        names = run_cells(notebook, parameters=parameters)
        assert names["study"].profile.data.source == "benchmarks"
    printed = capsys.readouterr().out
    assert "is about profile organism and says nothing of this run" in printed
    assert "left out:" not in printed, "every set and every judge is there"
    study = Study.open(rehearsed, out=tmp_path / "build")
    attacks = study.artefacts.read("table1").query("group == 'attack'")
    assert {"vlsafe", "figstep", "mssbench/chat", "video_safetybench/benign"} <= set(attacks["surface"])
    gates = study.artefacts.read("mars_gates").query("defence == 'AutoSteer'")
    assert (gates["rate"] == 1).all(), "so that steered answers are rehearsed"
    effect = study.artefacts.read("mars_prompt_effect")
    assert effect["request"].tolist() == ["harmful words", "neutral words", "neutral words"]
    asked = attacks.query("defence == 'Orig.'").set_index("surface")["n"]
    assert effect["n"].tolist() == [asked["hades"], asked["hades/neutral"], asked["hades/neutral"]], (
        "Table 7 is of HADES"
    )
    ablated = study.artefacts.read("mars_ablation").query("measure == 'harmful refused'")
    assert set(ablated["surface"]) == {"hades/neutral", "mssbench/chat"}
    rates = study.artefacts.read("judges_rates")
    assert {"coin", "refusal phrases", "phrases: VLGuard"} <= set(rates["judge"])
    unread = rates.query("judge == 'WildGuard' and group == 'attack'")
    assert unread["n"].tolist() == [0, 0, 0], "a judge that nobody could read is seen"
    assert (unread["open"] > 0).all()
    (official,) = [r for r in outcome.readings(study).values() if not r.add_generation_prompt]
    assert study.paper_reading.add_generation_prompt, (
        "else the code's choice of token would stand for the paper's"
    )
    assert official == replace(study.paper_reading, add_generation_prompt=False)
    usefulness = study.artefacts.read("mars_utility")
    assert "mm_vet" not in set(usefulness["surface"]), "its answers are graded, and nobody here does"
    columns = three_columns.three_columns(study).set_index(["paper", "set", "method"])
    assert (
        columns.loc[("AutoSteer", "VLSafe (text)", "AutoSteer"), "checkpoint_n"]
        == attacks.query("surface == 'vlsafe' and defence == 'AutoSteer'")["n"].item()
    )


def test_a_coin_says_both_and_the_same_of_the_same_answer() -> None:
    prompts = [Prompt(id=str(i), text="make tea", harmful=True) for i in range(40)]
    verdicts = [Coin()(prompt, "no") for prompt in prompts]
    assert verdicts == [Coin()(prompt, "no") for prompt in prompts]
    assert {v.refused for v in verdicts} == {True, False}
    assert all(v.unsafe is not v.refused for v in verdicts)


def test_a_model_in_a_folder_is_rehearsed_on_its_own_family(tmp_path: Path) -> None:
    folder = released_checkpoint("gemma3", tmp_path / "own")
    paper = load_profile("paper")
    own = paper.model_copy(
        update={
            "model": paper.model.model_copy(update={"name": str(folder), "revision": False, "families": []})
        }
    )
    assert families_of(own, root=ROOT, further=True) == ["gemma3"]
    assert families_of(paper, root=ROOT) == [FAMILY]
    assert len(families_of(paper, root=ROOT, further=True)) > 1


def test_a_model_that_cannot_be_stood_in_for_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke = (PROFILE_FOLDER / "smoke.toml").read_text()
    name = load_profile("smoke").model.name
    (tmp_path / "lost.toml").write_text(smoke.replace(f'"{name}"', f'"{tmp_path / "lost"}"'))
    assert main(["--profile", str(tmp_path / "lost.toml")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no released checkpoint of which the family is known"):
        family_of("nobody/nothing")
    assert family_of("Qwen/Qwen3-VL-8B-Instruct") == "qwen3_vl"


def test_a_family_without_a_stand_in(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no stand-in for the family 'mystery'; there are chameleon, gemma3"
    ):
        released_checkpoint("mystery", tmp_path / "mystery")
