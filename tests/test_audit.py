"""The audit's parts, each against a fact that can be worked out by hand."""

import re
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autosteer_lib.audit.contamination import bounds, difference_bounds, mean_bounds
from autosteer_lib.audit.fingerprints import (
    COLUMNS,
    RealRow,
    available,
    digest,
    fingerprints,
    load_fingerprints,
    words_of,
)
from autosteer_lib.audit.granularity import by_chance, counts, possible, sizes
from autosteer_lib.audit.likeness import likenesses, load_nearest, nearest
from autosteer_lib.audit.overlap import in_other, repeated, shared
from autosteer_lib.audit.paired_bounds import paired_bounds
from autosteer_lib.audit.printed import Interval, interval, mean, printed
from autosteer_lib.metrics import mcnemar


def _rows(*texts: str, split: str = "a", beside: str = "") -> list[RealRow]:
    return [RealRow(split=split, row=n, text=t, beside=beside) for n, t in enumerate(texts)]


def test_each_key_ignores_what_it_says() -> None:
    table = fingerprints(_rows("How, do I?", "how, do i?", "how do  I", "How do you?"))
    assert tuple(table.columns) == COLUMNS
    assert table["exact"].nunique() == 4
    assert table["folded"].nunique() == 3
    assert table["words"].nunique() == 2
    assert set(table["beside"]) == {""}


def test_words_keep_their_apostrophe_and_no_other_mark() -> None:
    assert words_of("Don’t  STOP: 'now', o'clock!") == ("don't", "stop", "now", "o'clock")


def test_a_hash_is_the_beginning_of_sha256() -> None:
    assert digest("abc") == "ba7816bf8f01cfea"  # FIPS 180-2's example
    assert digest("") == ""


@pytest.mark.parametrize("name", available())
def test_committed_fingerprints_hold_hashes_and_no_word_of_the_set(name: str) -> None:
    table = load_fingerprints(name)
    assert len(table) > 49
    assert not table.duplicated(["split", "row"]).any()
    for key in ("exact", "folded", "words", "beside"):
        assert table[key].map(lambda text: bool(re.fullmatch(r"([0-9a-f]{16})?", text))).all()
    assert set(table["kind"]) <= {
        "", "AdvBench", "Original", "TDC/HarmBench", "standard", "copyright", "contextual", "safe", "unsafe",
    }  # fmt: skip


def test_unknown_sets_and_splits_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no fingerprints of 'x'; there are: none.*autosteer_lib\.audit --rows"
    ):
        load_fingerprints("x", folder=tmp_path)
    with pytest.raises(ValueError, match="vlsafe has no split 'dev'; there are: train, twins, test"):
        load_fingerprints("vlsafe", split="dev")
    with pytest.raises(ValueError, match="'vlsafe/test' was not compared with 'pope/pictures'"):
        load_nearest("vlsafe/test", "pope/pictures")


def test_likeness_is_the_share_of_common_words() -> None:
    table = likenesses(["a b c", "x"], ["c b a a", "a b d", "y z"])
    np.testing.assert_allclose(table, np.array([[1, 1 / 2, 0], [0, 0, 0]]))


def test_a_row_is_not_its_own_neighbour_but_its_copy_is() -> None:
    rows = _rows("a b", "a c", "b a")
    found = nearest(rows, rows)
    assert found["nearest"].tolist() == [2, 0, 0]
    assert found["likeness"].tolist() == [1.0, 0.333, 1.0]
    other = nearest(rows, _rows("a b", split="b"))
    assert other["likeness"].tolist() == [1.0, 0.333, 1.0]


def test_shared_counts_rows_and_distinct_texts() -> None:
    of, among = fingerprints(_rows("a", "A", "b", "c", "c")), fingerprints(_rows("a", "c"))
    assert shared(of, among, by="exact").rows == 3
    assert (shared(of, among, by="folded").rows, shared(of, among, by="folded").distinct) == (4, 2)
    assert in_other(of, among, by="exact").tolist() == [True, False, False, True, True]
    assert (repeated(of, by="folded").rows, repeated(of, by="folded").distinct) == (2, 3)


def test_nothing_beside_a_text_matches_nothing() -> None:
    table = fingerprints(_rows("a", "b"))
    assert shared(table, table, by="beside").rows == 0
    assert repeated(table, by="beside").rows == 0
    with pytest.raises(ValueError, match="no 'row'; compare by one of exact, folded, words, beside"):
        shared(table, table, by="row")


@pytest.mark.parametrize(("successes", "n", "excluded"), [(2, 6, 1), (5, 6, 3), (0, 4, 2), (4, 4, 3)])
def test_bounds_are_those_of_every_way_to_set_rows_aside(successes: int, n: int, excluded: int) -> None:
    outcomes = [True] * successes + [False] * (n - successes)
    left = {
        sum(o for o, out in zip(outcomes, choice, strict=True) if not out)
        for choice in product([True, False], repeat=n)
        if sum(choice) == excluded
    }
    found = bounds(successes, n=n, excluded=excluded)
    assert (found.low.successes, found.high.successes) == (min(left), max(left))
    assert found.n == n - excluded


