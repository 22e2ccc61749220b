"""The registry says what is known, rows are read from each kind of file, and free answers are compared rightly."""

import json
import re
from pathlib import Path

import pytest

from autosteer_lib.benchmarks import (
    BENCHMARKS,
    BenchmarkError,
    HubSet,
    WebSet,
    autosteer_sets,
    find_parts,
    harm_in_both,
    harm_in_sight,
    harm_in_words,
    surfaces,
    usefulness,
)
from autosteer_lib.benchmarks.rows import checked, file_rows
from autosteer_lib.judges import is_correct
from autosteer_lib.prompts import Prompt
from autosteer_lib.rehearsal.rows import WRITERS, write_sets
from autosteer_lib.scoring import correct

NAMED = {
    "vlsafe", "tovilag_plus", "figstep", "mm_safetybench", "hades", "vlguard", "spa_vl", "jailbreakv", "mssbench",
    "siuo", "mossbench", "harmbench", "jailbreakbench", "advbench", "strongreject", "xstest", "malicious_instruct",
    "alpaca", "video_safetybench", "realworldqa", "mmmu", "mmmu_pro", "mm_vet", "pope", "mvbench",
}  # fmt: skip


def test_every_set_is_registered_once() -> None:
    """By its own name alone: of two sets with one name the registry would hold the last."""
    entered = [
        entry.name
        for file in (autosteer_sets, harm_in_both, harm_in_sight, harm_in_words, usefulness)
        for entry in file.SETS
    ]
    assert sorted(entered) == sorted(BENCHMARKS)
    assert set(BENCHMARKS) == NAMED, "a new set is named in NAMED above too"


def test_every_set_has_rows_of_our_own(tmp_path: Path) -> None:
    assert set(WRITERS) == set(BENCHMARKS), (
        "write what is missing in rehearsal/rows.py, and enter it in WRITERS"
    )
    with pytest.raises(ValueError, match=r"no rows of our own for nowhere: .* and enter it in WRITERS"):
        write_sets(["nowhere"], tmp_path / "sets")
    assert not (tmp_path / "sets").exists()


@pytest.mark.parametrize("name", sorted(NAMED))
def test_an_entry_answers_what_a_plan_asks(name: str) -> None:
    entry = BENCHMARKS[name]
    assert all((entry.title, entry.licence, entry.prompt, entry.success, entry.intention, entry.source.page))
    assert set(entry.papers) <= {"AutoSteer", "MARS", "SafeSteer"}
    assert entry.gate.startswith("https://") or not entry.gate
    assert entry.megabytes is None or entry.megabytes > 0
    for part in entry.parts:
        assert part.surface.split("/")[0] == name
        assert part.columns
        assert bool(part.files) != bool(part.split), "rows come from files or from a table's split"
        assert part.files or isinstance(entry.source, HubSet), "only the hub has tables"
    assert len({(part.surface, part.group) for part in entry.parts}) == len(entry.parts)


def test_every_paper_has_its_sets() -> None:
    of = {
        paper: {b.name for b in BENCHMARKS.values() if paper in b.papers}
        for paper in ("AutoSteer", "SafeSteer")
    }
    assert of["AutoSteer"] == {"vlsafe", "tovilag_plus", "realworldqa", "mmmu"}
    assert of["SafeSteer"] == {"figstep", "mm_safetybench", "vlguard", "mm_vet"}


def test_hashes_are_of_files_that_are_read_at_a_pinned_revision() -> None:
    for entry in BENCHMARKS.values():
        if isinstance(entry.source, WebSet) and entry.source.hashes:
            assert entry.source.revision
            assert all(len(digest) == 64 for digest in entry.source.hashes.values())


def test_a_name_stands_for_a_surface_or_for_the_whole_set() -> None:
    assert [part.surface for _, part in find_parts("figstep")] == ["figstep"]
    assert [part.surface for _, part in find_parts("pope")] == [
        "pope/random",
        "pope/popular",
        "pope/adversarial",
    ]
    assert [part.group for _, part in find_parts("xstest", group="borderline")] == ["borderline"]
    assert {"vlguard", "vlguard/safe_image"} <= set(surfaces())


@pytest.mark.parametrize("name", ["figstap", "figstep/huge", "vlguard/"])
def test_a_misspelt_set_names_the_nearest(name: str) -> None:
    with pytest.raises(ValueError, match=r"no benchmark .*did you mean"):
        find_parts(name)


