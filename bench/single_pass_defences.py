"""What do the compared defences cost that ask the model once: a vector or a gradient at every token of every row?

    ratio = seconds(defence, acting in every row) / seconds(plain)     64 tokens, target: at most 1.03

AdaSteer and ECSO ask the model again and are not here; activation transfer adds its vector as the refusal direction
does. On the shipped model alone: these fits need one that refuses something.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from autosteer_lib.defences import Defence, Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.study import Study
from autosteer_lib.study import compared_methods as fits
from bench.answering import TOKENS
from bench.harness import Check, Measure, Result, Settings, Target, compare
from bench.subjects import endless

TARGET = Target(kind="at_most", bound=1.03, words="at most 3 % over a plain answer of 64 tokens")
ROUNDS = {1: 320, 16: 60}  # of single rows 160 gave intervals 4 to 5 % wide, on both sides of the target
_BELOW_ALL = -2.0  # a cosine is never lower, so the condition holds for every row


def run(settings: Settings) -> Result:
    """Each defence at one row and at sixteen."""
    measures: list[Measure] = []
    checks: list[Check] = []
    with TemporaryDirectory() as folder:
        study = Study.open("smoke" if settings.quick else settings.profile, out=Path(folder) / "build")
        for name, defence in always_acting(study).items():
            for rows, rounds in ({2: 2} if settings.quick else ROUNDS).items():
                measure, check = _against_plain(
                    study, name, defence, rows=rows, rounds=rounds, settings=settings
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


def _against_plain(
    study: Study, name: str, defence: Defence, *, rows: int, rounds: int, settings: Settings
) -> tuple[Measure, Check]:
    mllm, plain = study.mllm, Undefended()
    tokens = 4 if settings.quick else TOKENS
    encoded = encode(mllm, study.data.pairs.safe[:rows])
    length = GenerationSettings(max_new_tokens=tokens, batch_size=rows)
    with endless(mllm):
        measure = compare(
            f"{name}, {rows} × {tokens} tokens",
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
