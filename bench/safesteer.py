"""What does look-ahead re-ranking cost an answer?

    ratio = tokens a second(SafeSteer) / tokens a second(plain) = seconds(plain) / seconds(SafeSteer)

64-token answers of which the first 5 tokens are chosen from 5 candidates each, in every row: five passes are five
tokens wide, none is added. The alignment vector is left out: it is one sum in the prefill. Target: at least 0.9; the
paper reports 92.97 / 97.89 = 0.95 for Qwen2.5-VL-7B on one A800, with K and step not stated.

As in answering.py, no answer ends early, and there are two models: the shipped one, of whose step most is Python, and
a larger one with random weights, of whose step most is arithmetic.
"""

from autosteer_lib.defences import SafeSteer, Undefended
from autosteer_lib.defences.reranking import Reranking
from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.generation import GenerationSettings, Response, generate
from autosteer_lib.look_ahead import repeat_always
from autosteer_lib.models import MLLM
from autosteer_lib.probe_sets import ProbeSets
from autosteer_lib.safesteer_readings import SafeSteerReading
from autosteer_lib.sites import final_norm
from bench.harness import Check, Measure, Result, Settings, Target, compare
from bench.subjects import Subject, endless, medium, shipped

TARGET = Target(kind="at_least", bound=0.9, words="at least 0.9 of the plain model's tokens a second")
TOKENS, K, STEP = 64, 5, 5
ROUNDS_SHIPPED, ROUNDS_MEDIUM = {1: 40, 16: 30}, {1: 20, 16: 15}
_QUICK_ROWS, _QUICK_TOKENS, _QUICK_ROUNDS = 2, 8, 2


def run(settings: Settings) -> Result:
    """At one row (a chat) and at sixteen, on both models."""
    measures: list[Measure] = []
    checks: list[Check] = []
    for subject, by_rows in ((shipped(settings), ROUNDS_SHIPPED), (medium(settings), ROUNDS_MEDIUM)):
        defence = _fitted(subject)
        for rows, rounds in ({_QUICK_ROWS: _QUICK_ROUNDS} if settings.quick else by_rows).items():
            measure, agree = _against_plain(subject, defence, rows=rows, rounds=rounds, settings=settings)
            measures.append(measure)
            checks += agree
    return Result(bench="safesteer", measures=tuple(measures), checks=tuple(checks))


def _fitted(subject: Subject) -> SafeSteer:
    """On few prompts: what has been learnt does not change what it costs."""
    defence = SafeSteer(k=K, step=STEP, align=False, reading=SafeSteerReading(gate="always", sign="high"))
    sets = ProbeSets(text_attacks=subject.pairs.toxic, harmless=subject.pairs.safe)
    return defence.fit(subject.mllm, sets, settings=GenerationSettings(max_new_tokens=1))


def _against_plain(
    subject: Subject, defence: SafeSteer, *, rows: int, rounds: int, settings: Settings
) -> tuple[Measure, list[Check]]:
    mllm, plain = subject.mllm, Undefended()
    tokens = _QUICK_TOKENS if settings.quick else TOKENS
    encoded = encode(mllm, subject.prompts[:rows])
    length = GenerationSettings(max_new_tokens=tokens, batch_size=rows)
    with endless(mllm):
        measure = compare(
            f"{subject.name}, {rows} × {tokens} tokens",
            {
                "plain": lambda: plain.answer(mllm, encoded, settings=length),
                "SafeSteer": lambda: defence.answer(mllm, encoded, settings=length),
            },
            rounds=rounds,
            settings=settings,
            target=TARGET,
            details={
                "k": K,
                "step": STEP,
                "blocks": mllm.layers,
                "dim": mllm.dim,
                "rows": rows,
                "new_tokens": tokens,
                "prompt_tokens": max(encoded.lengths),
                "dtype": str(mllm.dtype).removeprefix("torch."),
            },
        )
        answers = defence.answer(mllm, encoded, settings=length)
        repeated = _on_repeated_cache(mllm, defence, encoded, length)
    return measure, _checks(measure.name, answers, repeated, tokens=tokens)


def _on_repeated_cache(
    mllm: MLLM, defence: SafeSteer, encoded: Encoded, length: GenerationSettings
) -> list[Response]:
    steering = Reranking(
        defence.probe_.to(mllm.device),
        site=final_norm(),
        threshold=defence.threshold,
        shift=None,
        k=K,
        steps=STEP,
        sign=defence.sign_,
        gated=False,
        sharing=repeat_always,
    )
    return generate(mllm, encoded, settings=length, steering=steering)


def _checks(name: str, answers: list[Response], repeated: list[Response], *, tokens: int) -> list[Check]:
    return [
        Check(
            name=f"{name}: re-ranked in every row",
            difference_is="rows where it is not",
            difference=sum(answer.triggered is not True for answer in answers),
            allowed=0,
        ),
        Check(
            name=f"{name}: answers of full length",
            difference_is="shorter ones",
            difference=sum(answer.new_tokens != tokens for answer in answers),
            allowed=0,
        ),
        Check(
            name=f"{name}: the shared cache says what a cache repeated for each candidate does",
            difference_is="rows whose words differ",
            difference=sum(a.text != b.text for a, b in zip(answers, repeated, strict=True)),
            allowed=0,
        ),
    ]
