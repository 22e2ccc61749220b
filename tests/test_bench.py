"""The benches run, write what README promises, and find equal what must be equal. Nothing here is timed."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from autosteer_lib.encoding import encode
from bench import gpu_7b, head_training, head_vs_official, records, sas
from bench.__main__ import BENCHES, main
from bench.harness import (
    Check,
    Measure,
    Result,
    Settings,
    Target,
    alternate,
    compare,
    median_interval,
)
from bench.memory import in_fresh_process, peak_extra
from bench.random_models import REAL_7B, TINY, prompts, random_mllm
from bench.results import write

KEYS = {
    "format", "bench", "status", "reason", "quick", "met", "checks_hold", "measures", "checks", "settings",
    "machine", "versions", "commit", "dirty", "library", "threads", "seconds",
}  # fmt: skip
MEASURE_KEYS = {
    "name", "is", "median", "interval", "confidence", "target", "met", "skipped", "details", "values", "samples",
    "samples_unit",
}  # fmt: skip
TARGETS: dict[str, set[tuple[str, float]]] = {
    "inactive_gate": {("at_most", 1.01)},
    "active_head": {("at_most", 1.03)},
    "safesteer": {("at_least", 0.9)},
    "mars_steering": {("at_most", 1.02), ("at_most", 15.0)},
    "head_vs_official": {("at_least", 40)},
    "sas": {("at_least", 10)},
    "collect_states": {("at_least", 0.9), ("at_most", 0.05)},
    "head_training": {("at_least", 10)},
    "records": {("at_least", 10_000)},
    "coca": {("at_most", 2.1)},
    "single_pass_defences": {("at_most", 1.03)},
    "scale_out": {("at_least", 1.6)},
    "gpu_7b": {("at_most", 1.01), ("at_most", 1.03), ("at_least", 0.9)},
}
MB = 1 << 20
Quick = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    """The file that a quick run of a bench writes; each bench is run once."""
    out = tmp_path_factory.mktemp("bench")

    def content(name: str) -> dict[str, Any]:
        if name == "scale_out":
            pytest.importorskip("ray", reason="the extra `ray` is not installed")
        path = out / f"{name}.json"
        if not path.exists():
            code = main(
                ["--quick", "--profile", "smoke", "--threads", "1", "--only", name, "--out", str(out)]
            )
            assert code == 0
        return json.loads(path.read_text(encoding="utf-8"))

    return content


def checks_named(content: dict[str, Any], words: str) -> list[dict[str, Any]]:
    return [check for check in content["checks"] if words in check["name"]]


@pytest.mark.parametrize("name", BENCHES)
def test_a_quick_run_writes_the_whole_file(name: str, quick: Quick) -> None:
    content = quick(name)
    assert content.keys() == KEYS
    assert (content["bench"], content["status"], content["quick"]) == (name, "measured", True)
    assert content["machine"].keys() == {"cpu", "cores", "memory_gb", "gpu", "system", "architecture"}
    assert {"python", "torch", "transformers"} <= content["versions"].keys()
    assert content["threads"] == 1
    assert content["measures"]
    for measure in content["measures"]:
        assert measure.keys() == MEASURE_KEYS
        assert measure["skipped"] is None
        low, high = measure["interval"]
        assert low <= measure["median"] <= high
        assert measure["met"] is None  # a target speaks of full sizes
        for samples in measure["samples"].values():
            assert len(samples) == len(measure["values"])
    targets = [measure["target"] for measure in content["measures"] if measure["target"] is not None]
    stated = {(target["kind"], target["bound"]) for target in targets}
    assert name in TARGETS, f"enter the targets of {name} in TARGETS above, set() if it has none"
    assert stated >= TARGETS[name]
    assert content["checks_hold"] is True
    assert all(check["holds"] for check in content["checks"])


def test_every_bench_is_named_and_explained() -> None:
    """A file that `BENCHES` lacks is run by no command."""
    folder = Path(bench.__file__).parent
    there = {path.stem for path in folder.glob("*.py") if "\ndef run(settings: Settings)" in path.read_text()}
    assert there == set(BENCHES)
    explained = (folder / "README.md").read_text(encoding="utf-8")
    assert [name for name in BENCHES if f"| `{name}` |" not in explained] == []


def test_a_bench_under_anothers_name_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(records, "run", lambda settings: Result(bench="sas"))
    with pytest.raises(
        ValueError, match=r"bench/records\.py gave Result\(bench='sas'\); give bench='records'"
    ):
        main(["--quick", "--only", "records", "--out", str(tmp_path), "--threads", "1"])
    assert list(tmp_path.iterdir()) == []


def test_the_head_gives_the_official_logits(quick: Quick) -> None:
    checks = checks_named(quick("head_vs_official"), "same logits")
    assert [check["allowed"] for check in checks] == [1e-4]
    assert checks[0]["difference"] <= 1e-4


def test_the_sum_of_unit_vectors_gives_the_pairwise_score(quick: Quick) -> None:
    (check,) = checks_named(quick("sas"), "same score")
    assert check["allowed"] == 1e-6
    assert check["difference"] <= 1e-6


def test_states_computed_once_give_the_losses_of_a_forward_each_epoch(
    quick: Quick,
) -> None:
    checks = checks_named(quick("head_training"), "same loss")
    assert [check["allowed"] for check in checks] == [1e-4, 1e-4]
    assert max(check["difference"] for check in checks) <= 1e-4


def test_gates_were_as_each_bench_says(quick: Quick) -> None:
    assert len(checks_named(quick("inactive_gate"), "gate shut in every row")) == 2
    assert len(checks_named(quick("inactive_gate"), "leaves the answer as it is")) == 2
    assert len(checks_named(quick("active_head"), "gate open in every row")) == 2


def test_candidates_on_one_cache_are_those_on_a_repeated_one(quick: Quick) -> None:
    assert len(checks_named(quick("safesteer"), "what a cache repeated for each candidate does")) == 2
    assert len(checks_named(quick("safesteer"), "re-ranked in every row")) == 2


def test_pairwise_cosines_take_the_memory_of_their_matrix(quick: Quick) -> None:
    memory = next(m for m in quick("sas")["measures"] if "peak memory" in m["name"])
    assert memory["samples"]["pairwise"][0] >= 1500 * 1500 * 4
    assert memory["samples"]["here"][0] < 1500 * 1500 * 4


def test_pairwise_is_the_mean_over_pairs_of_pairs() -> None:
    toxic, safe = sas.sides(count=5, dim=7, seed=3, device="cpu")
    contrasts = (toxic - safe)[:, 0]
    cosines = [
        torch.cosine_similarity(contrasts[i], contrasts[j], dim=0) for i in range(5) for j in range(i + 1, 5)
    ]
    torch.testing.assert_close(
        sas.pairwise(toxic, safe).float(), torch.stack(cosines).mean(), atol=1e-6, rtol=0
    )


def test_the_real_size_has_the_real_models_parameters() -> None:
    mllm = random_mllm(REAL_7B, seed=0, device="meta", dtype=torch.bfloat16)
    assert (mllm.layers, mllm.dim) == (28, 3584)
    assert 8.0e9 < sum(parameter.numel() for parameter in mllm.model.parameters()) < 8.1e9


def test_the_real_size_is_skipped_with_a_reason_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = gpu_7b.run(Settings())
    assert result.skipped is not None
    assert "no CUDA device" in result.skipped
    assert result.measures == ()


def test_a_size_beyond_the_memory_is_skipped_with_both_numbers() -> None:
    case = head_vs_official.Case(dim=64, rounds=1, at_least=40)
    measure, check = head_vs_official.measure(case, vocabulary=10**12, settings=Settings())
    assert measure.skipped is not None
    assert "are free" in measure.skipped
    assert measure.met is None
    assert check is None


def test_a_skipped_bench_does_not_wipe_out_a_measurement(tmp_path: Path) -> None:
    measured = {"bench": "gpu_7b", "status": "measured", "seconds": 1}
    skipped = {"bench": "gpu_7b", "status": "skipped", "seconds": 0}
    assert write(skipped, tmp_path) is not None
    assert write(measured, tmp_path) is not None
    assert write(skipped, tmp_path) is None
    assert json.loads((tmp_path / "gpu_7b.json").read_text()) == measured


def test_only_a_check_makes_a_run_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = Measure(name="slow", is_="ratio", values=(9.0,), target=Target(kind="at_most", bound=1, words="1"))
    wrong = Check(name="wrong", difference_is="difference", difference=float("inf"), allowed=1e-6)
    arguments = ["--only", "records", "--out", str(tmp_path), "--threads", "1"]
    monkeypatch.setattr(records, "run", lambda settings: Result(bench="records", measures=(slow,)))
    assert main(arguments) == 0
    assert json.loads((tmp_path / "records.json").read_text())["met"] is False
    wrong_by_a_bit = Check(name="wrong", difference_is="difference", difference=2e-6, allowed=1e-6)
    monkeypatch.setattr(records, "run", lambda settings: Result(bench="records", checks=(wrong_by_a_bit,)))
    assert main(arguments) == 1
    assert not wrong.holds
    assert not Check(name="", difference_is="", difference=float("nan"), allowed=1).holds


def test_samples_alternate_after_the_warm_up_and_garbage_is_collected_again() -> None:
    calls: list[str] = []
    seconds = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, warm_up=1)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(samples) for name, samples in seconds.items()} == {"a": 3, "b": 3}
    assert gc.isenabled()

    def broken() -> None:
        raise KeyError("sample")

    with pytest.raises(KeyError):
        alternate({"a": broken}, rounds=1, warm_up=0)
    assert gc.isenabled()


def test_ratios_are_taken_round_by_round() -> None:
    measure = compare("name", {"a": lambda: None, "b": lambda: None}, rounds=4, settings=Settings())
    assert measure.values == tuple(
        a / b for a, b in zip(measure.samples["a"], measure.samples["b"], strict=True)
    )


@pytest.mark.parametrize(("count", "confidence"), [(1, 0.0), (5, 0.9375), (6, 0.96875)])
def test_small_samples_get_their_range_and_its_true_confidence(count: int, confidence: float) -> None:
    low, high, found = median_interval([float(i) for i in range(count)])
    assert (low, high) == (0, count - 1)
    assert found == pytest.approx(confidence)


def test_order_statistics_of_twenty() -> None:
    # Tables of the sign test: of 20 values, the 6th and the 15th hold the median with 95.86 %.
    low, high, confidence = median_interval([float(i) for i in range(1, 21)])
    assert (low, high) == (6.0, 15.0)
    assert confidence == pytest.approx(0.9586, abs=1e-4)


def test_a_peak_is_seen_after_it_is_freed() -> None:
    def task() -> None:
        block = bytearray(64 * MB)
        block[:] = b"\1" * len(block)

    assert peak_extra(task) >= 60 * MB  # the kernel counts in strides of pages


def test_a_failure_in_a_fresh_process_is_told_here() -> None:
    with pytest.raises(RuntimeError, match="unexpected keyword argument 'pears'"):
        in_fresh_process(sas.peaks, pears=3)


def test_mixed_batches_keep_each_answers_own_picture() -> None:
    mllm = random_mllm(TINY, seed=0)
    seen = prompts(TINY, count=2, words=3, pictures=True, seed=0)
    unseen = prompts(TINY, count=2, words=9, seed=1)
    mixed = [unseen[0], seen[0], unseen[1], seen[1]]
    encoded = encode(mllm, mixed, answer="w1 w2")
    for rows in ([3, 0], [0, 2], [1]):
        chosen = head_training._rows(encoded, torch.tensor(rows))
        alone = encode(mllm, [mixed[row] for row in rows], answer="w1 w2").inputs
        assert chosen.keys() == alone.keys()
        for name, value in alone.items():
            assert torch.equal(chosen[name], value), name
