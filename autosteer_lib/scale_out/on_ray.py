"""OnRay: an `Answerer` whose batches are answered by Ray actors, each with the model loaded once.

    driver    plans the batches, keeps `AHEAD` of them with every actor, is the only one that writes records
              few batches under many defences are handed out in parts, a part for some of the defences
    actor     encodes and answers a batch under its defences; out-of-memory is halved there, as in one process

That the driver alone writes has three reasons: nodes need no disk in common, the records' order of events is one
process's, and an actor that is killed (kill -9, its node lost, a card that fell off) has nothing half-written. It
costs the batches that it held: they go to another actor. A batch that was under way when `TRIES` actors died is
recorded as failed, so that one poisonous picture cannot take a cluster down.

Memory stays flat: what is in flight is AHEAD batches an actor, with their pictures, and their answers.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

from autosteer_lib.answerers import Answered, Batch
from autosteer_lib.defences.base import Defence
from autosteer_lib.generation import GenerationSettings
from autosteer_lib.halving import Failure, Outcome
from autosteer_lib.models import MLLM
from autosteer_lib.scale_out.cluster import CannotScaleOut, Cluster, connect, import_ray
from autosteer_lib.scale_out.remote_desk import Grounds, RemoteDesk, Task, with_pixels

LOTS = 8  # an actor, at least: the last ones to end then differ by an eighth, not by half of the work
AHEAD = 2  # batches with an actor: one under way, one that it finds when it is done
TRIES = 3  # actors that may die over one batch, and actors in a row that may die before they are ready
_WORD_SECONDS = 300.0  # without any actor, after which a person should hear of it: a 7B loads in less
# Where this process has them set, so do the actors: what fixes numbers, and where things are.
_HANDED_ON = (
    "PYTHONPATH", "PYTHONHASHSEED", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUBLAS_WORKSPACE_CONFIG",
    "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "HF_HUB_CACHE",
)  # fmt: skip


class WaitingForActors(UserWarning):
    """The cluster is busy, or a node has gone."""


class OnRay:
    """Keep one for a process: its actors stay, with their model, from one evaluation to the next."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        self.cluster = cluster or Cluster()
        self._resident: list[Any] = []  # actors that wait for the next evaluation

    def summon(self, mllm: MLLM) -> None:
        """Let the actors start while this process does other work, which `answered` then finds at hand.

        A process takes seconds to import torch and transformers, and fits come before the first answers. They hold
        their cards from now on, also if nothing is left to answer.

        Args:
            mllm: on whose kind of device they are to work. They load it, or another, when they are told what to do.

        Raises:
            CannotScaleOut: no Ray, or too little room.
        """
        connect(self.cluster)
        if not self._resident:
            needs = self._needs(mllm)
            self._resident = [_started(needs) for _ in range(self.cluster.size(needs))]

    def answered(
        self,
        mllm: MLLM,
        batches: Sequence[Batch],
        defences: Mapping[str, Defence],
        *,
        settings: GenerationSettings,
        seed: int,
    ) -> Generator[Answered, None, None]:
        """Batches in whatever order they are done.

        Raises:
            CannotScaleOut: no Ray, too little room, or a model that actors cannot load.
            RuntimeError: an actor would give other answers than this process, or none can be had any more.
        """
        if mllm.origin is None:
            raise CannotScaleOut(
                f"{mllm.name} was put together in memory, so no actor can load it; save it to a folder and `load` that"
            )
        connect(self.cluster)
        needs = self._needs(mllm)
        actors = self.cluster.size(needs)
        lots = _lots(batches, wanted=LOTS * actors)
        crew = _Crew(
            size=min(actors, len(lots)),
            needs=needs,
            task=Task(
                origin=mllm.origin,
                defences=defences,
                settings=settings,
                seed=seed,
                threads=torch.get_num_threads(),
            ),
            grounds=Grounds.of(mllm, defences),
            resident=self._resident,
        )
        try:
            yield from _handed_out(crew, lots)
        finally:
            self._resident = crew.dismiss()

    def _needs(self, mllm: MLLM) -> dict[str, float]:
        return self.cluster.needs(device=mllm.device.type, threads=torch.get_num_threads())

    def close(self) -> None:
        """Let the actors go, and with them what they hold."""
        for actor in self._resident:
            import_ray().kill(actor)
        self._resident = []


