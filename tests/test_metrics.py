"""Rates and paired tests, against formulas and numbers that stand on their own."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from autosteer_lib.metrics import Rate, auroc, cohens_kappa, holm, mcnemar

counts = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def _wilson(k: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return centre - half, centre + half


@given(counts)
def test_interval_is_wilsons_and_holds_the_rate(count: tuple[int, int]) -> None:
    rate = Rate(*count)
    if not rate.n:
        assert math.isnan(rate.value)
        assert math.isnan(rate.low)
        return
    assert (rate.low, rate.high) == pytest.approx(_wilson(*count), abs=1e-12)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


def test_a_rate_of_zero_is_not_certain() -> None:
    rate = Rate(0, 40)
    assert rate.value == 0
    assert rate.low == 0
    assert rate.high == pytest.approx(0.0876, abs=1e-4)
    assert str(rate) == "0.0% [0.0%, 8.8%], n = 40"


def test_interval_narrows_with_n() -> None:
    assert Rate(50, 100).high - Rate(50, 100).low > Rate(500, 1000).high - Rate(500, 1000).low


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="0 ≤ successes ≤ n"):
        Rate(successes, n)


def test_rate_of_outcomes_counts_the_true_ones() -> None:
    assert Rate.of([True, False, True, True]) == Rate(3, 4)
    assert Rate.of([]) == Rate(0, 0)


@pytest.mark.usefixtures("as_a_user")
def test_a_missing_outcome_is_not_counted_as_true() -> None:
    with pytest.raises(TypeError, match="without gaps"):
        Rate.of([True, float("nan")])  # type: ignore[list-item]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60))
def test_mcnemar_is_the_exact_binomial_tail_and_symmetric(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    test, swapped = mcnemar(a, b), mcnemar(b, a)
    gained = sum(not x and y for x, y in pairs)
    lost = sum(x and not y for x, y in pairs)
    assert (test.gained, test.lost) == (gained, lost) == (swapped.lost, swapped.gained)
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed
    assert test.p == pytest.approx(min(1.0, 2 * tail)) == pytest.approx(swapped.p)


def test_mcnemar_needs_the_same_prompts() -> None:
    with pytest.raises(ValueError, match="paired"):
        mcnemar([True], [True, False])


def test_holm_on_a_worked_example() -> None:
    # four tests; 0.03 and 0.04 are not significant together, and the order of the input is kept
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_skips_what_was_not_tested() -> None:
    adjusted = holm([float("nan"), 0.02, 0.9])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.9])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_p_value_and_bonferroni(p_values: list[float]) -> None:
    for raw, adjusted in zip(p_values, holm(p_values), strict=True):
        assert raw <= adjusted + 1e-12
        assert adjusted <= min(1.0, len(p_values) * raw) + 1e-12


def test_auroc_is_the_share_of_ordered_pairs() -> None:
    scores, positive = [0.1, 0.4, 0.35, 0.8, 0.4], [False, False, True, True, True]
    highs = [score for score, label in zip(scores, positive, strict=True) if label]
    lows = [score for score, label in zip(scores, positive, strict=True) if not label]
    pairs = [(p, n) for p in highs for n in lows]
    expected = sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)
    assert auroc(scores, positive) == pytest.approx(expected)
    with pytest.raises(ValueError, match="both harmful and harmless"):
        auroc([0.2, 0.3], [True, True])


def test_kappa_equals_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        a = rng.random(80) < share
        b = np.where(rng.random(80) < 0.8, a, rng.random(80) < 0.5)
        kappa = cohens_kappa(a.tolist(), b.tolist())
        assert kappa.value == pytest.approx(cohen_kappa_score(a, b))
        assert kappa.agreed.value == (a == b).mean()
        assert kappa.low < kappa.value < kappa.high <= 1


def test_kappa_of_judges_who_always_agree_has_a_width() -> None:
    kappa = cohens_kappa([True, False] * 10, [True, False] * 10)
    assert (kappa.value, kappa.high) == (1.0, 1.0)
    assert 0.6 < kappa.low < 0.8


def test_kappa_says_little_where_one_judge_never_varies() -> None:
    kappa = cohens_kappa([True] * 119 + [False], [True] * 120)
    assert kappa.value == pytest.approx(0)
    assert kappa.low == -1
    assert 0 < kappa.high < 1


def test_kappa_is_undefined_where_chance_explains_all() -> None:
    kappa = cohens_kappa([True] * 5, [True] * 5)
    assert kappa.agreed.value == 1
    assert np.isnan([kappa.value, kappa.low, kappa.high]).all()
    assert np.isnan(cohens_kappa([], []).value)
    with pytest.raises(ValueError, match="the same rows in the same order"):
        cohens_kappa([True], [True, False])


def test_the_interval_of_kappa_covers_it() -> None:
    rng = np.random.default_rng(1)
    table = np.array([0.05, 0.05, 0.05, 0.85])  # both, first, second, none; a rare outcome
    kappa = (0.9 - (0.1**2 + 0.9**2)) / (1 - (0.1**2 + 0.9**2))
    covered = 0
    for _ in range(200):
        drawn = rng.choice(4, size=60, p=table)
        found = cohens_kappa(np.isin(drawn, (0, 1)).tolist(), np.isin(drawn, (0, 2)).tolist())
        covered += found.low <= kappa <= found.high
    assert covered / 200 > 0.93
