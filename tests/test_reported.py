"""The papers' numbers: all there, in range, consistent with themselves, and labelled as theirs."""

from pathlib import Path

import pandas as pd
import pytest

from autosteer_lib.reported import COLUMNS, TRUST, available, reported

HEADER = ",".join(COLUMNS)
ROW = "autosteer,t,LLaVA-OV-7B,Steer,VLSafe,ASR,epsilon=0.1,2.0,percent,printed in a table,Table 1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "autosteer_t.csv").write_text(f"{HEADER}\n{ROW}\n")
    return tmp_path


@pytest.mark.parametrize("table", available())
def test_every_shipped_table_loads_and_names_its_source(table: str) -> None:
    frame = reported(table)
    assert set(frame["trust"]) <= set(TRUST)
    assert frame["source"].str.contains("2507.13255").all()
    assert set(frame["table"]) == {table}


def test_all_tables_of_the_paper_are_there() -> None:
    assert available() == ("epsilon_sweep", "prober", "sas", "table1")


def test_table1_is_whole_and_its_brackets_are_its_differences() -> None:
    table = reported("table1")
    counts = table.groupby("model").size()
    # six sets for LLaVA-OV, five for Chameleon; three rates and two changes each
    assert dict(counts) == {"LLaVA-OV-7B": 30, "Chameleon-7B": 25}
    keys = ["model", "dataset", "toxicity"]
    table = table.assign(toxicity=table["toxicity"].fillna("none"))
    for metric in ("ASR", "accuracy"):
        rates = table[table["metric"] == metric].pivot(index=keys, columns="method", values="value")
        changes = table[table["metric"] == f"{metric} change vs Orig."]
        changes = changes.pivot(index=keys, columns="method", values="value")
        for method in ("Steer", "AutoSteer"):
            pd.testing.assert_series_equal(
                rates[method] - rates["Orig."], changes[method], check_names=False, atol=0.051
            )


def test_table1_headline_numbers() -> None:
    table = reported("table1")
    llava = table[(table["model"] == "LLaVA-OV-7B") & (table["metric"] == "ASR")]
    image = llava[llava["toxicity"] == "image"].set_index("method")["value"]
    assert dict(image) == {"Orig.": 70.6, "Steer": 0.0, "AutoSteer": 0.0}


def test_sas_selects_the_layers_that_the_paper_probes() -> None:
    sas = reported("sas")
    best = sas.loc[sas.groupby("model")["value"].idxmax()].set_index("model")["layer"]
    assert dict(best) == {"Chameleon-7B": 24.0, "LLaVA-OV-7B": 20.0}
    assert dict(sas.groupby("model").size()) == {"Chameleon-7B": 7, "LLaVA-OV-7B": 6}


def test_points_that_a_machine_read_off_a_curve_are_marked() -> None:
    sweep = reported("epsilon_sweep")
    points = sweep[sweep["metric"] == "ASR"]
    assert set(points["trust"]) == {"read by machine off a figure"}
    assert dict(points.groupby("model").size()) == {"Chameleon-7B": 12, "LLaVA-OV-7B": 12}
    assert set(sweep[sweep["metric"] != "ASR"]["trust"]) == {"stated in the text"}


def test_settings_become_columns(folder: Path) -> None:
    frame = reported("t", folder=folder)
    assert frame.loc[0, "epsilon"] == 0.1
    assert frame.loc[0, "value"] == 2.0


def test_an_unknown_table_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no table 'table9'.*there are: t$"):
        reported("table9", folder=folder)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (ROW.replace(",2.0,", ",200,"), "outside"),
        (ROW.replace(",2.0,", ",,"), "line 3: value is empty"),
        (ROW.replace("printed in a table", "surely"), "trust is 'surely'; allowed"),
        (ROW.replace("percent", "apples"), "unit is 'apples'; allowed"),
        (ROW.replace("2.0", "3.0"), "same quantity"),
        (ROW.replace("epsilon=0.1", "epsilon 0.1"), "name=value"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(folder: Path, row: str, complaint: str) -> None:
    path = folder / "autosteer_t.csv"
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(ValueError, match=complaint):
        reported("t", folder=folder)


def test_wrong_columns_are_refused(folder: Path) -> None:
    (folder / "autosteer_t.csv").write_text("paper,value\nautosteer,1\n")
    with pytest.raises(ValueError, match="they must be"):
        reported("t", folder=folder)
