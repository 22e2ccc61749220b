"""The organisms, and the settings that each is trained with.

    see   the architecture's own first stage       base, look, align   shared (training.py, examples.py)

Both learn the same world by the same stages and are held to the same bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from autosteer_lib.organism.architecture import Architecture
from autosteer_lib.organism.chameleon import Chameleon
from autosteer_lib.organism.chameleon_tokenizer_training import TokenizerRecipe
from autosteer_lib.organism.examples import Recipe
from autosteer_lib.organism.llava_onevision import LlavaOnevision
from autosteer_lib.organism.llava_onevision_tower_training import VisionRecipe
from autosteer_lib.organism.training import StageRecipe


@dataclass(frozen=True, kw_only=True)
class Organism:
    """An architecture and how it is trained."""

    architecture: Architecture
    seeing: tuple[VisionRecipe | TokenizerRecipe, ...]
    """Settings of the first stage, of each round of it: heads are new in a round, what sees goes on learning."""
    stages: tuple[StageRecipe, ...]
    """Of the stages after it, in order."""
    shares: Recipe
    """What the examples are made of."""
    threads: int
    """Of the CPU, since sums, and so each bit of the weights, depend on them."""


_ORGANISMS = (
    Organism(
        architecture=LlavaOnevision(),
        seeing=(VisionRecipe(),),
        stages=(
            StageRecipe(stage="base", steps=750, lr=2e-3),
            StageRecipe(stage="look", steps=750, lr=1e-3, train_vision=True),
            StageRecipe(stage="align", steps=200, lr=5e-4, text=32),
        ),
        shares=Recipe(),
        threads=2,
    ),
    Organism(
        architecture=Chameleon(),
        # Shapes first, then colours beside them. With the tower's weight for colours, codes keep shapes alone (29 %
        # of colours read, chance 17); with a weight of 1 from the start, half as many steps learnt colours alone
        # (96 % of them, 41 % of symbols, 19 % of words).
        seeing=(TokenizerRecipe(), TokenizerRecipe(steps=5_000, colour=1.0, unrounded=0.2, rounded=0.6)),
        stages=(
            StageRecipe(stage="base", steps=750, lr=2e-3, video=0),
            StageRecipe(stage="look", steps=750, lr=1e-3, video=0),
            StageRecipe(stage="align", steps=200, lr=5e-4, text=32, video=0),
        ),
        shares=Recipe(),
        threads=1,
    ),
)
ORGANISMS = {organism.architecture.name: organism for organism in _ORGANISMS}
