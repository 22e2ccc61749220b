"""Tables and figures: the same content gives the same bytes, and each says what made it."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from autosteer_lib.artefacts import NOTEBOOK_VARIABLE, Artefacts, publish
from autosteer_lib.committed import Committed, build_entries, write_text


@pytest.fixture
def rates():
    return pd.DataFrame({"defence": ["Orig.", "Steer"], "rate": [0.6, 1 / 3], "n": [50, 50]})


@pytest.fixture
def artefacts(tmp_path):
    build = tmp_path / "build" / "organism"
    return Artefacts(build, tmp_path / "figures", profile="organism", facts={"seed": 0})


def _figure() -> Figure:
    figure = Figure()
    figure.subplots().plot([0, 1], [0.2, 0.8], label="ASR")
    return figure


def test_a_table_is_written_and_recorded(artefacts, rates):
    assert artefacts.table(rates, "table1", tolerance={"rate": 0.01}, reason="one answer may flip") is rates
    text = (artefacts.build / "tables" / "table1.csv").read_text()
    assert text == "defence,rate,n\nOrig.,0.6,50\nSteer,0.33333333,50\n"
    entry = build_entries(artefacts.build, "table")["table1"]
    assert (entry["rows"], entry["numbers"]) == (2, 4)
    assert entry["tolerance"] == {"rate": 0.01}
    assert entry["reason"] == "one answer may flip"
    assert entry["facts"] == {"seed": 0}
    assert set(entry["provenance"]) >= {"commit", "dirty", "lock", "library", "packages", "device", "threads"}


def test_float32_tables_carry_no_noise(artefacts):
    artefacts.table(pd.DataFrame({"x": np.array([0.1], dtype=np.float32)}), "t")
    assert (artefacts.build / "tables" / "t.csv").read_text() == "x\n0.1\n"


def test_read_gives_the_table_back(artefacts, rates):
    artefacts.table(rates, "table1")
    pd.testing.assert_frame_equal(artefacts.read("table1"), rates, atol=1e-8)
    with pytest.raises(FileNotFoundError, match=r"table2 is not in .*There are: table1"):
        artefacts.read("table2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.1}, "needs a reason"),
        ({"tolerance": {"rat": 0.1}, "reason": "x"}, "names column 'rat'; columns are defence, rate, n"),
        ({"tolerance": -1.0, "reason": "x"}, "finite number ≥ 0"),
        ({"tolerance": float("nan"), "reason": "x"}, "finite number ≥ 0"),
    ],
)
def test_a_tolerance_is_justified_and_plain(artefacts, rates, options, message):
    with pytest.raises(ValueError, match=message):
        artefacts.table(rates, "table1", **options)


def test_an_index_with_a_meaning_is_not_lost(artefacts, rates):
    with pytest.raises(ValueError, match="reset_index"):
        artefacts.table(rates.set_index("defence"), "table1")


@pytest.mark.parametrize("name", ["Table1", "table 1", "../table1", "table1.csv", ""])
def test_names_are_file_names(artefacts, rates, name):
    with pytest.raises(ValueError, match="artefact name"):
        artefacts.table(rates, name)


def test_two_notebooks_cannot_make_one_table(artefacts, rates, monkeypatch):
    monkeypatch.setenv(NOTEBOOK_VARIABLE, "01_first")
    artefacts.table(rates, "table1")
    monkeypatch.setenv(NOTEBOOK_VARIABLE, "02_second")
    with pytest.raises(ValueError, match="already made by notebook 01_first; 02_second must"):
        artefacts.table(rates, "table1")
    monkeypatch.delenv(NOTEBOOK_VARIABLE)  # by hand, or under nbval
    artefacts.table(rates, "table1")
    assert build_entries(artefacts.build, "table")["table1"]["notebook"] == "01_first"


def test_a_figure_has_the_same_bytes_each_time(artefacts, rates):
    artefacts.table(rates, "table1")
    files = [artefacts.build / "figures" / f"plot.{ending}" for ending in ("png", "svg")]
    artefacts.figure(_figure(), "plot", tables=["table1"])
    first = [path.read_bytes() for path in files]
    artefacts.figure(_figure(), "plot", tables=["table1"])
    assert [path.read_bytes() for path in files] == first
    assert b"<dc:date>" not in first[1]
    assert b"Software" not in first[0]


def test_a_figure_is_closed_and_returned_for_display(artefacts, rates):
    artefacts.table(rates, "table1")
    figure = plt.figure()
    assert artefacts.figure(figure, "plot", tables=["table1"]) is figure
    assert plt.get_fignums() == []


@pytest.mark.parametrize("tables", [[], ["table2"]])
def test_a_figure_stands_beside_its_numbers(artefacts, rates, tables):
    artefacts.table(rates, "table1")
    with pytest.raises(ValueError, match=r"Write the numbers that it shows"):
        artefacts.figure(_figure(), "plot", tables=tables)


@pytest.mark.usefixtures("as_a_user")
def test_what_is_no_table_or_figure_is_named(artefacts, rates):
    with pytest.raises(TypeError, match=r"table rates is \[1, 2\], of type list; give a pandas DataFrame"):
        artefacts.table([1, 2], "rates")
    artefacts.table(rates, "rates")
    axes = Figure().subplots()
    with pytest.raises(TypeError, match=r"figure plot is .*, of type Axes; give a matplotlib Figure"):
        artefacts.figure(axes, "plot", tables=["rates"])


def test_a_comparison_of_nothing_is_refused(artefacts, rates):
    artefacts.table(rates, "rates")
    with pytest.raises(ValueError, match="no table is named, so nothing would be compared"):
        artefacts.verify()


def test_a_table_without_rows_says_why_instead(artefacts, rates, capsys):
    nothing = artefacts.table(rates[:0], "things", empty="no thing is named here")
    artefacts.verify("things")
    assert nothing.empty
    assert not (artefacts.build / "tables" / "things.csv").exists()
    assert capsys.readouterr().out.splitlines() == [
        "no table things: no thing is named here",
        "things: not written, no thing is named here",
    ]
    artefacts.table(rates, "things", empty="no thing is named here")
    pd.testing.assert_frame_equal(artefacts.read("things"), rates)
    with pytest.raises(ValueError, match="table others was not written"):
        artefacts.verify("others")


def test_publish_then_verify_reproduces_all(artefacts, rates, capsys):
    artefacts.table(rates, "table1")
    artefacts.verify("table1")
    assert capsys.readouterr().out == "table1: no committed numbers for profile organism; 4 regenerated\n"
    publish(artefacts.build, artefacts.committed, profile="organism")
    artefacts.verify("table1")
    assert capsys.readouterr().out == "table1: 4 of 4 numbers reproduced\n"
    artefacts.table(rates.assign(n=51), "table1")
    artefacts.verify("table1")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "table1: 2 of 4 numbers reproduced"
    assert "row 1 (Orig.), column n: committed 50, regenerated 51 (exactly the same)" in printed[1]


def test_verify_in_words_for_what_is_not_compared(artefacts, rates, capsys):
    artefacts.table(rates, "table1")
    publish(artefacts.build, artefacts.committed, profile="organism")
    artefacts.table(rates, "timings", volatile=True)
    artefacts.table(rates, "table2")
    artefacts.verify("timings", "table2")
    assert capsys.readouterr().out.splitlines() == [
        "timings: differs from machine to machine, not compared",
        "table2: not committed yet; 4 regenerated",
    ]
    with pytest.raises(ValueError, match="table9 was not written; there are: table1, table2, timings"):
        artefacts.verify("table9")


def test_another_profile_has_no_committed_numbers(artefacts, rates, tmp_path, capsys):
    artefacts.table(rates, "table1")
    publish(artefacts.build, artefacts.committed, profile="organism")
    smoke = Artefacts(tmp_path / "build" / "smoke", artefacts.committed, profile="smoke")
    smoke.table(rates, "table1")
    smoke.verify("table1")
    assert capsys.readouterr().out == "table1: no committed numbers for profile smoke; 4 regenerated\n"


def test_published_manifest_says_what_made_what(artefacts, rates):
    artefacts.table(rates, "table1")
    artefacts.figure(_figure(), "plot", tables=["table1"])
    publish(artefacts.build, artefacts.committed, profile="organism", notebooks={"00_x": "abc"})
    manifest = json.loads((artefacts.committed / "manifest.json").read_text())
    assert manifest["profile"] == "organism"
    assert manifest["notebooks"] == {"00_x": "abc"}
    (circumstances,) = manifest["provenance"]  # both were made under the same: written once
    assert manifest["tables"]["table1"]["provenance"] == circumstances
    assert manifest["figures"]["plot"]["tables"] == ["table1"]
    assert {path.name for path in artefacts.committed.iterdir()} == {
        "manifest.json", "table1.csv", "plot.png", "plot.svg",
    }  # fmt: skip


def test_publish_drops_what_is_no_longer_made(artefacts, rates):
    artefacts.table(rates, "table1")
    write_text(artefacts.committed / "old_table.csv", "a\n")
    write_text(artefacts.committed / "README.md", "kept")
    publish(artefacts.build, artefacts.committed, profile="organism")
    assert not (artefacts.committed / "old_table.csv").exists()
    assert (artefacts.committed / "README.md").exists()


def test_timings_are_a_table(artefacts):
    assert artefacts.timings().empty
    cost = {"seconds": 2.0, "peak_memory_mb": 300, "cells": 4}
    write_text(artefacts.build / "timings.json", json.dumps({"00_x": cost}))
    assert artefacts.timings().to_dict("records") == [{"notebook": "00_x", **cost}]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_a_shown_difference_does_not_become_the_reference(tmp_path):
    figures, build = tmp_path / "figures", tmp_path / "build"
    write_text(figures / "manifest.json", json.dumps({"profile": "organism", "tables": {"t": {}}}))
    write_text(figures / "t.csv", "a\n1\n")
    committed = Committed(figures, build=build, profile="organism")
    for regenerated in (b"a\n2\n", b"a\n3\n"):
        committed.show_difference("t.csv", regenerated)
        assert (figures / "t.csv").read_bytes() == regenerated
        assert committed.table("t") == "a\n1\n"
    committed.restore("t.csv")
    assert (figures / "t.csv").read_text() == "a\n1\n"
    committed.show_difference("t.csv", b"a\n2\n")
    write_text(figures / "t.csv", "a\n9\n")  # a person has changed the file: theirs counts
    assert committed.table("t") == "a\n9\n"
    committed.restore("t.csv")
    assert (figures / "t.csv").read_text() == "a\n9\n"
    committed.show_difference("new.csv", b"a\n")
    committed.restore("new.csv")
    assert not (figures / "new.csv").exists()