def test_bounds_of_a_fall_pair_the_worst_with_the_best() -> None:
    before, after = bounds(300, n=500, excluded=95), bounds(21, n=500, excluded=95)
    least, most = difference_bounds(before, after)
    assert (least, most) == pytest.approx(((205 - 21) / 405, 300 / 405))
    with pytest.raises(ValueError, match="500 rows set aside"):
        bounds(3, n=500, excluded=500)


def test_bounds_of_a_graded_mean() -> None:
    assert mean_bounds(0.5, n=10, excluded=0) == pytest.approx((0.5, 0.5))
    assert mean_bounds(0.9, n=10, excluded=2) == pytest.approx((7 / 8, 1.0))
    assert mean_bounds(0.276, n=218, excluded=200) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"mean 1\.5"):
        mean_bounds(1.5, n=10, excluded=2)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("18.29", "18.285", "18.295"), ("3", "2.5", "3.5"), ("-58.0", "-58.05", "-57.95")],
)
def test_a_printed_number_is_all_that_rounds_to_it(text: str, low: str, high: str) -> None:
    assert interval(text) == Interval(Fraction(low), Fraction(high))


def test_sums_of_intervals() -> None:
    a, b = interval("2.0"), interval("1.0")
    assert a - b == Interval(Fraction(9, 10), Fraction(11, 10))
    assert (a / b).low == Fraction(195, 105)
    assert mean([a, b]).low == Fraction("1.45")
    assert mean([a, b], weights=[3, 1]).high == Fraction("1.8")
    assert a.distance(b) == Fraction(9, 10)
    assert a.distance(interval("2.1")) == 0  # they meet at 2.05
    with pytest.raises(ValueError, match=r"is no printed number"):
        interval("about 2")
    with pytest.raises(ValueError, match="needs a rate above 0"):
        _ = a / interval("0.0")
    with pytest.raises(ValueError, match="one weight a part"):
        mean([a, b], weights=[1])


def test_printed_keeps_the_digits_that_a_float_loses() -> None:
    table = printed("ablation", paper="safesteer")
    assert {"0.00", "2.50", "20.1"} <= set(table["printed"])
    np.testing.assert_array_equal(table["printed"].astype(float), table["value"])


@pytest.mark.parametrize(("n", "digits"), [(7, 1), (97, 1), (61, 0)])  # no tie: 6.25 may print as 6.2 or 6.3
def test_possible_percentages_are_those_that_counts_round_to(n: int, digits: int) -> None:
    given = {f"{100 * k / n:.{digits}f}" for k in range(n + 1)}
    every = {f"{value / 10**digits:.{digits}f}" for value in range(100 * 10**digits + 1)}
    assert {text for text in every if possible(text, n)} == given
    assert by_chance(n, digits=digits) == pytest.approx(len(given) / len(every))


def test_counts_stay_within_the_answers() -> None:
    assert list(counts(interval("100.0"), 500)) == [500]
    assert list(counts(interval("0.0"), 500)) == [0]
    assert not possible("29.3", 500)
    with pytest.raises(ValueError, match="n = 0"):
        possible("1.0", 0)


def test_the_true_number_of_answers_gives_every_rate() -> None:
    rates = [f"{100 * k / 113:.2f}" for k in (3, 17, 58, 99)]
    found = sizes(rates, range(50, 200))
    assert found.sort_values("possible")["n"].iloc[-1] == 113
    assert found.loc[found["n"] == 113, "possible"].item() == 4


@pytest.mark.parametrize(("first", "second", "n"), [(3, 1, 6), (5, 4, 6), (2, 2, 6), (0, 6, 6)])
def test_p_values_of_every_possible_table_lie_between_the_bounds(first: int, second: int, n: int) -> None:
    a = [i < first for i in range(n)]
    every = [list(b) for b in product([True, False], repeat=n) if sum(b) == second]
    p_values = [mcnemar(a, b).p for b in every]
    found = paired_bounds(first, second, n=n)
    assert (found.p_least, found.p_most) == pytest.approx((min(p_values), max(p_values)))


def test_verdicts_say_what_the_bounds_allow() -> None:
    assert paired_bounds(300, 21, n=500).verdict == "beyond noise"
    assert paired_bounds(21, 10, n=500).verdict == "depends on the pairs"
    assert paired_bounds(3, 1, n=558).verdict == "within noise"
    with pytest.raises(ValueError, match="both must lie in"):
        paired_bounds(7, 1, n=6)


def test_nearest_rows_exist_in_both_tables() -> None:
    found = load_nearest("vlsafe/test", "vlsafe/train")
    assert isinstance(found, pd.DataFrame)
    assert set(found["row"]) == set(load_fingerprints("vlsafe", split="test")["row"])
    assert set(found["nearest"]) <= set(load_fingerprints("vlsafe", split="train")["row"])
    assert found["likeness"].between(0, 1).all()
