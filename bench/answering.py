"""Whole answers under AutoSteer against answers of the plain model, on the same encoded batch.

    ratio = seconds(AutoSteer) / seconds(plain),   both for `rows` answers of exactly `tokens` tokens

No answer ends early, so both sides do the same number of steps. Two models: the shipped one, of whose
step most is Python, and a larger one with random weights, of whose step most is arithmetic.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from autosteer_lib.defences.autosteer import AutoSteer
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings, Response
from bench.harness import Check, Measure, Result, Settings, Target, compare
from bench.subjects import ALWAYS_OPEN, ALWAYS_SHUT, Subject, endless, medium, shipped

TOKENS = 64
_QUICK_ROWS, _QUICK_TOKENS, _QUICK_ROUNDS = 2, 4, 2


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of both models."""

    bench: str
    opens: bool
    """Whether the gate opens in every row, or in none."""
    target: Target
    rounds_shipped: Mapping[int, int]
    """Samples a side for each number of rows."""
    rounds_medium: Mapping[int, int]


def ask(question: Question, *, settings: Settings) -> Result:
    """Measure on both models, at each number of rows."""
    measures: list[Measure] = []
    checks: list[Check] = []
    for subject, rounds_by_rows in (
        (shipped(settings), question.rounds_shipped),
        (medium(settings), question.rounds_medium),
    ):
        defence = subject.fitted().retuned(threshold=ALWAYS_OPEN if question.opens else ALWAYS_SHUT)
        chosen = {_QUICK_ROWS: _QUICK_ROUNDS} if settings.quick else rounds_by_rows
        for rows, rounds in chosen.items():
            measure, agree = _against_plain(
                subject, defence, question, rows=rows, rounds=rounds, settings=settings
            )
            measures.append(measure)
            checks += agree
    return Result(bench=question.bench, measures=tuple(measures), checks=tuple(checks))


def _against_plain(
    subject: Subject, defence: AutoSteer, question: Question, *, rows: int, rounds: int, settings: Settings
) -> tuple[Measure, list[Check]]:
    mllm, plain = subject.mllm, Undefended()
    tokens = _QUICK_TOKENS if settings.quick else TOKENS
    encoded = encode(mllm, subject.prompts[:rows])
    length = GenerationSettings(max_new_tokens=tokens, batch_size=rows)
    side = "AutoSteer, gate open" if question.opens else "AutoSteer, gate shut"
    with endless(mllm):
        measure = compare(
            f"{subject.name}, {rows} × {tokens} tokens",
            {
                side: lambda: defence.answer(mllm, encoded, settings=length),
                "plain": lambda: plain.answer(mllm, encoded, settings=length),
            },
            rounds=rounds,
            settings=settings,
            target=question.target,
            details={
                "blocks": mllm.layers,
                "dim": mllm.dim,
                "rows": rows,
                "new_tokens": tokens,
                "prompt_tokens": max(encoded.lengths),
                "dtype": str(mllm.dtype).removeprefix("torch."),
            },
        )
        answers = defence.answer(mllm, encoded, settings=length)
        expected = plain.answer(mllm, encoded, settings=length)
    return measure, _checks(measure.name, answers, expected, opens=question.opens, tokens=tokens)


def gate_check(name: str, answers: list[Response], *, opens: bool) -> Check:
    """Whether the timed answers were steered as they were meant to be."""
    return Check(
        name=f"{name}: gate {'open' if opens else 'shut'} in every row",
        difference_is="rows where it is not",
        difference=sum(answer.triggered is not opens for answer in answers),
        allowed=0,
    )


def _checks(
    name: str, answers: list[Response], expected: list[Response], *, opens: bool, tokens: int
) -> list[Check]:
    checks = [
        gate_check(name, answers, opens=opens),
        Check(
            name=f"{name}: answers of full length",
            difference_is="shorter ones",
            difference=sum(answer.new_tokens != tokens for answer in (*answers, *expected)),
            allowed=0,
        ),
    ]
    if not opens:
        unlike = sum(a.text != b.text for a, b in zip(answers, expected, strict=True))
        checks.append(
            Check(
                name=f"{name}: a shut gate leaves the answer as it is",
                difference_is="rows whose words differ from the plain model's",
                difference=unlike,
                allowed=0,
            )
        )
    return checks
