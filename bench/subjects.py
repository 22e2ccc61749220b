"""The models that the benches run on, each with prompts and an AutoSteer fitted on it.

    shipped    the profile's own model: small, so most of a decoding step is Python
    medium     12 blocks of 512 with random weights: most of a step is arithmetic (tiny in a quick run)

The defence is fitted by the library itself, on few pairs and for one epoch: what it has learnt does not
change what it costs. Whether its gate opens is set by the threshold alone: 0 opens it for every prompt,
1 for none (and the benches look whether that is so).
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from autosteer_lib.defences.autosteer import AutoSteer
from autosteer_lib.models import MLLM, load
from autosteer_lib.organism.llava_onevision import build_model, build_processor
from autosteer_lib.pairs import ContrastPairs
from autosteer_lib.probers import SafetyProber
from autosteer_lib.profiles import load_profile
from autosteer_lib.prompts import Prompt
from autosteer_lib.provenance import repository_root
from autosteer_lib.refusal_head import RefusalHead
from autosteer_lib.study.prompt_data import prompt_data
from bench.harness import Settings
from bench.random_models import MEDIUM, TINY, Size, assemble, pairs, prompts, random_mllm

PAIRS = 16
ALWAYS_OPEN, ALWAYS_SHUT = 0.0, 1.0  # thresholds: a probability is at least 0 and, from this prober, below 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A model, and what to ask it."""

    name: str
    mllm: MLLM
    pairs: ContrastPairs
    prompts: tuple[Prompt, ...]
    """To be answered."""
    refusals: tuple[Prompt, ...]
    """That a Refusal Head is trained on; at most one picture each."""
    refusal_text: str
    head: RefusalHead
    """Unfitted: the hyper-parameters with which a head is trained on this model."""

    def fitted(self) -> AutoSteer:
        """AutoSteer on this model, in as little time as it takes."""
        head = dataclasses.replace(self.head, epochs=1, checkpoint="last")
        reading = dataclasses.replace(AutoSteer().reading, prober_checkpoint="last", head_checkpoint="last")
        return AutoSteer(reading=reading, prober=SafetyProber(epochs=1, checkpoint="last"), head=head).fit(
            self.mllm,
            self.pairs,
            refusal_prompts=self.pairs.toxic,
            refusal_text=self.refusal_text,
            batch_size=PAIRS,
        )


def shipped(settings: Settings) -> Subject:
    """The profile's model; in an offline profile whose model is not there yet, the same network untrained."""
    profile = load_profile(settings.profile)
    root = repository_root()
    chosen = profile.model
    if profile.run.offline and not (root / chosen.name).is_dir():
        identity = f"untrained organism {settings.seed}"
        model = build_model(seed=settings.seed).to(settings.device)
        mllm = assemble(model, build_processor(), name="untrained organism", fingerprint=identity)
    else:
        mllm = load(
            profile.model_path(root),
            dtype=chosen.dtype,
            device="cuda" if settings.device.startswith("cuda") else "cpu",
            revision=chosen.revision or None,
            add_generation_prompt=chosen.add_generation_prompt,
            template_options=chosen.template_options,
        )
    data = prompt_data(profile, root=root)
    hyper = profile.head
    return Subject(
        name=mllm.name,
        mllm=mllm,
        pairs=data.pairs.subset(range(min(PAIRS, len(data.pairs)))),
        prompts=data.pairs.safe,
        refusals=data.refusals,
        refusal_text=hyper.refusal_text,
        head=RefusalHead(
            epsilon=hyper.epsilon,
            lr=hyper.lr,
            weight_decay=hyper.weight_decay,
            epochs=hyper.epochs,
            batch_size=hyper.batch_size,
            checkpoint="last",
        ),
    )


def medium(settings: Settings, *, pictures: bool = False) -> Subject:
    """Random weights, at a size where arithmetic dominates."""
    size = TINY if settings.quick else MEDIUM
    return random_subject(
        size,
        random_mllm(size, seed=settings.seed, device=settings.device),
        pictures=pictures,
        seed=settings.seed,
    )


def random_subject(size: Size, mllm: MLLM, *, pictures: bool, seed: int) -> Subject:
    """A model of random weights with prompts to fit."""
    asked = tuple(prompts(size, count=64, words=12, pictures=pictures, seed=seed + 1))
    return Subject(
        name=mllm.name,
        mllm=mllm,
        pairs=pairs(size, count=PAIRS, words=12, seed=seed),
        prompts=asked,
        refusals=asked,
        refusal_text=" ".join(f"w{number}" for number in range(8, 18)),  # ten tokens, as the papers' refusal
        # The published script's batches of 2 (AutoSteer, train_llava_steer.bash) over its 30 epochs.
        head=RefusalHead(lr=1e-2, epochs=30, batch_size=2, checkpoint="last"),
    )


@contextmanager
def endless(mllm: MLLM) -> Iterator[None]:
    """No token ends an answer here, so that every answer has all the tokens that it may have."""
    end = mllm.model.generation_config.eos_token_id
    mllm.model.generation_config.eos_token_id = mllm.unembedding.shape[0]  # one beyond the vocabulary
    try:
        yield
    finally:
        mllm.model.generation_config.eos_token_id = end
