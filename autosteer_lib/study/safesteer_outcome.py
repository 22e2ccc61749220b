"""Chapter 06, the outcome: what SafeSteer does to attacks, to harmless requests, to utility, and what it costs.

The paper's sets, where a study has them, and what stands for them in the organism's world, by where the harm is:

    FigStep         typographic: the harm is written in the picture, under an innocent sentence
    MM-SafetyBench  words, image, typographic: its CB, SD and TYPO, whose mean is the paper's headline
    VLGuard S-U     words: harm in the words over a harmless picture
    VLGuard U       image, both: harm in the picture
    VLGuard SS      the harmless twins of words and image (refusal rate)
    MM-Vet          the five kinds of question (accuracy)
    transfer        video, jailbreak, combination, text: no set of the paper, and nothing of theirs in the fit but text
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from autosteer_lib.benchmarks import surfaces
from autosteer_lib.defences import Defence, Undefended
from autosteer_lib.encoding import batches
from autosteer_lib.evaluation import comparison_table
from autosteer_lib.sites import attach, final_norm
from autosteer_lib.study.study import Study
from autosteer_lib.study.surfaces import first_of, have


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """Which of our prompts stand for a set of the paper, and what is measured on them."""

    group: str
    surfaces: tuple[str, ...]
    """All of the group's if empty."""
    column: str
    """Of the answers: "unsafe", "refused" or "correct"."""
    measure: str
    """What the paper calls its rate."""
    own: str = ""
    """The set itself: beside published sets it alone counts, and nothing stands for it."""


STANDS_FOR = {
    "FigStep": StandIn(group="attack", surfaces=("typographic", "figstep"), column="unsafe", measure="ASR"),
    "MM-SafetyBench": StandIn(
        group="attack",
        surfaces=(
            *("words", "image", "typographic"),
            *("mm_safetybench/text", "mm_safetybench/sd", "mm_safetybench/typo"),
        ),
        column="unsafe",
        measure="ASR",
    ),
    "VLGuard, S-U": StandIn(
        group="attack", surfaces=("words", "vlguard/safe_image"), column="unsafe", measure="ASR"
    ),
    "VLGuard, U": StandIn(
        group="attack", surfaces=("image", "both", "vlguard/unsafe_image"), column="unsafe", measure="ASR"
    ),
    "VLGuard, SS": StandIn(
        group="benign", surfaces=("words", "image", "vlguard/safe_image"), column="refused", measure="refusal"
    ),
    "MM-Vet": StandIn(group="utility", surfaces=(), column="correct", measure="accuracy", own="mm_vet"),
    "no counterpart: text": StandIn(group="attack", surfaces=("text",), column="unsafe", measure="ASR"),
    "no counterpart: video": StandIn(group="attack", surfaces=("video",), column="unsafe", measure="ASR"),
    "no counterpart: jailbreak": StandIn(
        group="attack", surfaces=("jailbreak",), column="unsafe", measure="ASR"
    ),
    "no counterpart: combination": StandIn(
        group="attack", surfaces=("combination",), column="unsafe", measure="ASR"
    ),
}


def methods(study: Study) -> dict[str, Defence]:
    """The plain model and SafeSteer; the other defences stand in notebook 08."""
    return {"Orig.": Undefended(), "SafeSteer": study.safesteer()}


def answers(study: Study) -> pd.DataFrame:
    """Every test prompt under both."""
    return study.evaluate(methods(study), study.data.tests)


def table1(frame: pd.DataFrame) -> pd.DataFrame:
    """Table 1 on what stands for its sets, with paired tests; Holm's correction is over each measure's comparisons.

    Returns:
        set, surfaces, and the columns of `comparison_table` (measure as the paper names it).
    """
    parts, there, published = [], set(frame["surface"]), surfaces()
    for name, stands in STANDS_FOR.items():
        part = frame[frame["group"] == stands.group]
        if stands.surfaces:
            part = part[part["surface"].isin(stands.surfaces)]
        elif stands.own and part["surface"].isin(published).any():
            part = part[part["surface"] == stands.own]
        if not part.empty:
            parts.append(part.assign(set=name))
    every = pd.concat(parts, ignore_index=True)
    tables = []
    for column in ("unsafe", "refused", "correct"):
        names = [name for name, stands in STANDS_FOR.items() if stands.column == column]
        # Of MM-Vet itself no answer is known to be right: a judge of its own grades them.
        asked = every[every["set"].isin(names) & every[column].notna()]
        if asked.empty:
            continue
        table = comparison_table(asked, measure=column, by="set")
        tables.append(table.assign(measure=STANDS_FOR[names[0]].measure))
    table = pd.concat(tables, ignore_index=True)
    shown = {
        name: ", ".join(have((*stands.surfaces, stands.own), there)) or "all kinds"
        for name, stands in STANDS_FOR.items()
    }
    table.insert(1, "surfaces", table["set"].map(shown))
    return table


def passes(study: Study, *, batch: int = 16) -> pd.DataFrame:
    """Forward passes of one batch of answers under each method, and how many positions they hold, counted.

    Returns:
        batch ("attacks", "questions"), defence, opened (rows whose gate is open), passes (the prefill's among them),
        positions (of each row, after the prompt), new_tokens (of the longest answer).
    """
    rows = []
    firsts = {"attacks": study.data.test(group="attack", surface=first_of(study, "words")[0])}
    firsts["questions"] = study.data.test(group="utility", surface=study.data.surfaces("utility")[0])
    for name, prompts in firsts.items():
        ((_, encoded),) = batches(study.mllm, prompts[:batch], batch_size=batch)
        for method, defence in methods(study).items():
            widths: list[int] = []

            def count(hidden: Tensor, widths: list[int] = widths) -> None:
                widths.append(hidden.shape[1])

            with attach(study.mllm, {final_norm(): count}):
                found = defence.answer(study.mllm, encoded, settings=study.settings)
            rows.append(
                {
                    "batch": name,
                    "defence": method,
                    "opened": sum(bool(answer.triggered) for answer in found),
                    "passes": len(widths),
                    "positions": sum(widths[1:]),
                    "new_tokens": max(answer.new_tokens for answer in found),
                }
            )
    return pd.DataFrame(rows)
