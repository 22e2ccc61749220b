"""Shards: several runs write a folder at once; what any of them finished is found by all that open it later."""

import multiprocessing
from pathlib import Path

import pytest

from autosteer_lib.records import RecordError, read_records
from autosteer_lib.shards import Shards, read_shards


def test_one_run_after_another_fills_one_file(tmp_path: Path) -> None:
    for key in ("a", "b"):
        with Shards(tmp_path / "answers") as shards:
            shards.append(key, {"text": key})
    assert [path.name for path in (tmp_path / "answers").iterdir()] == ["000.jsonl"]
    assert read_shards(tmp_path / "answers") == {"a": {"text": "a"}, "b": {"text": "b"}}


def test_runs_at_once_have_a_file_each_and_later_ones_read_all(tmp_path: Path) -> None:
    with Shards(tmp_path) as first:
        first.append("a", {"n": 1})
        with Shards(tmp_path) as second:
            assert "a" in second
            second.append("b", {"n": 2})
            first.append("c", {"n": 3})
            assert "b" not in first
            assert "c" not in second  # what was there when it was opened
    assert list(read_records(tmp_path / "001.jsonl")) == ["b"]
    with Shards(tmp_path) as later:
        assert {key: later[key]["n"] for key in later} == {"a": 1, "b": 2, "c": 3}
        assert len(later) == 3
        with pytest.raises(ValueError, match=r"'b' is in .* already"):
            later.append("b", {"n": 4})
        later.append("d", {"n": 4})
    assert list(read_records(tmp_path / "000.jsonl")) == ["a", "c", "d"]


def test_the_same_answer_of_two_runs_counts_once(tmp_path: Path) -> None:
    with Shards(tmp_path) as first, Shards(tmp_path) as second:
        first.append("a", {"by": "first"})
        second.append("a", {"by": "second"})
    with Shards(tmp_path) as later:
        assert len(later) == 1
        assert list(later) == ["a"]
    assert read_shards(tmp_path) == {"a": {"by": "first"}}


def test_a_torn_line_of_a_writer_at_work_is_left_to_it(tmp_path: Path) -> None:
    with Shards(tmp_path) as first:
        first.append("a", {"n": 1})
        with (tmp_path / "000.jsonl").open("ab") as file:
            file.write(b'{"key": "b", "n"')
        with Shards(tmp_path) as second:
            assert list(second) == ["a"]
        assert (tmp_path / "000.jsonl").read_bytes().endswith(b'"n"')


def test_a_killed_runs_shard_is_gone_on_with(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def hold() -> None:
        shards = Shards(tmp_path)
        shards.append("held", {"n": 1})
        ready.set()
        context.Event().wait(60)

    process = context.Process(target=hold)
    process.start()
    assert ready.wait(10)
    process.kill()
    process.join()
    with Shards(tmp_path) as shards:
        shards.append("more", {"n": 2})
    assert list(read_records(tmp_path / "000.jsonl")) == ["held", "more"]


def test_a_file_or_a_damaged_shard_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("")
    with pytest.raises(RecordError, match="a file; records are kept in a folder"):
        Shards(tmp_path / "answers.jsonl")
    with Shards(tmp_path / "answers") as shards:
        shards.append("a", {})
    (tmp_path / "answers" / "001.jsonl").write_bytes(b"nonsense\n")
    with pytest.raises(RecordError, match=r"001\.jsonl, line 1"):
        Shards(tmp_path / "answers")
    (tmp_path / "answers" / "001.jsonl").unlink()
    Shards(tmp_path / "answers").close()  # the error left no lock behind