def told() -> OnRay | None:
    """The one that the driver told this process of (`make reproduce RAY=1`), if it did."""
    cluster = Cluster.from_environment()
    return None if cluster is None else shared(cluster)


@cache
def shared(cluster: Cluster) -> OnRay:
    """The one of this process: actors stay with their model, so those of a second would wait for cores for ever."""
    return OnRay(cluster)


def _lots(batches: Sequence[Batch], *, wanted: int) -> list[_Lot]:
    """The batches, each in as many parts as make `wanted` in all, or one a defence; rows stay together."""
    parts = -(-wanted // max(1, len(batches)))
    lots = []
    for number, batch in enumerate(batches):
        names = list(batch.missing)
        size = -(-len(names) // parts)
        for start in range(0, len(names), size):
            some = {name: batch.missing[name] for name in names[start : start + size]}
            lots.append(_Lot(number=number, batch=replace(batch, missing=some), of=len(batches)))
    return lots


def _handed_out(crew: _Crew, lots: Sequence[_Lot]) -> Generator[Answered, None, None]:
    """Keep every actor supplied until all lots are done."""
    waiting = deque(lots)
    while waiting or crew.busy:
        for member in crew.ready:
            while waiting and len(member.lots) < AHEAD:
                crew.give(member, waiting.popleft())
        for lot, result in crew.news():
            if isinstance(result, list):
                yield from result
            elif lot.tries < TRIES:
                waiting.appendleft(lot)
            else:
                yield from _failed(lot, result)


def _failed(lot: _Lot, death: Exception) -> list[Answered]:
    said = " ".join(
        f"{lot.tries} actors died over this batch, the last by {type(death).__name__}: {death}".split()
    )
    failure = Failure(error=said[:500], out_of_memory=False)
    return [
        Answered(
            number=lot.number, defence=name, outcomes=tuple(Outcome(row=row, result=failure) for row in rows)
        )
        for name, rows in lot.batch.missing.items()
    ]


@dataclass(eq=False)
class _Lot:
    """A batch, or its part under some of the defences, on its way."""

    number: int
    batch: Batch
    of: int
    tries: int = 0
    """Actors that have died while it was under way."""


@dataclass(eq=False)
class _Member:
    """An actor, and what it holds."""

    actor: Any
    preparing: Any
    """Reference of its `Grounds`; None once they have been seen to be right."""
    resident: bool
    """It was there before this evaluation."""
    lots: dict[Any, _Lot] = field(default_factory=dict)
    """Reference of the answers → lot, in the order of work."""
    alive: bool = True


class _Crew:
    """The actors of one evaluation."""

    def __init__(
        self,
        *,
        size: int,
        needs: Mapping[str, float],
        task: Task,
        grounds: Grounds,
        resident: Sequence[Any],
    ) -> None:
        self._ray = import_ray()
        self._needs, self._grounds = needs, grounds
        self._task = self._ray.put(task)
        self._stillborn = 0
        self._hoped = time.monotonic()
        actors = [*resident[:size], *[None] * (size - len(resident))]
        self._members = [self._employ(actor) for actor in actors]
        self._spare = list(resident[size:])

    @property
    def ready(self) -> list[_Member]:
        """Who can be given work, the least laden first."""
        prepared = [member for member in self._members if member.alive and member.preparing is None]
        return sorted(prepared, key=lambda member: len(member.lots))

    @property
    def busy(self) -> bool:
        """Whether any answer is still to come."""
        return any(member.lots for member in self._members)

    def give(self, member: _Member, lot: _Lot) -> None:
        """Send a batch, with its pictures."""
        sent = replace(lot.batch, prompts=tuple(with_pixels(prompt) for prompt in lot.batch.prompts))
        call = member.actor.answer.options(name=f"batch {lot.number + 1} of {lot.of}")
        member.lots[call.remote(lot.number, sent)] = lot

    def news(self) -> list[tuple[_Lot, list[Answered] | Exception]]:
        """Wait for something to happen; answers, and lots that an actor's death has given back."""
        preparing = {m.preparing: m for m in self._members if m.preparing is not None}
        working = {reference: m for m in self._members for reference in m.lots}
        # who is ready comes first: quick answers of one actor would leave another without work
        done, _ = self._ray.wait([*preparing, *working], num_returns=1, timeout=_WORD_SECONDS)
        if not done:
            self._say_who_is_missing()
            return []
        if done[0] in preparing:
            self._welcome(preparing[done[0]])
            return []
        return [self._received(working[done[0]], done[0])]

    def dismiss(self) -> list[Any]:
        """Stop what is under way; the actors that stay for the next evaluation."""
        stay = list(self._spare)
        for member in self._members:
            if member.alive and not member.lots and member.preparing is None:
                stay.append(member.actor)
            else:
                self._ray.kill(member.actor)
        return stay

    def _employ(self, actor: Any = None) -> _Member:
        resident = actor is not None
        if actor is None:
            actor = _started(self._needs)
        return _Member(actor=actor, preparing=actor.prepare.remote(self._task), resident=resident)

    def _welcome(self, member: _Member) -> None:
        """An actor is ready, or has failed to become so."""
        try:
            found = self._ray.get(member.preparing)
        except self._ray.exceptions.RayTaskError as error:
            raise CannotScaleOut(
                f"an actor could not load the model or its defences: {_cause(error)}"
            ) from error
        except self._deaths as error:
            self._stillborn += not member.resident
            if self._stillborn >= TRIES:
                raise RuntimeError(
                    f"{TRIES} actors in a row died before they had the model loaded; most often the machine has too little "
                    f"memory for so many (ask for fewer: --actors): {_first_words(error)}"
                ) from error
            self._replace(member)
            return
        if differences := self._grounds.differences(found):
            raise RuntimeError(
                "an actor would not give the answers of this process, since they differ in: "
                f"{'; '.join(differences)}. Give all nodes the same checkout, packages, checkpoint and kind of device"
            )
        member.preparing, self._stillborn = None, 0

    def _received(self, member: _Member, reference: Any) -> tuple[_Lot, list[Answered] | Exception]:
        first = next(iter(member.lots)) == reference
        lot = member.lots.pop(reference)
        try:
            return lot, self._ray.get(reference)
        except (*self._deaths, self._ray.exceptions.RayTaskError) as error:
            if not isinstance(getattr(error, "cause", error), (*self._deaths, torch.AcceleratorError)):
                raise  # no death and no lost card: a fault that another actor would meet again
            if first and member.alive:
                lot.tries += 1  # it was under way; those behind it are innocent
            if member.alive:
                self._replace(member)
            return lot, error

    def _replace(self, member: _Member) -> None:
        member.alive, member.preparing = False, None
        self._ray.kill(member.actor)  # of a lost card the process still lives
        self._members.append(self._employ())
        self._members = [m for m in self._members if m.alive or m.lots]
        self._hoped = time.monotonic()

    def _say_who_is_missing(self) -> None:
        """Nothing has happened for a while: is nobody there, or is the work long?"""
        if self.busy or time.monotonic() - self._hoped < _WORD_SECONDS:
            return
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in self._needs.items())
        warnings.warn(
            f"no actor is ready yet: either they still load the model, or this Ray has no {wanted} free (`ray status`) and "
            "the run goes on when others have ended or a node has come",
            WaitingForActors,
            stacklevel=2,
        )
        self._hoped = time.monotonic()

    @property
    def _deaths(self) -> tuple[type[Exception], ...]:
        """An actor or its node is gone, or with it what it had computed."""
        errors = self._ray.exceptions
        return (
            errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError,
            errors.OutOfMemoryError,
        )  # fmt: skip


def _started(needs: Mapping[str, float]) -> Any:
    """A new actor, which is there before it is ready."""
    environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    # threads are the actor's to set; this is for libraries that look at nothing else
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    remote = import_ray().remote(RemoteDesk)
    resources = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0)}
    return remote.options(**resources, runtime_env={"env_vars": environment}).remote()


def _cause(error: Any) -> str:
    cause = error.cause
    return f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else _first_words(error)


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
