"""Rates and paired tests, against formulas and numbers that stand on their own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosteer_lib.metrics import Rate, auroc, holm, mcnemar, true_positive_rate_at

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


def test_true_positive_rate_is_read_at_an_allowed_false_positive_rate() -> None:
    scores = [0.9, 0.8, 0.3, 0.7, 0.2, 0.1, 0.05]
    positive = [True, True, True, False, False, False, False]
    assert true_positive_rate_at(scores, positive, false_positive_rate=0.0) == pytest.approx(2 / 3)
    assert true_positive_rate_at(scores, positive, false_positive_rate=0.25) == pytest.approx(1.0)
