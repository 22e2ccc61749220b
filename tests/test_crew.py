"""What OnRay does when actors die, with a Ray that lives in this process and kills as the test says."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autosteer_lib.answerers import Answered, Batch, OneByOne
from autosteer_lib.defences.undefended import Undefended
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.halving import Failure
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.scale_out import on_ray
from autosteer_lib.scale_out.cluster import CannotScaleOut
from autosteer_lib.scale_out.on_ray import AHEAD, TRIES, OnRay, WaitingForActors
from autosteer_lib.scale_out.remote_desk import Grounds

SETTINGS = GenerationSettings(max_new_tokens=2, batch_size=2)
DEFENCES = {"Orig.": Undefended()}


class RayTaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class RayActorError(Exception):
    pass


class Other(Exception):
    """Stands for the deaths that the tests do not cause."""


@dataclass(eq=False)
class Call:
    """A reference: computed when it is waited for, in the order of its actor's calls."""

    actor: Actor
    run: Callable[[], Any]
    value: Any = None
    done: bool = False


@dataclass(eq=False)
class Actor:
    """One desk; `fate` is asked before each batch and may raise."""

    ray: FakeRay
    desk: Any
    alive: bool = True
    queue: deque[Call] = field(default_factory=deque)

    def __getattr__(self, method: str) -> Any:
        handle = SimpleNamespace(remote=lambda *given: self._call(method, given))
        handle.options = lambda **_: handle
        return handle

    def _call(self, method: str, given: tuple[Any, ...]) -> Call:
        call = Call(self, lambda: self.ray.fate(self, method, given) or getattr(self.desk, method)(*given))
        self.queue.append(call)
        self.ray.most_ahead = max(self.ray.most_ahead, len(self.queue))
        return call

    def work(self) -> None:
        """Do the next call, or all of them if this actor is dead."""
        while self.queue:
            call = self.queue.popleft()
            try:
                call.value = call.run() if self.alive else RayActorError("The actor is dead")
            except RayActorError as error:
                self.alive, call.value = False, error
            except Exception as error:
                call.value = RayTaskError(error)
            call.done = True
            if self.alive:
                return


class FakeRay:
    """As much of the package as OnRay uses."""

    exceptions = SimpleNamespace(
        RayTaskError=RayTaskError, RayActorError=RayActorError, WorkerCrashedError=Other, NodeDiedError=Other,
        ObjectLostError=Other, OutOfMemoryError=Other,
    )  # fmt: skip

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.most_ahead = 0
        self.room = 99
        self.fate: Callable[[Actor, str, tuple[Any, ...]], None] = lambda *_: None

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, desk: Callable[[], Any]) -> Any:
        def hire() -> Actor:
            self.actors.append(Actor(self, desk()))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=hire))

    def kill(self, actor: Actor) -> None:
        actor.alive = False

    def wait(self, calls: list[Call], **_: Any) -> tuple[list[Call], list[Call]]:
        for actor in self.actors[: self.room]:
            actor.work()
        done = [call for call in calls if call.done]
        return done[:1], []

    def get(self, call: Call) -> Any:
        if isinstance(call.value, Exception):
            raise call.value
        return call.value


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake = FakeRay()
    monkeypatch.setattr("autosteer_lib.scale_out.cluster.import_ray", lambda: fake)
    monkeypatch.setattr(on_ray, "import_ray", lambda: fake)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield fake
    torch.set_num_threads(threads)


@pytest.fixture
def batches() -> list[Batch]:
    words = ("sun", "poison", "knife", "red sun", "blue knife", "green poison", "sun", "red knife")
    return [
        Batch(
            prompts=tuple(Prompt(id=f"{number} {verb}", text=f"{verb} a {word}") for verb in ("make", "buy")),
            missing={"Orig.": (0, 1)},
        )
        for number, word in enumerate(words)
    ]


def told(parts: list[Answered]) -> dict[int, list[str]]:
    """Batch → words, or the error of a row that failed."""
    return {
        part.number: [
            o.result.error if isinstance(o.result, Failure) else o.result.text for o in part.outcomes
        ]
        for part in parts
    }


def asked(answerer: OnRay | OneByOne, mllm: MLLM, batches: list[Batch]) -> dict[int, list[str]]:
    parts = list(answerer.answered(mllm, batches, DEFENCES, settings=SETTINGS, seed=0))
    assert len(parts) == len(batches)  # each once
    return told(parts)


def dies(actor: Actor) -> None:
    raise RayActorError("The actor died unexpectedly")


def test_batches_are_shared_out_and_actors_stay(ray: FakeRay, tiny: MLLM, batches: list[Batch]) -> None:
    answerer = OnRay()
    expected = asked(OneByOne(), tiny, batches)
    assert asked(answerer, tiny, batches) == expected
    assert len(ray.actors) == 2
    assert ray.most_ahead == AHEAD
    assert asked(answerer, tiny, batches) == expected
    assert len(ray.actors) == 2
    assert asked(answerer, tiny, batches[:1]) == {
        0: expected[0]
    }  # one batch needs one actor; the other waits
    answerer.close()
    assert not any(actor.alive for actor in ray.actors)


