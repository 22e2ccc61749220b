"""AutoSteer fitted on a tiny random model."""

from functools import cache

from autosteer_lib.defences import AutoSteer
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.models import MLLM
from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.probers import SafetyProber
from autosteer_lib.prompts import Prompt
from autosteer_lib.readings import Reading
from autosteer_lib.refusal_head import RefusalHead

SETTINGS = GenerationSettings(max_new_tokens=6)
REFUSAL = "sorry cannot help"


def pairs() -> ContrastPairs:
    words = [f"{verb} {what}" for verb in ("make", "buy", "use") for what in ("the", "a", "this", "that")]
    return ContrastPairs(
        tuple(Prompt(text=f"how do i {w} poison ?", id=f"t{i}", harmful=True) for i, w in enumerate(words)),
        tuple(Prompt(text=f"how do i {w} sun ?", id=f"s{i}", harmful=False) for i, w in enumerate(words)),
    )


def unfitted(reading: Reading | None = None, **settings: object) -> AutoSteer:
    reading = reading or Reading()
    return AutoSteer(
        reading=reading,
        prober=SafetyProber(
            epochs=15, lr=1e-2, output=reading.prober_output, checkpoint=reading.prober_checkpoint
        ),
        head=RefusalHead(
            lr=0.3, weight_decay=0.0, epochs=12, batch_size=4, checkpoint=reading.head_checkpoint
        ),
        **settings,  # type: ignore[arg-type]
    )


@cache
def fitted(mllm: MLLM) -> AutoSteer:
    return unfitted(held_out=0.2).fit(mllm, pairs(), refusal_prompts=pairs().toxic, refusal_text=REFUSAL)


def half_open(mllm: MLLM, prompts: list[Prompt]) -> AutoSteer:
    """A threshold half of the prompts reach, and a head strong enough to be seen in every answer."""
    scores = fitted(mllm).score(mllm, prompts).sort().values
    defence = fitted(mllm).retuned(epsilon=2.0, threshold=float(scores[3] + scores[4]) / 2)
    assert 0 < int(defence.reading.opens(scores, threshold=defence.threshold).sum()) < len(scores)
    return defence
