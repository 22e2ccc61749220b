"""MARS' figures, drawn from made-up tables of the right form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from autosteer_lib import plotting
from autosteer_lib.metrics import Rate
from autosteer_lib.study import mars_paper_numbers

LAYERS = range(8)
SURFACES = ("text", "image", "typographic", "video")
MEASURES = ("harmful refused", "harmless refused", "utility")
VARIANTS = ("undefended", "full", "no layer selection", "no centring", "no ReLU", "no consistency")


def rate_of(share: float, n: int = 120) -> dict[str, float | int]:
    return Rate(round(share * n), n).as_row()


def by_layer() -> pd.DataFrame:
    return pd.DataFrame([
        {"layer": layer, "surface": surface, "harmful": harmful, "alpha": 1.0,
         **rate_of(height * np.exp(-((layer - peak) ** 2) / 4) if harmful else 0.02 * layer)}
        for surface, height, peak in zip(SURFACES, (1.0, 0.8, 0.0, 0.6), (3, 5, 4, 6), strict=True)
        for layer in LAYERS for harmful in (True, False)
    ])  # fmt: skip


def by_strength() -> pd.DataFrame:
    shares = {0: (0.1, 0.0, 0.97), 1: (0.55, 0.02, 0.96), 2: (0.97, 0.3, 0.9), 3: (1.0, 1.0, 0.12)}
    return pd.DataFrame([
        {"alpha": float(alpha), "surface": "all kinds" if measure == "utility" else surface,
         "measure": measure, **rate_of(share)}
        for surface in ("image", "video") for alpha, row in shares.items()
        for measure, share in zip(MEASURES, row, strict=True) if surface == "image" or measure != "utility"
    ])  # fmt: skip


def separations() -> pd.DataFrame:
    return pd.DataFrame([
        {"layer": layer, "surface": surface, "centring": centring, "separation": gain * (layer - 2) / 10 - 0.05 * index}
        for index, surface in enumerate(SURFACES) for centring, gain in (("raw", 0.2), ("re-centred", 1.0))
        for layer in LAYERS
    ])  # fmt: skip


def scores() -> pd.DataFrame:
    curves = {
        "consistency": (0, 0.2, 0.7, 1.0),
        "separability": (0, 0.9, 1.0, 0.95),
        "margin": (1.0, 0.6, 0.3, 0),
    }
    rows = [
        (name, layer, value)
        for name, values in curves.items()
        for layer, value in zip(range(4, 8), values, strict=True)
    ]
    rows += [("sum", layer, sum(values[layer - 4] for values in curves.values())) for layer in range(4, 8)]
    table = pd.DataFrame(rows, columns=["score", "layer", "value"])
    return table.assign(selected=table["layer"] == 6)


def variants(surfaces: tuple[str, ...] = ("image",)) -> pd.DataFrame:
    shares = (
        (0.1, 0.0, 0.97),
        (0.9, 0.03, 0.96),
        (0.4, 0.5, 0.3),
        (1.0, 0.8, 0.7),
        (0.9, 0.03, 0.9),
        (0.6, 0.02, 0.96),
    )
    return pd.DataFrame([
        {"variant": variant, "surface": surface if measure != "utility" else "all kinds", "measure": measure,
         **rate_of(max(share - 0.1 * index, 0.0))}
        for variant, row in zip(VARIANTS, shares, strict=True) for measure, share in zip(MEASURES, row, strict=True)
        for index, surface in enumerate(surfaces if measure != "utility" else ("",))
    ])  # fmt: skip


def neutral() -> pd.DataFrame:
    shares = {
        None: (0.1, 0.0, 0.97),
        0: (1.0, 0.8, 0.7),
        8: (0.85, 0.05, 0.95),
        24: (0.9, 0.03, 0.96),
        48: (0.9, 0.03, 0.96),
        64: (0.9, 0.03, 0.96),
        128: (0.91, 0.02, 0.96),
    }
    return pd.DataFrame([
        {"neutral_images": number, "measure": measure, **rate_of(share)}
        for number, row in shares.items() for measure, share in zip(MEASURES, row, strict=True)
    ])  # fmt: skip


def plane() -> pd.DataFrame:
    places = {
        "Orig.": (0.0, 0.9),
        "MARS": (0.03, 0.1),
        "AutoSteer": (0.02, 0.25),
        "Steer": (0.21, 0.0),
        "ECSO": (0.05, 0.6),
    }
    return pd.DataFrame([
        {"method": method, **{f"{axis}{end}": value for axis, share in zip("xy", place, strict=True)
                              for end, value in zip(("", "_low", "_high"), list(rate_of(share).values())[:3], strict=True)}}
        for method, place in places.items()
    ])  # fmt: skip


def points() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    harmful = np.arange(160) % 2 == 0
    modality = np.repeat(["text", "image"], 80)
    tables = []
    for centring, offset in (("raw", 6.0), ("re-centred", 0.5)):
        states = rng.normal(size=(160, 2, 16))
        states[:, :, 0] += 4.0 * harmful[:, None]
        states[:, :, 1] += offset * (modality == "text")[:, None]
        table = plotting.project_states(
            states, layers=(5, 6), harmful=harmful.tolist(), modality=modality.tolist()
        )
        tables.append(table.assign(centring=centring))
    return pd.concat(tables, ignore_index=True)


def categories() -> pd.DataFrame:
    return pd.DataFrame([
        {"category": f"{index + 1}-kind", "defence": defence, **rate_of(share * (1 - index / 20))}
        for index in range(13) for defence, share in (("Orig.", 0.2), ("MARS", 0.9))
    ])  # fmt: skip


MODEL = "Qwen3-VL-8B"
FIGURES: dict[str, Callable[[], Figure]] = {
    "refusal_by_layer": lambda: plotting.refusal_by_layer(by_layer()),
    "refusal_by_strength": lambda: plotting.refusal_by_strength(
        by_strength(), reported=mars_paper_numbers.by_strength(model=MODEL), title="organism"
    ),
    "separation_by_layer": lambda: plotting.separation_by_layer(separations()),
    "centred_states": lambda: plotting.centred_states(points()),
    "layer_scores_and_sum": lambda: plotting.layer_scores_and_sum(scores(), title="organism"),
    "ablation_dots": lambda: plotting.ablation_dots(
        variants(), reported=mars_paper_numbers.ablation(model=MODEL), reported_title=f"reported: {MODEL}"
    ),
    "ablation_dots_by_surface": lambda: plotting.ablation_dots(variants(("image", "typographic", "video"))),
    "refusal_by_neutral_images": lambda: plotting.refusal_by_neutral_images(
        neutral(), reported=mars_paper_numbers.neutral_images(model=MODEL), reported_title=f"reported: {MODEL}"
    ),
    "safety_against_cost": lambda: plotting.safety_against_cost(
        plane(), reported=mars_paper_numbers.safety_against_cost(model=MODEL), front=True
    ),
    "safety_against_cost_alone": lambda: plotting.safety_against_cost(
        plane().assign(x=1 - plane()["x"], x_low=1 - plane()["x_high"], x_high=1 - plane()["x_low"]),
        x_label="right answers (%)", x_better="higher",
    ),
    "rates_by_category": lambda: plotting.rates_by_surface(
        categories().rename(columns={"category": "surface"}), label="refused (%)",
        reported=mars_paper_numbers.video_by_category(model=MODEL, methods=["Orig.", "MARS"]),
    ),
}  # fmt: skip