def test_a_death_costs_no_answer(ray: FakeRay, tiny: MLLM, batches: list[Batch]) -> None:
    deaths = iter([3, 5])
    at = [next(deaths)]
    seen: list[int] = []

    def fate(actor: Actor, method: str, given: tuple[Any, ...]) -> None:
        if method == "answer":
            seen.append(given[0])
            if len(seen) == at[0]:
                at[0] = next(deaths, -1)
                dies(actor)

    ray.fate = fate
    answerer = OnRay()
    assert asked(answerer, tiny, batches) == asked(OneByOne(), tiny, batches)
    assert len(ray.actors) == 4
    assert len(seen) == len(batches) + 2  # what was under way, twice


def test_a_batch_that_kills_is_given_up(ray: FakeRay, tiny: MLLM, batches: list[Batch]) -> None:
    ray.fate = lambda actor, method, given: dies(actor) if method == "answer" and given[0] == 2 else None
    answers, expected = asked(OnRay(), tiny, batches), asked(OneByOne(), tiny, batches)
    lost = answers.pop(2)
    del expected[2]
    assert answers == expected  # also those that stood behind it in an actor's queue, thrice
    assert (
        lost
        == [f"{TRIES} actors died over this batch, the last by RayActorError: The actor died unexpectedly"]
        * 2
    )
    assert len(ray.actors) == 2 + TRIES


def test_a_lost_card_is_a_death(ray: FakeRay, tiny: MLLM, batches: list[Batch]) -> None:
    lost: list[Actor] = []

    def fate(actor: Actor, method: str, given: tuple[Any, ...]) -> None:
        if method == "answer" and given[0] == 1 and not lost:
            lost.append(actor)
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    ray.fate = fate
    assert asked(OnRay(), tiny, batches) == asked(OneByOne(), tiny, batches)
    assert not lost[0].alive  # its process lives, and would fail at everything


def test_another_fault_of_a_batch_stops_the_run(ray: FakeRay, tiny: MLLM, batches: list[Batch]) -> None:
    def fate(actor: Actor, method: str, given: tuple[Any, ...]) -> None:
        if method == "answer":
            raise KeyError("a bug")

    ray.fate = fate
    with pytest.raises(RayTaskError, match="a bug"):
        asked(OnRay(), tiny, batches)


def test_actors_that_never_become_ready(ray: FakeRay, tiny: MLLM, batches: list[Batch]) -> None:
    ray.fate = lambda actor, method, given: dies(actor)
    with pytest.raises(
        RuntimeError, match=rf"{TRIES} actors in a row died before .* --actors\): The actor died"
    ):
        asked(OnRay(), tiny, batches)
    assert not any(actor.alive for actor in ray.actors)


def test_a_model_that_cannot_be_loaded(ray: FakeRay, tiny: MLLM, batches: list[Batch]) -> None:
    assert tiny.origin is not None
    moved = replace(tiny, origin=replace(tiny.origin, name="/nowhere/at/all"))
    with pytest.raises(
        CannotScaleOut, match=r"could not load the model .* ValueError: no checkpoint '/nowhere/at/all'"
    ):
        asked(OnRay(), moved, batches)
    with pytest.raises(CannotScaleOut, match="put together in memory, so no actor can load it"):
        asked(OnRay(), replace(tiny, origin=None), batches)


def test_an_actor_that_would_answer_otherwise(
    ray: FakeRay, tiny: MLLM, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Grounds.of(tiny, DEFENCES)
    theirs = iter([right, replace(right, code="another")])
    monkeypatch.setattr(Grounds, "of", lambda *_: next(theirs))
    with pytest.raises(
        RuntimeError, match=r"differ in: code .* here, another there. Give all nodes the same"
    ):
        asked(OnRay(), tiny, batches[:1])


def test_a_busy_cluster_is_waited_for_and_said(
    ray: FakeRay, tiny: MLLM, batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.room = 0
    monkeypatch.setattr(on_ray, "_WORD_SECONDS", 0.0)

    def room_later(*_: Any, **__: Any) -> None:
        ray.room = 99

    with monkeypatch.context() as patched:
        patched.setattr(warnings, "warn", room_later)
        assert asked(OnRay(), tiny, batches) == asked(OneByOne(), tiny, batches)
    ray.room = 0
    with pytest.raises(WaitingForActors, match=r"no actor is ready yet: .* no 1 CPU free"):
        asked(OnRay(), tiny, batches)


def test_ending_early_stops_the_actors_at_work(ray: FakeRay, tiny: MLLM, batches: list[Batch]) -> None:
    answerer = OnRay()
    work = answerer.answered(tiny, batches, DEFENCES, settings=SETTINGS, seed=0)
    next(work)
    work.close()
    assert [actor.alive for actor in ray.actors].count(True) == len(answerer._resident)
    assert all(not actor.alive or not actor.queue for actor in ray.actors)
