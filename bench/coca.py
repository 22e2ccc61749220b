"""What do CoCA's two streams cost?

Both prompts of an answer are rows of one batch, so a decoding step is one pass over twice the rows.

    ratio = seconds(CoCA) / seconds(plain)          target: at most 2.1
for answers of exactly `tokens` tokens to the same prompts. CoCA's side encodes its two prompts too, and its prompt with
the principle is the longer one; the plain side has a batch that was encoded before.

Two models as in the other benches: the shipped one, of whose step most is Python, which both streams share, and a
larger one with random weights, of whose step most is arithmetic, which doubles.
"""

import torch

from autosteer_lib.defences.coca import Coca
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings, generate
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Attachment, Edit, Site
from bench.answering import TOKENS
from bench.harness import Check, Measure, Result, Settings, Target, compare
from bench.subjects import Subject, endless, medium, shipped

TARGET = Target(kind="at_most", bound=2.1, words="at most 2.1 times the plain model")
_QUICK_ROWS, _QUICK_TOKENS, _QUICK_ROUNDS = 2, 4, 2
_ALLOWED = 1e-2  # α = 4 amplifies what two passes round differently by 9; measured: 3e-5 on the shipped model


def run(settings: Settings) -> Result:
    """At one row (a chat) and at sixteen, on both models."""
    measures: list[Measure] = []
    checks: list[Check] = []
    for subject, rounds_by_rows in (
        (shipped(settings), {1: 20, 16: 14}),
        (medium(settings), {1: 14, 16: 8}),
    ):
        for rows, rounds in ({_QUICK_ROWS: _QUICK_ROUNDS} if settings.quick else rounds_by_rows).items():
            measure, agree = _against_plain(subject, rows=rows, rounds=rounds, settings=settings)
            measures.append(measure)
            checks += agree
    return Result(bench="coca", measures=tuple(measures), checks=tuple(checks))


def _against_plain(
    subject: Subject, *, rows: int, rounds: int, settings: Settings
) -> tuple[Measure, list[Check]]:
    mllm, coca, plain = subject.mllm, Coca(), Undefended()
    tokens = _QUICK_TOKENS if settings.quick else TOKENS
    prompts = subject.prompts[:rows]
    encoded = encode(mllm, prompts)
    length = GenerationSettings(max_new_tokens=tokens, batch_size=rows)
    with endless(mllm):
        measure = compare(
            f"{subject.name}, {rows} × {tokens} tokens",
            {
                "CoCA": lambda: coca.answer(mllm, encoded, settings=length),
                "plain": lambda: plain.answer(mllm, encoded, settings=length),
            },
            rounds=rounds,
            settings=settings,
            target=TARGET,
            details={
                "blocks": mllm.layers,
                "dim": mllm.dim,
                "rows": rows,
                "new_tokens": tokens,
                "prompt_tokens": max(encoded.lengths),
                "prompt_tokens_with_principle": max(coca.streams(mllm, prompts).lengths),
                "dtype": str(mllm.dtype).removeprefix("torch."),
            },
        )
        answers = coca.answer(mllm, encoded, settings=length)
    short = sum(answer.new_tokens != 2 * tokens for answer in answers)
    return measure, [
        Check(
            name=f"{measure.name}: answers of full length, in both streams",
            difference_is="shorter ones",
            difference=short,
            allowed=0,
        ),
        Check(
            name=f"{measure.name}: the first token's contrast is that of single prompts",
            difference_is="largest difference of logits",
            difference=max(_difference(mllm, coca, prompt, prompts) for prompt in prompts[:2]),
            allowed=_ALLOWED,
        ),
    ]


class _Kept:
    """CoCA's edits, and the logits that they gave first."""

    def __init__(self, coca: Coca) -> None:
        self.gate_score: torch.Tensor | None = None
        self.triggered: torch.Tensor | None = None
        self.first: torch.Tensor | None = None
        self._inner = coca.contrast()

    def edits(self) -> dict[Site, Edit]:
        ((site, edit),) = self._inner.edits().items()

        def write(scores: torch.Tensor) -> torch.Tensor | None:
            changed = edit(scores)
            if self.first is None and changed is not None:
                self.first = changed[:, -1].float()
            return changed

        return {site: write}

    def bind(self, attachment: Attachment) -> None:
        self._inner.bind(attachment)


@torch.no_grad()
def _difference(mllm: MLLM, coca: Coca, prompt: Prompt, batch: tuple[Prompt, ...]) -> float:
    kept = _Kept(coca)
    generate(mllm, coca.streams(mllm, batch), settings=GenerationSettings(max_new_tokens=1), steering=kept)
    assert kept.first is not None
    principled, plain = (
        mllm.forward(encode(mllm, [row]).inputs).logits[0, -1].float()
        for row in coca.streams(mllm, [prompt]).prompts
    )
    expected = coca.weights[0] * principled + coca.weights[1] * plain
    return float((kept.first[batch.index(prompt)] - expected + expected.max()).abs().max())
