"""Chapter 10: what the papers leave open.

    options     each point that the text or the code decides in more than one way, as the readings of this library name it
    unstated    what a rerun needs and was found nowhere, and what is taken here instead
    read        contradictions that only reading finds: the three papers' own lists, in one table

The readings are taken from the code that obeys them (`readings`, `mars_readings`, `safesteer_readings`), so that the
table cannot lag behind.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pandas as pd

from autosteer_lib.mars_readings import MarsReading
from autosteer_lib.readings import DIFFERENCES, Reading
from autosteer_lib.safesteer_readings import SafeSteerReading
from autosteer_lib.study import mars_paper_numbers, safesteer_paper_numbers

_UNSTATED = (
    ("AutoSteer", "the epoch of prober and head", "37, 100, 12 in the code, without a rule", "best on held-out pairs"),
    ("AutoSteer", "the token that is probed", "in the code alone", "the last of the prompt with the answer's header"),
    ("AutoSteer", "seeds and number of runs", "found nowhere", "seeds 0 to 2, with intervals"),
    ("AutoSteer", "split and configuration of MMMU", "found nowhere", "validation, multiple choice"),
    ("AutoSteer", "version and temperature of GPT-4o and Grok-2", "found nowhere", "judges by name, their replies kept"),
    ("AutoSteer", "hardware and time", "found nowhere", "ratios of alternated runs"),
    ("SafeSteer", "K and step behind the tables", "ranges alone", "5 and 5"),
    ("SafeSteer", "number of questions of MM-SafetyBench", "12 of 13 scenarios, official prompts", "the search below"),
    ("SafeSteer", "whether re-ranking is gated", "found nowhere", "by the probe's score of the prompt"),
    ("SafeSteer", "optimiser and stop of the probe", "found nowhere", "to the one minimum"),
    ("SafeSteer", "the system prompt and the refusal strings", "named, not printed", "no system prompt; other strings"),
    ("SafeSteer", "seeds, at temperature 1", "found nowhere", "greedy, so that a run repeats"),
    ("SafeSteer", "code", "found nowhere", "written anew from the formulas"),
    ("MARS", "which layers are candidates", "the figures begin at layer 20", "the upper part without the last block"),
    ("MARS", "how text centroids are centred", "in words, without a formula", "on the texts' own mean"),
    ("MARS", "one step for all tokens, or one a token", "can be read both ways", "the last token's, added to all"),
    ("MARS", "neutral pictures: size, colours, words beside", "random colours", "one colour each, the task's words"),
    ("MARS", "longest answer", "found nowhere", "by profile, in every record"),
    ("MARS", "where a refusal string has to stand", "found nowhere", "at the start or anywhere, both offered"),
    ("MARS", "code", "found nowhere", "written anew from the formulas"),
)  # fmt: skip


def options() -> pd.DataFrame:
    """Each open point with its options.

    Returns:
        paper, point (field of the reading), options, here (the default), choices (how many).
    """
    lines = []
    for paper, reading in (("AutoSteer", Reading), ("MARS", MarsReading), ("SafeSteer", SafeSteerReading)):
        default, hints = reading(), get_type_hints(reading)
        code = Reading.official_code()
        for entry in fields(reading):
            allowed = get_args(hints[entry.name])
            chosen = getattr(default, entry.name)
            if paper == "AutoSteer" and not _are_names(allowed):
                allowed = tuple(dict.fromkeys((chosen, getattr(code, entry.name))))
            lines.append(
                {
                    "paper": paper,
                    "point": entry.name,
                    "options": ", ".join(map(str, allowed)),
                    "here": str(chosen),
                    "choices": len(allowed),
                }
            )
    return pd.DataFrame(lines)


def ways() -> pd.DataFrame:
    """How many different methods would go by each paper's name: the product of the options.

    Returns:
        paper, points, ways.
    """
    table = options()
    grouped = table.groupby("paper", sort=False)["choices"].agg(["count", "prod"]).reset_index()
    return grouped.rename(columns={"count": "points", "prod": "ways"})


def unstated() -> pd.DataFrame:
    """What a rerun needs and the papers do not state.

    Returns:
        paper, what, stated, here.
    """
    return pd.DataFrame(list(_UNSTATED), columns=["paper", "what", "stated", "here"])


def read() -> pd.DataFrame:
    """Contradictions and weak points found by reading, of all three papers.

    Returns:
        paper, kind, number, where, printed, disagrees.
    """
    lists = [
        safesteer_paper_numbers.contradictions().assign(paper="SafeSteer"),
        mars_paper_numbers.contradictions().assign(paper="MARS"),
        _autosteer(),
    ]
    return pd.concat(lists, ignore_index=True)[["paper", "kind", "number", "where", "printed", "disagrees"]]


def _autosteer() -> pd.DataFrame:
    lines: list[dict[str, Any]] = [
        {
            "paper": "AutoSteer",
            "kind": "paper against code",
            "number": difference.what,
            "where": f"difference {difference.number}",
            "printed": difference.paper,
            "disagrees": difference.code,
        }
        for difference in DIFFERENCES
        if "–" not in (difference.paper, difference.code)
    ]
    return pd.DataFrame(lines)


def _are_names(allowed: tuple[Any, ...]) -> bool:
    """Whether these are the words of a Literal, and not the parts of another type."""
    return bool(allowed) and all(isinstance(value, str) for value in allowed)
