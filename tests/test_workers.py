"""Workers: calls side by side, whose results, errors and deaths reach the caller, and which can be stopped."""

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from autosteer_lib.execution import NotebookFailed
from autosteer_lib.workers import WorkerDied, Workers


def _wait_for(*, mine: Path, other: Path) -> str:
    """Ends only if the other call runs at the same time."""
    mine.touch()
    deadline = time.monotonic() + 60
    while not other.exists():
        if time.monotonic() > deadline:
            return "alone"
        time.sleep(0.01)
    return os.environ["OF_THE_CALLER"]


def _fail(*, error: Exception) -> None:
    raise error


def _fail_oddly() -> None:
    class Local(Exception):
        pass

    raise Local("cannot be sent")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _sleep(*, started: Path, tidied: Path) -> None:
    try:
        started.touch()
        time.sleep(60)
    finally:
        tidied.touch()


@pytest.fixture
def workers() -> Any:
    with Workers(2, preload=["autosteer_lib.prompts"]) as opened:
        yield opened


@pytest.mark.slow
def test_calls_run_at_once_in_the_callers_environment(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "seen")
    one, two = tmp_path / "one", tmp_path / "two"
    workers.start("a", _wait_for, {"mine": one, "other": two})
    workers.start("b", _wait_for, {"mine": two, "other": one})
    assert workers.busy == 2
    with pytest.raises(RuntimeError, match="2 calls run already"):
        workers.start("c", _die, {})
    assert {workers.next_done(), workers.next_done()} == {("a", "seen"), ("b", "seen")}
    assert workers.busy == 0


@pytest.mark.slow
def test_errors_and_deaths_come_back(workers: Workers) -> None:
    workers.start("a", _fail, {"error": NotebookFailed("why")})
    name, failed = workers.next_done()
    assert name == "a"
    assert isinstance(failed, NotebookFailed)
    assert str(failed) == "why"
    workers.start("b", _fail, {"error": OSError(errno.ENOSPC, "full")})
    assert workers.next_done()[1].errno == errno.ENOSPC
    workers.start("c", _fail_oddly, {})
    _, odd = workers.next_done()
    assert isinstance(odd, RuntimeError)
    assert "Local: cannot be sent" in str(odd)
    workers.start("d", _die, {})
    _, died = workers.next_done()
    assert isinstance(died, WorkerDied)
    assert "exit code -9" in str(died)


@pytest.mark.slow
def test_stopping_lets_a_call_tidy_up(workers: Workers, tmp_path: Path) -> None:
    started, tidied = tmp_path / "started", tmp_path / "tidied"
    workers.start("a", _sleep, {"started": started, "tidied": tidied})
    while not started.exists():
        time.sleep(0.01)
    ((_, call),) = workers._running.values()
    assert call.pid is not None
    os.kill(call.pid, signal.SIGINT)  # the terminal's Ctrl-C, which is the caller's to answer
    time.sleep(0.2)
    assert call.is_alive()
    assert not tidied.exists()
    workers.stop()  # as leaving the context does
    assert tidied.exists()
    assert not call.is_alive()
    assert workers.busy == 0


def test_at_least_one() -> None:
    with pytest.raises(ValueError, match="0 calls at once"):
        Workers(0, preload=["autosteer_lib.prompts"])
