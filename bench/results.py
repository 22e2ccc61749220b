"""One JSON file a bench: circumstances, targets, ratios, raw samples; and the table that a person reads.

A bench that cannot run here (no GPU) is written too, with the reason, unless a measured file is there
already: a machine without a GPU must not wipe out what one with a GPU found.
"""

import json
import platform
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from autosteer_lib.provenance import Provenance
from bench.harness import Check, Measure, Result, Settings, median_interval

FORMAT = 1


def as_json(
    result: Result, *, settings: Settings, circumstances: Provenance, seconds: float
) -> dict[str, Any]:
    """The content of a bench's file."""
    verdicts = [measure.met for measure in result.measures if measure.met is not None]
    return {
        "format": FORMAT,
        "bench": result.bench,
        "status": "measured" if result.skipped is None else "skipped",
        "reason": result.skipped,
        "quick": settings.quick,
        "met": all(verdicts) if verdicts else None,
        "checks_hold": all(check.holds for check in result.checks),
        "measures": [_measure(measure) for measure in result.measures],
        "checks": [_check(check) for check in result.checks],
        "settings": {"device": settings.device, "profile": settings.profile, "seed": settings.seed},
        "machine": machine(circumstances),
        "versions": {"python": circumstances.python, **circumstances.packages},
        "commit": circumstances.commit,
        "dirty": circumstances.dirty,
        "library": circumstances.library,
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
    }


def machine(circumstances: Provenance) -> dict[str, Any]:
    """Processor, memory and accelerator; no host name."""
    gpu = None
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        gpu = {"name": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
    return {
        "cpu": circumstances.cpu,
        "cores": circumstances.cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu,
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def write(content: dict[str, Any], folder: Path) -> Path | None:
    """Write the file; None where a skipped bench leaves an earlier measurement as it is."""
    path = folder / f"{content['bench']}.json"
    if content["status"] == "skipped" and path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier["status"] == "measured":
            return None
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def lines(result: Result) -> Iterable[str]:
    """The result for the terminal."""
    if result.skipped is not None:
        yield f"  skipped: {result.skipped}"
    for measure in result.measures:
        if measure.skipped is not None:
            yield f"  {measure.name}: skipped: {measure.skipped}"
            continue
        low, high, confidence = median_interval(measure.values)
        yield (
            f"  {measure.name}: {median(measure.values):,.4g}  [{low:,.4g}, {high:,.4g}] at {confidence:.0%}"
            f"  ({measure.is_}){_verdict(measure)}"
        )
    for check in result.checks:
        holds = "holds" if check.holds else "FAILS"
        yield f"  {check.name}: {check.difference:.2g}, allowed {check.allowed:.2g}: {holds}"


def _verdict(measure: Measure) -> str:
    if measure.target is None:
        return ""
    word = {True: "met", False: "NOT met", None: "not judged at these sizes"}[measure.met]
    return f"; target {measure.target.words}: {word}"


def _measure(measure: Measure) -> dict[str, Any]:
    target = measure.target
    summary: dict[str, Any] = {"median": None, "interval": None, "confidence": None}
    if measure.skipped is None:
        low, high, confidence = median_interval(measure.values)
        summary = {"median": median(measure.values), "interval": [low, high], "confidence": confidence}
    return {
        "name": measure.name,
        "is": measure.is_,
        **summary,
        "target": None
        if target is None
        else {"kind": target.kind, "bound": target.bound, "words": target.words},
        "met": measure.met,
        "skipped": measure.skipped,
        "details": dict(measure.details),
        "values": list(measure.values),
        "samples": {side: list(samples) for side, samples in measure.samples.items()},
        "samples_unit": measure.unit,
    }


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "difference_is": check.difference_is,
        "difference": check.difference,
        "allowed": check.allowed,
        "holds": check.holds,
    }
