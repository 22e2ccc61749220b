"""Downloads what a profile needs: `make fetch PROFILE=paper`. Run again, it goes on where it was.

    before     offline? a gate without a token? a disk too small? → one error with all of it, nothing downloaded
    hub        snapshot_download into the hub's cache, which resumes by itself
    addresses  one file at a time into <home>/<name>/ (benchmarks/places.py), a half one under another name
    after      every file against its hash, archives unpacked, licences written into <home>/fetched.json

The cache of the hub names each file by its own hash (SHA-256 of large files, git's SHA-1 of small ones), so what lies
there can be checked without asking again. Files from other addresses are held against the registry's SHA-256 where
one is known; elsewhere theirs is recorded, so that a later change shows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from tqdm.auto import tqdm

from autosteer_lib.benchmarks import Benchmark, BenchmarkError, HubSet, WebSet, load
from autosteer_lib.benchmarks.needed import NeededSet, needed_sets
from autosteer_lib.benchmarks.places import benchmarks_home
from autosteer_lib.checkpoints import MODEL_FILES
from autosteer_lib.needs import Machine, machine, needed_checkpoints, needed_judges
from autosteer_lib.profiles import DEFAULT_PROFILE, Profile, load_profile
from autosteer_lib.released import Checkpoint

AT_ONCE = 8  # pictures: each is small, and most of the time is waiting
TIMEOUT = 60  # seconds without a byte
RECORD = "fetched.json"


class CannotFetch(RuntimeError):
    """Downloading cannot begin; the message says everything that stands in the way."""


def fetch(profile: Profile, *, here: Machine, families: bool = False, gated: bool = True) -> list[str]:
    """Get everything; a thing that fails does not stop the others.

    Args:
        profile: whose needs.
        here: this machine.
        families: the checkpoints of further families too.
        gated: also what is behind a gate; False leaves it out, for who has no token.

    Returns:
        One sentence a thing that failed.

    Raises:
        CannotFetch: nothing was downloaded; says why.
    """
    checkpoints = needed_checkpoints(profile)[: None if families else 1]
    checkpoints = [c for c in checkpoints if families or c.repo == profile.model.name]
    checkpoints += needed_judges(profile)
    sets = needed_sets(profile)
    if not gated:
        checkpoints = [c for c in checkpoints if not c.gate]
        sets = [n for n in sets if not n.benchmark.gate]
    _check(profile, checkpoints, sets, here=here)
    failed: list[str] = []
    jobs = [
        *((c.repo, lambda c=c: _checkpoint(c, profile)) for c in checkpoints),
        *((n.benchmark.name, lambda n=n: _set(n, profile)) for n in sets),
    ]
    for name, job in jobs:
        print(f"{name} …")
        try:
            _record(name, job())
        except (OSError, ValueError, BenchmarkError, HfHubHTTPError) as error:
            failed.append(f"{name}: {type(error).__name__}: {error}")
    return failed


def _check(
    profile: Profile, checkpoints: Iterable[Checkpoint], sets: Iterable[NeededSet], *, here: Machine
) -> None:
    """Everything that can be known before the first byte."""
    faults: list[str] = []
    if here.offline:
        faults.append("HF_HUB_OFFLINE forbids downloads: unset it")
    closed = [(c.repo, c.gate) for c in checkpoints if c.gate]
    closed += [(n.benchmark.name, n.benchmark.gate) for n in sets if n.benchmark.gate]
    if not here.token:
        faults += [
            f"{name} is gated: accept its terms at {gate}, then `hf auth login` (or set HF_TOKEN); ARGS=--without-gated "
            "goes on without it"
            for name, gate in closed
        ]
    known = [c.gigabytes or c.memory_gigabytes("float16") or 0.0 for c in checkpoints]
    known += [(n.benchmark.megabytes or 0.0) / 1000 for n in sets]
    needed = max(profile.run.disk_gb, sum(known))
    if here.free_gigabytes < needed:
        faults.append(
            f"the disk of the cache has {here.free_gigabytes:.0f} GB free, and {needed:.0f} GB are needed at least: free "
            "some, or set HF_HOME to a folder on another disk"
        )
    if faults:
        raise CannotFetch("\n  ".join([f"nothing was downloaded for profile {profile.name}:", *faults]))


def _checkpoint(needed: Checkpoint, profile: Profile) -> dict[str, Any]:
    own = needed.repo == profile.model.name
    folder = Path(
        snapshot_download(
            needed.repo,
            revision=(profile.model.revision or None) if own else needed.revision,
            allow_patterns=list(MODEL_FILES),
        )
    )
    return {
        "revision": folder.name,
        "licence": needed.licence,
        "gate": needed.gate,
        "page": needed.page,
        "files": verified_snapshot(folder),
    }


def _set(needed: NeededSet, profile: Profile) -> dict[str, Any]:
    entry = needed.benchmark
    own = benchmarks_home() / entry.name
    if isinstance(entry.source, HubSet):
        folder = Path(
            snapshot_download(
                entry.source.repo,
                repo_type="dataset",
                revision=entry.source.revision,
                ignore_patterns=list(entry.source.leave_out) or None,
            )
        )
        files, revision = verified_snapshot(folder), folder.name
        for pattern in entry.source.archives:
            for archive in sorted(folder.glob(pattern)):
                unpack(archive, own / archive.relative_to(folder).parent)
    else:
        files, revision = (
            _from_addresses(entry, entry.source, needed, profile),
            entry.source.revision or "newest",
        )
    return {
        "revision": revision,
        "licence": entry.licence,
        "gate": entry.gate,
        "page": entry.source.page,
        "files": files,
    }


def _from_addresses(entry: Benchmark, source: WebSet, needed: NeededSet, profile: Profile) -> dict[str, str]:
    """The files of rows, then the pictures that the profile's own samples show."""
    own = benchmarks_home() / entry.name
    digests: dict[str, str] = {}
    for name in dict.fromkeys(file for part in needed.parts for file in part.files):
        path = own / name
        if not path.is_file():
            _download(address(source, name), path)
        digests[name] = _sha256(path)
        expected = source.hashes.get(name)
        if expected is not None and digests[name] != expected:
            path.unlink()
            raise ValueError(
                f"{name} has SHA-256 {digests[name]}, and {expected} is registered; it was removed. Fetch again; if it "
                f"comes the same, the file at {source.page} is not the one that this was written for"
            )
    wanted: set[str] = set()
    for part in needed.parts:
        limit = _limit(part.group, profile)
        load(part.surface, group=part.group, limit=limit, seed=profile.data.seed, wanted=wanted)
    by_hand = {name for name in wanted if any(name.startswith(beginning) for beginning in source.by_hand)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [
            pool.submit(_download, address(source, name), own / name) for name in sorted(wanted - by_hand)
        ]
        for job in tqdm(jobs, desc=entry.name, unit="picture", disable=None):
            job.result()
    if by_hand:
        raise BenchmarkError(f"{len(by_hand)} pictures have no address: {'; '.join(source.by_hand.values())}")
    return digests


def _limit(group: str, profile: Profile) -> int:
    """As many rows as the study draws of a part of this group (study/benchmark_data.py)."""
    mars = profile.mars.texts + profile.mars.validation
    drawn = {"pair": profile.data.pairs, "refusal": profile.data.refusal_prompts}
    return drawn.get(group, max(profile.data.tests_per_surface, mars))


def address(source: WebSet, name: str) -> str:
    """Where a file of the set is to be had: the longest beginning of its name counts."""
    beginning = max((b for b in source.urls if name.startswith(b)), key=len)
    return source.urls[beginning] + name.removeprefix(beginning)


def verified_snapshot(folder: Path) -> dict[str, str]:
    """The hashes of a snapshot's files, each held against the name that the cache gave it.

    Raises:
        ValueError: a file's content is not what its name says; it is removed, and fetching again mends it.
    """
    digests: dict[str, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        blob = path.resolve()
        digest = _sha256(blob) if len(blob.name) == 64 else _git_sha1(blob)
        if path.is_symlink() and blob.name != digest:
            blob.unlink()
            path.unlink()
            raise ValueError(
                f"{path.name} is damaged: its content has the hash {digest[:12]}…, its name in the cache says "
                f"{blob.name[:12]}…; it was removed, fetch again"
            )
        digests[path.relative_to(folder).as_posix()] = digest
    return digests


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or a tar into a folder, once: a note beside it says which archive lies there.

    Raises:
        ValueError: a member would land outside the folder, or the archive is broken.
    """
    note = folder / f".{archive.name}.unpacked"
    mark = archive.resolve().name  # the cache names it by its content
    if note.is_file() and note.read_text(encoding="utf-8") == mark:
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as opened:
                outside = [n for n in opened.namelist() if n.startswith("/") or ".." in Path(n).parts]
                if outside:
                    raise ValueError(f"{archive.name} holds {outside[0]!r}, which lies outside its folder")
                opened.extractall(folder)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise ValueError(f"{archive.name} cannot be unpacked ({error}); fetch it again") from error
    note.write_text(mark, encoding="utf-8")


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, partial.open("wb") as stream:
        shutil.copyfileobj(answer, stream)
    partial.replace(path)


def _record(name: str, facts: dict[str, Any]) -> None:
    path = benchmarks_home() / RECORD
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(known | {name: facts}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _git_sha1(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m autosteer_lib.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="a shipped profile or a .toml file")
    parser.add_argument("--families", action="store_true", help="the checkpoints of further families too")
    parser.add_argument("--without-gated", action="store_true", help="leave out what is behind a gate")
    options = parser.parse_args(arguments)
    try:
        profile = load_profile(options.profile)
        if not needed_checkpoints(profile) and not needed_sets(profile):
            print(f"profile {profile.name} downloads nothing: model and prompts ship with the repository")
            return 0
        failed = fetch(profile, here=machine(), families=options.families, gated=not options.without_gated)
    except (ValueError, FileNotFoundError, CannotFetch) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; `make fetch PROFILE={options.profile}` goes on from here.", file=sys.stderr)
        return 130
    for message in failed:
        print(f"failed: {message}", file=sys.stderr)
    print(
        f"{'all is' if not failed else 'the rest is'} here; licences and hashes are in {RECORD} beside the sets"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
