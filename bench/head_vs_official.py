"""One decoding step of the Refusal Head: h moved, against the unembedding rebuilt, as the published code does.

    official    logits = h (E + ε E S)ᵀ, E S [V d] computed again at every step, in float32:  O(V·d²)
    here        logits = (h + ε h Sᵀ) Eᵀ:                                                     O(d² + V·d)

The two are the same number; how far rounding takes them apart is measured as
max |here − official| / max |official|.

The rebuilt matrix is given its best form, one fused product-and-sum: the ratio is a lower bound.
Source: AutoSteer's SteerModel.forward (logits of H and E + ε E S), LM-Steer eq. 4–6.
"""

from dataclasses import dataclass

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from autosteer_lib.refusal_head import steer
from bench.harness import Check, Measure, Result, Settings, Target, compare

EPSILON = 0.1
QWEN2_VOCABULARY = 151_936
LOGITS_AGREE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size."""

    dim: int
    rounds: int
    at_least: int
    """Times faster than the official form."""


CASES = (
    Case(dim=896, rounds=9, at_least=40),  # 0.5 B; 53 × was measured once, on two cores
    Case(dim=3584, rounds=5, at_least=150),  # 7 B; a sample of the official form takes most of a minute there
)


def steered_state(
    h: Float[Tensor, "batch dim"], words: Float[Tensor, "words dim"], matrix: Float[Tensor, "dim dim"]
) -> Float[Tensor, "batch words"]:
    """Logits as the library computes them."""
    return torch.nn.functional.linear(steer(h, matrix, epsilon=EPSILON), words)


def rebuilt_unembedding(
    h: Float[Tensor, "batch dim"], words: Float[Tensor, "words dim"], matrix: Float[Tensor, "dim dim"]
) -> Float[Tensor, "batch words"]:
    """Logits as the published code computes them."""
    return torch.nn.functional.linear(h, torch.addmm(words, words, matrix, alpha=EPSILON))


def run(settings: Settings) -> Result:
    """Both sizes, as far as memory allows."""
    vocabulary = 2048 if settings.quick else QWEN2_VOCABULARY
    cases = (Case(dim=64, rounds=2, at_least=40),) if settings.quick else CASES
    done = [measure(case, vocabulary=vocabulary, settings=settings) for case in cases]
    return Result(
        bench="head_vs_official",
        measures=tuple(figure for figure, _ in done),
        checks=tuple(check for _, check in done if check is not None),
    )


def measure(case: Case, *, vocabulary: int, settings: Settings) -> tuple[Measure, Check | None]:
    """One size: the ratio of a step's time, and how far the logits are apart."""
    name = f"V = {vocabulary:,}, d = {case.dim:,}"
    what = "seconds of h (E + ε E S)ᵀ / seconds of (h + ε h Sᵀ) Eᵀ"
    target = Target(kind="at_least", bound=case.at_least, words=f"at least {case.at_least} × faster")
    # E, the rebuilt matrix, S, and a fifth more for logits and what the product works with.
    needed = 1.2 * 4 * (2 * vocabulary * case.dim + case.dim**2)
    free = _free_memory(settings.device)
    if free < needed:
        reason = f"needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        return Measure(name=name, is_=what, target=target, skipped=reason), None

    generator = torch.Generator(settings.device).manual_seed(settings.seed)

    def drawn(*shape: int, scale: float) -> Tensor:
        return torch.randn(shape, generator=generator, device=settings.device).mul_(scale)

    words = drawn(vocabulary, case.dim, scale=0.02)  # as Qwen2 initialises it
    matrix = drawn(case.dim, case.dim, scale=case.dim**-0.5)  # h Sᵀ is then of the size of h
    h = drawn(1, case.dim, scale=1.0)
    with torch.no_grad():
        official, here = rebuilt_unembedding(h, words, matrix), steered_state(h, words, matrix)
        timed = compare(
            name,
            {
                "official": lambda: rebuilt_unembedding(h, words, matrix),
                "here": lambda: steered_state(h, words, matrix),
            },
            rounds=case.rounds,
            warm_up=0,  # both have just run
            settings=settings,
            target=target,
            details={"vocabulary": vocabulary, "dim": case.dim, "batch": 1, "dtype": "float32"},
        )
    check = Check(
        name=f"{name}: same logits",
        difference_is="max |here − official| / max |official|",
        difference=float((here - official).abs().max() / official.abs().max()),
        allowed=LOGITS_AGREE,
    )
    return timed, check


def _free_memory(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
