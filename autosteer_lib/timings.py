"""What each notebook took in its last run: seconds, peak memory, cells; kept in the build, shown by the report.

    {"00_the_organism_and_its_gap": {"seconds": 28.1, "peak_memory_mb": 1451, "cells": 9}, …}

Notebooks that ran side by side shared the cores, so their seconds add up to more than the run took.
"""

import json
from collections.abc import Mapping
from typing import Any

from autosteer_lib.artefacts import TIMINGS
from autosteer_lib.committed import write_text
from autosteer_lib.runs import Run


def drop_timings(run: Run) -> None:
    """Of notebooks that have been renamed or removed."""
    timings = _read_timings(run)
    if set(timings) - set(run.notebooks):
        kept = {name: cost for name, cost in timings.items() if name in run.notebooks}
        write_text(run.build / TIMINGS, json.dumps(kept, indent=2) + "\n")


def write_timing(run: Run, name: str, cost: Mapping[str, float]) -> None:
    write_text(run.build / TIMINGS, json.dumps(_read_timings(run) | {name: dict(cost)}, indent=2) + "\n")


def timing_lines(run: Run) -> str:
    timings = _read_timings(run)
    lines = [
        f"  {name:<40} {cost['seconds']:>8.0f} s {cost['peak_memory_mb']:>8,.0f} MB"
        for name, cost in sorted(timings.items())
    ]
    total = sum(cost["seconds"] for cost in timings.values())
    return "\n".join([*lines, f"  {'sum':<40} {total:>8.0f} s"])


def _read_timings(run: Run) -> dict[str, Any]:
    path = run.build / TIMINGS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
