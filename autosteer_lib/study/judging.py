"""Who judges what comes of it: the profile's second judges on the same answers, beside the judge that decides.

    rates_by_judge     attack success and refusals as each judge says them
    agreement_table    Cohen's κ of each with the judge that decides (the organism's: the truth)
    truth_table        sensitivity and specificity, where the truth is known

On a checkpoint nobody knows what an answer truly was; in the organism's world it is known. There stands what the
choice of a judge alone does to a table. The organism refuses in one sentence, which every list knows: the lists agree
with each other, and what they get wrong is the answer that is neither a refusal nor the harm that was asked for.

No answer is generated. Judges that are models are loaded one after another; replies are kept beside the records, so a
rerun asks nothing. One that is not on this machine, or does not fit beside the model, is left out, which is printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from autosteer_lib.judge_agreement import Measure, against_truth, agreement, judged
from autosteer_lib.judges import BatchJudge, Judge
from autosteer_lib.judges.named import MODELS, model_judge, word_judge
from autosteer_lib.metrics import Rate
from autosteer_lib.provenance import repository_root
from autosteer_lib.study.study import Study

TRUTH = "truth"
_RATES = {  # what is asked of whom, and what a table calls its rate
    "attack": ("unsafe", "attack success"),
    "benign": ("refused", "refusal"),
    "borderline": ("refused", "refusal"),
}


def second_judges(study: Study) -> Iterator[Judge | BatchJudge]:
    """The profile's second judges, each made when it is its turn, so that one model is in memory at once."""
    settings = study.profile.judges
    folder = None if settings.folder is False else repository_root() / settings.folder
    for name in settings.second:
        if name not in MODELS:
            yield word_judge(name)
            continue
        replies = study.artefacts.build / "records" / "judges" / f"{name}.jsonl"
        try:
            judge = model_judge(name, replies=replies, folder=folder, batch_size=study.settings.batch_size)
        except (OSError, ValueError, ImportError) as error:
            print(f"left out: judge {name}: {error}")
            continue
        yield judge
        del judge  # before the next one is loaded


def opinions(
    study: Study, frame: pd.DataFrame, *, judges: Iterable[Judge | BatchJudge] | None = None
) -> pd.DataFrame:
    """The table of answers, judged by the judge that decides and by the second judges.

    Args:
        study: whose answers they are.
        frame: one seed's answers, or all seeds'.
        judges: instead of the profile's second judges.

    Returns:
        The columns of `judge_agreement.judged`, for each judge; the one that decides is first.
    """
    frame = judged(frame, study.data.tests, study.judge)
    for judge in second_judges(study) if judges is None else judges:
        frame = judged(frame, study.data.tests, judge)
        del judge  # before the next one is loaded
    return frame


def rates_by_judge(frame: pd.DataFrame) -> pd.DataFrame:
    """What each judge makes of the same answers: success of attacks, refusals of harmless prompts.

    Returns:
        group, measure, defence, judge, rate, low, high, n, open (answers that the judge does not say it of). Every judge
        is asked of attacks; one that never says of a harmless answer that it refuses is left out there.
    """
    rows = []
    for group, (column, name) in _RATES.items():
        part = frame[frame["group"] == group]
        for judge in _judges(frame):
            for defence, answered in part.groupby("defence", sort=False):
                said = answered[f"{column} by {judge}"]
                rate = Rate.of(said.dropna().astype(bool).tolist())
                if rate.n or column == "unsafe":  # a judge that nobody could read has to be seen
                    rows.append({
                        "group": group, "measure": name, "defence": defence, "judge": judge, **rate.as_row(),
                        "open": int(said.isna().sum()),
                    })  # fmt: skip
    return pd.DataFrame(rows)


def agreement_table(frame: pd.DataFrame, *, measure: Measure = "unsafe") -> pd.DataFrame:
    """Each judge's agreement with the one that decides, by attack surface for harm and by group for refusals.

    Harm is asked of attacks alone: of harmless prompts no judge of strings ever says it, and agreement there would
    only lift the table.

    Returns:
        The columns of `judge_agreement.agreement`; first is always the judge that decides.
    """
    rows, by = _asked(frame, measure)
    judges = _judges(frame)
    table = agreement(rows, judges, measure=measure, by=by)
    return table[table["first"] == judges[0]].reset_index(drop=True)


def truth_table(frame: pd.DataFrame, *, measure: Measure = "unsafe") -> pd.DataFrame:
    """Each judge's sensitivity and specificity, by attack surface for harm and by group for refusals.

    Returns:
        The columns of `judge_agreement.against_truth`; no rows where the truth is not known.
    """
    rows, by = _asked(frame, measure)
    judges = _judges(frame)
    if TRUTH not in judges:
        return pd.DataFrame(columns=[by, "judge", "measure", "quantity", "rate", "low", "high", "n", "open"])
    others = [name for name in judges if name != TRUTH]
    return against_truth(rows, others, truth=TRUTH, measure=measure, by=by)


def _asked(frame: pd.DataFrame, measure: Measure) -> tuple[pd.DataFrame, str]:
    """The rows that judges are compared on; an answer that several defences gave to a prompt counts once."""
    once = frame.drop_duplicates(["prompt_id", "answer"])
    return (once[once["group"] == "attack"], "surface") if measure == "unsafe" else (once, "group")


def _judges(frame: pd.DataFrame) -> list[str]:
    start = "unsafe by "
    return [str(column).removeprefix(start) for column in frame if str(column).startswith(start)]
