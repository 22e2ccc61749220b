"""What every variant of a sweep is measured by: harm refused, harmlessness left alone, utility.

    refusal   of attacks whose harm is in sight (should rise) and of their twins in the same words (should not)
    utility   accuracy over all kinds

The first prompts of each test set, the same for every variant of a sweep; so variants can be paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from autosteer_lib.defences import Defence
from autosteer_lib.metrics import Rate
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.outcome import first_of_each_set
from autosteer_lib.study.prompt_data import group_of
from autosteer_lib.study.study import Study

HARMFUL, HARMLESS, UTILITY = "harmful refused", "harmless refused", "utility"
_MEASURES = {"attack": (HARMFUL, "refused"), "benign": (HARMLESS, "refused"), "utility": (UTILITY, "correct")}


def sweep_prompts(study: Study, *, surfaces: Sequence[str], utility: bool = True) -> list[Prompt]:
    """Attacks and twins of these surfaces, and utility questions of every kind."""
    chosen = [
        p
        for p in study.data.tests
        if (group_of(p) in ("attack", "benign") and p.surface in surfaces)
        or (utility and group_of(p) == "utility")
    ]
    return first_of_each_set(chosen, study.profile.mars.sweep_tests)


def sweep(study: Study, defences: Mapping[str, Defence], prompts: Sequence[Prompt]) -> pd.DataFrame:
    """Measure each defence on the same prompts.

    Returns:
        variant, surface ("all kinds" for utility), measure, rate, low, high, n.
    """
    frame = study.evaluate(defences, prompts)
    # All kinds of utility question count together: each has few.
    frame["set"] = frame["surface"].where(frame["group"] != "utility", "all kinds")
    rows = []
    for (variant, group, surface), part in frame.groupby(["defence", "group", "set"], sort=False):
        measure, column = _MEASURES[str(group)]
        known = part[part[column].notna()]
        rate = Rate.of(known[column].astype(bool).tolist())
        rows.append({"variant": variant, "surface": surface, "measure": measure, **rate.as_row()})
    return pd.DataFrame(rows)
