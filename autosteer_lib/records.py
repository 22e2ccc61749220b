"""Answers on disk: an append-only JSONL file, one line an answer, keyed by all that the answer depends on.

    {"key": "3f…", "answer": "sorry , i cannot help with that .", "new_tokens": 9, …}

Running the same command again is the resume: what has a line is not generated again. For that two
things must hold. The key must change whenever the answer could (`record_key`: leaving an ingredient out
is a TypeError, not a stale answer). And a line is either whole or not there: each is handed to the
operating system in one piece before the next answer is awaited, so Ctrl-C or kill -9 loses only the answer
under way; a failed write (disk full) is taken back; a torn last line is dropped when the file is opened.
One process writes a file at a time (several runs at once: shards.py); the lock is the kernel's, a POSIX lock (Linux,
macOS), so a killed writer leaves none behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

LIBRARY = Path(__file__).parent
# The files between a prompt and its answer. How states are fitted is not among them: a fitted defence
# is in the key by the hash of its state, so retraining to the same state keeps the answers valid.
GENERATION_FILES = (
    "videos.py", "prompts.py", "models.py", "families.py", "decoder.py", "encoding.py", "forced_answer.py", "sites.py",
    "generation.py",
    "probers.py", "prober_training.py", "refusal_head.py", "readings.py", "directions.py",
    "trust_region.py", "mars_readings.py", "decoding_probe.py", "modal_alignment.py", "look_ahead.py",
    "safesteer_readings.py", "chat_template.py", "defences",
    "adaptive_strength.py", "condition_vectors.py", "pooled_states.py", "refusal_candidates.py", "refusal_sweeps.py",
    "steering_classifier.py", "text_models.py",
)  # fmt: skip
# The packages whose release can change an answer.
GENERATION_PACKAGES = ("torch", "transformers", "tokenizers")


class RecordError(RuntimeError):
    """A record file that cannot be written or read as it should be."""


class ShardBusy(RecordError):
    """Another run is writing this file."""


@cache
def code_version(library: Path = LIBRARY) -> str:
    """Hash the generation-relevant files of the library and the releases of the packages below it."""
    digest = hashlib.sha256()
    for name in GENERATION_FILES:
        path = library / name
        files = sorted(path.glob("**/*.py")) if path.is_dir() else [path]
        if not all(file.exists() for file in files) or not files:
            raise RecordError(f"{path} is missing: the code version of a record cannot be told without it")
        for file in files:
            # a checkout with CRLF line ends is the same code
            content = file.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{file.relative_to(library).as_posix()}:{len(content)}:".encode() + content)
    for package in GENERATION_PACKAGES:
        digest.update(f"{package}=={version(package)}".encode())
    return digest.hexdigest()


def record_key(
    *, code: str, model: str, dtype: str, device: str, processor: str, prompt: str, settings: object,
    defence: str, seed: int,
) -> str:  # fmt: skip
    """Hash what an answer depends on.

    Args:
        code: `code_version()`.
        model: fingerprint of the checkpoint (name and revision, or its weights).
        dtype: of the weights; rounding decides between near-equal tokens.
        device: its type ("cpu", "cuda"); kernels differ in the last bit.
        processor: fingerprint of tokenizer, image settings and chat template.
        prompt: `Prompt.fingerprint`, over the words and the bytes of the pictures.
        settings: the generation settings (a dataclass or a mapping).
        defence: `Defence.fingerprint`, over fitted state and hyper-parameters (ε, τ, layer …).
        seed: of the run.
    """
    plain = asdict(settings) if is_dataclass(settings) and not isinstance(settings, type) else settings
    parts = {
        "code": code, "model": model, "dtype": dtype, "device": device, "processor": processor,
        "prompt": prompt, "settings": plain, "defence": defence, "seed": seed,
    }  # fmt: skip
    empty = [name for name, value in parts.items() if value is None or value == ""]
    if empty:
        raise ValueError(
            f"empty ingredients in a record's key: {', '.join(empty)}; unlike answers would share it"
        )
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def read_records(path: Path | str) -> dict[str, dict[str, Any]]:
    """Read a record file without locking it (a writer may be at work). Key → record, in order of writing."""
    path = Path(path)
    return _parse(path.read_bytes(), path)[0] if path.exists() else {}


class RecordStore:
    """A record file opened for appending. A context manager: leaving it syncs the file to the disk.

    Raises:
        RecordError: the file cannot be written, another process (or another store of this one) has it open, or a
            line that is not the last one is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
        except OSError as error:
            raise RecordError(
                f"no records can be kept in {self.path} ({error.strerror}); name a folder that may be written, or copy "
                "this one to such a place: what is on record there is read and not made again"
            ) from error
        try:
            self._lock()
            self._records, self._end, torn = _parse(self.path.read_bytes(), self.path)
            if torn:
                os.ftruncate(self._file, self._end)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Add one record. It is with the operating system when this returns."""
        self.extend([(key, record)])

    def extend(self, items: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Add several records in one write; all of them or, on an error, none."""
        file = self._open_file()
        added: dict[str, dict[str, Any]] = {}
        for key, record in items:
            if key in self._records or key in added:
                raise ValueError(
                    f"a record with key {key!r} is in {self.path} already; ask `key in store` before computing an "
                    f"answer: records are never overwritten"
                )
            if "key" in record:
                raise ValueError("'key' is the store's own field; rename the record's field")
            added[key] = dict(record)
        try:
            lines = [json.dumps({"key": key, **record}, allow_nan=False) for key, record in added.items()]
        except ValueError as error:
            raise ValueError(
                f"a record for {self.path} holds NaN or inf, which JSON has no word for; a score that is not finite "
                f"is an error of the run that made it: {error}"
            ) from error
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            written = 0
            while written < len(data):
                written += os.write(file, data[written:])
        except BaseException as error:
            # half a line would be joined with the next one: take it back, then let the error pass
            os.ftruncate(file, self._end)
            if isinstance(error, OSError):
                raise RecordError(
                    f"could not write to {self.path} ({error.strerror}); the {len(self)} records before this one are "
                    f"safe. Make room and run the same command again: it goes on from there"
                ) from error
            raise
        self._end += len(data)
        self._records.update(added)

    def close(self) -> None:
        """Sync to the disk, let the lock go. Closing twice does nothing."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                os.fsync(file)
            finally:
                os.close(file)

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._records[key]

    def __contains__(self, key: object) -> bool:
        return key in self._records

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_file(self) -> int:
        if self._file is None:
            raise RecordError(f"{self.path} is closed; open a new RecordStore to append to it")
        return self._file

    def _lock(self) -> None:
        try:
            fcntl.flock(self._open_file(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ShardBusy(
                f"{self.path} is being written by another run. Wait for it to end, stop it, or give this run a "
                f"records file of its own; `read_records` can read it meanwhile"
            ) from error


class _Memory:
    """What of one file has been parsed in this process: a run opens its records for every table that it makes."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.forget()

    def forget(self) -> None:
        """The file is not the one that was read."""
        self.end, self.lines = 0, 0
        self.digest = hashlib.sha256().digest()
        self.records: dict[str, dict[str, Any]] = {}


@cache
def _memory(path: Path) -> _Memory:
    return _Memory()


def _parse(data: bytes, path: Path) -> tuple[dict[str, dict[str, Any]], int, bool]:
    """Records, the byte where the last whole line ends, and whether a torn line follows it.

    A file grows at its end alone, so what was parsed before is not parsed again if its bytes are still the same.
    """
    end = data.rfind(b"\n") + 1
    memory = _memory(path.absolute())
    with memory.lock:
        digest = hashlib.sha256(data[: memory.end])
        if end < memory.end or digest.digest() != memory.digest:
            memory.forget()
            digest = hashlib.sha256()
        records = dict(memory.records)
        lines = data[memory.end : end].splitlines()
        for number, line in enumerate(lines, start=memory.lines + 1):
            try:
                record = json.loads(line)
                records[record.pop("key")] = record
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise RecordError(
                    f"{path}, line {number} is not a record: {line[:80]!r}. Only the last line can be torn by a crash, "
                    f"so the file was changed by hand or by a disk fault; delete this line and run again"
                ) from error
        digest.update(data[memory.end : end])
        memory.end, memory.lines, memory.digest = end, memory.lines + len(lines), digest.digest()
        memory.records = dict(records)
    return records, end, end < len(data)
