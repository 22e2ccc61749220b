"""Regenerates every table and figure: the numbered notebooks, under one profile, by papermill.

    python -m autosteer_lib.reproduce --profile organism             into build/organism, then the verdict
    python -m autosteer_lib.reproduce --profile organism --update    the maintainer's: also publish it
    python -m autosteer_lib.reproduce --profile paper --ray          answers from one process a GPU; --ray host:6379

Several notebooks run at once where the profile says so ([run] notebooks_at_once) and there are cores for them; one
tagged `reads-earlier-tables` waits for all before it, one tagged `starts-first` does so, the others start from the
last on. Running it again is the resume. A notebook is run only if something it depends on has changed: its own text,
the code of those before it, the library, profile, data, lock, parameters, or what its comparison with the committed
tables would say. A run that was killed goes on with the notebooks it was in.

Exit codes: 0 reproduced, 1 some numbers differ, 2 nothing was started (the message says why), 3 a notebook
failed, 130 interrupted.
"""

import argparse
import ast
import contextlib
import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat
from filelock import FileLock, Timeout

from autosteer_lib.artefacts import publish
from autosteer_lib.committed import build_entries, write_text
from autosteer_lib.execution import (
    NotebookFailed,
    check_kernel,
    environment_of,
    fixed_environment,
    prepare_notebook,
    run_notebook,
)
from autosteer_lib.forked_kernels import IMPORTED
from autosteer_lib.ingredients import check_model, check_prompts
from autosteer_lib.notebook_files import (
    for_publication,
    read_notebook,
    reads_earlier_tables,
    source_hash,
    starts_first,
)
from autosteer_lib.notebook_hygiene import problems
from autosteer_lib.profiles import DEFAULT_PROFILE
from autosteer_lib.provenance import available_cores, repository_root
from autosteer_lib.runs import Run, open_run
from autosteer_lib.scale_out.cluster import LOCAL, VARIABLE, Cluster, started
from autosteer_lib.stamps import forget_artefacts, forget_removed, is_fresh, stamp_inputs, write_stamp
from autosteer_lib.timings import drop_timings, timing_lines, write_timing
from autosteer_lib.verify import report, verify_build
from autosteer_lib.workers import WorkerDied, Workers

UPDATE_PASSES = 3  # publishing changes what a notebook's own comparison says; the second pass must settle it


class CannotStart(Exception):
    """Nothing was run; the message says what to change."""


def reproduce(
    run: Run, *, update: bool = False, progress: bool = False, cluster: Cluster | None = None
) -> int:
    """Bring the build up to date, say what came of it, and return the exit code.

    Args:
        run: what to run.
        update: publish it.
        progress: draw bars.
        cluster: the Ray that makes the answers; None leaves them to the notebooks' own processes.

    Raises:
        CannotScaleOut: that Ray cannot be had, or is too small.
        CannotStart: no disk space, no folder for the build, a foreign kernel, another run at work, or `update` of
            what is not published.
        ValueError, FileNotFoundError: the profile's model or prompts, where they are one's own.
        NotebookFailed: a notebook raised; those before it are kept.
    """
    if update and (run.profile.name != DEFAULT_PROFILE or run.parameters):
        raise CannotStart(
            f"only profile {DEFAULT_PROFILE} with its own parameters is published; this is {run.label}. "
            "Leave out --update"
        )
    check_disk(run)
    if run.argument != run.profile.name:  # a shipped profile's model and prompts are shipped, or fetched
        check_model(run.profile, root=run.root)
        check_prompts(run.profile, root=run.root)
    try:
        run.build.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(
            f"{run.build} cannot be made ({error.strerror}); tables and answers are kept"
            " there: move what is in its way, or let it be written"
        ) from None
    try:
        with (
            FileLock(run.build / ".lock", timeout=0),
            environment_of(fixed_environment(root=run.root, profile=run.profile)),
        ):
            try:
                check_kernel()
            except ValueError as error:
                raise CannotStart(str(error)) from None
            print(f"profile {run.label}: {run.profile.run.description}", flush=True)
            with _on(cluster, run):
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
    drop_timings(run)
    headings = {name: f"[{place}/{len(run.notebooks)}] {name}" for place, name in enumerate(run.notebooks, 1)}
    waiting: list[str] = []
    for name in run.notebooks:
        if is_fresh(run, name):
            print(f"{headings[name]}: unchanged, kept")
        else:
            waiting.append(name)
    stale, inputs, failures = len(waiting), dict[str, str](), list[Exception]()
    began = time.monotonic()
    with Workers(_at_once(run), preload=["autosteer_lib.execution", *IMPORTED]) as workers:
        if workers.most > 1:
            waiting.reverse()  # later chapters are longer, and short ones at the end leave no core idle
        while waiting or workers.busy:
            ready = _next(run, waiting, workers.names) if workers.busy < workers.most else None
            if ready is not None:
                waiting.remove(ready)
                print(f"{headings[ready]}: running", flush=True)
                forget_artefacts(run, ready)
                inputs[ready] = stamp_inputs(run, ready)
                bar = progress and workers.most == 1  # several bars would write over each other
                workers.start(ready, run_notebook, _arguments(run, ready, progress=bar))
                continue
            name, result = workers.next_done()
            if isinstance(result, Exception):
                failures.append(NotebookFailed(str(result)) if isinstance(result, WorkerDied) else result)
                waiting.clear()  # what runs already may end, nothing new starts
                continue
            write_timing(run, name, result)
            write_stamp(run, name, inputs=inputs[name])
            print(
                f"{headings[name]}: done in {result['seconds']:.0f} s, peak memory {result['peak_memory_mb']:,} MB",
                flush=True,
            )
    if len(failures) > 1 and all(isinstance(failure, NotebookFailed) for failure in failures):
        raise NotebookFailed("\n\n".join(map(str, failures)))
    if failures:
        raise failures[0]
    if stale:
        print(f"{stale} notebooks, {workers.most} at once: {time.monotonic() - began:.0f} s in all")
    return stale


