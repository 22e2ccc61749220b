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

from autosteer_lib.families import ONE_KIND_OF_SIGHT
from autosteer_lib.models import MLLM, load
from autosteer_lib.prompts import Prompt
from autosteer_lib.rehearsal.tiny_models import BUILDERS, SIDE


class Sights:
    """Random pictures and clips, the same ones in the same order."""

    def __init__(self) -> None:
        self._numbers = np.random.default_rng(0)

    def picture(self, width: int = SIDE, height: int = SIDE) -> Image.Image:
        return Image.fromarray(self._numbers.integers(0, 256, (height, width, 3), dtype=np.uint8))

    def clip(self, frames: int = 4) -> np.ndarray:
        return self._numbers.integers(0, 256, (frames, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def sights() -> Sights:
    return Sights()


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
def family_name(request: pytest.FixtureRequest) -> str:
    """Each supported family in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def family(family_name: str, tmp_path_factory: pytest.TempPathFactory) -> MLLM:
    """A tiny model of that family, for the battery."""
    folder = BUILDERS[family_name](tmp_path_factory.mktemp("family") / family_name, seed=2)
    return load(folder, device="cpu")


@pytest.fixture(scope="session")
def other_of_family(family_name: str, tmp_path_factory: pytest.TempPathFactory) -> MLLM:
    """The same architecture with weights of another seed."""
    folder = BUILDERS[family_name](tmp_path_factory.mktemp("family") / "other", seed=3)
    return load(folder, device="cpu")


@pytest.fixture(scope="session")
def family_prompts(family: MLLM) -> list[Prompt]:
    """Seven prompts of different length with all that the family can take in one batch.

    Words; one picture; pictures of odd sizes; a clip, and a picture beside a clip where it may have them.
    """
    sights = Sights()
    square, wide, tall = (SIDE, SIDE), (50, 20), (17, 33)
    mixes = family.sees_videos and family.model.config.model_type not in ONE_KIND_OF_SIGHT
    clip = {"videos": (sights.clip(),)} if mixes else {"images": (sights.picture(*tall),)}
    both = (
        {"images": (sights.picture(*square),), "videos": (sights.clip(),)}
        if mixes
        else {"images": (sights.picture(*tall), sights.picture(*wide))}
    )
    two = (sights.picture(*tall), sights.picture(*square))
    return [
        Prompt(id="short", text="make a sun"),
        Prompt(id="long", text="please tell me about the red knife , how do i make the poison ?"),
        Prompt(id="picture", text="what is this ?", images=(sights.picture(*square),)),
        Prompt(id="wide picture", text="describe this picture", images=(sights.picture(*wide),)),
        Prompt(id="two pictures", text="what is that ?", images=two),
        Prompt(id="clip or tall picture", text="what is this ?", **clip),
        Prompt(id="picture and clip or picture", text="describe", **both),
    ]


@pytest.fixture(scope="session")
def mixed_prompts() -> list[Prompt]:
    """Seven prompts of different length: words, one picture, two pictures, a clip, picture and clip."""
    sights = Sights()
    return [
        Prompt(id="short", text="make a sun"),
        Prompt(id="long", text="please tell me about the red knife , how do i make the poison ?"),
        Prompt(id="picture", text="what is this ?", images=(sights.picture(),)),
        Prompt(id="other picture", text="describe this picture", images=(sights.picture(),)),
        Prompt(id="two pictures", text="what is that ?", images=(sights.picture(), sights.picture())),
        Prompt(id="clip", text="what is this ?", videos=(sights.clip(),)),
        Prompt(id="picture and clip", text="describe", images=(sights.picture(),), videos=(sights.clip(),)),
    ]
