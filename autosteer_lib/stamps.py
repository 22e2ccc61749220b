"""Whether a notebook must run again: a stamp beside each build says what its results came from.

A stamp is written only when a notebook has run to its end. It stays good as long as all of this is as it was:
the notebook's own text, the code of those before it, library, profile, data, published sets, lock, parameters,
installed versions, the files that it made, and what its own comparison with the committed tables says.
"""

import json
import os
import platform
from pathlib import Path
from typing import Any

from autosteer_lib.benchmarks.needed import needed_sets
from autosteer_lib.benchmarks.places import inventory
from autosteer_lib.committed import build_entries, write_text
from autosteer_lib.notebook_files import source_hash
from autosteer_lib.profiles import load_profile
from autosteer_lib.provenance import data_hash, hash_files, hash_text, library_hash, package_versions
from autosteer_lib.runs import Run
from autosteer_lib.verify import verify_build


def stamp_inputs(run: Run, name: str) -> str:
    """One hash of everything that the notebook's results depend on and that exists before it runs."""
    names = list(run.notebooks)
    before = names[: names.index(name)]
    parts: dict[str, Any] = {
        "notebook": source_hash(run.notebooks[name]),
        # It may read their files. Their prose cannot matter.
        "earlier": [source_hash(run.notebooks[earlier], code_only=True) for earlier in before],
        "library": library_hash(),
        "profile": run.profile.model_dump_json(),
        "beside": [load_profile(name).model_dump_json() for name in run.profile.run.beside],
        "data": data_hash(run.root),
        # A test set that was missing and has been fetched since must make its notebooks run again.
        "sets": {n.benchmark.name: inventory(n.benchmark) for n in needed_sets(run.profile)},
        "lock": hash_files([run.root / "requirements.lock"], root=run.root),
        "parameters": run.injected(name),
        "python": platform.python_version(),
        "packages": package_versions(),
        "accelerators": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    return hash_text(json.dumps(parts, sort_keys=True))


def _own_verdicts(run: Run, name: str) -> list[str]:
    """What the notebook's own comparison prints: the one thing in it that depends on figures/."""
    tables = set(run.own_entries(name)["table"])
    return [
        "\n".join(map(str, (verdict, *verdict.mismatches)))
        for verdict in verify_build(run.build, run.committed)
        if verdict.name in tables
    ]


def _stamp_path(run: Run, name: str) -> Path:
    return run.build / "stamps" / f"{name}.json"


def write_stamp(run: Run, name: str, *, inputs: str) -> None:
    """`inputs` is `stamp_inputs` from before the notebook ran: a library edited meanwhile must not count."""
    stamp = {
        "inputs": inputs,
        "artefacts": run.own_entries(name),
        "verdicts": _own_verdicts(run, name),
    }
    write_text(_stamp_path(run, name), json.dumps(stamp, indent=2) + "\n")


def is_fresh(run: Run, name: str) -> bool:
    path = _stamp_path(run, name)
    if not path.is_file() or not run.executed(name).is_file():
        return False
    stamp = json.loads(path.read_text(encoding="utf-8"))
    now = {
        "inputs": stamp_inputs(run, name),
        "artefacts": run.own_entries(name),
        "verdicts": _own_verdicts(run, name),
    }
    return bool(stamp == now)


def forget_artefacts(run: Run, name: str) -> None:
    """Before a notebook runs: what it made last time may not be made again."""
    _stamp_path(run, name).unlink(missing_ok=True)
    for kind, artefacts in run.own_entries(name).items():
        for artefact in artefacts:
            (run.build / "manifest" / f"{kind}-{artefact}.json").unlink()
            for ending in ("csv", "png", "svg"):
                (run.build / f"{kind}s" / f"{artefact}.{ending}").unlink(missing_ok=True)


def forget_removed(run: Run) -> None:
    """Drop what notebooks made that have since been renamed or removed."""
    makers = {
        str(entry["notebook"])
        for kind in ("table", "figure")
        for entry in build_entries(run.build, kind).values()
    }
    for name in sorted(makers - set(run.notebooks)):
        forget_artefacts(run, name)
