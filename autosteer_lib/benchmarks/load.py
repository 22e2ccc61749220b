"""Loads sets: rows → asks → prompts, checked before anything is built.

    load("figstep")                    every prompt of the surface, or of all the set's surfaces of a group
    load_all(["figstep", "hades"])     goes on where a set fails, and says what failed and why

A sample of n is the n rows whose hash of (seed, surface, position) is smallest. It is the same whatever order
sets are loaded in, and a sample of 100 is part of that of 500.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autosteer_lib.benchmarks.entry import (
    NUMBER,
    ORIGIN,
    PLAIN,
    Ask,
    Benchmark,
    BenchmarkError,
    Group,
    Part,
    Row,
)
from autosteer_lib.benchmarks.places import Shelf, shelf
from autosteer_lib.benchmarks.registry import find_parts
from autosteer_lib.benchmarks.rows import checked, file_rows, table_rows
from autosteer_lib.prompts import Prompt

_HARMFUL: dict[str, bool | None] = {
    "attack": True,
    "refusal": True,
    "benign": False,
    "borderline": False,
    "utility": False,
    "pair": None,  # each twin says it itself
}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What could be loaded, and what could not."""

    prompts: tuple[Prompt, ...]
    failed: tuple[str, ...]
    """One sentence a set that failed: which, why, and what to do."""


def load(
    name: str,
    *,
    group: Group | None = None,
    limit: int | None = None,
    seed: int = 0,
    frames: int = 8,
    wanted: set[str] | None = None,
) -> list[Prompt]:
    """The prompts of one set or surface.

    Args:
        name: a set ("vlguard") or one of its surfaces ("vlguard/safe_image").
        group: only prompts of this group; None takes all.
        limit: at most so many rows of each surface and group, sampled as above; None takes all.
        seed: of the sample.
        frames: how many frames of a film are shown.
        wanted: names of missing pictures and films are added here and are no error (`fetch` reads them).

    Raises:
        ValueError: no such set or surface, or it has nothing of this group.
        BenchmarkError: the set is not here, a column has changed, or a file is missing; names set and remedy.
    """
    prompts: list[Prompt] = []
    for benchmark, part in find_parts(name, group=group):
        here = shelf(benchmark, frames=frames, wanted=wanted)
        prompts += _prompts(benchmark, part, here, limit=limit, seed=seed)
    _check_ids(prompts, name)
    return prompts


def load_all(
    names: Sequence[str],
    *,
    group: Group | None = None,
    limit: int | None = None,
    seed: int = 0,
    frames: int = 8,
) -> Loaded:
    """The prompts of several sets; a set that fails does not stop the others.

    Raises:
        ValueError: a name that no set has: a misspelling is not a missing set.
    """
    for name in names:
        find_parts(name, group=group)
    prompts: list[Prompt] = []
    failed: list[str] = []
    for name in names:
        try:
            prompts += load(name, group=group, limit=limit, seed=seed, frames=frames)
        except BenchmarkError as error:
            failed.append(str(error))
    return Loaded(prompts=tuple(prompts), failed=tuple(failed))


def _prompts(
    benchmark: Benchmark, part: Part, here: Shelf, *, limit: int | None, seed: int
) -> Iterator[Prompt]:
    try:
        for row in _sample(_rows(part, here), part=part, limit=limit, seed=seed):
            asks = part.ask(row, here)
            if isinstance(asks, Ask):
                raise BenchmarkError(
                    f"{part.surface}: the entry's ask(row, sights) returned one Ask; it must give any number of them: "
                    "yield it, or return a list"
                )
            for ask in asks:
                yield _prompt(benchmark, part, ask)
    except BenchmarkError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        # whatever a foreign file can do to a reader, the message must say whose it is
        raise BenchmarkError(
            f"{part.surface}: cannot be read ({type(error).__name__}: {error}). Fetch it again; if that does not "
            f"help, the set has changed since this was written: compare {benchmark.source.page} with its entry in "
            "autosteer_lib/benchmarks"
        ) from error


def _rows(part: Part, here: Shelf) -> Iterator[Row]:
    """The part's rows, with columns checked, and with where each is from."""
    if part.files:
        for name in part.files:
            path = here.find(name)
            rows = checked(
                file_rows(path, within=part.within), columns=part.columns, where=f"{part.surface} in {name}"
            )
            yield from ({**row, ORIGIN: path.stem, NUMBER: number} for number, row in enumerate(rows, 1))
        return
    for config in part.configs:
        plain = _plain_questions(part, here, config)
        rows = checked(_table(here, config, part.split), columns=part.columns, where=part.surface)
        for number, row in enumerate(rows, 1):
            asked = {} if part.plain is None else {PLAIN: plain[str(row[part.plain[1]])]}
            yield {**row, ORIGIN: config, NUMBER: number, **asked}


def _table(here: Shelf, config: str, split: str) -> Iterator[Row]:
    # Where a set's own folder holds only pictures out of tables, its rows are in the hub's cache.
    folder = next((f for f in here.folders if any(f.glob("*.md")) or any(f.rglob("*.parquet"))), here.own)
    return table_rows(folder, config=config, split=split)


def _plain_questions(part: Part, here: Shelf, config: str) -> dict[str, str]:
    if part.plain is None:
        return {}
    split, key, column = part.plain
    rows = checked(_table(here, config, split), columns=(key, column), where=f"{part.surface} ({split})")
    return {str(row[key]): str(row[column]) for row in rows}


def _sample(rows: Iterable[Row], *, part: Part, limit: int | None, seed: int) -> Iterator[Row]:
    kept = (row for row in rows if part.keep is None or part.keep(row))
    if limit is None:
        yield from kept
        return

    def draw(numbered: tuple[int, Row]) -> bytes:
        return hashlib.sha256(f"{seed}/{part.surface}/{part.group}/{numbered[0]}".encode()).digest()

    chosen = heapq.nsmallest(limit, enumerate(kept), key=draw)  # holds `limit` rows, however long the set
    yield from (row for _, row in sorted(chosen, key=lambda numbered: numbered[0]))


def _prompt(benchmark: Benchmark, part: Part, ask: Ask) -> Prompt:
    scored = part.scored and ask.reference is not None
    extra: dict[str, str] = {} if ask.scoring is None else {"scoring": ask.scoring}
    if ask.reference is not None and not part.scored:
        extra["expected"] = ask.reference
    return Prompt(
        text=ask.text,
        images=ask.images,
        videos=ask.videos,
        id=f"{part.surface}/{part.group}/{ask.key}",
        surface=part.surface,
        harmful=_HARMFUL[part.group] if ask.harmful is None else ask.harmful,
        intention=ask.intention or ask.text,
        reference=ask.reference if scored else None,
        pair_id=ask.pair,
        metadata={"group": part.group, "benchmark": benchmark.name, "category": ask.category, **extra},
    )


def _check_ids(prompts: Sequence[Prompt], name: str) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise BenchmarkError(
                f"{name}: two rows have the id {prompt.id!r}; a table could not tell them apart. The set has changed "
                "since this was written: correct the key in its entry in autosteer_lib/benchmarks"
            )
        seen.add(prompt.id)
