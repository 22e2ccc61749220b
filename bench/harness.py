"""What all benches share: alternated samples, the ratio of each round, its median and interval, a target.

    round:    A B | B A | A B | …            so that a drift of the machine falls on both sides alike
    ratio r = seconds of A in round r / seconds of B in round r
    result    the median ratio, with the interval of order statistics that holds it with ≥ 95 %

A ratio of one round compares two samples taken a moment apart; absolute seconds from another run or
another machine are never compared. Nothing here fails for being slow: a target is met or it is not,
and the file says which. What must be *equal* (logits, scores, losses) is a Check, and does fail.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from statistics import median
from typing import Any, Literal

import torch

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one run of the benches is asked for."""

    quick: bool = False
    """Tiny sizes, to see that everything runs; targets are then shown and not judged."""
    profile: str = "organism"
    """Whose model stands for the shipped one."""
    device: str = "cpu"
    """Where the benches compute; the one of real size takes CUDA wherever there is one."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Target:
    """A bound that the project has set itself."""

    kind: Literal["at_most", "at_least"]
    bound: float
    words: str
    """As a person would say it."""

    def met_by(self, value: float) -> bool:
        """Whether the value is within the bound."""
        return value <= self.bound if self.kind == "at_most" else value >= self.bound


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One figure of merit with its raw samples."""

    name: str
    is_: str
    """What `values` are: "seconds steered / seconds plain", "records per second"."""
    values: tuple[float, ...] = ()
    """One a round."""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Raw, by side; entry r of each side belongs to round r."""
    unit: str = "s"
    """Of the samples."""
    target: Target | None = None
    judged: bool = True
    """False where the sizes are not those that the target speaks of (a quick run)."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Sizes, and other numbers worth keeping."""
    skipped: str | None = None
    """Why it was not measured."""

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None where that is not judged."""
        if self.target is None or not self.judged or self.skipped is not None:
            return None
        return self.target.met_by(median(self.values))


@dataclass(frozen=True, kw_only=True)
class Check:
    """Two computations that must agree: the largest difference seen, and the largest allowed."""

    name: str
    difference_is: str
    difference: float
    allowed: float

    @property
    def holds(self) -> bool:
        """False also for a difference that is not a number."""
        return self.difference <= self.allowed


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one bench found."""

    bench: str
    measures: tuple[Measure, ...] = ()
    checks: tuple[Check, ...] = ()
    skipped: str | None = None
    """Why the whole bench was not run."""


def alternate(
    sides: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each side, `rounds` times, in turns.

    Args:
        sides: what to time, by name; each call does the whole work of one sample.
        rounds: samples a side.
        warm_up: untimed calls of each side first: caches, allocators and thread pools fill there.
        device: waited for before each clock is read.
    """
    for _ in range(warm_up):
        for run in sides.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    collecting = gc.isenabled()
    gc.collect()
    gc.freeze()  # what is alive now need not be looked through again after every round
    gc.disable()
    try:
        for turn in range(rounds):
            gc.collect()  # here, so that no sample pays for another's garbage
            order = list(sides)[:: 1 if turn % 2 == 0 else -1]
            for name in order:
                synchronise(device)
                start = time.perf_counter()
                sides[name]()
                synchronise(device)
                seconds[name].append(time.perf_counter() - start)
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return seconds


def compare(
    name: str,
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    settings: Settings,
    warm_up: int = 1,
    target: Target | None = None,
    details: Mapping[str, Any] | None = None,
) -> Measure:
    """The ratio of the first side's seconds to the second's, round by round."""
    above, below = sides
    seconds = alternate(sides, rounds=rounds, warm_up=warm_up, device=settings.device)
    return Measure(
        name=name,
        is_=f"seconds of {above} / seconds of {below}",
        values=ratios(seconds[above], seconds[below]),
        samples=seconds,
        target=target,
        judged=not settings.quick,
        details=details or {},
    )


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Round by round."""
    return tuple(a / b for a, b in zip(above, below, strict=True))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, high, confidence) of the median, by order statistics: nothing is assumed of the noise.

    The values are drawn in order x_1 ≤ … ≤ x_n; [x_k, x_{n+1−k}] misses the true median with
    probability 2·P(B ≤ k − 1), B binomial(n, ½). The largest k of at least 95 % is taken; below six
    values there is none, and the range is given with the confidence that it has.
    """
    ordered = sorted(values)
    n, k = len(ordered), 1
    while 2 * (k + 1) <= n and _coverage(n, k + 1) >= CONFIDENCE:
        k += 1
    return ordered[k - 1], ordered[n - k], _coverage(n, k)


def synchronise(device: str) -> None:
    """Wait until an accelerator has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _coverage(n: int, k: int) -> float:
    return 1 - sum(comb(n, i) for i in range(k)) / 2 ** (n - 1)
