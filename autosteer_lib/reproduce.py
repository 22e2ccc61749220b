"""Regenerates every table and figure: the numbered notebooks in order, under one profile, by papermill.

    python -m autosteer_lib.reproduce --profile organism             into build/organism, then the verdict
    python -m autosteer_lib.reproduce --profile organism --update    the maintainer's: also publish it

Several notebooks run at once where the profile says so ([run] notebooks_at_once) and there are cores for them; one
tagged `reads-earlier-tables` waits for all before it. Running it again is the resume. A notebook is run only if
something it depends on has changed: its own text, the code of those before it, the library, profile, data, lock,
parameters, or what its comparison with the committed tables would say. A run that was killed goes on with the
notebooks it was in.

Exit codes: 0 reproduced, 1 some numbers differ, 2 nothing was started (the message says why), 3 a notebook
failed, 130 interrupted.
"""

import argparse
import ast
import errno
import json
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
from filelock import FileLock, Timeout

from autosteer_lib.artefacts import TIMINGS, publish
from autosteer_lib.committed import build_entries, write_text
from autosteer_lib.execution import (
    NotebookFailed,
    check_kernel,
    environment_of,
    fixed_environment,
    prepare_notebook,
    run_notebook,
)
from autosteer_lib.notebook_files import for_publication, read_notebook, reads_earlier_tables, source_hash
from autosteer_lib.notebook_hygiene import problems
from autosteer_lib.profiles import DEFAULT_PROFILE
from autosteer_lib.provenance import available_cores, repository_root
from autosteer_lib.runs import Run, open_run
from autosteer_lib.stamps import forget_artefacts, forget_removed, is_fresh, stamp_inputs, write_stamp
from autosteer_lib.verify import report, verify_build
from autosteer_lib.workers import WorkerDied, Workers

UPDATE_PASSES = 3  # publishing changes what a notebook's own comparison says; the second pass must settle it


class CannotStart(Exception):
    """Nothing was run; the message says what to change."""


def reproduce(run: Run, *, update: bool = False, progress: bool = False) -> int:
    """Bring the build up to date, say what came of it, and return the exit code.

    Raises:
        CannotStart: no disk space, a foreign kernel, another run at work, or `update` of what is not published.
        NotebookFailed: a notebook raised; those before it are kept.
    """
    if update and (run.profile.name != DEFAULT_PROFILE or run.parameters):
        raise CannotStart(
            f"only profile {DEFAULT_PROFILE} with its own parameters is published; this is {run.label}. "
            "Leave out --update"
        )
    check_disk(run)
    run.build.mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(run.build / ".lock", timeout=0),
            environment_of(fixed_environment(root=run.root, profile=run.profile)),
        ):
            try:
                check_kernel()
            except ValueError as error:
                raise CannotStart(str(error)) from None
            print(f"profile {run.label}: {run.profile.run.description}")
            ran = bring_up_to_date(run, progress=progress)
            if update:
                return _publish(run, progress=progress)
            if not ran:
                print("nothing has changed since the last run")
            return _conclude(run)
    except Timeout:
        raise CannotStart(f"another run is at work in build/{run.label}; wait for it or stop it") from None


