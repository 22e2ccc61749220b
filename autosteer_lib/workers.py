"""Calls that run at once, each in a process of its own that can be stopped.

    with Workers(2) as workers:
        workers.start("a", run_notebook, {…})
        name, result = workers.next_done()

The processes are forked from one that has imported what they need, which happens once and not once a call. They are
deaf to the terminal's Ctrl-C, which would reach them and the caller both: the caller is asked, and leaving the context
by an exception interrupts them.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

GRACE_SECONDS = 30.0  # for a stopped call to put its kernel away; then it is killed


class WorkerDied(Exception):
    """A process ended without a result; most often the system killed it for memory."""


class Workers:
    """At most `most` calls at once."""

    def __init__(self, most: int, *, preload: Sequence[str]) -> None:
        """
        Args:
            most: calls at once, at least 1.
            preload: modules whose import the processes share; one that cannot be imported is left out.
        """
        if most < 1:
            raise ValueError(f"{most} calls at once; at least 1 is needed")
        self.most = most
        # No fork of this process itself: its threads (progress bars, a test's own) would not come along.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._running: dict[Connection, tuple[str, BaseProcess]] = {}

    @property
    def busy(self) -> int:
        """Calls that run now."""
        return len(self._running)

    @property
    def names(self) -> list[str]:
        """Of the calls that run now."""
        return [name for name, _ in self._running.values()]

    def start(self, name: str, call: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        """Start `call(**arguments)` in this process's present environment; it must be importable by name."""
        if self.busy >= self.most:
            raise RuntimeError(f"{self.busy} calls run already; wait for one by next_done()")
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_serve, args=(sender, call, dict(arguments), dict(os.environ)), name=name
        )
        process.start()
        sender.close()  # the child's copy alone is left, so its death is seen
        self._running[receiver] = (name, process)

    def next_done(self) -> tuple[str, Any]:
        """Wait for a call to end; its name, and its result or the exception that it raised."""
        (receiver, *_) = wait(list(self._running))
        assert isinstance(receiver, Connection)
        name, process = self._running.pop(receiver)
        try:
            result = receiver.recv()
        except EOFError:
            process.join()
            result = WorkerDied(f"{name}: the process that ran it died with exit code {process.exitcode}")
        receiver.close()
        process.join()
        return name, result

    def stop(self) -> None:
        """Interrupt what runs and wait until it is gone."""
        processes = [process for _, process in self._running.values()]
        self._running.clear()
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(GRACE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _serve(
    sender: Connection, call: Callable[..., Any], arguments: dict[str, Any], environment: dict[str, str]
) -> None:
    """In the child: make the call and send what came of it."""
    # A handler, not SIG_IGN: what the call starts would inherit that, and no kernel could be interrupted.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ.clear()
    os.environ.update(environment)
    result: Any
    try:
        result = call(**arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # One that the caller could not build again goes as its text.
        result = error if _survives(error) else RuntimeError("".join(traceback.format_exception(error)))
    with contextlib.suppress(BrokenPipeError):  # the caller is gone
        sender.send(result)


def _survives(error: Exception) -> bool:
    """Whether this exception can be sent."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (bytes of our own making)
    except Exception:
        return False
    return True


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
