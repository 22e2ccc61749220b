"""A folder of record files, so that several runs can add answers at once: each writes one, all are read.

    records/answers/000.jsonl   written by one run (records.py: append-only, its lock is the kernel's)
    records/answers/001.jsonl   written by another at the same time

A run takes the first shard that nobody is writing, so a killed run's shard is gone on with and a folder that only one
run uses has a single file. It sees what the others had written when it opened the folder. Two runs that make the same
answer at the same time record it twice: it is the same answer, and the lower shard's is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from autosteer_lib.records import RecordError, RecordStore, ShardBusy, read_records

MOST_WRITERS = 1000  # three digits in a name; more writers at once are a mistake


class Shards:
    """All records of a folder, with one shard of it open for appending. A context manager, as `RecordStore` is.

    Raises:
        RecordError: a shard is damaged, or the path is a file.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if self.folder.is_file():
            raise RecordError(
                f"{self.folder} is a file; records are kept in a folder of shards: name a folder"
            )
        self._own = self._first_free()
        try:
            self._others = read_shards(self.folder, but=self._own.path)
        except BaseException:
            self._own.close()
            raise

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Add one record. It is with the operating system when this returns."""
        self.extend([(key, record)])

    def extend(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Add several records in one write; all of them or, on an error, none."""
        whole = list(items)
        if known := [key for key, _ in whole if key in self._others]:
            raise ValueError(
                f"a record with key {known[0]!r} is in {self.folder} already; ask `key in shards` before computing an "
                f"answer: records are never overwritten"
            )
        self._own.extend(whole)

    def close(self) -> None:
        """Sync the own shard to the disk, let its lock go. Closing twice does nothing."""
        self._own.close()

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._others[key] if key in self._others else self._own[key]

    def __contains__(self, key: object) -> bool:
        return key in self._others or key in self._own

    def __len__(self) -> int:
        return len(self._others.keys() | set(self._own))

    def __iter__(self) -> Iterator[str]:
        yield from self._others
        yield from (key for key in self._own if key not in self._others)

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _first_free(self) -> RecordStore:
        for number in range(MOST_WRITERS):
            try:
                return RecordStore(self.folder / f"{number:03}.jsonl")
            except ShardBusy:
                continue
        raise RecordError(f"{MOST_WRITERS} runs are writing {self.folder}; wait for one of them to end")


def read_shards(folder: Path | str, *, but: Path | None = None) -> dict[str, dict[str, Any]]:
    """Read a folder of shards without locking any (writers may be at work). Key → record, shard by shard."""
    found: dict[str, dict[str, Any]] = {}
    for shard in sorted(Path(folder).glob("*.jsonl")):
        if shard != but:
            found = read_records(shard) | found  # of two equal keys, the lower shard's
    return found