def bring_up_to_date(run: Run, *, progress: bool) -> int:
    """Run the notebooks that need it, several at once; return how many that were."""
    forget_removed(run)
    _drop_timings(run)
    headings = {name: f"[{place}/{len(run.notebooks)}] {name}" for place, name in enumerate(run.notebooks, 1)}
    waiting: deque[str] = deque()
    for name in run.notebooks:
        if is_fresh(run, name):
            print(f"{headings[name]}: unchanged, kept")
        else:
            waiting.append(name)
    stale, inputs, failures = len(waiting), dict[str, str](), list[Exception]()
    started = time.monotonic()
    with Workers(_at_once(run), preload="autosteer_lib.execution") as workers:
        while waiting or workers.busy:
            must_wait = waiting and workers.busy and reads_earlier_tables(run.notebooks[waiting[0]])
            if waiting and workers.busy < workers.most and not must_wait:
                name = waiting.popleft()
                print(f"{headings[name]}: running", flush=True)
                forget_artefacts(run, name)
                inputs[name] = stamp_inputs(run, name)
                bar = progress and workers.most == 1  # several bars would write over each other
                workers.start(name, run_notebook, _arguments(run, name, progress=bar))
                continue
            name, result = workers.next_done()
            if isinstance(result, Exception):
                failures.append(NotebookFailed(str(result)) if isinstance(result, WorkerDied) else result)
                waiting.clear()  # what runs already may end, nothing new starts
                continue
            _write_timing(run, name, result)
            write_stamp(run, name, inputs=inputs[name])
            print(
                f"{headings[name]}: done in {result['seconds']:.0f} s, peak memory {result['peak_memory_mb']:,} MB",
                flush=True,
            )
    if failures:
        raise failures[0]
    if stale:
        print(f"{stale} notebooks, {workers.most} at once: {time.monotonic() - started:.0f} s in all")
    return stale


