"""SafeSteer's figures, drawn from made-up tables of the right form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from autosteer_lib import plotting

VARIANTS = ("full", "no probe", "no MSAV", "text attacks: plain beside the words", "neither")
SETS = ("attacks, words", "attacks, image", "attacks, typographic", "twins, words", "questions")


def points(panels: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    return pd.DataFrame([
        {"panel": f"step {panel}", "x": rng.normal(shift), "y": rng.normal(), "kind": kind, "surface": surface}
        for panel in range(panels)
        for kind, shift in (("harmful", 2.0), ("refusing", 3.0), ("harmless", -2.0))
        for surface in ("words", "image", "questions") for _ in range(8)
    ])  # fmt: skip


def endings() -> pd.DataFrame:
    rows = []
    for name in SETS:
        first = "unsafe" if name.startswith("attacks") else "safe"
        for index, variant in enumerate(VARIANTS):
            shares = {first: 0.2 * index, "refused": 0.5 - 0.1 * index, "off topic": 0.5 - 0.1 * index}
            rows += [
                {"variant": variant, "set": name, "ending": ending, "rate": share}
                for ending, share in shares.items()
            ]
    return pd.DataFrame(rows)


def loss() -> pd.DataFrame:
    curve = [{"solver": "rds", "epoch": n, "loss": 0.1 + 2.0 * np.exp(-n / 300)} for n in range(1, 1500, 15)]
    return pd.DataFrame([*curve, {"solver": "converged", "epoch": 0, "loss": 0.041}])


def words() -> pd.DataFrame:
    return pd.DataFrame([
        {"surface": surface, "word": word, "mean": mean + shift, "low": mean + shift - 1, "high": mean + shift + 0.5}
        for shift, surface in enumerate(("words", "image", "typographic", "video"))
        for word, mean in (("refusal", -3.0), ("own", 2.0), ("best candidate", 4.0))
    ])  # fmt: skip


FIGURES: dict[str, Callable[[], Figure]] = {
    "probe_planes": lambda: plotting.probe_planes(points()),
    "probe_planes_alone": lambda: plotting.probe_planes(points(1), columns=1, panel_height=2.6),
    "probe_loss": lambda: plotting.probe_loss(loss()),
    "endings_by_variant": lambda: plotting.endings_by_variant(endings()),
    "first_word_scores": lambda: plotting.first_word_scores(words()),
}