def _next(run: Run, waiting: Sequence[str], running: Collection[str]) -> str | None:
    """The first in the given order that can start: one that reads the tables of those before it must wait for them.

    Those tagged `starts-first` come before the others; the fits and answers that notebooks share are made by whoever
    comes first.
    """
    unfinished = {*waiting, *running}
    for name in sorted(waiting, key=lambda name: not starts_first(run.notebooks[name])):
        before = list(run.notebooks)[: list(run.notebooks).index(name)]
        if not (reads_earlier_tables(run.notebooks[name]) and unfinished & set(before)):
            return name
    return None


def _at_once(run: Run) -> int:
    """As many as the profile allows and cores are free, each notebook with its threads."""
    if VARIABLE in os.environ:
        return 1  # a notebook's actors take the whole Ray; a second notebook would wait for them
    cores = available_cores()
    return max(1, min(run.profile.run.notebooks_at_once, cores // (run.profile.run.threads or cores)))


def _arguments(run: Run, name: str, *, progress: bool) -> dict[str, Any]:
    return {
        "notebook": run.notebooks[name],
        "target": run.executed(name),
        "parameters": run.injected(name),
        "folder": run.root / "notebooks",
        "progress": progress,
        "forked": True,  # a worker's process is new, and ends with its notebook
    }


@contextlib.contextmanager
def _on(cluster: Cluster | None, run: Run) -> Iterator[None]:
    """The notebooks that run inside send their batches there."""
    if cluster is None:
        yield
        return
    import torch  # only to see whether there is a GPU

    threads = int(run.profile.run.threads or os.environ["OMP_NUM_THREADS"])
    asked = run.profile.model.device
    device = ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked
    needs = cluster.needs(device=device, threads=threads)
    with started(cluster, needs=needs) as (variables, line):
        print(line, flush=True)
        with environment_of(variables):
            yield


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
    print(timing_lines(run))
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
    print(timing_lines(run))
    print(
        f"published {count} files into figures/ and {len(run.notebooks)} executed notebooks into notebooks/"
    )
    for problem in found:
        print(problem)
    return 1 if found else 0


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
    parser.add_argument(
        "--ray", nargs="?", const=LOCAL, metavar="ADDRESS",
        help="let Ray actors make the answers: on this machine, or on the cluster at host:port",
    )  # fmt: skip
    parser.add_argument("--actors", type=int, help="with --ray: how many; default: as many as have room")
    parser.add_argument(
        "--gpus-per-actor", type=int, default=1, help="with --ray, for models of several cards"
    )
    options = parser.parse_args(arguments)
    if not options.ray and (options.actors or options.gpus_per_actor != 1):
        parser.error("--actors and --gpus-per-actor speak of Ray; add --ray, or RAY=1 to make")
    again = f"make {'publish' if options.update else 'reproduce'} PROFILE={options.profile}"
    if options.parameter:
        again += ' ARGS="' + " ".join(f"-p {name}={value}" for name, value in options.parameter) + '"'
    if options.ray:
        again += " RAY=1" if options.ray == LOCAL else f" RAY_ADDRESS={options.ray}"
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        cluster = (
            Cluster(address=options.ray, actors=options.actors, gpus=options.gpus_per_actor)
            if options.ray
            else None
        )
        run = open_run(repository_root(), options.profile, dict(options.parameter))
        if options.prepare:
            print(prepare_lab(run))
            return 0
        return reproduce(run, update=options.update, progress=sys.stderr.isatty(), cluster=cluster)
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
