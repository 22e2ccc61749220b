"""The same measurement on several models, in one table: AutoSteer shows LLaVA-OneVision and Chameleon side by side.

    side_by_side(study, lambda s: gap.group_rates(gap.undefended(s)))   → model, group, surface, defence, …

Which models stand beside the study's own is a setting of the profile ([run] beside). Each is measured under its own
profile: its own prompts (no clips where it sees none), layers, fits and test sizes.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from autosteer_lib.study.study import Study


def studies(study: Study) -> tuple[Study, ...]:
    """The study itself, then those beside it.

    Raises:
        ValueError: two of them have one name, so a table could not tell them apart.
    """
    found = (study, *study.beside)
    names = [one.mllm.name for one in found]
    if len(set(names)) < len(names):
        raise ValueError(
            f"models side by side need different names, received {', '.join(names)}; "
            f"change [run] beside of profile {study.profile.name}"
        )
    return found


def side_by_side(
    study: Study, measure: Callable[[Study], pd.DataFrame], *, own: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Measure each model.

    Args:
        study: whose model comes first.
        measure: from a study to a tidy table.
        own: what it gave for the study itself, where it was called before.

    Returns:
        model, then the columns of `measure`.
    """
    tables = []
    for one in studies(study):
        table = (measure(one) if own is None or one is not study else own).copy()
        table.insert(0, "model", one.mllm.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
