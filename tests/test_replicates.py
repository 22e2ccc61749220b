"""Other trainings of an organism: what is kept of them, how it is read, and that folders of two seeds are not mixed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from autosteer_lib import replicates as command
from autosteer_lib.organism.organisms import ORGANISMS
from autosteer_lib.organism.pipeline import train_organism
from autosteer_lib.organism.whole_training import place
from autosteer_lib.plotting import rates_of_trainings
from autosteer_lib.provenance import repository_root
from autosteer_lib.study import Study, replicate_layers, replicates

SHIPPED = repository_root() / "data" / "organisms" / "llava_onevision"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.open("smoke", out=tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="module")
def measured(study: Study) -> pd.DataFrame:
    return replicates.measured(study, training=0)


def test_the_same_weights_elsewhere_give_the_same_rates(
    study: Study, measured: pd.DataFrame, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "model"
    elsewhere.symlink_to(SHIPPED)
    one = replicates.of_weights(study, elsewhere)
    assert one.mllm.fingerprint == study.mllm.fingerprint
    assert (one.profile.run.beside, one.seed, one.artefacts) == ([], study.seed, study.artefacts)
    again = replicates.measured(one, training=1)
    pd.testing.assert_frame_equal(again.assign(training=0), measured)
    assert replicates.layers(one) == replicates.layers(study)


def test_a_measured_training_has_every_method_and_each_part_of_the_attacks(
    study: Study, measured: pd.DataFrame
) -> None:
    assert list(measured) == [*replicates.KEYS, *replicates.RATES]
    assert set(measured["defence"]) == {"Orig.", "Steer", "AutoSteer", "MARS", "SafeSteer"}
    attacks = measured[(measured["measure"] == "attack success") & (measured["defence"] == "MARS")]
    sizes = attacks.set_index("part")["n"]
    assert sizes["all"] == sizes["in sight"] + sizes["in words or both"]
    assert sizes["all"] == sum(p.metadata["group"] == "attack" for p in study.data.tests)


def test_what_is_written_is_read_again_and_spread_out(measured: pd.DataFrame, tmp_path: Path) -> None:
    moved = measured.assign(training=1, rate=measured["rate"] * 0.5)
    bounds = [
        {"measure": "utility", "surface": "all kinds", "percent": 95.0, "n": 300, "kept": True},
        {"measure": "attack success", "surface": "video", "percent": 40.0, "n": 120, "kept": False},
    ]
    facts = [{"training": 1, "sha256": "ab" * 32, "bounds": bounds, "layers": {"AutoSteer": 6, "MARS": 5}}]
    replicates.write("it", pd.concat([measured, moved], ignore_index=True), facts, root=tmp_path)
    table = replicates.rates("it", root=tmp_path)
    assert len(table) == 2 * len(measured)
    spread = replicates.spread(table)
    twice = spread.merge(measured, on=["group", "part", "measure", "defence"])
    assert (spread["trainings"] == 2).all()
    assert twice["mean"].tolist() == pytest.approx((0.75 * twice["rate"]).tolist())
    assert twice["range"].tolist() == pytest.approx((0.5 * twice["rate"]).tolist())
    (row,) = replicates.trainings("it", root=tmp_path).to_dict("records")
    assert (row["weights"], row["kept"], row["bounds"], row["layer of MARS"]) == ("abababababab", 1, 2, 5)
    assert row["outside"] == "attack success video 40.0 %"


def test_trainings_belong_to_weights_and_not_to_a_name(
    study: Study, measured: pd.DataFrame, tmp_path: Path
) -> None:
    digest = hashlib.sha256((SHIPPED / "model.safetensors").read_bytes()).hexdigest()
    for sha256, name in ((digest, "llava_onevision"), ("0" * 64, "")):
        facts = [{"training": 0, "sha256": sha256, "bounds": [], "layers": {}}]
        replicates.write("llava_onevision", measured, facts, root=tmp_path)
        assert replicates.name_of(study, root=tmp_path) == name
    assert replicates.name_of(study, root=tmp_path / "elsewhere") == ""
    assert replicates.rates("", root=tmp_path).empty


def test_models_beside_have_trainings_of_their_own(measured: pd.DataFrame, tmp_path: Path) -> None:
    study = Study.open("organism", out=tmp_path / "build")
    assert replicates.beside(study, root=tmp_path).empty
    weights = repository_root() / "data" / "organisms" / "chameleon" / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    facts = [{"training": 0, "sha256": digest, "bounds": [], "layers": {}}]
    replicates.write("chameleon", measured, facts, root=tmp_path)
    table = replicates.beside(study, root=tmp_path)
    assert list(table) == ["model", *replicates.KEYS, *replicates.RATES]
    assert set(table["model"]) == {"chameleon"}
    assert len(table) == len(measured)


def test_a_training_that_was_measured_is_not_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = pd.DataFrame({"training": [0, 1, 2]})
    monkeypatch.setattr(replicates, "rates", lambda _: known)
    with pytest.raises(SystemExit):
        command.main(["--seeds", "2", "3"])
    assert "holds trainings [1] too" in (said := capsys.readouterr().err)
    assert "write --seeds 1 2 3" in said


def test_a_model_of_one_training_has_no_rows(tmp_path: Path) -> None:
    assert replicates.rates("none", root=tmp_path).empty
    assert replicates.trainings("none", root=tmp_path).empty


def test_a_damaged_file_is_named(measured: pd.DataFrame, tmp_path: Path) -> None:
    replicates.write("it", measured.assign(rate=3.0), [], root=tmp_path)
    with pytest.raises(ValueError, match=r"it\.csv has rates outside .* --model it"):
        replicates.rates("it", root=tmp_path)
    replicates.write("it", measured.drop(columns="n"), [], root=tmp_path)
    with pytest.raises(ValueError, match="lacks n"):
        replicates.rates("it", root=tmp_path)


def test_this_run_is_compared_with_training_0(study: Study, measured: pd.DataFrame) -> None:
    frame = study.evaluate(study.methods(), study.data.tests)
    shared = measured["defence"].isin(study.methods()).sum()
    assert replicates.shipped_again(measured, frame).startswith(f"{shared} of {shared} rates")
    assert replicates.shipped_again(measured.assign(rate=0.123), frame).startswith(f"0 of {shared} rates")


def test_every_late_layer_of_mars_is_held_against_the_undefended_model(study: Study, tmp_path: Path) -> None:
    table = replicate_layers.measured(study, training=3, n=4)
    attacks = table[(table["group"] == "attack") & (table["measure"] == "carried out")]
    assert sorted(attacks["layer"].unique()) == [-1, 3, 4, 5, 6, 7]
    assert set(attacks["surface"]) == {"image", "video"}
    assert (attacks["n"] == 4).all()
    assert set(table.loc[table["chosen"], "layer"]) == {study.mars().layer_}
    assert "opened" not in set(table.loc[table["layer"] == -1, "measure"])
    (tmp_path / "data" / "replicates").mkdir(parents=True)
    replicate_layers.write("it", table, root=tmp_path)
    pd.testing.assert_frame_equal(replicate_layers.read("it", root=tmp_path), table, check_dtype=False)
    assert replicate_layers.read("none", root=tmp_path).empty


@pytest.mark.parametrize("model", sorted(ORGANISMS))
def test_what_ships_was_measured_on_the_shipped_weights(model: str) -> None:
    facts = replicates.trainings(model)
    if facts.empty:
        pytest.skip(f"{model} was trained once")
    recorded = json.loads((replicates.folder() / f"{model}.json").read_text())
    card = (repository_root() / "data" / "organisms" / model / "README.md").read_text()
    assert recorded[0]["training"] == 0
    assert recorded[0]["sha256"] in card
    assert sorted(replicates.rates(model)["training"].unique()) == [one["training"] for one in recorded]
    assert len({one["sha256"] for one in recorded}) == len(recorded)


def test_a_folder_holds_one_seed(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps({"see": {"loss": [], "seed": 2}}))
    with pytest.raises(ValueError, match="seed 2, and seed 1 was asked for"):
        train_organism(ORGANISMS["llava_onevision"], out=tmp_path, device=torch.device("cpu"), seed=1)
    assert place("chameleon", seed=0) != place("chameleon", seed=1)


def test_a_row_a_method_and_a_dot_a_training(measured: pd.DataFrame) -> None:
    table = measured[measured["measure"] == "accuracy"].assign(panel="utility (%)")
    both = pd.concat([table, table.assign(training=4)])
    (axes,) = (one for one in rates_of_trainings(both).axes if one.get_visible())
    dots = [line for line in axes.lines if line.get_linestyle() == "None"]
    filled = [line.get_markerfacecolor() != "white" for line in dots]
    assert (len(filled), sum(filled)) == (10, 5)
    heights = [float(np.asarray(line.get_ydata())[0]) for line in dots]
    assert len(set(heights)) == 10
    numbered = {float(tick.get_loc()): tick.label1.get_text() for tick in axes.yaxis.get_minor_ticks()}
    assert [numbered[height] for height in sorted(heights)] == ["0", "4"] * 5
    with pytest.raises(ValueError, match="needs one row for each panel, defence, training"):
        rates_of_trainings(pd.concat([table, table]))
