"""Tensors on disk under a key of all that they depend on, so that a stale value cannot be found.

    key  = SHA-256 of what was asked for, with which arguments, of which prompts, of which model,
           by which code:
           words and pixels of each prompt · the checkpoint's files · dtype, kind of device · the
           processor's settings and template · the source of the modules that compute it · torch,
           transformers
    file = <folder>/<what>-<key>.safetensors

A file is written beside its place and then moved there, so a run that is stopped leaves no half
file under a good name; one that cannot be read is computed again. Of two processes that want the
same tensors at the same time, the second waits for the first.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import NoneType

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from autosteer_lib.arguments import check_given
from autosteer_lib.models import MLLM
from autosteer_lib.processor_settings import processor_fingerprint
from autosteer_lib.prompts import Prompt

# The modules between a prompt and its states: a change in one of them may change the states.
_CODE = (
    "videos",
    "prompts",
    "models",
    "chat_template",
    "families",
    "decoder",
    "encoding",
    "forced_answer",
    "sites",
    "activations",
)


class TensorCache:
    """A folder of computed tensors; without a folder, everything is computed."""

    def __init__(self, folder: Path | None) -> None:
        check_cache(folder)
        self.folder = folder

    def get(
        self,
        what: str,
        *,
        mllm: MLLM,
        prompts: Sequence[Prompt],
        arguments: Mapping[str, object],
        compute: Callable[[], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """The stored tensors of this key, or those of `compute`, which are then stored."""
        if self.folder is None:
            return compute()
        key = cache_key(what, mllm=mllm, prompts=prompts, arguments=arguments)
        file = self.folder / f"{what}-{key}.safetensors"
        with ExitStack() as held:
            with _kept_in(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(file.with_suffix(".lock")))
                if file.is_file():
                    try:
                        return load_file(file)
                    except SafetensorError:  # cut short, by a full disk for example
                        file.unlink()
            tensors = compute()
            unfinished = file.with_suffix(f".{os.getpid()}.unfinished")
            try:
                with _kept_in(self.folder):
                    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished)
                    unfinished.replace(file)
            finally:
                unfinished.unlink(missing_ok=True)
            return tensors


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"states cannot be kept in cache {folder} ({error}); name a folder that may be written, with room on its disk, "
            "or give cache=None to keep nothing"
        ) from error


def check_cache(folder: Path | None) -> None:
    """Check that a cache can be a folder, so that a fit need not find out.

    Raises:
        TypeError, ValueError: a bare string, or a file.
    """
    check_given(
        folder, (Path, NoneType), name="cache", remedy="a folder as Path(name), or None to keep nothing"
    )
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(
            f"cache {folder} is a file; states are kept in a folder: name one, it is made if need be"
        )


def cache_key(what: str, *, mllm: MLLM, prompts: Sequence[Prompt], arguments: Mapping[str, object]) -> str:
    """SHA-256 over everything that the values depend on, as hexadecimal digits."""
    parts = {
        "what": what,
        "arguments": dict(arguments),
        "prompts": [prompt.fingerprint for prompt in prompts],
        "model": mllm.fingerprint,
        "dtype": str(mllm.dtype),
        "device": mllm.device.type,
        "processor": processor_fingerprint(mllm),
        "code": _code_hash(),
        "versions": [torch.__version__, transformers.__version__],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _code_hash() -> str:
    digest = hashlib.sha256()
    for module in _CODE:
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    return digest.hexdigest()
