"""What reading last-token states adds to the memory of a prefill, over the length of the prompt.

    added(form, n)  = peak of a pass over prompts of n words in that form − peak of a plain prefill of them
    growth          = (added(collect, longest) − added(collect, shortest))
                      / (the same of keeping every token's state)                   target: at most 0.05

A prefill's own activations grow with the prompt in every form. What reading adds is rows × layers × dim
numbers and must not grow; keeping every token's state (`output_hidden_states=True`) adds tokens times that.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch

from autosteer_lib.activations import collect
from autosteer_lib.encoding import batches
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import Site, resid_post, resid_pre
from bench.harness import Measure, Settings, Target
from bench.memory import peak_extra
from bench.random_models import MEDIUM, TINY, prompts, random_mllm

Peaks: TypeAlias = dict[str, dict[str, list[int]]]  # form → words of a prompt → bytes, one a round
TARGET = Target(
    kind="at_most", bound=0.05, words="at most a twentieth of what keeping every token's state adds"
)


def all_layers(mllm: MLLM) -> list[Site]:
    """The input of every block, and the output of the last."""
    return [*(resid_pre(layer) for layer in range(mllm.layers)), resid_post(mllm.layers - 1)]


def plain_prefill(mllm: MLLM, some: Sequence[Prompt], *, batch_size: int) -> None:
    """Encode and run every prompt, and keep nothing."""
    with torch.no_grad():
        for _, encoded in batches(mllm, some, batch_size=batch_size):
            mllm.forward(encoded.inputs)


def keep_every_token(mllm: MLLM, some: Sequence[Prompt]) -> None:
    """One pass that returns the states of all tokens at all layers."""
    with torch.no_grad():
        for _, encoded in batches(mllm, some, batch_size=len(some)):
            mllm.model(**encoded.inputs, use_cache=False, logits_to_keep=1, output_hidden_states=True)


def peaks(
    mllm: MLLM,
    prompts_by_length: Mapping[int, Sequence[Prompt]],
    *,
    rounds: int,
    peak_of: Callable[[Callable[[], object]], int],
) -> Peaks:
    """Peak bytes of each form at each length."""
    sites = all_layers(mllm)
    forms: dict[str, Callable[[Sequence[Prompt]], object]] = {
        "plain": lambda some: plain_prefill(mllm, some, batch_size=len(some)),
        "collect": lambda some: collect(mllm, some, sites=sites, batch_size=len(some)),
        "every token": lambda some: keep_every_token(mllm, some),
    }
    longest = prompts_by_length[max(prompts_by_length)]
    for form in forms.values():
        form(longest)  # kernels and thread pools are loaded, and their scratch taken, by now
    return {
        name: {
            str(length): [peak_of(partial(form, some)) for _ in range(rounds)]
            for length, some in prompts_by_length.items()
        }
        for name, form in forms.items()
    }


def cpu_peaks(*, tiny: bool, lengths: list[int], rows: int, rounds: int, seed: int) -> Peaks:
    """`peaks` of a model with random weights; run by bench.memory in a process of its own."""
    size = TINY if tiny else MEDIUM
    asked = {length: prompts(size, count=rows, words=length, seed=seed) for length in lengths}
    return peaks(random_mllm(size, seed=seed), asked, rounds=rounds, peak_of=peak_extra)


def growth(taken: Peaks, *, settings: Settings) -> Measure:
    """The share that must stay small."""
    lengths = sorted(map(int, taken["plain"]))
    added = {
        form: {
            length: [a - b for a, b in zip(taken[form][length], taken["plain"][length], strict=True)]
            for length in taken["plain"]
        }
        for form in ("collect", "every token")
    }

    def grown(form: str) -> list[int]:
        short, long = added[form][str(lengths[0])], added[form][str(lengths[-1])]
        return [b - a for a, b in zip(short, long, strict=True)]

    return Measure(
        name=f"memory that reading adds, prompts of {lengths[0]} to {lengths[-1]} words",
        is_="growth of what collect adds / growth of what keeping every token's state adds",
        # A quick run's states are smaller than a page or two: no division by nothing there.
        values=tuple(a / max(b, 1) for a, b in zip(grown("collect"), grown("every token"), strict=True)),
        samples={
            f"{form}, {length} words": samples
            for form, by_length in taken.items()
            for length, samples in by_length.items()
        },
        unit="peak bytes",
        target=TARGET,
        judged=not settings.quick,
        details={"bytes added": added},
    )
