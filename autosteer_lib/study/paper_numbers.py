"""AutoSteer's reported numbers, shaped as the figures take them. Never mixed with measured ones.

The paper's sets are named by its own names; only the role of a set is comparable with ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from autosteer_lib.models import MLLM
from autosteer_lib.reported import reported

_LLAVA, _CHAMELEON = "LLaVA-OV-7B", "Chameleon-7B"
MODELS = (_LLAVA, _CHAMELEON)  # in the order of Table 1


def nearest(mllm: MLLM) -> str:
    """Which of the paper's two models a model is shown beside: Chameleon's if it is one, else the other."""
    return _CHAMELEON if mllm.model.config.model_type == "chameleon" else _LLAVA


def table1(*, model: str = _LLAVA, defences: Sequence[str] = (), metric: str = "ASR") -> pd.DataFrame:
    """Rates of the paper's Table 1.

    Returns:
        surface ("VLSafe (text)", …), defence, rate in [0, 1].
    """
    table = reported("table1")
    rows = table[(table["model"] == model) & (table["metric"] == metric)]
    if defences:
        rows = rows[rows["method"].isin(defences)]
    toxicity = rows["toxicity"].fillna("") if "toxicity" in rows else pd.Series("", index=rows.index)
    names = rows["dataset"] + toxicity.map(lambda t: f" ({t})" if t else "")
    return pd.DataFrame(
        {"surface": names.astype(str), "defence": rows["method"].astype(str), "rate": rows["value"] / 100}
    ).reset_index(drop=True)


def sas(*, models: Sequence[str] = (_LLAVA,)) -> pd.DataFrame:
    """SAS by layer (Fig. 4, printed bar labels).

    Returns:
        model, layer, sas.
    """
    table = reported("sas")
    rows = table[table["model"].isin(models)]
    return pd.DataFrame(
        {
            "model": rows["model"].astype(str),
            "layer": rows["layer"].astype(int),
            "sas": rows["value"],
        }
    ).reset_index(drop=True)


def epsilon_sweep(*, model: str = _LLAVA) -> pd.DataFrame:
    """ASR over ε (Fig. 6); read off a figure by machine, so good for its shape only.

    Returns:
        epsilon, series, rate.
    """
    table = reported("epsilon_sweep")
    rows = table[
        (table["model"] == model)
        & (table["metric"] == "ASR")
        & (table["trust"] == "read by machine off a figure")
    ]
    return pd.DataFrame(
        {
            "epsilon": rows["epsilon"].astype(float),
            "series": "attack succeeds",
            "rate": rows["value"].where(rows["unit"] == "fraction", rows["value"] / 100),
        }
    ).reset_index(drop=True)


def of_models(measure: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    """The numbers of all of the paper's models, as `of_models(lambda model: table1(model=model))`.

    Returns:
        model, then the columns of `measure`.
    """
    tables = [measure(model).assign(model=model) for model in MODELS]
    return pd.concat(tables, ignore_index=True)


def prober_statements() -> pd.DataFrame:
    """What the text says of the probers' curves."""
    table = reported("prober")
    return table.drop(columns=["paper", "table", "method", "setting"], errors="ignore")
