"""Peak memory of a task, measured in a process of its own.

    extra = highest resident memory while the task ran − resident memory just before it

In the process that times things, memory freed by one side would be handed to the other. So a small
function of a bench is run by `python -m bench.memory`, in a fresh interpreter whose allocator returns
every larger block to the system at once.

On Linux the kernel keeps the mark itself (VmHWM) and resets it when asked, so no peak is too short to be
seen. Elsewhere the mark of the process' whole life is used, which can only be higher.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_MARK = "5"  # proc(5): sets the high-water mark to what is resident now
_RETURN_ABOVE = str(1 << 16)  # bytes; a fixed threshold also stops glibc from raising it by itself
ROOT = Path(__file__).parents[1]


def peak_extra(task: Callable[[], object]) -> int:
    """Bytes that the task needed at its highest, above what was resident when it began."""
    before = psutil.Process().memory_info().rss
    if _RESET.exists():
        _RESET.write_text(_RESET_MARK)
    task()
    return max(0, _highest() - before)


def cuda_peak_extra(task: Callable[[], object], *, device: str) -> int:
    """The same of a CUDA device, by torch's own count of what its tensors take."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    task()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def in_fresh_process(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """Call a module's function in a new interpreter; arguments and result go as JSON.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", function.__module__, function.__name__, json.dumps(arguments)],
        cwd=ROOT,
        env={
            **os.environ,
            "MALLOC_MMAP_THRESHOLD_": _RETURN_ABOVE,
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"{function.__module__}.{function.__name__}({arguments}) failed with exit code {done.returncode} "
            f"in its own process: {done.stderr.strip()[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def _highest() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    module, name, packed = sys.argv[1:]
    print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(packed))))
