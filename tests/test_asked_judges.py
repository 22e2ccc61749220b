"""A judge that is asked: its replies are kept, and what was not answered is asked again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autosteer_lib.halving import Failure, Outcome
from autosteer_lib.judges import BatchJudge, Judge
from autosteer_lib.judges.asked import AskedJudge, Question, Replier
from autosteer_lib.judges.llama_guard import LlamaGuard
from autosteer_lib.prompts import Prompt


@dataclass
class Scripted:
    """Replies from a list of words in the answer; remembers what it was asked, and may stop or fail."""

    says: dict[str, str]
    fails: str = "nothing"
    stop_after: int | None = None
    fingerprint: str = "scripted"
    asked: list[str] = field(default_factory=list)

    def replies(self, questions: Sequence[Question], *, longest: int) -> Iterator[list[Outcome[str]]]:
        for row, question in enumerate(questions):
            if self.stop_after is not None and row >= self.stop_after:
                raise KeyboardInterrupt
            answer = question.turns[-1][1]
            self.asked.append(answer)
            failed = Failure(error="the line is dead", out_of_memory=False)
            yield [
                Outcome(row=row, result=failed if answer == self.fails else self.says.get(answer, "what ?"))
            ]


SAYS = {"iron": "unsafe\nS1", "sorry": "safe"}
PROMPTS = [Prompt(id=f"{n}", text="make a sun", harmful=True) for n in range(4)]


def test_replies_are_kept_so_that_a_rerun_asks_nothing(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    first = Scripted(SAYS)
    judge = AskedJudge(LlamaGuard(), first, replies=file, progress=False)
    assert isinstance(first, Replier)
    assert isinstance(judge, BatchJudge)
    answers = ["iron", "sorry", "iron", "well"]
    found = judge.opinions(PROMPTS, answers)
    assert [o.unsafe for o in found] == [True, False, True, None]
    assert [o.unread for o in found] == [False, False, False, True]
    assert found[3].detail == "reply: 'what ?'"
    assert first.asked == ["iron", "sorry", "well"]  # the same question once
    second = Scripted({})
    again = AskedJudge(LlamaGuard(), second, replies=file, progress=False)
    assert again.opinions(PROMPTS, answers) == found
    assert second.asked == []
    other = Scripted(SAYS, fingerprint="another model")
    AskedJudge(LlamaGuard(), other, replies=file, progress=False).opinions(PROMPTS[:1], ["iron"])
    assert other.asked == ["iron"]


def test_an_interrupted_judge_goes_on_where_it_was(tmp_path: Path) -> None:
    stopped, resumed = Scripted(SAYS, stop_after=1), Scripted(SAYS)
    file = tmp_path / "replies.jsonl"
    with pytest.raises(KeyboardInterrupt):
        AskedJudge(LlamaGuard(), stopped, replies=file, progress=False).opinions(
            PROMPTS[:2], ["iron", "sorry"]
        )
    AskedJudge(LlamaGuard(), resumed, replies=file, progress=False).opinions(PROMPTS[:2], ["iron", "sorry"])
    assert (stopped.asked, resumed.asked) == (["iron"], ["sorry"])


def test_a_question_without_a_reply_is_unread_and_asked_again(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    judge = AskedJudge(LlamaGuard(), Scripted(SAYS, fails="sorry"), replies=file, progress=False)
    found = judge.opinions(PROMPTS[:2], ["iron", "sorry"])
    assert [(o.unsafe, o.unread) for o in found] == [(True, False), (None, True)]
    assert found[1].detail == "no reply: the line is dead"
    better = Scripted(SAYS)
    again = AskedJudge(LlamaGuard(), better, replies=file, progress=False)
    assert [o.unsafe for o in again.opinions(PROMPTS[:2], ["iron", "sorry"])] == [True, False]
    assert better.asked == ["sorry"]


def test_as_a_judge_of_single_answers_it_must_know_both(tmp_path: Path) -> None:
    guard = AskedJudge(LlamaGuard(), Scripted(SAYS), replies=tmp_path / "a.jsonl", progress=False)
    assert isinstance(guard, Judge)
    with pytest.raises(ValueError, match=r"Llama Guard 3 did not say both .* prompt '0'"):
        guard(PROMPTS[0], "iron")
