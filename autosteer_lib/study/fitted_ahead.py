"""The methods of the models beside a study, fitted in a second process while this one fits its own.

    this process      fits of its model ──── answers ──── reads the others' fits, or makes what is missing
    a second one      fits of the models beside it ──┘

Nothing is handed over but the build folder. A part is fitted once and under a lock (fitted_once.py), so both may want the
same one, and if the second process dies the first does all of the work, as it would have without it.

Only where Ray makes the answers: such a run has the machine to itself, and its actors wait while fits are made. Elsewhere
another notebook has the other core. Not on a GPU either: the second process would need room for the models again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch

from autosteer_lib.artefacts import Artefacts
from autosteer_lib.profiles import load_profile
from autosteer_lib.scale_out.cluster import VARIABLE
from autosteer_lib.study.study import Study


def fit_beside(study: Study, *, fit: Callable[[Study], object]) -> BaseProcess | None:
    """Begin to fit the models beside the study's; this process need not wait, and ends the other when it ends itself.

    Args:
        study: whose build the fits go to.
        fit: fits all that a chapter needs of one study; importable by name. What it returns is not looked at.

    Returns:
        The process, or None where this one is to do all by itself.
    """
    names = study.profile.run.beside
    if not names or VARIABLE not in os.environ or study.mllm.device.type != "cpu":
        return None
    # Not forked: this process has threads (Ray's, progress bars) that would not come along.
    process = multiprocessing.get_context("spawn").Process(
        target=_fit_all, args=(names, study.seed, study.artefacts, fit), daemon=True
    )
    process.start()
    return process


def _fit_all(names: list[str], seed: int, artefacts: Artefacts, fit: Callable[[Study], object]) -> None:
    """In the second process, which asks its own copy of the model: actors belong to the process that started them."""
    os.environ.pop(VARIABLE, None)
    for name in names:
        profile = load_profile(name)
        if profile.run.threads:
            torch.set_num_threads(profile.run.threads)
        fit(Study(profile, seed, artefacts))
