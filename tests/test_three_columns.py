"""Reported, organism, checkpoint: three columns of one table, and an empty cell is a number that nobody measured."""

from pathlib import Path

import pandas as pd
import pytest

from autosteer_lib.study import Study
from autosteer_lib.study.three_columns import COLUMNS, METHODS, compared, status, three_columns

FIGURES = Path(__file__).parents[1] / "figures"
KEYS = ["paper", "set", "measure", "method"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Tables as a run on a checkpoint leaves them: of two of the papers, with numbers of our own."""
    rows = [
        ("attack", "vlsafe", "Orig.", "attack success", 0.5, 10),
        ("attack", "vlsafe", "AutoSteer", "attack success", 0.1, 10),
        ("attack", "words", "AutoSteer", "attack success", 0.9, 10),
        ("utility", "mmmu", "AutoSteer", "accuracy", 0.3, 20),
    ]
    names = ["group", "surface", "defence", "measure", "rate", "n"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "table1.csv", index=False)
    mars = [("HADES", "hades/neutral", "MARS", "harmful refused", 0.7, 8)]
    names = ["set", "surfaces", "defence", "measure", "rate", "n"]
    pd.DataFrame(mars, columns=names).to_csv(tmp_path / "mars_refusals.csv", index=False)
    return tmp_path


def _row(table: pd.DataFrame, *keys: str) -> pd.Series:
    """The one row with these keys."""
    (index,) = table.index[(table[KEYS] == list(keys)).all(axis=1)]
    return table.loc[index]


def test_without_a_run_the_third_column_is_empty_and_says_so(tmp_path: Path) -> None:
    table = compared(organism=FIGURES, checkpoint=tmp_path)
    assert tuple(table.columns) == COLUMNS
    assert table["reported"].notna().all()
    assert table["checkpoint"].isna().all()
    assert table["checkpoint_n"].isna().all()
    assert table["organism"].notna().sum() > 20
    assert "not run yet (make reproduce PROFILE=paper)" in status(table)["checkpoint"]
    assert not table.duplicated(KEYS).any()
    assert {(p, m) for p, m in zip(table["paper"], table["method"], strict=True)} == {
        (paper, method) for paper, methods in METHODS.items() for method in methods
    }


def test_the_organisms_column_is_what_is_published() -> None:
    table = compared(organism=FIGURES, checkpoint=FIGURES / "none")
    published = pd.read_csv(FIGURES / "table1.csv").set_index(["group", "surface", "defence"])
    row = _row(table, "AutoSteer", "VLSafe (text)", "attack success", "AutoSteer")
    assert row["organism"] == published.loc[("attack", "words", "AutoSteer"), "rate"]
    assert row["organism_set"] == "words"
    utility = published.loc["utility"].query("defence == 'Steer'")
    row = _row(table, "AutoSteer", "MMMU", "accuracy", "Steer")
    assert row["organism"] == pytest.approx((utility["rate"] * utility["n"]).sum() / utility["n"].sum())
    assert row["organism_n"] == utility["n"].sum()
    mars = pd.read_csv(FIGURES / "mars_refusals.csv").set_index(["set", "defence", "measure"])
    row = _row(table, "MARS", "ViSU", "harmful refused", "MARS")
    assert row["organism"] == mars.loc[("ViSU", "MARS", "harmful refused"), "rate"]
    assert row["reported_model"] == "Qwen3-VL-8B"
    safesteer = pd.read_csv(FIGURES / "safesteer_table1.csv").set_index(["set", "defence"])
    row = _row(table, "SafeSteer", "FigStep", "ASR", "SafeSteer")
    assert row["organism"] == safesteer.loc[("FigStep", "SafeSteer"), "rate"]


def test_a_checkpoints_run_fills_its_own_sets_alone(checkpoint: Path) -> None:
    table = compared(organism=FIGURES, checkpoint=checkpoint)
    found = table[table["checkpoint"].notna()].set_index(["paper", "set", "method"])
    assert found["checkpoint"].to_dict() == {
        ("AutoSteer", "VLSafe (text)", "Orig."): 0.5,
        ("AutoSteer", "VLSafe (text)", "AutoSteer"): 0.1,  # and not of the organism's surface of that kind
        ("AutoSteer", "MMMU", "AutoSteer"): 0.3,
        ("MARS", "HADES", "MARS"): 0.7,
    }
    assert found.loc[("MARS", "HADES", "MARS"), "checkpoint_n"] == 8
    assert status(table)["checkpoint"] == f"4 of {len(table)} measured"


def test_a_study_of_the_organism_reads_its_own_build(tmp_path: Path) -> None:
    study = Study.open("smoke", out=tmp_path / "smoke")
    assert three_columns(study, checkpoint="never")[["organism", "checkpoint"]].isna().all().all()
