"""Chapter 03: probers of every layer over epochs, what their gate does on each set, and three sweeps.

Epochs are chosen on held-out pairs. The test sets are measured after every epoch, to draw the paper's
Fig. 3 and 9, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from torch import Tensor, tensor

from autosteer_lib.metrics import Rate
from autosteer_lib.pairs import split_indices
from autosteer_lib.probers import SafetyProber
from autosteer_lib.study.layers import labelled
from autosteer_lib.study.sas_selection import contrast_states
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import IN_WORDS, MUST_BE_SEEN, all_of, twinned

# What the paper's Fig. 9 calls its panels, and what stands here for each set.
HELD_OUT, TRAIN = "held-out pairs", "training pairs"


@dataclass(frozen=True)
class FittedProbers:
    """One prober a layer, and the accuracy of each after every epoch."""

    by_layer: dict[int, SafetyProber]
    history: pd.DataFrame
    """set, layer, epoch, accuracy, loss."""
    sizes: dict[str, int]
    """Prompts of each set, of both kinds together."""


def fit_probers(study: Study) -> FittedProbers:
    """Train the probers of all layers, watching every test set."""
    toxic, safe = contrast_states(study)
    share = study.profile.prober.held_out
    train, kept = split_indices(len(toxic), held_out=share, seed=study.seed)
    monitor = {}
    for surface in twinned(study):
        prompts = labelled(study, surface)
        monitor[surface] = (study.states(prompts), tensor([bool(p.harmful) for p in prompts]))
    probers = study.prober().fit_all_layers(
        toxic[train], safe[train], held_out=(toxic[kept], safe[kept]), monitor=monitor
    )
    names = {"train": TRAIN, "held_out": HELD_OUT}
    curves = [
        pd.DataFrame(prober.history_).assign(layer=layer)
        for layer, prober in zip(study.layers, probers, strict=True)
    ]
    history = pd.concat(curves, ignore_index=True).rename(columns={"split": "set"})
    history["set"] = history["set"].replace(names)
    sizes = {TRAIN: 2 * len(train), HELD_OUT: 2 * len(kept)}
    sizes |= {surface: len(labels) for surface, (_, labels) in monitor.items()}
    return FittedProbers(dict(zip(study.layers, probers, strict=True)), history, sizes)


def chosen_accuracy(fitted: FittedProbers) -> pd.DataFrame:
    """Accuracy of each layer's chosen epoch on each set.

    Returns:
        layer, epoch, and one column a set.
    """
    chosen = {layer: prober.chosen_epoch_ for layer, prober in fitted.by_layer.items()}
    rows = fitted.history[fitted.history["epoch"] == fitted.history["layer"].map(chosen)]
    wide = rows.pivot_table(index=["layer", "epoch"], columns="set", values="accuracy", sort=False)
    return wide.reset_index().rename_axis(columns=None).sort_values("layer", ignore_index=True)


def accuracy_by_layer(fitted: FittedProbers) -> pd.DataFrame:
    """Each layer's prober, at its chosen epoch, on the training pairs, the held-out pairs and every twinned set.

    Returns:
        layer, series (a set), rate, low, high, n (prompts of both kinds).
    """
    wide = chosen_accuracy(fitted).drop(columns="epoch")
    table = wide.melt(id_vars="layer", var_name="series", value_name="accuracy")
    sizes = table["series"].map(fitted.sizes)
    right = (table.pop("accuracy") * sizes).round().astype(int)
    rates = [Rate(correct, n).as_row() for correct, n in zip(right, sizes, strict=True)]
    return table.join(pd.DataFrame(rates))


def thinned(history: pd.DataFrame, *, points: int = 10) -> pd.DataFrame:
    """About `points` epochs of the curves, first and last among them: enough to draw and to compare."""
    epochs = sorted(history["epoch"].unique())
    kept = {epochs[round(i * (len(epochs) - 1) / (points - 1))] for i in range(points)}
    return history[history["epoch"].isin(kept)].reset_index(drop=True)


def gate_scores(study: Study, prober: SafetyProber, layer: int) -> pd.DataFrame:
    """The gate's score of every test prompt.

    Returns:
        set ("group, surface"), group, surface, harmful, score.
    """
    tests = list(study.data.tests)
    scores = prober.score(study.states(tests)[:, study.layers.index(layer)])
    return pd.DataFrame(
        {
            "group": [p.metadata["group"] for p in tests],
            "surface": [p.surface for p in tests],
            "harmful": [bool(p.harmful) for p in tests],
            "score": scores.tolist(),
        }
    )


def trigger_rates(scores: pd.DataFrame, *, threshold: float) -> pd.DataFrame:
    """How often the gate opens, by set.

    Returns:
        group, surface, rate, low, high, n.
    """
    rows = []
    for (group, surface), part in scores.groupby(["group", "surface"], sort=False):
        rate = Rate.of((part["score"] >= threshold).tolist())
        rows.append(
            {
                "group": group,
                "surface": surface,
                **rate.as_row(),
            }
        )
    return pd.DataFrame(rows)


def threshold_sweep(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    """How often the gate opens on attacks and on harmless prompts, over τ.

    Returns:
        threshold, series, rate, low, high, n.
    """
    series = {"attacks": scores["group"] == "attack", **_harmless(scores)}
    return pd.DataFrame(
        [
            _rate_row({"threshold": tau, "series": name}, scores[mask]["score"] >= tau)
            for tau in study.profile.evaluation.thresholds
            for name, mask in series.items()
        ]
    )


def gates_by_layer(study: Study, fitted: FittedProbers) -> pd.DataFrame:
    """How often the gate would open at each layer, were it chosen: what the choice of a layer decides.

    Returns:
        layer, series, rate, low, high, n.
    """
    rows, must_be_seen = [], all_of(study, *MUST_BE_SEEN)
    for layer, prober in fitted.by_layer.items():
        scores = gate_scores(study, prober, layer)
        attack, seen = scores["group"] == "attack", scores["surface"].isin(must_be_seen)
        series = {
            "harm that must be seen": attack & seen,
            "harm in words": attack & ~seen,
            **_harmless(scores),
        }
        rows += [
            _rate_row({"layer": layer, "series": name}, scores[mask]["score"] >= study.profile.gate.threshold)
            for name, mask in series.items()
            if mask.any()
        ]
    return pd.DataFrame(rows)


def _harmless(scores: pd.DataFrame) -> dict[str, pd.Series]:
    names = {"benign": "harmless twins", "borderline": "borderline", "utility": "utility"}
    return {name: scores["group"] == group for group, name in names.items()}


def width_sweep(study: Study, layer: int) -> pd.DataFrame:
    """Balanced accuracy on the test sets over the prober's width.

    Returns:
        width, series, rate, low, high, n.
    """
    rows = []
    for width in study.profile.evaluation.widths:
        prober = _refit(study, layer, width=width)
        rows += _accuracy_rows(study, prober, layer, {"width": width})
    return pd.DataFrame(rows)


def pair_sweep(study: Study, layer: int) -> pd.DataFrame:
    """Accuracy on the test sets over the number of training pairs.

    Returns:
        pairs, series, rate, low, high, n.
    """
    rows, there = [], len(study.data.pairs)
    for count in sorted({min(count, there) for count in study.profile.evaluation.pair_counts}):
        prober = _refit(study, layer, pairs=count)
        rows += _accuracy_rows(study, prober, layer, {"pairs": count})
    return pd.DataFrame(rows)


def _refit(study: Study, layer: int, *, width: int | None = None, pairs: int | None = None) -> SafetyProber:
    toxic, safe = (side[:pairs, study.layers.index(layer)] for side in contrast_states(study))
    train, kept = split_indices(len(toxic), held_out=study.profile.prober.held_out, seed=study.seed)
    width = study.profile.prober.width if width is None else width
    return study.prober(width=width).fit(toxic[train], safe[train], held_out=(toxic[kept], safe[kept]))


def _accuracy_rows(
    study: Study, prober: SafetyProber, layer: int, swept: dict[str, float]
) -> list[dict[str, object]]:
    column = study.layers.index(layer)
    in_words, rows = all_of(study, *IN_WORDS, twins=True), []
    must_be_seen = [surface for surface in twinned(study) if surface not in in_words]
    for name, surfaces in {"harm in words": in_words, "harm that must be seen": must_be_seen}.items():
        prompts = [p for s in surfaces for p in labelled(study, s)]
        if prompts:
            right = _right(prober, study.states(prompts)[:, column], [bool(p.harmful) for p in prompts])
            rows.append(_rate_row({**swept, "series": name}, right))
    return rows


def _right(prober: SafetyProber, states: Tensor, truth: Sequence[bool]) -> pd.Series:
    return pd.Series((prober.score(states) >= 0.5).tolist()) == pd.Series(truth)


def _rate_row(facts: dict[str, object] | dict[str, float], outcomes: pd.Series) -> dict[str, object]:
    rate = Rate.of(outcomes.astype(bool).tolist())
    return {
        **facts,
        **rate.as_row(),
    }
