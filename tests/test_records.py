"""Records: nothing finished is ever lost, nothing stale is ever found."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autosteer_lib.generation import GenerationSettings
from autosteer_lib.records import (
    GENERATION_FILES,
    LIBRARY,
    RecordError,
    RecordStore,
    code_version,
    read_records,
    record_key,
)

INGREDIENTS = {
    "code": "c", "model": "m", "dtype": "torch.float32", "device": "cpu", "processor": "p", "prompt": "x",
    "settings": {"max_new_tokens": 8, "batch_size": 2}, "defence": "d", "seed": 0,
}  # fmt: skip


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "answers.jsonl"
    with RecordStore(path) as store:
        store.append("b", {"text": "zwei ’ \n", "score": 0.5, "triggered": None})
        store.extend([("a", {"text": "one"}), ("c", {"text": "three"})])
        assert store["a"] == {"text": "one"}
    with RecordStore(path) as store:
        assert list(store) == ["b", "a", "c"]
        assert store["b"] == {"text": "zwei ’ \n", "score": 0.5, "triggered": None}
    assert read_records(path) == {key: dict(value) for key, value in read_records(path).items()}
    assert len(path.read_text().splitlines()) == 3
    assert read_records(tmp_path / "none.jsonl") == {}


def test_each_record_is_on_the_file_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with RecordStore(path) as store:
        for count in range(1, 4):
            store.append(str(count), {"n": count})
            assert len(read_records(path)) == count  # another reader sees it, without a flush


@pytest.mark.parametrize("torn", [b'{"key": "x", "te', b"{", b'{"key": "x", "text": "whole but no newline"}'])
def test_a_torn_last_line_costs_that_line_only(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    with RecordStore(path) as store:
        store.append("a", {"n": 1})
    with path.open("ab") as file:
        file.write(torn)
    with RecordStore(path) as store:
        assert list(store) == ["a"]
        store.append("b", {"n": 2})
    assert read_records(path) == {"a": {"n": 1}, "b": {"n": 2}}


def test_damage_elsewhere_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(RecordError, match="line 2"):
        RecordStore(path)
    assert path.read_bytes() == b'{"key": "a"}\nnonsense\n{"key": "b"}\n'


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "000.jsonl", tmp_path / "file" / "below" / "000.jsonl", tmp_path):
        with pytest.raises(
            RecordError, match=r"no records can be kept in .*; name a folder that may be written"
        ):
            RecordStore(path)


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with RecordStore(path) as store:
        store.append("a", {})
        with pytest.raises(RecordError, match="being written by another run"):
            RecordStore(path)
    RecordStore(path).close()


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def hold() -> None:
        store = RecordStore(path)
        store.append("held", {"n": 1})
        ready.set()
        time.sleep(60)

    process = context.Process(target=hold)
    process.start()
    assert ready.wait(10)
    try:
        with pytest.raises(RecordError, match="being written by another run"):
            RecordStore(path)
    finally:
        process.kill()
        process.join()
    with RecordStore(path) as store:
        assert store["held"] == {"n": 1}


def test_a_full_disk_loses_no_finished_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "answers.jsonl"
    write, room = os.write, [70]

    def nearly_full(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    with RecordStore(path) as store:
        store.append("a", {"text": "finished"})
        monkeypatch.setattr(os, "write", nearly_full)
        with pytest.raises(RecordError, match=r"No space left on device.*1 records before this one are safe"):
            store.extend([("b", {"text": "x" * 100}), ("c", {})])
        assert "b" not in store
        assert "c" not in store
        monkeypatch.undo()
        store.append("b", {"text": "after room was made"})
    assert list(read_records(path)) == ["a", "b"]


def test_an_interrupt_while_writing_loses_no_finished_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    write = os.write

    def interrupted(file: int, data: bytes) -> int:
        write(file, data[:5])
        raise KeyboardInterrupt

    with RecordStore(path) as store:
        store.append("a", {"n": 1})
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.append("b", {"n": 2})
        monkeypatch.undo()
        store.append("c", {"n": 3})
    assert read_records(path) == {"a": {"n": 1}, "c": {"n": 3}}


def test_a_killed_run_keeps_every_record_it_finished(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    program = (
        "import os, sys\nfrom autosteer_lib.records import RecordStore\n"
        "store = RecordStore(sys.argv[1])\n"
        "for n in range(50): store.append(str(n), {'n': n})\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=LIBRARY.parent, check=False)
    assert done.returncode == -9
    assert list(read_records(path)) == [str(n) for n in range(50)]


def test_a_key_is_written_once(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "answers.jsonl") as store:
        store.append("a", {"n": 1})
        with pytest.raises(ValueError, match="never overwritten"):
            store.append("a", {"n": 2})
        with pytest.raises(ValueError, match="never overwritten"):
            store.extend([("b", {}), ("b", {})])
        assert list(store) == ["a"]


def test_values_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with RecordStore(path) as store, pytest.raises(ValueError, match="NaN or inf"):
        store.append("a", {"gate_score": float("nan")})
    assert path.read_bytes() == b""


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "answers.jsonl")
    store.close()
    store.close()
    with pytest.raises(RecordError, match="closed"):
        store.append("a", {})


@pytest.mark.parametrize("name", list(INGREDIENTS))
def test_every_ingredient_changes_the_key(name: str) -> None:
    other = {"settings": {"max_new_tokens": 9, "batch_size": 2}, "seed": 1}.get(name, "other")
    assert record_key(**INGREDIENTS) != record_key(**INGREDIENTS | {name: other})  # type: ignore[arg-type]


def test_no_ingredient_can_be_left_out() -> None:
    for name in INGREDIENTS:
        with pytest.raises(TypeError):
            record_key(**{key: value for key, value in INGREDIENTS.items() if key != name})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="defence"):
        record_key(**INGREDIENTS | {"defence": ""})  # type: ignore[arg-type]


def test_key_takes_settings_as_dataclass_or_mapping() -> None:
    settings = GenerationSettings(max_new_tokens=8, batch_size=2)
    assert record_key(**INGREDIENTS) == record_key(**INGREDIENTS | {"settings": settings})  # type: ignore[arg-type]


def _copy_of_the_library(folder: Path) -> Path:
    for name in GENERATION_FILES:
        target = folder / name
        if name.endswith(".py"):
            target.write_bytes((LIBRARY / name).read_bytes())
        else:
            target.mkdir()
            (target / "base.py").write_bytes((LIBRARY / name / "base.py").read_bytes())
    return folder


def test_code_version_follows_the_files_that_answers_depend_on(tmp_path: Path) -> None:
    library = _copy_of_the_library(tmp_path)
    before = code_version.__wrapped__(library)
    (library / "plotting.py").write_text("a figure is no answer")
    assert code_version.__wrapped__(library) == before
    base = library / "defences" / "base.py"
    base.write_bytes(base.read_bytes().replace(b"\n", b"\r\n"))
    assert code_version.__wrapped__(library) == before  # the line ends of a checkout are no change
    base.write_text(base.read_text() + "\n# changed\n")
    assert code_version.__wrapped__(library) != before
    (library / "sites.py").unlink()
    with pytest.raises(RecordError, match=r"sites\.py is missing"):
        code_version.__wrapped__(library)


def test_records_are_plain_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with RecordStore(path) as store:
        store.append("k", {"text": "a"})
    assert json.loads(path.read_text()) == {"key": "k", "text": "a"}


def test_a_file_that_has_grown_is_read_on_and_another_one_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with RecordStore(path) as store:
        store.append("a", {"text": "one"})
        assert list(read_records(path)) == ["a"]
        store.append("b", {"text": "two"})
    found = read_records(path)
    assert [found[key]["text"] for key in ("a", "b")] == ["one", "two"]
    found.clear()  # the caller's own
    assert list(read_records(path)) == ["a", "b"]
    path.write_text(path.read_text().replace("one", "six"))
    assert read_records(path)["a"]["text"] == "six"
    path.write_text('{"key": "c"}\n')
    assert list(read_records(path)) == ["c"]
    path.write_text('{"key": "c"}\n{"key": "d"\n')
    with pytest.raises(RecordError, match="line 2 is not a record"):
        read_records(path)
