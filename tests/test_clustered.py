"""Rates over clusters: the variance by hand, the limits that it must meet, and what it covers."""

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from autosteer_lib.clustered import ClusteredRate
from autosteer_lib.metrics import Rate

Z = float(norm.ppf(0.975))


def test_the_design_effect_is_the_between_cluster_variance_over_the_binomial_one() -> None:
    outcomes = [True, True, True, False, False, False, True, False]
    clusters = ["acid", "acid", "acid", "dagger", "dagger", "dagger", "trap", "trap"]
    found = ClusteredRate.of(outcomes, clusters)
    # p = 1/2; sums of y − p by cluster: 3/2, −3/2, 0
    assert found.design == pytest.approx(3 / 2 * (2.25 + 2.25) / (8 * 0.25))
    assert (found.clusters, found.rate) == (3, Rate(4, 8))
    n = 8 / found.design * (Z / float(t.ppf(0.975, 2))) ** 2
    spread = Z * math.sqrt(0.25 / n + Z * Z / (4 * n * n))
    middle = 0.5 + Z * Z / (2 * n)
    low, high = ((middle - spread) / (1 + Z * Z / n), (middle + spread) / (1 + Z * Z / n))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_many_clusters_of_one_row_are_wilsons_own_interval() -> None:
    outcomes = [index % 3 == 0 for index in range(3000)]
    found = ClusteredRate.of(outcomes, range(3000))
    assert found.design == pytest.approx(1.0, abs=1e-3)
    assert (found.low, found.high) == pytest.approx((found.rate.low, found.rate.high), abs=1e-4)


def test_what_hangs_on_the_thing_alone_is_known_no_better_than_by_its_things() -> None:
    things = [name for name in ("acid", "dagger", "missile", "reactor") for _ in range(30)]
    found = ClusteredRate.of([name == "acid" for name in things], things)
    assert found.rate.value == 0.25
    assert found.design == pytest.approx(30 * 4 / 3)
    assert found.high - found.low > 3 * (found.rate.high - found.rate.low)


def test_it_is_never_narrower_than_the_interval_over_rows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        clusters = rng.integers(0, 5, 60).tolist()
        outcomes = (rng.random(60) < 0.3).tolist()
        found = ClusteredRate.of(outcomes, clusters)
        assert found.low <= found.rate.low
        assert found.high >= found.rate.high


@pytest.mark.parametrize("outcome", [True, False])
def test_equal_outcomes_count_as_one_a_thing(outcome: bool) -> None:
    found = ClusteredRate.of([outcome] * 120, [index % 4 for index in range(120)])
    assert math.isnan(found.design)
    assert (found.low, found.high) == pytest.approx((Rate.of([outcome] * 4).low, Rate.of([outcome] * 4).high))


def test_it_covers_where_the_interval_over_rows_does_not() -> None:
    rng, rows, things = np.random.default_rng(1), 0, 0
    for _ in range(100):
        shares, clusters = rng.beta(1, 1, 4), rng.integers(0, 4, 120)
        outcomes = rng.random(120) < shares[clusters]
        found = ClusteredRate.of(outcomes.tolist(), clusters.tolist())
        rows += found.rate.low <= 0.5 <= found.rate.high
        things += found.low <= 0.5 <= found.high
    assert rows < 60
    assert things > 85


def test_a_single_success_is_known_no_better_than_none() -> None:
    clusters = [index % 14 for index in range(960)]
    none, one, five = (
        ClusteredRate.of([index in hits for index in range(960)], clusters)
        for hits in ([], [3], [0, 1, 2, 3, 4])
    )
    assert none.high == one.high == five.high == pytest.approx(Rate.of([False] * 14).high)
    assert none.low == 0.0
    assert one.low < one.rate.value
    all_but_one = ClusteredRate.of([index != 3 for index in range(960)], clusters)
    assert (all_but_one.low, all_but_one.high) == pytest.approx((1 - one.high, 1 - one.low))


def test_it_covers_where_few_things_have_any() -> None:
    rng, things, rows = np.random.default_rng(2), 0, 0
    clusters = [index % 10 for index in range(120)]
    for _ in range(100):
        shares = np.where(rng.random(10) < 0.05, 0.5, 0.001)
        found = ClusteredRate.of((rng.random(120) < shares[clusters]).tolist(), clusters)
        mean = 0.05 * 0.5 + 0.95 * 0.001
        rows += found.rate.low <= mean <= found.rate.high
        things += found.low <= mean <= found.high
    assert rows < 90
    assert things > 90


def test_too_few_clusters_are_an_error() -> None:
    with pytest.raises(ValueError, match="1 cluster: how clusters differ cannot be seen"):
        ClusteredRate.of([True, False], ["acid", "acid"])
    with pytest.raises(ValueError, match="2 outcomes in 1 clusters' rows"):
        ClusteredRate.of([True, False], ["acid"])
