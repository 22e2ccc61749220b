"""Chapter 05's confirmation: MARS with and without the last block, on prompts that nothing was looked at on.

The default candidates (all but the last block) were taken up after a table of test prompts had been seen. So the
choice is measured once more: prompts of the test split's things, drawn with a seed of their own ([mars]
confirmation_seed), none of which is among the study's tests.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from autosteer_lib.defences import Defence, Mars, Undefended
from autosteer_lib.mars_readings import MarsReading
from autosteer_lib.metrics import Rate, mcnemar
from autosteer_lib.organism import prompt_sets
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.study import Study

SURFACES: tuple[prompt_sets.Attack, ...] = ("image", "video")  # what MARS is for: harm in what is seen
WITHOUT, WITH, UNDEFENDED = "without the last block", "with the last block", "undefended"
_MEASURES = {"attack": "harmful refused", "benign": "harmless refused"}
_DRAWN = 2  # times as many as are kept: some are among the tests already


def fresh_prompts(study: Study) -> list[Prompt] | None:
    """Attacks by sight and their twins, as many a surface as the tests have; None where there is no world to draw from."""
    if study.profile.data.source != "organism":
        return None
    count, seed = study.profile.data.tests_per_surface, study.profile.mars.confirmation_seed
    known = {p.fingerprint for p in study.data.tests}
    fresh: list[Prompt] = []
    for surface in prompt_sets.shown_to(SURFACES, clips=study.mllm.sees_videos):
        pairs = zip(*prompt_sets.attack_pairs(surface, n=_DRAWN * count, seed=seed), strict=True)
        new = [pair for pair in pairs if not known & {p.fingerprint for p in pair}]
        if len(new) < count:
            raise ValueError(
                f"{len(new)} fresh pairs on {surface}, {count} are needed; "
                f"change [mars] confirmation_seed or [data] tests_per_surface of profile {study.profile.name}"
            )
        fresh += [p for pair in new[:count] for p in pair]
    return fresh


def confirmation(study: Study) -> pd.DataFrame | None:
    """Refusals of fresh attacks and of their twins under both sets of candidates.

    Returns:
        candidates, layer, surface, measure ("harmful refused", "harmless refused"), rate, low, high, n; None where no
        fresh prompts can be drawn.
    """
    frame = _answers(study)
    if frame is None:
        return None
    layers = {name: mars.layer_ for name, mars in _fitted(study).items()}
    rows = [
        {
            "candidates": name,
            "layer": layers.get(str(name), pd.NA),
            "surface": surface,
            "measure": _MEASURES[str(group)],
            **Rate.of(part["refused"].astype(bool).tolist()).as_row(),
        }
        for (name, surface, group), part in frame.groupby(["defence", "surface", "group"], sort=False)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def paired(study: Study) -> pd.DataFrame | None:
    """Both sets of candidates on the same fresh prompts, with McNemar's exact test.

    Returns:
        surface, measure, n, only_without, only_with (prompts refused under one choice alone), p; None as above.
    """
    frame = _answers(study)
    if frame is None:
        return None
    rows = []
    for (surface, group), part in frame.groupby(["surface", "group"], sort=False):
        wide = part.pivot(index="prompt_id", columns="defence", values="refused")[[WITH, WITHOUT]].dropna()
        test = mcnemar(*(wide[name].astype(bool).tolist() for name in (WITH, WITHOUT)))
        rows.append(
            {
                "surface": surface, "measure": _MEASURES[str(group)], "n": len(wide), "only_without": test.gained,
                "only_with": test.lost, "p": test.p,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _fitted(study: Study) -> dict[str, Mars]:
    default = MarsReading()
    return {
        WITHOUT: study.mars(reading=default),
        WITH: study.mars(reading=replace(default, candidates="plotted")),
    }


def _answers(study: Study) -> pd.DataFrame | None:
    """Those that did not fail."""
    prompts = fresh_prompts(study)
    if prompts is None:
        return None
    defences: dict[str, Defence] = {UNDEFENDED: Undefended(), **_fitted(study)}
    frame = study.evaluate(defences, prompts)
    return frame[~frame["failed"]]
