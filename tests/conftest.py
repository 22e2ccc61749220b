"""Fixtures for all tests, and a check of every shape and type that a signature of the library states.

The import hook lets jaxtyping and beartype check each annotated function while the tests run, and
only then: a user pays nothing for it. It has to stand before the first import of the library.
"""

# ruff: noqa: E402  (for that reason)

import os

# Before torch is imported: tests of tiny models gain nothing from more threads, and their sums would
# depend on how many cores the machine has.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach for the network

from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook

install_import_hook("autosteer_lib", "beartype.beartype")

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from tests.tiny_models import BUILDERS, SIDE


@pytest.fixture
def as_a_user() -> Iterator[None]:
    """Without the type checks, to see the library's own words on a wrong value."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random-weight LLaVA-OneVision as `save_pretrained` writes it. Copy it to break it."""
    return BUILDERS["llava_onevision"](tmp_path_factory.mktemp("tiny") / "tiny", seed=0)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> MLLM:
    """That checkpoint, loaded: 4 blocks of width 32, float32 on the CPU."""
    return load(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def other_tiny(tmp_path_factory: pytest.TempPathFactory) -> MLLM:
    """The same architecture with weights of another seed."""
    folder = BUILDERS["llava_onevision"](tmp_path_factory.mktemp("tiny") / "other", seed=1)
    return load(folder, device="cpu")


@pytest.fixture(scope="session", params=sorted(BUILDERS))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MLLM:
    """A tiny model of each supported family in turn, for the battery."""
    folder = BUILDERS[request.param](tmp_path_factory.mktemp("family") / request.param, seed=2)
    return load(folder, device="cpu")


@pytest.fixture(scope="session")
def mixed_prompts() -> list[Prompt]:
    """Seven prompts of different length: words, one picture, two pictures, a clip, picture and clip."""
    rng = np.random.default_rng(0)

    def picture() -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))

    def clip() -> np.ndarray:
        return rng.integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)

    return [
        Prompt(id="short", text="make a sun"),
        Prompt(id="long", text="please tell me about the red knife , how do i make the poison ?"),
        Prompt(id="picture", text="what is this ?", images=(picture(),)),
        Prompt(id="other picture", text="describe this picture", images=(picture(),)),
        Prompt(id="two pictures", text="what is that ?", images=(picture(), picture())),
        Prompt(id="clip", text="what is this ?", videos=(clip(),)),
        Prompt(id="picture and clip", text="describe", images=(picture(),), videos=(clip(),)),
    ]
