"""What does MARS cost, when it acts and to be fitted?

One hook in the prefill, gone before the first decoding step; no second pass.

    ratio   = seconds(MARS, every row steered) / seconds(plain)        64 tokens, target: at most 1.02
    seconds = one whole fit: 200 + 200 texts answered and filtered, states of those, of 100 + 100 for
              validation and of 128 neutral pictures and clips           target: at most 15
"""

import time
from dataclasses import replace

from autosteer_lib.defences.mars import Mars
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.encoding import encode
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.judges import Verdict
from autosteer_lib.mars_readings import MarsReading
from autosteer_lib.neutral_sights import neutral_pictures
from autosteer_lib.profiles import load_profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.provenance import repository_root
from autosteer_lib.study.text_data import text_data
from autosteer_lib.text_sets import TextSets
from bench.answering import TOKENS, gate_check
from bench.harness import Check, Measure, Result, Settings, Target, compare
from bench.subjects import Subject, endless, medium, shipped

ANSWER = Target(kind="at_most", bound=1.02, words="at most 2 % over a plain answer of 64 tokens")
FIT = Target(kind="at_most", bound=15.0, words="a fit in at most 15 seconds on two cores")
ROUNDS = {1: 40, 16: 30}
FITS = 3
_SIDE = 32  # px; a neutral picture as small as any family takes
_FAR = 1e4  # a centre so far back along the direction that every projection is positive


def run(settings: Settings) -> Result:
    """Answers on both models, at one row and at sixteen; the fit on the shipped one."""
    measures: list[Measure] = []
    checks: list[Check] = []
    rounds_by_rows = {2: 2} if settings.quick else ROUNDS
    for subject in (shipped(settings), medium(settings)):
        defence = _always_open(subject)
        for rows, rounds in rounds_by_rows.items():
            measure, check = _against_plain(subject, defence, rows=rows, rounds=rounds, settings=settings)
            measures.append(measure)
            checks.append(check)
    measures.append(_fits(settings))
    return Result(bench="mars_steering", measures=tuple(measures), checks=tuple(checks))


class _ByLabel:
    """Takes every harmful text as refused: a model of random weights refuses nothing."""

    name = "by label"

    def __call__(self, prompt: Prompt, answer: str) -> Verdict:
        return Verdict(unsafe=False, refused=bool(prompt.harmful))


def _always_open(subject: Subject) -> Mars:
    """MARS on this model, with centres from which every prompt lies on the side of refusal."""
    sides = {True: subject.pairs.toxic, False: subject.pairs.safe}
    words = {
        harmful: [replace(p, images=(), text=f"{p.text} {i}") for i, p in enumerate(side)]
        for harmful, side in sides.items()
    }
    half = len(words[True]) // 2
    texts = TextSets(
        unsafe=tuple(words[True][:half]),
        safe=tuple(words[False][:half]),
        validation_unsafe=tuple(words[True][half:]),
        validation_safe=tuple(words[False][half:]),
    )
    reading = MarsReading(text_inputs="neutral", video_centre="pictures")
    mars = Mars(reading=reading, layer=subject.mllm.layers // 2, fewest=1).fit(
        subject.mllm,
        texts,
        pictures=neutral_pictures(2, words=[words[True][0].text], side=_SIDE),
        settings=GenerationSettings(max_new_tokens=1),
        judge=_ByLabel(),
    )
    return mars.recentred_on({"image": mars.neutral_["image"] - _FAR * mars.direction})


def _against_plain(
    subject: Subject, defence: Mars, *, rows: int, rounds: int, settings: Settings
) -> tuple[Measure, Check]:
    mllm, plain = subject.mllm, Undefended()
    tokens = 4 if settings.quick else TOKENS
    encoded = encode(mllm, subject.prompts[:rows])
    length = GenerationSettings(max_new_tokens=tokens, batch_size=rows)
    with endless(mllm):
        measure = compare(
            f"{subject.name}, {rows} × {tokens} tokens",
            {
                "MARS, every row steered": lambda: defence.answer(mllm, encoded, settings=length),
                "plain": lambda: plain.answer(mllm, encoded, settings=length),
            },
            rounds=rounds,
            settings=settings,
            target=ANSWER,
            details={"blocks": mllm.layers, "dim": mllm.dim, "rows": rows, "new_tokens": tokens},
        )
        answers = defence.answer(mllm, encoded, settings=length)
    return measure, gate_check(measure.name, answers, opens=True)


def _fits(settings: Settings) -> Measure:
    profile = load_profile("smoke" if settings.quick else settings.profile)
    subject, data = shipped(settings), text_data(profile, root=repository_root())
    batch = GenerationSettings(
        max_new_tokens=profile.generation.max_new_tokens, batch_size=profile.generation.batch_size
    )
    seconds = []
    for _ in range(1 if settings.quick else FITS):
        start = time.perf_counter()
        Mars().fit(subject.mllm, data.texts, pictures=data.pictures, clips=data.clips, settings=batch)
        seconds.append(time.perf_counter() - start)
    return Measure(
        name=f"{subject.name}, fit",
        is_="seconds, nothing kept from an earlier fit",
        values=tuple(seconds),
        target=FIT,
        judged=not settings.quick,
        details={
            "texts": 2 * len(data.texts.unsafe),
            "validation_texts": len(data.texts.validation_unsafe) + len(data.texts.validation_safe),
            "neutral_pictures": len(data.pictures),
            "neutral_clips": len(data.clips),
        },
    )
