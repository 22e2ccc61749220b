"""The comparison counts numbers, honours tolerances, and names each cell that differs."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosteer_lib.committed import Committed, write_text
from autosteer_lib.verify import as_number, compare_tables, count_numbers, main, report, verify_build

TABLE = "surface,defence,rate\ntext,Orig.,0.6\nimage,Steer,0.25\n"


def test_equal_tables_reproduce_every_number():
    verdict = compare_tables("t", TABLE, TABLE)
    assert (verdict.numbers, verdict.reproduced, verdict.ok) == (2, 2, True)
    assert str(verdict) == "t: 2 of 2 numbers reproduced"


@pytest.mark.parametrize(
    ("regenerated", "allowed", "same"),
    [("0.25", 0.0, True), ("0.250", 0.0, True), ("0.26", 0.0, False), ("0.26", 0.01, True), ("0.27", 0.01, False),
     ("", 0.01, False), ("nan", 0.01, False), ("text", 0.01, False)],
)  # fmt: skip
def test_a_number_is_held_to_its_tolerance(regenerated, allowed, same):
    new = TABLE.replace("0.25", regenerated)
    verdict = compare_tables("t", TABLE, new, tolerance={"*": allowed})
    assert verdict.ok is same
    assert verdict.reproduced == 1 + same


def test_a_bound_is_inclusive_in_spite_of_binary_floats():
    assert compare_tables("t", "x\n0.3\n", "x\n0.2\n", tolerance={"*": 0.1}).ok


def test_a_columns_own_tolerance_comes_first():
    old, new = "a,b\n1,1\n", "a,b\n1.5,1.5\n"
    assert not compare_tables("t", old, new, tolerance={"a": 1.0}).ok
    assert compare_tables("t", old, new, tolerance={"a": 1.0, "*": 0.5}).ok


def test_a_mismatch_names_table_row_column_and_both_values():
    (mismatch,) = compare_tables(
        "table1", TABLE, TABLE.replace("0.25", "0.5"), tolerance={"*": 0.1}
    ).mismatches
    assert str(mismatch) == (
        "table1, row 2 (image, Steer), column rate: committed 0.25, regenerated 0.5 (±0.1)"
    )


def test_numbers_inside_text_are_text():
    old, new = 'answer\n"mix 3 parts, then 4"\n', 'answer\n"mix 3 parts, then 5"\n'
    verdict = compare_tables("t", old, new, tolerance={"*": 10.0})
    assert (verdict.numbers, verdict.ok) == (0, False)
    assert str(verdict) == "t: 0 of 0 numbers reproduced; 1 other differences"


def test_cells_may_hold_line_breaks():
    table = 'answer,n\n"one\ntwo\u2028three",1\n'
    assert compare_tables("t", table, table).numbers == 1


@pytest.mark.parametrize(
    ("regenerated", "message"),
    [
        (
            TABLE.rsplit("\n", 2)[0] + "\n",
            "row 2 .image, Steer., column rate: committed 0.25, regenerated absent",
        ),
        (TABLE + "video,Steer,0.1\n", "row 3 .video, Steer.: committed absent, regenerated present"),
        (TABLE.replace("rate", "share"), "column share: committed absent"),
    ],
)
def test_rows_and_columns_must_be_the_same(regenerated, message):
    verdict = compare_tables("t", TABLE, regenerated)
    assert not verdict.ok
    assert any(__import__("re").search(message, str(mismatch)) for mismatch in verdict.mismatches)


def test_columns_are_paired_by_name():
    assert compare_tables("t", "a,b\n1,2\n", "b,a\n2,1\n").ok


def test_what_counts_as_a_number():
    assert [as_number(cell) for cell in ("1", "-2.5e3", " 4 ", "", "nan", "inf", "True", "1,5")] == [
        1.0, -2500.0, 4.0, None, None, None, None, None,
    ]  # fmt: skip


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_every_table_reproduces_itself(values):
    table = "x\n" + "".join(f"{value!r}\n" for value in values)
    verdict = compare_tables("t", table, table)
    assert verdict.ok
    assert verdict.reproduced == len(values) == count_numbers(table)


def _write(
    root: Path, tables: dict[str, str], *, committed: dict[str, str], tolerance: float = 0.0
) -> Committed:
    build, figures = root / "build" / "organism", root / "figures"
    for name, text in tables.items():
        write_text(build / "tables" / f"{name}.csv", text)
        entry = {"name": name, "volatile": name == "timings", "notebook": "00_x"}
        write_text(build / "manifest" / f"table-{name}.json", json.dumps(entry))
    entries = {
        name: {"tolerance": {"*": tolerance}, "reason": "measured", "volatile": name == "timings"}
        for name in committed
    }
    if committed:
        write_text(figures / "manifest.json", json.dumps({"profile": "organism", "tables": entries}))
    for name, text in committed.items():
        write_text(figures / f"{name}.csv", text)
    return Committed(figures, build=build, profile="organism")


def test_the_verdict_sums_all_tables(tmp_path):
    committed = _write(
        tmp_path,
        {"one": TABLE, "timings": "s\n9\n"},
        committed={"one": TABLE, "timings": "s\n1\n"},
        tolerance=0.1,
    )
    text = report(verify_build(tmp_path / "build" / "organism", committed), committed)
    assert text.splitlines() == [
        "one: 2 of 2 numbers reproduced  (within ±0.1: measured)",
        "timings: differs from machine to machine, not compared",
        "2 of 2 numbers reproduced",
    ]


def test_a_lost_or_a_new_table_is_a_difference(tmp_path):
    committed = _write(tmp_path, {"new": TABLE}, committed={"lost": TABLE})
    verdicts = verify_build(tmp_path / "build" / "organism", committed)
    assert [verdict.ok for verdict in verdicts] == [False, False]
    text = report(verdicts, committed)
    assert "lost: committed present, regenerated absent" in text
    assert "0 of 2 numbers reproduced" in text
    assert text.endswith("differing tables: lost, new")


def test_a_long_list_of_mismatches_is_cut_and_counted(tmp_path):
    many = "x\n" + "1\n" * 30
    committed = _write(tmp_path, {"t": many.replace("1", "2")}, committed={"t": many})
    text = report(verify_build(tmp_path / "build" / "organism", committed), committed)
    assert "… and 10 more" in text


@pytest.mark.parametrize(("value", "code"), [("0.25", 0), ("0.5", 1)])
def test_the_command_exits_by_the_verdict(tmp_path, monkeypatch, capsys, value, code):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    _write(tmp_path, {"one": TABLE.replace("0.25", value)}, committed={"one": TABLE})
    monkeypatch.chdir(tmp_path)
    assert main([]) == code
    assert f"{2 - code} of 2 numbers reproduced" in capsys.readouterr().out


def test_without_a_build_the_command_says_what_to_do(tmp_path, monkeypatch, capsys):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["--profile", "smoke"]) == 2
    assert "run `make reproduce PROFILE=smoke` first" in capsys.readouterr().err
    assert main(["--profile", "smok"]) == 2
    assert "did you mean smoke?" in capsys.readouterr().err
