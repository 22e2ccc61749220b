"""What do the compared defences cost that ask the model once: a vector or a gradient at every token of every row?

    ratio = seconds(defence, acting in every row) / seconds(plain)     64 tokens, target: at most 1.03

AdaSteer and ECSO ask the model again and are not here; activation transfer adds its vector as the refusal direction
does. On the shipped model, of whose step most is Python, and on 12 blocks of 512, of whose step most is arithmetic. There
the refusal direction is left out, since its fit needs a model that refuses something.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from autosteer_lib.defences import Cast, Defence, KSteering, Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.study import Study
from autosteer_lib.study import compared_methods as fits
from autosteer_lib.text_sets import TextSets
from bench.answering import TOKENS
from bench.harness import Check, Measure, Result, Settings, Target, compare
from bench.subjects import Subject, endless, medium, shipped

TARGET = Target(kind="at_most", bound=1.03, words="at most 3 % over a plain answer of 64 tokens")
# By whether the model is the larger one. Of the small one's single rows 160 gave intervals 4 to 5 % wide, on both sides
# of the target.
ROUNDS = {False: {1: 320, 16: 60}, True: {1: 40, 16: 20}}
_BELOW_ALL = -2.0  # a cosine is never lower, so the condition holds for every row


def run(settings: Settings) -> Result:
    """Each defence at one row and at sixteen."""
    measures: list[Measure] = []
    checks: list[Check] = []
    with TemporaryDirectory() as folder:
        study = Study.open("smoke" if settings.quick else settings.profile, out=Path(folder) / "build")
        on_shipped, on_medium = shipped(settings), medium(settings)
        acting = [(on_shipped, always_acting(study)), (on_medium, always_acting_on_random(on_medium))]
        for subject, defences in acting:
            for name, defence in defences.items():
                for rows, rounds in ({2: 2} if settings.quick else ROUNDS[subject is on_medium]).items():
                    measure, check = _against_plain(
                        subject, name, defence, rows=rows, rounds=rounds, settings=settings
                    )
                    measures.append(measure)
                    checks.append(check)
    return Result(bench="single_pass_defences", measures=tuple(measures), checks=tuple(checks))


def always_acting(study: Study) -> Mapping[str, Defence]:
    """The defences as notebook 08 fits them, with nothing that would leave a row alone."""
    cast = fits.cast(study)
    return {
        "Refusal direction": fits.refusal_direction(study),
        "CAST": cast.retuned(point=cast.point_._replace(threshold=_BELOW_ALL, side="above")),
        "K-Steering": fits.k_steering(study).retuned(gate=None),
    }


def always_acting_on_random(subject: Subject) -> Mapping[str, Defence]:
    """CAST and K-Steering on a model of random weights, which obeys no label: what they have learnt costs no time."""
    mllm = subject.mllm
    unsafe, safe = (
        tuple(replace(p, images=()) for p in s) for s in (subject.pairs.toxic, subject.pairs.safe)
    )
    half = len(unsafe) // 2
    texts = TextSets(
        unsafe=unsafe[:half], safe=safe[:half], validation_unsafe=unsafe[half:], validation_safe=safe[half:]
    )
    cast = Cast().fit(mllm, texts, refusal_text=subject.refusal_text, compliance_text="sure.")
    labels = {"refused": unsafe, "accepted": safe}
    return {
        "CAST": cast.retuned(point=cast.point_._replace(threshold=_BELOW_ALL, side="above")),
        "K-Steering": KSteering(gate=None, layer=mllm.layers // 2, epochs=1).fit(mllm, labels),
    }


def _against_plain(
    subject: Subject, name: str, defence: Defence, *, rows: int, rounds: int, settings: Settings
) -> tuple[Measure, Check]:
    mllm, plain = subject.mllm, Undefended()
    tokens = 4 if settings.quick else TOKENS
    encoded = encode(mllm, subject.prompts[:rows])
    length = GenerationSettings(max_new_tokens=tokens, batch_size=rows)
    with endless(mllm):
        measure = compare(
            f"{subject.name}, {name}, {rows} × {tokens} tokens",
            {
                f"{name}, every row steered": lambda: defence.answer(mllm, encoded, settings=length),
                "plain": lambda: plain.answer(mllm, encoded, settings=length),
            },
            rounds=rounds,
            settings=settings,
            target=TARGET,
            details={"blocks": mllm.layers, "dim": mllm.dim, "rows": rows, "new_tokens": tokens},
        )
        answers = defence.answer(mllm, encoded, settings=length)
    return measure, Check(
        name=f"{measure.name}: one pass, and acting in every row",
        difference_is="rows with another pass, shorter, or left alone",
        difference=sum(
            answer.triggered is False or answer.new_tokens != tokens or answer.model_calls != 1
            for answer in answers
        ),
        allowed=0,
    )
