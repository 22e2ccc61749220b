"""A Ray of several nodes on one machine, with actors on the CPU: the same table as in one process, whoever is killed.

One cluster serves all tests of this file, in order: the second node goes in the last of them.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

import ray
from ray.cluster_utils import Cluster as SeveralNodes

from autosteer_lib.answerers import Batch, OneByOne
from autosteer_lib.artefacts import Artefacts
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.evaluation import FailedRows
from autosteer_lib.models import MLLM, load
from autosteer_lib.profiles import load_profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.provenance import repository_root
from autosteer_lib.scale_out import on_ray
from autosteer_lib.scale_out.cluster import VARIABLE, CannotScaleOut, Cluster, started
from autosteer_lib.scale_out.on_ray import OnRay
from autosteer_lib.scale_out.remote_desk import Grounds
from autosteer_lib.study.study import Study
from tests.on_ray import Watched, prompts, steer, table

MEMORY = 100 * 2**20  # of each node's object store; Ray asks for at least 75 MB


@pytest.fixture(scope="module")
def nodes() -> Iterator[SeveralNodes]:
    """Two nodes of one core each, without what only people need."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {
        "num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False, "include_log_monitor": False,
        "no_monitor": True,
    }  # fmt: skip
    cluster = _patiently(lambda: SeveralNodes(initialize_head=True, head_node_args=head))
    _patiently(lambda: cluster.add_node(num_cpus=1, object_store_memory=MEMORY))
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def _patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 s to start and has no setting for it; beside other tests that can be too little."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:
            failure = error
    raise failure


@pytest.fixture(scope="module")
def answerer(nodes: SeveralNodes) -> Iterator[OnRay]:
    with started(Cluster(address=nodes.address), needs={"CPU": 1.0}) as (variables, line):
        assert line.startswith(f"Ray at {nodes.address}: 2 actors")
        os.environ.update(variables)
        told = Cluster.from_environment()
        for name in variables:
            del os.environ[name]
        assert told == Cluster(address=nodes.address, actors=2)
        one = OnRay(told)
        yield one
        one.close()


@pytest.fixture(scope="module")
def organism() -> MLLM:
    return load(load_profile("smoke").model_path(repository_root()), device="cpu")


@pytest.fixture(scope="module")
def asked() -> list[Prompt]:
    return prompts(40)