def _at_once(run: Run) -> int:
    """As many as the profile allows and cores are free, each notebook with its threads."""
    cores = available_cores()
    return max(1, min(run.profile.run.notebooks_at_once, cores // (run.profile.run.threads or cores)))


def _arguments(run: Run, name: str, *, progress: bool) -> dict[str, Any]:
    return {
        "notebook": run.notebooks[name],
        "target": run.executed(name),
        "parameters": run.injected(name),
        "folder": run.root / "notebooks",
        "progress": progress,
    }


def check_disk(run: Run) -> None:
    free = shutil.disk_usage(run.root).free / 1e9
    if free < run.profile.run.disk_gb:
        raise CannotStart(
            f"{free:.1f} GB of disk are free, profile {run.profile.name} needs {run.profile.run.disk_gb:g} GB "
            "([run] disk_gb); free some, or move the checkout to a larger disk"
        )


def prepare_lab(run: Run) -> Path:
    """Copies of the notebooks with this profile put in, for JupyterLab; copies that exist are left as they are."""
    folder = run.build / "lab"
    for name in run.notebooks:
        target = folder / f"{name}.ipynb"
        if not target.is_file():
            prepare_notebook(run.root / "notebooks" / f"{name}.ipynb", target, parameters=run.injected(name))
    return folder


def _read_timings(run: Run) -> dict[str, Any]:
    path = run.build / TIMINGS
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _drop_timings(run: Run) -> None:
    """Of notebooks that have been renamed or removed."""
    timings = _read_timings(run)
    if set(timings) - set(run.notebooks):
        kept = {name: cost for name, cost in timings.items() if name in run.notebooks}
        write_text(run.build / TIMINGS, json.dumps(kept, indent=2) + "\n")


def _write_timing(run: Run, name: str, cost: Mapping[str, float]) -> None:
    write_text(run.build / TIMINGS, json.dumps(_read_timings(run) | {name: dict(cost)}, indent=2) + "\n")


def _conclude(run: Run) -> int:
    """Compare, show differences in figures/ for git, and print the verdict."""
    committed = run.committed
    verdicts = verify_build(run.build, committed)
    different = {verdict.name for verdict in verdicts if not verdict.ok}
    if committed.available:
        files = {(name, f"{name}.csv"): name in different for name in build_entries(run.build, "table")}
        for name, entry in build_entries(run.build, "figure").items():
            changed = name not in committed.figure_names() or bool(different & set(entry["tables"]))
            files |= {(name, f"{name}.{ending}"): changed for ending in ("png", "svg")}
        for (_, file), changed in files.items():
            if changed:
                kind = "tables" if file.endswith(".csv") else "figures"
                committed.show_difference(file, (run.build / kind / file).read_bytes())
            else:
                committed.restore(file)
    print(_timing_lines(run))
    print(report(verdicts, committed))
    if different and committed.available:
        print("what differs now stands in figures/: see `git status`; `git checkout figures` takes it back")
    return 1 if different else 0


def _publish(run: Run, *, progress: bool) -> int:
    """Publish until the notebooks' own comparisons, which they show, speak of what is published."""
    print(report(verify_build(run.build, run.committed), run.committed))
    figures = run.root / "figures"
    sources = {name: source_hash(notebook) for name, notebook in run.notebooks.items()}
    for _ in range(UPDATE_PASSES):
        shutil.rmtree(run.build / "differs", ignore_errors=True)
        count = len(publish(run.build, figures, profile=run.label, notebooks=sources))
        stale = [name for name in run.notebooks if not is_fresh(run, name)]
        if not stale:
            break
        print(
            f"published {count} files; run again, since what they say about figures/ has changed: {', '.join(stale)}"
        )
        bring_up_to_date(run, progress=progress)
    else:
        print(
            f"after {UPDATE_PASSES} passes {', '.join(stale)} still changes its tables from run to run: "
            "seed what is random, or give the table a tolerance with its reason"
        )
        return 1
    found = []
    for name in run.notebooks:
        target = run.root / "notebooks" / f"{name}.ipynb"
        clean = for_publication(read_notebook(run.executed(name)), root=run.root)
        write_text(target, nbformat.writes(clean).rstrip("\n") + "\n")
        found += problems(target)
    print(_timing_lines(run))
    print(
        f"published {count} files into figures/ and {len(run.notebooks)} executed notebooks into notebooks/"
    )
    for problem in found:
        print(problem)
    return 1 if found else 0


def _timing_lines(run: Run) -> str:
    timings = _read_timings(run)
    lines = [
        f"  {name:<40} {cost['seconds']:>8.0f} s {cost['peak_memory_mb']:>8,.0f} MB"
        for name, cost in sorted(timings.items())
    ]
    total = sum(cost["seconds"] for cost in timings.values())
    return "\n".join([*lines, f"  {'sum':<40} {total:>8.0f} s"])


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE, as in seed=1")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a word need not be quoted twice


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # a scheduler's SIGTERM deserves the same tidy end as Ctrl-C


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m autosteer_lib.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", default=DEFAULT_PROFILE, help="a shipped profile or a .toml file")
    parser.add_argument(
        "-p", "--parameter", action="append", default=[], type=_parameter, metavar="NAME=VALUE",
        help="another value for a notebook parameter, as in seed=1; makes a build of its own",
    )  # fmt: skip
    parser.add_argument("--update", action="store_true", help="publish into figures/ and notebooks/")
    parser.add_argument(
        "--prepare", action="store_true", help="only write copies for JupyterLab, print where"
    )
    options = parser.parse_args(arguments)
    again = f"make {'publish' if options.update else 'reproduce'} PROFILE={options.profile}"
    if options.parameter:
        again += ' ARGS="' + " ".join(f"-p {name}={value}" for name, value in options.parameter) + '"'
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        run = open_run(repository_root(), options.profile, dict(options.parameter))
        if options.prepare:
            print(prepare_lab(run))
            return 0
        return reproduce(run, update=options.update, progress=sys.stderr.isatty())
    except (CannotStart, ValueError, FileNotFoundError) as error:
        print(f"nothing was started: {error}", file=sys.stderr)
        return 2
    except NotebookFailed as error:
        where = f"build/{run.label}/notebooks"
        print(
            f"\n{error}\nThe partly executed notebook lies in {where}; finished ones are kept.",
            file=sys.stderr,
        )
        print(f"When the cause is mended, `{again}` goes on from here.", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print(
            f"\ninterrupted. Finished notebooks and records are kept; `{again}` goes on from here.",
            file=sys.stderr,
        )
        return 130
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"\nthe disk is full ({error}). Free some space; `{again}` goes on from here.", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
