"""Chapter 10: what test sets share with training sets, what that can do to a rate, and the same asked of this project.

    overlaps, duplicates, alike    from the committed fingerprints (data/audit): no row of a real set is needed
    clean_rates, clean_falls       AutoSteer's Table 1 on the test rows that are left, as bounds (audit/contamination.py)
    graded_on_training             MM-Vet, of whose questions SafeSteer trains its probe on nearly all
    own_splits                     this study's own test prompts in all that anything is fitted or chosen on

The papers' sums are in audit_sums.py, their rates and sizes in audit_sizes.py, what they leave open in audit_open.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from autosteer_lib.audit.contamination import Bounds, bounds, difference_bounds, mean_bounds
from autosteer_lib.audit.fingerprints import available, load_fingerprints
from autosteer_lib.audit.likeness import likenesses, load_nearest
from autosteer_lib.audit.overlap import in_other, repeated, shared
from autosteer_lib.prompts import Prompt
from autosteer_lib.study.audit_sizes import SIZES, rates
from autosteer_lib.study.compared_data import all_texts, compared_data
from autosteer_lib.study.prompt_data import group_of
from autosteer_lib.study.study import Study

# Which split is looked for in which, and by what.
_LOOKED_FOR: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("vlsafe/test", "vlsafe/train", ("exact", "folded", "words", "beside")),
    ("vlsafe/test", "vlsafe/twins", ("words",)),
    ("vlsafe/twins", "vlsafe/train", ("words", "beside")),
    ("pope/pictures", "vlsafe/train", ("beside",)),
    ("pope/pictures", "vlsafe/test", ("beside",)),
    ("harmbench/val", "harmbench/test", ("words", "beside")),
    ("jailbreakbench/harmful", "advbench/all", ("words",)),
    ("jailbreakbench/harmful", "harmbench/val", ("words",)),
    ("jailbreakbench/harmful", "harmbench/test", ("words",)),
    ("jailbreakbench/benign", "jailbreakbench/harmful", ("words",)),
    ("advbench/all", "harmbench/val", ("words",)),
    ("advbench/all", "harmbench/test", ("words",)),
    ("figstep/tiny", "figstep/all", ("words",)),
)
VLSAFE, BOTH = "VLSafe (text)", "ToViLaG+ (text and image)"
# Counted on the published files, whose rows are not at hand here: pictures of the 500 prompts with harm in words and
# picture that are among the Refusal Head's 1,000 training pictures. The set's fingerprints would recompute it.
PICTURES_COUNTED = 47
MM_VET, PROBED_OF_MM_VET = 218, 200  # SafeSteer §3.1


def overlaps() -> pd.DataFrame:
    """What one split holds of another.

    Returns:
        of, among, by ("exact", "folded", "words", "beside"), rows, n, distinct.
    """
    lines = []
    for of, among, keys in _LOOKED_FOR:
        left, right = _split(of), _split(among)
        for key in keys:
            found = shared(left, right, by=key)
            lines.append(
                {
                    "of": of,
                    "among": among,
                    "by": key,
                    "rows": found.rows,
                    "n": found.n,
                    "distinct": found.distinct,
                }
            )
    return pd.DataFrame(lines)  # fmt: skip


def claimed_sources() -> pd.DataFrame:
    """JailbreakBench says where each behaviour is from; how many are there, word for word and nearly?

    Returns:
        source, claimed (rows), searched, same_words, alike_80, alike_60 (rows with J of at least 0.8 and 0.6).
    """
    harmful = _split("jailbreakbench/harmful")
    places = {"AdvBench": ["advbench/all"], "TDC/HarmBench": ["harmbench/val", "harmbench/test"]}
    lines = []
    for source, among in places.items():
        chosen = harmful["kind"] == source
        others = pd.concat([_split(name) for name in among], ignore_index=True)
        nearest = pd.concat([load_nearest("jailbreakbench/harmful", name) for name in among])
        likeness = nearest.groupby("row")["likeness"].max()[harmful.loc[chosen, "row"]]
        lines.append(
            {
                "source": source,
                "claimed": int(chosen.sum()),
                "searched": ", ".join(among),
                "same_words": shared(harmful[chosen], others, by="words").rows,
                "alike_80": int((likeness >= 0.8).sum()),
                "alike_60": int((likeness >= 0.6).sum()),
            }
        )
    return pd.DataFrame(lines)


def duplicates() -> pd.DataFrame:
    """How many texts a split really holds.

    Returns:
        split, rows, distinct (by words), repeated (rows that an earlier one equals), repeated_whole (with what stands
        beside them).
    """
    lines = []
    for name in available():
        table = load_fingerprints(name)
        for split in dict.fromkeys(table["split"]):
            part = table[(table["split"] == split) & table["words"].ne("")]
            if part.empty:
                continue
            found = repeated(part, by="words")
            lines.append(
                {
                    "split": f"{name}/{split}",
                    "rows": found.n,
                    "distinct": found.distinct,
                    "repeated": found.rows,
                    "repeated_whole": int(part.duplicated(["words", "beside"]).sum()),
                }
            )
    return pd.DataFrame(lines)


def alike(
    of: str, against: str, *, thresholds: Sequence[float] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
) -> pd.DataFrame:
    """How many rows have a neighbour that is at least so alike in words.

    Returns:
        threshold, rows, n.
    """
    likeness = load_nearest(of, against)["likeness"]
    return pd.DataFrame(
        [{"threshold": t, "rows": int((likeness >= t).sum()), "n": len(likeness)} for t in thresholds]
    )


def examples(*, count: int = 5) -> pd.DataFrame:
    """The first test queries of VLSafe that occur in its training queries, by number and hash alone.

    Returns:
        test_row, train_row (the first), exact (its hash), case_alone (differs in letter case).
    """
    test, train = _split("vlsafe/test"), _split("vlsafe/train")
    found = test[in_other(test, train, by="folded")].head(count)
    first = train.drop_duplicates("folded").set_index("folded")
    return pd.DataFrame(
        {
            "test_row": found["row"].to_numpy(),
            "train_row": first.loc[found["folded"], "row"].to_numpy(),
            "exact": found["exact"].to_numpy(),
            "case_alone": ~in_other(found, train, by="exact"),
        }
    )


def clean_rates() -> pd.DataFrame:
    """AutoSteer's Table 1 on the rows that are left when those that resemble training rows are set aside: bounds.

    Returns:
        set, model, set_aside (which rows), threshold (of likeness; NaN for other rules), excluded, n (left), method,
        percent (reported), low, high (of the rows left), wilson_low, wilson_high (with sampling error besides).
    """
    lines = []
    for name, model, rule, threshold, excluded in _rules():
        for method, percent, found in _bounded(name, model, excluded):
            lines.append(
                {
                    "set": name,
                    "model": model,
                    "set_aside": rule,
                    "threshold": threshold,
                    "excluded": excluded,
                    "n": found.n,
                    "method": method,
                    "percent": percent,
                    "low": 100 * found.low.value,
                    "high": 100 * found.high.value,
                    "wilson_low": 100 * found.low.low,
                    "wilson_high": 100 * found.high.high,
                }
            )
    return pd.DataFrame(lines)


def clean_falls() -> pd.DataFrame:
    """The same for AutoSteer's fall from the undefended model's attack success.

    Returns:
        set, model, set_aside, threshold, excluded, n, reported (points), least, most (on the rows left).
    """
    lines = []
    for name, model, rule, threshold, excluded in _rules():
        by_method = {method: (percent, found) for method, percent, found in _bounded(name, model, excluded)}
        (before, plain), (after, defended) = by_method["Orig."], by_method["AutoSteer"]
        least, most = difference_bounds(plain, defended)
        lines.append(
            {
                "set": name,
                "model": model,
                "set_aside": rule,
                "threshold": threshold,
                "excluded": excluded,
                "n": plain.n,
                "reported": round(before - after, 6),
                "least": 100 * least,
                "most": 100 * most,
            }
        )
    return pd.DataFrame(lines)


def graded_on_training() -> pd.DataFrame:
    """SafeSteer's MM-Vet scores: what they can be on the questions that did not train its probe.

    Returns:
        model, method, score (reported, percent), left (questions), low, high (percent).
    """
    table = rates()
    rows = table[(table["paper"] == "SafeSteer") & (table["set"] == "MM-Vet")]
    lines = []
    for row in rows[rows["method"].isin(["Orig.", "SafeSteer"])].to_dict("records"):
        low, high = mean_bounds(float(row["printed"]) / 100, n=MM_VET, excluded=PROBED_OF_MM_VET)
        lines.append(
            {
                "model": row["model"],
                "method": row["method"],
                "score": float(row["printed"]),
                "left": MM_VET - PROBED_OF_MM_VET,
                "low": 100 * low,
                "high": 100 * high,
            }
        )
    return pd.DataFrame(lines)


def fitted_on(study: Study) -> dict[str, tuple[Prompt, ...]]:
    """All prompts that anything of this study is fitted or chosen on, by their use."""
    pairs, texts, compared = study.data.pairs, study.text_data.texts, compared_data(study)
    return {
        "contrast pairs (SAS, prober)": (*pairs.toxic, *pairs.safe),
        "refusal prompts (head)": study.data.refusals,
        "texts (MARS' direction)": (*texts.unsafe, *texts.safe),
        "texts (MARS' layer)": (*texts.validation_unsafe, *texts.validation_safe),
        "probe sets (SafeSteer)": (*study.probe_sets.attacks, *study.probe_sets.harmless),
        "texts with role-plays (AdaSteer, transfer)": all_texts(compared.texts),
        "validation (settings, notebook 08)": compared.validation,
    }


def own_splits(study: Study) -> pd.DataFrame:
    """This study's test prompts, looked for in what is fitted or chosen on.

    Returns:
        fitted, n_fitted, group (of tests), n, same_prompt (words and pixels), same_words, same_sight (its pictures
        and clips alone), alike_80 (tests whose words are at least 0.8 alike to those of a prompt that is fitted on).
    """
    tests: dict[str, list[Prompt]] = {}
    for prompt in study.data.tests:
        tests.setdefault(group_of(prompt), []).append(prompt)
    marks = {group: _marks(prompts) for group, prompts in tests.items()}
    lines = []
    for name, prompts in fitted_on(study).items():
        met = {key: set(column) - {""} for key, column in _marks(prompts).items()}
        for group, columns in marks.items():
            hits = {key: sum(value in met[key] for value in column) for key, column in columns.items()}
            likeness = likenesses([p.text for p in tests[group]], [p.text for p in prompts]).max(axis=1)
            hits["alike_80"] = int((likeness >= 0.8).sum())
            lines.append(
                {"fitted": name, "n_fitted": len(prompts), "group": group, "n": len(tests[group]), **hits}
            )
    return pd.DataFrame(lines)


def own_repeats(study: Study) -> pd.DataFrame:
    """How many of this study's test prompts are different ones.

    Returns:
        group, n, distinct (words and pixels), distinct_words.
    """
    tests = pd.DataFrame(
        {
            "group": [group_of(p) for p in study.data.tests],
            "prompt": [p.fingerprint for p in study.data.tests],
            "words": [p.text.casefold().strip() for p in study.data.tests],
        }
    )
    grouped = tests.groupby("group", sort=False).agg(
        n=("prompt", "size"), distinct=("prompt", "nunique"), distinct_words=("words", "nunique")
    )
    return grouped.reset_index()


def _marks(prompts: Sequence[Prompt]) -> dict[str, list[str]]:
    return {
        "same_prompt": [p.fingerprint for p in prompts],
        "same_words": [p.text.casefold().strip() for p in prompts],
        "same_sight": [p.visual_fingerprint if p.images or p.videos else "" for p in prompts],
    }


def _split(name: str) -> pd.DataFrame:
    table, _, split = name.partition("/")
    return load_fingerprints(table, split=split)


def _rules() -> list[tuple[str, str, str, float, int]]:
    """(set, model, which rows, likeness, how many) for every way of setting rows aside."""
    test, train = _split("vlsafe/test"), _split("vlsafe/train")
    counted: list[tuple[str, float, int]] = [
        ("none", float("nan"), 0),
        ("the query is a training query", float("nan"), shared(test, train, by="exact").rows),
        ("the same, letter case aside", float("nan"), shared(test, train, by="folded").rows),
    ]
    for row in alike("vlsafe/test", "vlsafe/train").to_dict("records"):
        counted.append((f"likeness ≥ {row['threshold']:.1f}", row["threshold"], row["rows"]))
    models = list(dict.fromkeys(rates().query("paper == 'AutoSteer'")["model"]))
    rules = [(VLSAFE, model, *rule) for model in models for rule in counted]
    both = ("the picture trains the head (counted, not recomputed)", float("nan"), PICTURES_COUNTED)
    return [*rules, (BOTH, models[0], *both)]  # the published head of the other model has no toxic pictures


def _bounded(name: str, model: str, excluded: int) -> list[tuple[str, float, Bounds]]:
    table, n = rates(), SIZES["AutoSteer", name].n
    cells = table[(table["paper"] == "AutoSteer") & (table["set"] == name) & (table["model"] == model)]
    return [
        (str(method), float(text), bounds(round(float(text) * n / 100), n=n, excluded=excluded))
        for method, text in zip(cells["method"], cells["printed"], strict=True)
    ]