def at_work(log: Path, *, count: int = 2) -> list[int]:
    """Wait until that many actors have been seen at work; their processes, the latest last."""
    for _ in range(600):
        seen = [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []
        if len(set(seen)) >= count:
            return list(dict.fromkeys(reversed(seen)))[::-1]
        time.sleep(0.1)
    raise AssertionError(f"{count} actors were never at work")


def test_the_same_table_as_in_one_process_to_the_byte(
    answerer: OnRay, organism: MLLM, asked: list[Prompt], tmp_path: Path
) -> None:
    defences = {"Orig.": Undefended(), "Steer": steer(organism)}
    frames = {
        name: table(organism, asked, defences, tmp_path / name, answerer=who)
        for name, who in (("serial", OneByOne()), ("ray", answerer))
    }
    written = {}
    for name, frame in frames.items():
        artefacts = Artefacts(tmp_path / name, tmp_path / "figures", profile="smoke")
        artefacts.table(frame, "answers")
        written[name] = (tmp_path / name / "tables" / "answers.csv").read_bytes()
    assert written["serial"] == written["ray"]
    assert len(written["ray"]) > 80 * 20
    assert len(answerer._resident) == 2  # they stay, with their model


def test_an_actor_that_is_killed_costs_its_batches_and_no_answer(
    answerer: OnRay, organism: MLLM, asked: list[Prompt], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    killer = Thread(target=lambda: os.kill(at_work(log)[-1], signal.SIGKILL))
    killer.start()
    frame = table(
        organism, asked, {"Orig.": Watched(log=log, pause=0.5)}, tmp_path / "ray", answerer=answerer
    )
    killer.join()
    plain = table(organism, asked, {"Orig.": Undefended()}, tmp_path / "serial")
    pd.testing.assert_frame_equal(frame, plain)
    batches = [line.split()[1] for line in log.read_text().splitlines()]
    assert len(batches) == len(set(batches)) + 1  # one was begun twice


def test_a_batch_that_kills_whoever_takes_it_is_recorded_as_failed(
    answerer: OnRay, organism: MLLM, asked: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "TRIES", 1)
    deadly = Watched(log=tmp_path / "log", deadly=asked[0].id)
    with pytest.warns(FailedRows, match=r"1 actors died over this batch, the last by ActorDiedError"):
        frame = table(organism, asked[:20], {"Orig.": deadly}, tmp_path / "ray", answerer=answerer)
    failed = set(frame[frame["failed"]]["prompt_id"])
    assert asked[0].id in failed
    assert 1 <= len(failed) <= 4  # its batch
    plain = table(organism, asked[:20], {"Orig.": Undefended()}, tmp_path / "serial")
    rest = ~plain["prompt_id"].isin(failed)
    pd.testing.assert_frame_equal(frame[~frame["failed"]], plain[rest])


def test_what_is_wrong_with_an_actor_stops_the_run_and_is_named(
    answerer: OnRay, organism: MLLM, asked: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert organism.origin is not None
    lost = replace(organism, origin=replace(organism.origin, name=str(tmp_path / "moved")))
    with pytest.raises(CannotScaleOut, match=r"could not load the model .*no checkpoint '.*moved'"):
        table(lost, asked[:1], {"Orig.": Undefended()}, tmp_path / "a", answerer=answerer)
    together = replace(organism, origin=None)
    with pytest.raises(CannotScaleOut, match="put together in memory, so no actor can load it"):
        table(together, asked[:1], {"Orig.": Undefended()}, tmp_path / "a", answerer=answerer)
    mine = Grounds.of(organism, {"Orig.": Undefended()})
    monkeypatch.setattr(Grounds, "of", lambda *_: replace(mine, code="another checkout"))
    with pytest.raises(
        RuntimeError, match=r"differ in: code another checkout here, .* Give all nodes the same"
    ):
        table(organism, asked[:1], {"Orig.": Undefended()}, tmp_path / "a", answerer=answerer)


def test_a_study_uses_the_ray_that_the_driver_tells_of(
    nodes: SeveralNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert isinstance(Study.open("smoke", out=tmp_path).answerer, OneByOne)
    cluster = Cluster(address=nodes.address)
    for name, value in cluster.variables.items():
        monkeypatch.setenv(name, value)
    told = Study.open("smoke", out=tmp_path).answerer
    assert isinstance(told, OnRay)
    assert told.cluster == cluster
    with pytest.raises(CannotScaleOut, match=r"3 actors of 1 CPU each .* room for 2 \(its 2 nodes"):
        replace(cluster, actors=3).size({"CPU": 1.0})


def test_actors_that_were_summoned_are_those_that_answer(
    answerer: OnRay, organism: MLLM, asked: list[Prompt], tmp_path: Path
) -> None:
    answerer.close()
    answerer.summon(organism)
    answerer.summon(organism)  # of no effect: they are there
    summoned = list(answerer._resident)
    assert len(summoned) == 2
    table(organism, asked[:2], {"Orig.": Undefended()}, tmp_path / "a", answerer=answerer)
    assert {id(actor) for actor in answerer._resident} == {id(actor) for actor in summoned}


def test_a_node_that_goes_costs_its_batches_and_no_answer(
    nodes: SeveralNodes, answerer: OnRay, organism: MLLM, asked: list[Prompt], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    (worker,) = nodes.worker_nodes

    def remove() -> None:
        at_work(log)
        nodes.remove_node(worker, allow_graceful=False)

    remover = Thread(target=remove)
    remover.start()
    frame = table(
        organism, asked, {"Orig.": Watched(log=log, pause=0.5)}, tmp_path / "ray", answerer=answerer
    )
    remover.join()
    assert len(nodes.worker_nodes) == 0
    pd.testing.assert_frame_equal(frame, table(organism, asked, {"Orig.": Undefended()}, tmp_path / "serial"))


def test_few_batches_under_many_defences_go_out_in_parts() -> None:
    rows = {f"defence {number}": (0, number) for number in range(5)}
    batches = [Batch(prompts=(), missing=rows) for _ in range(3)]
    lots = on_ray._lots(batches, wanted=8)
    assert [len(lot.batch.missing) for lot in lots] == [2, 2, 1] * 3
    assert [lot.number for lot in lots] == [0] * 3 + [1] * 3 + [2] * 3
    for number in range(3):
        parts = [lot.batch.missing for lot in lots if lot.number == number]
        assert {name: part[name] for part in parts for name in part} == rows
    assert [lot.batch for lot in on_ray._lots(batches, wanted=2)] == batches  # enough as they are
    assert len(on_ray._lots(batches, wanted=100)) == 15
