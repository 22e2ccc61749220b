"""The driver with real kernels, in a process of its own, as a person runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from autosteer_lib.notebook_files import read_notebook
from tests.notebook_projects import make_project, notebook

LIBRARY = str(Path(__file__).parents[1])


def _command(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autosteer_lib.reproduce", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": LIBRARY, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs deaf to Ctrl-C, and what they start inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
def test_papermill_runs_resumes_and_reports_a_failure(tmp_path):
    """A failing second notebook: where, why, what is kept; mended, only it runs, in this environment's kernel."""
    speaking = notebook(
        ["import os, sys", "print(sys.executable)", "print(os.environ['AUTOSTEER_NOTEBOOK'], seed)"]
    )
    failing = notebook(["rate = 1", "def score():\n    return rate / 0", "score()"])
    root = make_project(tmp_path / "project", {"00_speaks": speaking, "03_fails": failing})
    run = _command(root, "-p", "seed=1")
    out, error = run.communicate(timeout=180)
    assert run.returncode == 3, error
    assert "03_fails.ipynb failed in cell 6 (In [5]): ZeroDivisionError: division by zero" in error
    assert "return rate / 0" in error
    assert "partly executed notebook lies in build/organism-seed-1/notebooks" in error
    assert "`make reproduce PROFILE=organism" in error
    assert "[1/2] 00_speaks: done" in out

    executed = read_notebook(root / "build/organism-seed-1/notebooks/00_speaks.ipynb")
    printed = [output.text for cell in executed.cells for output in cell.get("outputs", [])]
    assert Path(printed[0].strip()).samefile(sys.executable)
    assert printed[1] == "00_speaks 1\n"

    nbformat.write(notebook(["print('mended')"]), root / "notebooks" / "03_fails.ipynb")
    run = _command(root, "-p", "seed=1")
    out, error = run.communicate(timeout=180)
    assert run.returncode == 0, error
    assert "[1/2] 00_speaks: unchanged, kept" in out
    assert "[2/2] 03_fails: done" in out


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_leaves_no_kernel(tmp_path):
    waiting = notebook(["import pathlib, time", "pathlib.Path('started').touch()", "time.sleep(120)"])
    root = make_project(tmp_path / "project", {"00_waits": waiting})
    run = _command(root)
    started = root / "notebooks" / "started"
    deadline = time.monotonic() + 90
    while not started.exists() and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.1)
    assert started.exists(), run.communicate()[1]
    kernels = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 130
    assert (
        "interrupted. Finished notebooks and records are kept; `make reproduce PROFILE=organism` goes on"
        in error
    )
    assert "Traceback" not in error
    _, alive = psutil.wait_procs(kernels, timeout=20)
    assert alive == []


@pytest.mark.slow
def test_a_kernel_that_dies_is_told_with_its_memory(tmp_path):
    dying = notebook(["import os, signal, time", "time.sleep(0.5)", "os.kill(os.getpid(), signal.SIGKILL)"])
    root = make_project(tmp_path / "project", {"00_dies": dying})
    run = _command(root)
    _, error = run.communicate(timeout=120)
    assert run.returncode == 3
    assert "00_dies.ipynb: its kernel died at a peak of" in error
    assert "batch_size smaller" in error