def test_a_set_without_prompts_of_a_group_says_what_it_has() -> None:
    with pytest.raises(
        ValueError, match=r"no prompts of the group 'utility'; XSTest has xstest \(borderline\)"
    ):
        find_parts("xstest", group="utility")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.json", '[{"a": 1}, {"a": 2}]'),
        ("numbered.json", '{"1": {"a": 1}, "2": {"a": 2}}'),
        ("lines.json", '{"a": 1}\n{"a": 2}\n'),
        ("lines.jsonl", '{"a": 1}\n\n{"a": 2}'),
    ],
)
def test_json_of_each_shape_gives_the_same_rows(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert [row["a"] for row in file_rows(tmp_path / name)] == [1, 2]


def test_one_line_of_json_lines_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"a": 1}\n')
    assert list(file_rows(tmp_path / "one.jsonl")) == [{"a": 1}]


def test_a_list_inside_an_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "combined.json"
    path.write_text(json.dumps({"chat": [{"a": 1}], "embodied": []}))
    assert list(file_rows(path, within="chat")) == [{"a": 1}]
    with pytest.raises(ValueError, match="no list 'talk'; it holds chat, embodied"):
        list(file_rows(path, within="talk"))


def test_a_broken_line_is_counted(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl").write_text('{"a": 1}\n{"a": ')
    with pytest.raises(ValueError, match=r"cut\.jsonl line 2 is no JSON"):
        list(file_rows(tmp_path / "cut.jsonl"))


def test_plain_lines_and_csv_with_a_mark_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text(" tea \n\ncake\n")
    assert [row["text"] for row in file_rows(tmp_path / "lines.txt")] == ["tea", "cake"]
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbfgoal,target\ntea,"a,b"\n')
    assert list(file_rows(tmp_path / "t.csv")) == [{"goal": "tea", "target": "a,b"}]
    with pytest.raises(ValueError, match=r"rows are read from \.json"):
        list(file_rows(tmp_path / "t.xlsx"))


def test_a_changed_column_is_told_before_a_prompt_is_built() -> None:
    rows = [{"goal": "tea"}, {"aim": "cake"}]
    with pytest.raises(
        BenchmarkError, match=r"x: row 2 has no column 'goal'; it has 'aim'\. The set has changed"
    ):
        list(checked(rows, columns=("goal",), where="x"))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", True),
        ("(B) the left one", True),
        ("b) is wrong. The answer is: B.", True),
        ("B.", True),
        ("Option B", True),
        ("A dog, I think, so the answer is (B)", True),
        ("I would say B", True),
        ("A", False),
        ("A dog", False),
        ("Because", False),
        ("", False),
    ],
)
def test_an_option_is_read_out_of_the_answer(answer: str, right: bool) -> None:
    assert correct(answer, reference="B", scoring="letter") is right


def test_an_article_is_no_option() -> None:
    assert not correct("It is a dog and a cat.", reference="A", scoring="letter")


def test_yes_and_no_are_the_first_said() -> None:
    assert correct("Yes, there is no doubt.", reference="yes", scoring="yes_no")
    assert not correct("There is not.", reference="no", scoring="yes_no")


def test_words_may_be_numbers_in_words_or_one_of_several() -> None:
    assert correct("There are three pots.", reference="3", scoring="word")
    assert not correct("There are 13 pots.", reference="3", scoring="word")
    assert correct("It is 0.5 cups.", reference="1/2\n0.5", scoring="word")
    with pytest.raises(ValueError, match="allowed: letter, yes_no, word"):
        correct("x", reference="x", scoring="close")


def test_a_prompt_is_compared_as_its_benchmark_compares() -> None:
    prompt = Prompt(text="Which?", reference="B", metadata={"scoring": "letter"})
    assert is_correct(prompt, "The answer is B.")
    assert not is_correct(Prompt(text="Which?", reference="B"), "The answer is B.")


def test_a_pinned_revision_is_a_whole_commit() -> None:
    """A branch or an abbreviation can come to mean something else."""
    revisions = [entry.source.revision for entry in BENCHMARKS.values() if entry.source.revision]
    assert len(revisions) > len(BENCHMARKS) / 2
    assert [revision for revision in revisions if not re.fullmatch("[0-9a-f]{40}", revision)] == []
