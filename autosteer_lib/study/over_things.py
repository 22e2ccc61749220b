"""Chapter 07: how far the intervals of the organism's rates hold, which count prompts and not the things in them.

The test split has four dangerous things and ten harmless ones; of a surface in sight the 120 attacks are about four of
them (of *combination* about two), drawn, written or filmed again and again. If a defence stops an attack or not by its
thing, 120 answers say little more than four. `by_things` sets both intervals side by side (clustered.py): over prompts,
which says how the defence does on these very things, and over things, which says how it would on others.
"""

from __future__ import annotations

import pandas as pd

from autosteer_lib.clustered import ClusteredRate
from autosteer_lib.study.gap import MEASURES
from autosteer_lib.study.study import Study

ALL = "all"
_COLUMNS = [
    "group", "surface", "defence", "measure", "n", "things", "rate", "low", "high", "low_things", "high_things",
    "design",
]  # fmt: skip


def by_things(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """The rate that matters in each group, with its interval over prompts and over things.

    Args:
        study: whose test prompts name their thing; others are left out.
        frame: answers, as `Study.evaluate` gives them.

    Returns:
        group, surface ("all" is over all of the group), defence, measure, n, things, rate, low, high (over prompts),
        low_things, high_things, design (times the variance of independent rows; NaN where all outcomes are equal);
        no rows where prompts name no thing.
    """
    thing = {prompt.id: prompt.metadata.get("thing") for prompt in study.data.tests}
    known = frame.assign(thing=frame["prompt_id"].map(thing)).dropna(subset="thing")
    rows = []
    for group, (column, measure) in MEASURES.items():
        asked = known[(known["group"] == group) & known[column].notna()]
        for surface in (*dict.fromkeys(asked["surface"]), ALL):
            part = asked if surface == ALL else asked[asked["surface"] == surface]
            for defence, answered in part.groupby("defence", sort=False):
                if answered["thing"].nunique() < 2:
                    continue
                found = ClusteredRate.of(answered[column].astype(bool).tolist(), answered["thing"].tolist())
                row = {
                    "group": group, "surface": surface, "defence": defence, "measure": measure,
                    "things": found.clusters, **found.rate.as_row(), "low_things": found.low,
                    "high_things": found.high, "design": found.design,
                }  # fmt: skip
                rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)
