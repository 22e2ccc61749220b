"""Kernels that are forked, not started: what every notebook imports first is there already.

    sapling     a child of this process, forked before there are threads; waits on a pipe
    launch      the kernel's command goes down the pipe, and the sapling becomes that kernel

A started kernel imports torch, transformers and pandas anew, ten to thirty seconds of a core a notebook. A sapling has
them from the process that it was forked from (`Workers(preload=IMPORTED)`). It is a process of its own all the same:
nothing that a notebook does is seen by another.

Where a fork would not do what a start does, the sapling runs the command that it was told instead: on systems other
than Linux (their own libraries do not survive a fork), where CUDA has been spoken to before the fork, and where a
variable that is read at import has changed since.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

# Every notebook's first cell; the kernel's own modules; what draws.
IMPORTED = ("autosteer_lib.study.study", "autosteer_lib.plotting", "ipykernel.kernelapp")
LAUNCHER = "ipykernel_launcher"
# As ipykernel sets it before a notebook's first import of matplotlib, which has been imported here.
INLINE = "module://matplotlib_inline.backend_inline"
# Read once, when torch, numpy or the hub's client are imported: another value later has no effect.
READ_AT_IMPORT = (
    "PYTHONPATH", "PYTHONHASHSEED", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "MPLCONFIGDIR",
)  # fmt: skip
IMPORTED_UNDER = {name: os.environ.get(name) for name in READ_AT_IMPORT}


class Sapling:
    """A child that becomes a kernel when it is told how; to jupyter_client it looks like a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self) -> None:
        """Fork. This process must not have begun any threads yet."""
        reader, self._writer = Pipe(duplex=False)
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._writer.close()
            _grow(reader)
        reader.close()

    @property
    def used(self) -> bool:
        """Whether it has been told what to become."""
        return self._writer.closed

    def become(self, command: Sequence[str], *, environment: Mapping[str, str], folder: str) -> None:
        """Turn into the kernel that `command` would start. Only once."""
        self._writer.send((list(command), dict(environment), folder))
        self._writer.close()

    def discard(self) -> None:
        """Let it end if it was never needed."""
        if not self.used:
            self._writer.close()
            self.wait()

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._reap(0)

    def send_signal(self, number: int) -> None:
        """To it alone, not to what it has started."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


@contextmanager
def sapling_kernel() -> Iterator[type[AsyncKernelManager]]:
    """A kernel manager's class; the first kernel that it launches is a sapling, forked here and now.

    Later ones are started as usual: a kernel that did not come up is not tried the same way again.
    """
    sapling = Sapling()

    class ForkedKernelManager(AsyncKernelManager):
        """Launches the sapling while there is one."""

        async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
            provisioner = self.provisioner
            if sapling.used or not isinstance(provisioner, LocalProvisioner):
                await super()._async_launch_kernel(kernel_cmd, **kw)
                return
            folder = kw.get("cwd") or Path.cwd()
            sapling.become(kernel_cmd, environment=kw.get("env") or dict(os.environ), folder=str(folder))
            provisioner.process = sapling  # type: ignore[assignment]
            provisioner.pid = provisioner.pgid = sapling.pid
            self._reconcile_connection_info(provisioner.connection_info)

    try:
        yield ForkedKernelManager
    finally:
        sapling.discard()


def _grow(reader: Connection) -> NoReturn:
    """In the child: wait for the command, become its kernel, and end without unwinding the parent's stack."""
    code = 1
    try:
        # As a started Python has them; the parent has its own.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _become(reader)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except EOFError:
        code = 0  # discarded, or the parent is gone
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _become(reader: Connection) -> int:
    command, environment, folder = reader.recv()
    reader.close()
    os.setsid()  # its own group: a signal to it reaches what it starts, and nothing else
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if not _as_good_as_started(command):
        os.execvpe(command[0], command, environment)

    import matplotlib as mpl
    from ipykernel.kernelapp import IPKernelApp

    _own_streams()
    mpl.rcParams["backend"] = INLINE
    sys.argv = command[command.index(LAUNCHER) :]
    # Its default was read from the environment when the module was imported.
    try:
        IPKernelApp.launch_instance(argv=sys.argv[1:], parent_handle=os.getppid())
    finally:
        atexit._run_exitfuncs()  # what a notebook has asked for; `os._exit` leaves it out
    return 0


def _own_streams() -> None:
    """Those of the process itself: the parent may speak past its own to the terminal."""
    for name in ("stdout", "stderr"):
        stream, own = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is not own:
            stream.close()
            setattr(sys, name, own)


def _as_good_as_started(command: Sequence[str]) -> bool:
    torch = sys.modules.get("torch")
    return (
        sys.platform == "linux"
        and LAUNCHER in command
        and torch is not None
        and not torch.cuda._is_in_bad_fork()
        and all(os.environ.get(name) == IMPORTED_UNDER[name] for name in READ_AT_IMPORT)
    )
