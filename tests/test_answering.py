"""A run that is killed, that has no room, or that meets a row it cannot answer, ends with the same table."""

import errno
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from autosteer_lib.defences.base import Defence
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import Encoded
from autosteer_lib.evaluation import FailedRows, comparison_table, costs, evaluate, failures, rates_by
from autosteer_lib.generation import GenerationSettings, Response
from autosteer_lib.judges import RefusalPhrases
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.records import RecordError, read_records
from autosteer_lib.shards import read_shards

SETTINGS = GenerationSettings(max_new_tokens=3, batch_size=4)


@dataclass
class Troubled(Undefended):
    """The plain model, that runs out of memory above some rows, and stumbles over some prompts."""

    room: int = 99
    stumbles: tuple[str, ...] = ()
    pause: float = 0.0
    sizes: list[int] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return "troubled"  # its answers are not the plain model's on record

    def answer(self, mllm: MLLM, encoded: Encoded, *, settings: GenerationSettings) -> list[Response]:
        self.sizes.append(len(encoded.prompts))
        time.sleep(self.pause)
        if len(encoded.prompts) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for prompt in encoded.prompts:
            if prompt.id in self.stumbles:
                raise ValueError(f"prompt {prompt.id!r} is too much")
        return super().answer(mllm, encoded, settings=settings)


@pytest.fixture
def prompts() -> list[Prompt]:
    things = ("sun", "poison", "knife", "red sun", "blue knife", "green poison")
    return [
        Prompt(id=f"{verb} {thing}", text=f"{verb} a {thing}", surface=verb, harmful=index % 2 == 0)
        for verb in ("make", "buy")
        for index, thing in enumerate(things)
    ]


@pytest.fixture
def run(tiny: MLLM, prompts: list[Prompt], tmp_path: Path) -> Callable[..., pd.DataFrame]:
    def evaluated(defences: dict[str, Defence] | None = None, *, file: str = "answers") -> pd.DataFrame:
        return evaluate(
            tiny, prompts, defences or {"Orig.": Undefended()}, judge=RefusalPhrases(), settings=SETTINGS,
            records=tmp_path / file, progress=False,
        ).drop(columns="seconds")  # fmt: skip

    return evaluated


def test_without_room_the_batch_is_halved_and_the_answers_are_the_same(
    run: Callable[..., pd.DataFrame],
) -> None:
    troubled = Troubled(room=1)
    pd.testing.assert_frame_equal(run({"Orig.": troubled}), run(file="other"))
    assert troubled.sizes[:3] == [4, 2, 1]
    assert set(troubled.sizes[3:]) == {1}


def test_a_row_that_fails_is_recorded_shown_and_tried_again(
    run: Callable[..., pd.DataFrame], tmp_path: Path, prompts: list[Prompt]
) -> None:
    bad = prompts[1].id
    with pytest.warns(
        FailedRows, match=rf"1 of 24 rows failed .*Two, prompt '{bad}': ValueError: prompt '{bad}' is"
    ):
        frame = run({"One": Undefended(), "Two": Troubled(stumbles=(bad,))})
    good = run({"One": Undefended()}, file="other")
    failed = frame[frame["failed"]]
    assert failed[["prompt_id", "defence"]].to_numpy().tolist() == [[bad, "Two"]]
    row = failed.iloc[0]
    assert row["detail"] == f"ValueError: prompt '{bad}' is too much"
    assert (
        failed[["answer", "unsafe", "refused", "correct", "new_tokens", "raw_answer"]].isna().all(axis=None)
    )
    rest = frame[(frame["defence"] == "Two") & ~frame["failed"]]
    assert list(rest["answer"]) == [
        a for i, a in zip(good["prompt_id"], good["answer"], strict=True) if i != bad
    ]
    # counted where rates are taken, and nowhere taken for an answer
    rates = rates_by(frame, ["defence"]).set_index("defence")["n"]
    assert rates.to_dict() == {"One": 12, "Two": 11}
    assert failures(frame).to_dict("records") == [
        {"surface": "make", "defence": "Two", "failed": 1, "n": 6, "error": row["detail"]}
    ]
    compared = comparison_table(frame, baseline="One").set_index(["surface", "defence"])
    assert compared["change"].tolist() == [0.0] * 4  # paired on the rows that both answered
    assert costs(frame.assign(seconds=0.0))["model_calls"].tolist() == [1.0, 1.0]
    # its line is of a kind of its own, and the next run tries again
    with pytest.warns(FailedRows):
        run({"Two": Troubled(stumbles=(bad,))})
    lines = [(k, r) for k, r in read_shards(tmp_path / "answers").items() if "failed" in r]
    assert [key.split(" ", 1)[1] for key, _ in lines] == ["failed 1", "failed 2"]
    assert all(r == {"failed": True, "prompt_id": bad, "error": row["detail"]} for _, r in lines)
    healed = Troubled()
    assert not run({"Two": healed})["failed"].any()
    assert healed.sizes == [1]


def test_a_prompt_too_long_for_the_model_costs_no_other(
    run: Callable[..., pd.DataFrame], prompts: list[Prompt]
) -> None:
    prompts.append(Prompt(id="long", text="sun " * 300, surface="make", harmful=True))
    with pytest.warns(FailedRows, match="'long' has"):
        frame = run()
    assert frame["failed"].tolist() == [False] * 12 + [True]


def test_a_fault_of_the_defence_stops_the_run(
    run: Callable[..., pd.DataFrame], prompts: list[Prompt]
) -> None:
    broken = Troubled(stumbles=tuple(prompt.id for prompt in prompts))
    with pytest.raises(RuntimeError, match=r"nothing could be answered under 'Orig\.'.*is too much"):
        run({"Orig.": broken})


def test_a_full_disk_is_said_and_the_next_run_goes_on(
    run: Callable[..., pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.write, [2000]

    def nearly_full(file: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", nearly_full)
        with pytest.raises(RecordError, match=r"No space left on device.*are safe. Make room"):
            run()
    assert 0 < len(read_shards(tmp_path / "answers")) < 12
    pd.testing.assert_frame_equal(run(), run(file="other"))


def test_a_run_killed_at_random_moments_ends_with_the_same_table(
    run: Callable[..., pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # a forked tokenizer warns otherwise
    straight = run(file="straight")
    path, context, rng = (
        tmp_path / "answers" / "000.jsonl",
        multiprocessing.get_context("fork"),
        np.random.default_rng(0),
    )
    kept, killed = 0, 0
    for _ in range(6):
        process = context.Process(target=run, args=({"Orig.": Troubled(room=2, pause=0.03)},))
        process.start()
        process.join(rng.uniform(0.02, 0.25))
        if process.is_alive():
            process.kill()
            killed += 1
        process.join()
        whole = len(read_records(path))
        assert whole >= kept  # what was finished before is still there
        kept = whole
        if killed == 2:  # and a line torn by the machine's own fall
            path.write_bytes(path.read_bytes() + b'{"key": "half a li')
    assert killed >= 2
    pd.testing.assert_frame_equal(run(), straight)
    assert len(read_records(path)) == len(straight)
