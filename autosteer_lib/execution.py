"""Runs one notebook by papermill, in a fixed environment, and measures what it took.

A kernel is a process of its own. It inherits an environment in which nothing that could change a number is
left open: hash seed, threads, deterministic matrix products, no network for an offline profile. What
goes wrong in it comes back as `NotebookFailed`, whose message says where and why.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import nbformat
import papermill
import psutil
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError, strip_color

from autosteer_lib.artefacts import NOTEBOOK_VARIABLE
from autosteer_lib.forked_kernels import sapling_kernel
from autosteer_lib.notebook_files import KERNEL, Notebook, without_outputs
from autosteer_lib.profiles import Profile
from autosteer_lib.provenance import available_cores

TRACEBACK_LINES = 12  # of a failing cell: the error itself and where it was raised
KERNEL_STARTS = 3  # a taken port is another one the next time
KERNEL_SECONDS = 180  # until a kernel answers; a busy machine has taken half a minute
SAMPLING_SECONDS = 0.1  # of memory; a model's weights stay for seconds, so no peak that matters hides between


class NotebookFailed(Exception):
    """A notebook did not run to its end; the message is for people."""


def run_notebook(
    notebook: Notebook,
    target: Path,
    *,
    parameters: dict[str, Any],
    folder: Path,
    progress: bool,
    forked: bool = False,
) -> dict[str, float]:
    """Execute `notebook` into `target`, which is saved after every cell.

    Args:
        notebook: with or without outputs; they are dropped first.
        target: where the executed notebook goes; its name is told to the kernel, for the artefacts' records.
        parameters: values that differ from the notebook's defaults (already checked).
        folder: the kernel's working folder.
        progress: draw a bar, one step a cell.
        forked: fork the kernel from this process, which must have no threads yet and be good for nothing else.

    Returns:
        seconds, peak_memory_mb and cells, for the report.

    Raises:
        NotebookFailed: a cell raised, or the kernel died.
    """
    bare = without_outputs(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(bare, target)
    started = time.monotonic()
    log = target.with_suffix(".log")
    with contextlib.ExitStack() as around:
        around.enter_context(kernel_messages_to(log))
        around.enter_context(environment_of({NOTEBOOK_VARIABLE: target.stem}))
        managers = around.enter_context(sapling_kernel()) if forked else AsyncKernelManager
        memory = around.enter_context(PeakMemory())  # a thread, so it comes after the fork
        try:
            _execute(target, parameters=parameters, folder=folder, progress=progress, managers=managers)
        except PapermillExecutionError as error:
            raise NotebookFailed(_describe(error, name=target.name)) from None
        except DeadKernelError:
            raise NotebookFailed(
                f"{target.name}: its kernel died at a peak of {memory.peak_mb:,.0f} MB. Most often the system "
                "killed it for memory: close other programs, or make [generation] batch_size smaller. "
                f"The kernel's own last words are in {log.name} beside the notebook"
            ) from None
    cells = sum(cell.cell_type == "code" for cell in bare.cells)
    return {
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": round(memory.peak_mb),
        "cells": cells,
    }


def _execute(
    target: Path,
    *,
    parameters: dict[str, Any],
    folder: Path,
    progress: bool,
    managers: type[AsyncKernelManager],
) -> None:
    """By papermill, with another try for a kernel that did not come up.

    Its ports are chosen before it starts; where several kernels start at once, or other programs, one of them can be
    taken by then.
    """
    for attempt in range(1, KERNEL_STARTS + 1):
        try:
            papermill.execute_notebook(
                str(target),
                str(target),
                # Nothing to inject, no injected cell: the executed notebook is then the committed one.
                parameters=parameters or None,
                kernel_name=KERNEL,
                language="python",
                cwd=str(folder),
                iopub_timeout=KERNEL_SECONDS,  # for a cell's last outputs: 4 s are few on a busy machine, for 60 figures
                progress_bar=progress,
                start_timeout=KERNEL_SECONDS,
                kernel_manager_class=managers,
            )
            return
        except DeadKernelError:
            raise
        except RuntimeError as error:
            if "kernel" not in str(error).lower():
                raise
            if attempt == KERNEL_STARTS:
                raise NotebookFailed(
                    f"{target.name}: its kernel did not start, {KERNEL_STARTS} times: {error}. The kernel's own last words "
                    f"are in {target.with_suffix('.log').name} beside the notebook"
                ) from None


def prepare_notebook(source: Path, target: Path, *, parameters: dict[str, Any]) -> None:
    """Write a copy of `source` with `parameters` put in and nothing executed, for JupyterLab."""
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(source),
        str(target),
        parameters=parameters,
        kernel_name=KERNEL,
        language="python",
        prepare_only=True,
        progress_bar=False,
    )


def check_kernel() -> None:
    """Make sure that `python3` is this interpreter: a kernel registered by another project would shadow it.

    Raises:
        ValueError: there is no such kernel, or it starts another Python.
    """
    try:
        command = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel:
        raise ValueError(
            f"Jupyter knows no kernel {KERNEL!r}; install ipykernel into {sys.executable}"
        ) from None
    # A bare name is replaced by the running interpreter (jupyter_client's rule).
    if command not in {"python", "python3", f"python3.{sys.version_info.minor}"} and not (
        Path(command).exists() and Path(command).samefile(sys.executable)
    ):
        raise ValueError(
            f"kernel {KERNEL!r} starts {command}, not {sys.executable}: another project registered it. "
            "Remove it (jupyter kernelspec list, then jupyter kernelspec uninstall python3)"
        )


def fixed_environment(*, root: Path, profile: Profile) -> dict[str, str]:
    """The variables a kernel needs for numbers that come out the same; what a person has set for threads stays."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(profile.run.threads or available_cores())
    path = os.environ.get("PYTHONPATH")
    environment = {
        "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else str(root),
        "PYTHONHASHSEED": "0",  # the order of a set of strings
        "OMP_NUM_THREADS": threads,  # fixed for the run and recorded: float sums depend on it
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",  # its threads do not survive a fork and warn about it
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # CUDA's condition for repeatable matrix products
        "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel before a user's
    }
    if profile.run.offline:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return environment


@contextlib.contextmanager
def environment_of(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for the kernels started inside, and put the old ones back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def kernel_messages_to(log: Path) -> Iterator[None]:
    """Let what the kernel's process itself says (not its cells) go to a file; this process still speaks to the terminal.

    A kernel inherits file descriptor 2. Its server's warnings, and a traceback whenever it is interrupted, would
    bury the one sentence that a person needs.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with log.open("wb") as target, os.fdopen(terminal, "w") as stream:
        os.dup2(target.fileno(), 2)
        try:
            with contextlib.redirect_stderr(stream):
                yield
        finally:
            os.dup2(terminal, 2)


class PeakMemory:
    """Peak resident memory of this process's children (the kernel and what it starts), by sampling."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        parent = psutil.Process()
        while not self._stop.is_set():
            total = 0
            for child in parent.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                    total += child.memory_info().rss
            self.peak_mb = max(self.peak_mb, total / 2**20)
            self._stop.wait(SAMPLING_SECONDS)


def _describe(error: PapermillExecutionError, *, name: str) -> str:
    trace = [strip_color(line) for block in error.traceback for line in str(block).splitlines()]
    last = "\n".join(f"    {line}" for line in trace[-TRACEBACK_LINES:])
    # papermill counts cells from 0; people, and JupyterLab's own numbering of cells, from 1.
    return f"{name} failed in cell {error.cell_index + 1} (In [{error.exec_count}]): {error.ename}: {error.evalue}\n{last}"
