"""Chapter 01: what each layer knows about harm, and whether it is the same thing in every modality.

A linear probe (logistic regression on standardised states) is fitted on the contrast pairs (harm in
words over a picture, fit split) and tested on the attacks and harmless twins of every surface (test
split): whether harm is readable at a layer, and whether it is written in the same way elsewhere. The
cosine between surfaces' harm directions, mean attack − mean twin, asks the same without a probe.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from autosteer_lib.metrics import Rate
from autosteer_lib.plotting import project_states
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import twinned

_RESAMPLES = 1_000  # the second decimal of an interval's ends stands still from a few hundred on
_ITERATIONS = 1_000  # enough for the solver to converge on standardised states


def labelled(study: Study, surface: str) -> list[Prompt]:
    """Test attacks of a surface, then their harmless twins."""
    return [
        *study.data.test(group="attack", surface=surface),
        *study.data.test(group="benign", surface=surface),
    ]


def probe_transfer(study: Study) -> pd.DataFrame:
    """Accuracy of a probe fitted on the contrast pairs (harm in words over a picture), by layer and surface.

    Returns:
        layer, surface, rate, low, high, n.
    """
    pairs = study.data.pairs
    train = study.states([*pairs.toxic, *pairs.safe]).numpy()
    labels = np.repeat([True, False], len(pairs))
    tests = {s: labelled(study, s) for s in twinned(study)}
    states = {s: study.states(prompts).numpy() for s, prompts in tests.items()}
    rows = []
    for column, layer in enumerate(study.layers):
        probe = _fit(train[:, column], labels)
        for surface, prompts in tests.items():
            truth = np.array([bool(p.harmful) for p in prompts])
            rate = Rate.of((probe.predict(states[surface][:, column]) == truth).tolist())
            rows.append(
                {
                    "layer": layer,
                    "surface": surface,
                    **rate.as_row(),
                }
            )
    return pd.DataFrame(rows)


def direction_cosines(study: Study) -> pd.DataFrame:
    """Cosine of each surface's harm direction (mean attack − mean twin) with that of the first, text, by layer.

    Returns:
        layer, surface, cosine, low, high (95 %, percentiles of a bootstrap over the prompts of either side of both
        surfaces); no rows where one surface alone has twins.
    """
    drawn = np.random.default_rng(study.seed)
    differences = {}
    for surface in twinned(study):
        prompts = labelled(study, surface)
        states = study.states(prompts).numpy().astype(np.float64)
        harmful = np.array([bool(p.harmful) for p in prompts])
        means = [_resampled_means(states[side], drawn) for side in (harmful, ~harmful)]
        differences[surface] = means[0] - means[1]
    base = differences.pop(twinned(study)[0])
    rows = []
    for surface, difference in differences.items():
        cosines = _cosines(base, difference)
        low, high = np.percentile(cosines[1:], (2.5, 97.5), axis=0)
        rows.append(
            pd.DataFrame(
                {"layer": study.layers, "surface": surface, "cosine": cosines[0], "low": low, "high": high}
            )
        )
    if not rows:
        return pd.DataFrame(columns=["layer", "surface", "cosine", "low", "high"])
    return pd.concat(rows).sort_values("layer", kind="stable", ignore_index=True)


def components(study: Study, *, layers: Sequence[int], surfaces: Sequence[str]) -> pd.DataFrame:
    """Two main components of the states of these surfaces, where attacked, at these layers; see `project_states`."""
    prompts = [p for s in study.data.attacked(surfaces) for p in labelled(study, s)]
    columns = [study.layers.index(layer) for layer in layers]
    return project_states(
        study.states(prompts)[:, columns],
        layers=layers,
        harmful=[bool(p.harmful) for p in prompts],
        modality=[p.surface for p in prompts],
    )


def spread(values: Sequence[int], *, count: int) -> list[int]:
    """`count` values spread evenly over a sequence, its last among them."""
    return [values[i] for i in np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int)]


def _fit(states: Float[np.ndarray, "rows dim"], labels: Bool[np.ndarray, " rows"]) -> LogisticRegression:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS)).fit(states, labels)


def _resampled_means(
    states: Float[np.ndarray, "rows layers dim"], drawn: np.random.Generator
) -> Float[np.ndarray, "samples layers dim"]:
    """The mean itself, then the means of samples with replacement."""
    n = len(states)
    counts = drawn.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    weights = np.concatenate([np.ones((1, n)), counts]) / n
    return np.tensordot(weights, states, axes=1)


def _cosines(
    a: Float[np.ndarray, "samples layers dim"], b: Float[np.ndarray, "samples layers dim"]
) -> Float[np.ndarray, "samples layers"]:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
