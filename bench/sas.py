"""The Safety Awareness Score of one layer: from the sum of N unit vectors, against the N × N cosines.

    here       (‖Σ u_i‖² − N) / (N (N − 1))                         O(N·d) time, a block of pairs in memory
    pairwise   mean over i < j of u_i · u_j, as printed and as the published script does:
                                                                    O(N²·d) time, N² numbers in memory

Sizes: N = 3,000 pairs (AutoSteer's whole set) of d = 3,584 numbers (LLaVA-OneVision-Qwen2-7B).
"""

from functools import partial
from resource import getpagesize

import torch
from jaxtyping import Float
from torch import Tensor

from autosteer_lib.sas import safety_awareness_score
from bench.harness import Check, Measure, Result, Settings, Target, compare, ratios
from bench.memory import in_fresh_process, peak_extra

TARGET = Target(kind="at_least", bound=10, words="at least 10 × faster (17 × was measured once)")
SCORES_AGREE = 1e-6
PAGE = getpagesize()
Sides = tuple[Float[Tensor, "pairs 1 dim"], Float[Tensor, "pairs 1 dim"]]


def pairwise(toxic: Float[Tensor, "pairs 1 dim"], safe: Float[Tensor, "pairs 1 dim"]) -> Float[Tensor, ""]:
    """The formula as printed, summed in float64."""
    units = torch.nn.functional.normalize((toxic - safe)[:, 0], dim=-1)
    cosines = units @ units.T
    count = len(units)
    return torch.triu(cosines, diagonal=1).sum(dtype=torch.float64) / (count * (count - 1) / 2)


def run(settings: Settings) -> Result:
    """Time in this process; memory of each form in one of its own."""
    count, dim, rounds = (60, 32, 2) if settings.quick else (3000, 3584, 15)
    toxic, safe = sides(count=count, dim=dim, seed=settings.seed, device=settings.device)
    here = safety_awareness_score(toxic, safe)[0]
    printed = pairwise(toxic, safe).cpu()
    timed = compare(
        f"N = {count:,}, d = {dim:,}",
        {"pairwise": lambda: pairwise(toxic, safe), "here": lambda: safety_awareness_score(toxic, safe)},
        rounds=rounds,
        settings=settings,
        target=TARGET,
        details={"pairs": count, "dim": dim, "score": float(here)},
    )
    # Larger in a quick run than what is timed there: what is freed and taken again within pages is not seen.
    many, wide = (1500, 256) if settings.quick else (count, dim)
    taken = in_fresh_process(
        peaks, count=many, dim=wide, rounds=1 if settings.quick else 5, seed=settings.seed
    )
    memory = Measure(
        name=f"peak memory, N = {many:,}, d = {wide:,}",
        is_="peak bytes of pairwise / peak bytes of here",
        values=ratios(taken["pairwise"], taken["here"]),
        samples=taken,
        unit="bytes above what the states themselves take",
    )
    agree = Check(
        name="same score",
        difference_is="|here − pairwise|",
        difference=float((here - printed).abs()),
        allowed=SCORES_AGREE,
    )
    return Result(bench="sas", measures=(timed, memory), checks=(agree,))


def sides(*, count: int, dim: int, seed: int, device: str) -> Sides:
    """States whose contrasts share a direction, so that the score is of the size that the paper reports."""
    generator = torch.Generator(device).manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    safe = drawn(count, 1, dim)
    # Equal lengths of what is shared and what is not give cosines around a half.
    return safe + drawn(1, 1, dim) + drawn(count, 1, dim), safe


def peaks(*, count: int, dim: int, rounds: int, seed: int) -> dict[str, list[int]]:
    """Peak bytes of both forms; run by bench.memory in a process of its own."""
    toxic, safe = sides(count=count, dim=dim, seed=seed, device="cpu")
    forms = {"pairwise": pairwise, "here": safety_awareness_score}
    taken: dict[str, list[int]] = {name: [] for name in forms}
    for score in forms.values():
        score(toxic[:8], safe[:8])  # thread pools and kernels are loaded by now
    for _ in range(rounds):
        for name, score in forms.items():
            # At least a page, so that there is a ratio to take.
            taken[name].append(max(PAGE, peak_extra(partial(score, toxic, safe))))
    return taken
