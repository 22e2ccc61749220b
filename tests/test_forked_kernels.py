"""Forked kernels: a kernel like any other, but for what it has imported; where a fork would not do, it is started."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from autosteer_lib.execution import NotebookFailed, run_notebook
from autosteer_lib.forked_kernels import READ_AT_IMPORT, Sapling
from autosteer_lib.workers import Workers
from tests.notebook_projects import notebook

# A light stand-in for IMPORTED: what a started kernel has not, and a condition of forking (torch).
PRELOADED = ["autosteer_lib.execution", "torch", "ipykernel.kernelapp"]
FACTS = (
    "import os, signal, sys\n"
    "print('torch' in sys.modules, os.getcwd(), os.getpgid(0) == os.getpid(), os.environ.get('TOLD'))"
)


def _run(folder: Path, *, cells: list[str]) -> Any:
    target = folder / "00_a.ipynb"
    with Workers(1, preload=PRELOADED) as workers:
        arguments = {
            "notebook": notebook(cells), "target": target, "parameters": {}, "folder": folder, "progress": False,
            "forked": True,
        }  # fmt: skip
        workers.start("a", run_notebook, arguments)
        return workers.next_done()[1]


def _printed(folder: Path) -> list[str]:
    executed = nbformat.read(folder / "00_a.ipynb", as_version=4)
    return [output.text for cell in executed.cells for output in cell.get("outputs", []) if "text" in output]


@pytest.mark.slow
def test_it_is_a_kernel_that_has_imported_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLD", "by the caller")
    at_exit = "import atexit; atexit.register(lambda: open('ended', 'w').close())"
    drawing = "import matplotlib; print(matplotlib.get_backend())"
    handler = "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    ran = _run(tmp_path, cells=[FACTS, at_exit, drawing, handler])
    assert ran["cells"] == 5
    assert _printed(tmp_path) == [
        f"True {tmp_path} True by the caller\n", "module://matplotlib_inline.backend_inline\n", "True\n",
    ]  # fmt: skip
    assert (tmp_path / "ended").is_file()


@pytest.mark.slow
def test_a_variable_that_is_read_at_import_needs_a_started_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(tmp_path, cells=["pass"])  # the process that forks is there now, and has imported
    assert "HF_HUB_OFFLINE" in READ_AT_IMPORT
    monkeypatch.setenv("HF_HUB_OFFLINE", "0" if os.environ.get("HF_HUB_OFFLINE") == "1" else "1")
    _run(tmp_path, cells=[FACTS])
    assert _printed(tmp_path)[0].startswith("False ")


@pytest.mark.slow
def test_what_goes_wrong_in_it_is_said_and_it_leaves_nothing(tmp_path: Path) -> None:
    failed = _run(tmp_path, cells=["print('before')", "raise ValueError('no such layer')"])
    assert isinstance(failed, NotebookFailed)
    assert "ValueError: no such layer" in str(failed)
    killed = _run(tmp_path, cells=[f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"])
    assert isinstance(killed, NotebookFailed)
    assert "its kernel died" in str(killed)


@pytest.mark.slow
def test_one_that_was_never_needed_ends(tmp_path: Path) -> None:
    with Workers(1, preload=PRELOADED) as workers:
        workers.start("never needed", _discarded, {})
        assert workers.next_done()[1] == (False, None, 0)
        workers.start("orphaned", _orphaned, {"told": tmp_path / "pid"})
        workers.next_done()
    pid, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "a sapling whose parent is gone still waits"
        time.sleep(0.05)


def _discarded() -> tuple[bool, int | None, int | None]:
    sapling = Sapling()
    before = sapling.used, sapling.poll()
    sapling.discard()
    sapling.kill()  # harmless once it has ended
    return (*before, sapling.returncode)


def _orphaned(*, told: Path) -> None:
    told.write_text(str(Sapling().pid))
