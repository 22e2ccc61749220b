"""Released checkpoints that profiles name: size, licence, gate. Facts for a plan, read without a network.

Read in copies of the hub's pages, so each is to be checked against the live page when it is first loaded. What was
not read is None and shows as "not known"; revisions are pinned of judges alone, where they were read. Sizes are of
the weights:

    memory of the weights = parameters × bytes of the dtype
"""

from __future__ import annotations

from dataclasses import dataclass

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One released checkpoint."""

    repo: str
    family: str
    """`model_type` of its config.json, as in README's table."""
    parameters: float | None
    """Weights, as its page rounds them or as its files' size gives them."""
    gigabytes: float | None
    """Size of the weight files."""
    licence: str
    revision: str | None = None
    """Branch, reference or commit to take in place of the newest; a profile says its own model's itself."""
    gated: bool = False
    """Whether its terms must be accepted on its page before it can be downloaded."""
    note: str = ""
    """Where a number is of a copy, or what may stand in the way."""

    @property
    def page(self) -> str:
        """Where people read about it, and accept its terms."""
        return f"https://huggingface.co/{self.repo}"

    @property
    def gate(self) -> str:
        """The page where terms are accepted; empty where there is no gate."""
        return self.page if self.gated else ""

    def memory_gigabytes(self, dtype: str) -> float | None:
        """Of the weights alone, in that type; activations and the cache come on top."""
        return None if self.parameters is None else self.parameters * BYTES[dtype] / 1e9


_OF_A_COPY = "size of a copy's files"
_OWN_CODE = (
    "its page is tagged custom_code; code of a checkpoint is never run here, its family is transformers' own"
)

CHECKPOINTS: dict[str, Checkpoint] = {
    checkpoint.repo: checkpoint
    for checkpoint in (
        Checkpoint(
            repo="llava-hf/llava-onevision-qwen2-7b-ov-hf",
            family="llava_onevision",
            parameters=8.03e9,
            gigabytes=None,
            licence="Apache-2.0",
            note="parameters of fine-tuned copies",
        ),
        Checkpoint(
            repo="llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
            family="llava_onevision",
            parameters=0.89e9,
            gigabytes=1.8,
            licence="Apache-2.0",
            note="size of the original's files, lmms-lab/llava-onevision-qwen2-0.5b-ov",
        ),
        Checkpoint(
            repo="facebook/chameleon-7b",
            family="chameleon",
            parameters=7.04e9,
            gigabytes=14.1,
            licence="Chameleon Research License",
            gated=True,
            note=_OF_A_COPY,
        ),
        Checkpoint(
            repo="llava-hf/llava-1.5-7b-hf",
            family="llava",
            parameters=7.06e9,
            gigabytes=14.1,
            licence="Llama 2",
        ),
        Checkpoint(
            repo="Qwen/Qwen2.5-VL-7B-Instruct",
            family="qwen2_5_vl",
            parameters=8.3e9,
            gigabytes=16.6,
            licence="Apache-2.0",
            note=_OF_A_COPY,
        ),
        Checkpoint(
            repo="Qwen/Qwen2.5-VL-3B-Instruct",
            family="qwen2_5_vl",
            parameters=3.75e9,
            gigabytes=7.5,
            licence="Qwen Research",
            note="as Qwen2.5-3B, whose licence file has the same size; neither was read",
        ),
        Checkpoint(
            repo="Qwen/Qwen3-VL-8B-Instruct",
            family="qwen3_vl",
            parameters=9e9,
            gigabytes=None,
            licence="Apache-2.0",
            note="parameters as pages of copies round them",
        ),
        Checkpoint(
            repo="Qwen/Qwen3-VL-2B-Instruct",
            family="qwen3_vl",
            parameters=2.13e9,
            gigabytes=4.3,
            licence="Apache-2.0",
            note="licence of a copy",
        ),
        Checkpoint(
            repo="Qwen/Qwen3.5-9B",
            family="qwen3_5",
            parameters=9.65e9,
            gigabytes=19.3,
            licence="Apache-2.0",
        ),
        Checkpoint(
            repo="Qwen/Qwen3.5-0.8B",
            family="qwen3_5",
            parameters=None,
            gigabytes=None,
            licence="not known",
            note="a fine-tuned copy has 2.2 GB",
        ),
        Checkpoint(
            repo="OpenGVLab/InternVL3_5-8B-HF",
            family="internvl",
            parameters=8.5e9,
            gigabytes=17.1,
            licence="Apache-2.0",
            note="size and licence of InternVL3_5-8B, the same weights in another format",
        ),
        Checkpoint(
            repo="OpenGVLab/InternVL3_5-1B-HF",
            family="internvl",
            parameters=1.06e9,
            gigabytes=2.1,
            licence="Apache-2.0",
            note=_OWN_CODE,
        ),
        Checkpoint(
            repo="google/gemma-3-4b-it",
            family="gemma3",
            parameters=4.3e9,
            gigabytes=8.6,
            licence="Gemma terms of use",
            gated=True,
            note=_OF_A_COPY,
        ),
        Checkpoint(
            repo="allenai/Molmo2-8B",
            family="molmo2",
            parameters=None,
            gigabytes=None,
            licence="Apache-2.0",
            note=_OWN_CODE,
        ),
        Checkpoint(
            repo="llava-hf/LLaVA-NeXT-Video-7B-hf",
            family="llava_next_video",
            parameters=7.06e9,
            gigabytes=14.1,
            licence="Llama 2",
        ),
        Checkpoint(
            repo="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
            family="smolvlm",
            parameters=2.25e9,
            gigabytes=9.0,
            licence="Apache-2.0",
            note="stored in 32 bits",
        ),
        Checkpoint(
            repo="HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
            family="smolvlm",
            parameters=0.51e9,
            gigabytes=2.0,
            licence="Apache-2.0",
            note="stored in 32 bits",
        ),
    )
}

JUDGES: dict[str, Checkpoint] = {
    "llama-guard-3": Checkpoint(
        repo="meta-llama/Llama-Guard-3-8B", family="llama", parameters=8.03e9, gigabytes=None, licence="Llama 3.1",
        gated=True, note="a judge; parameters of Llama 3.1 8B",
    ),
    "llama-guard-4": Checkpoint(
        repo="meta-llama/Llama-Guard-4-12B", family="llama4", parameters=None, gigabytes=None, licence="Llama 4",
        gated=True, note="a judge",
    ),
    "harmbench": Checkpoint(
        repo="cais/HarmBench-Llama-2-13b-cls", family="llama", parameters=13.0e9, gigabytes=26.0, licence="MIT",
        revision="bda705349d1144fa618770bea64d99ce54e3835b",
        note="a judge; its tokenizer is a tokenizer.model alone, which the package sentencepiece reads",
    ),
    "wildguard": Checkpoint(
        repo="allenai/wildguard", family="mistral", parameters=None, gigabytes=None, licence="Apache-2.0",
        revision="refs/pr/2", gated=True,
        note="a judge; its terms are accepted automatically; its main branch was seen with pickled weights alone, which "
        "are never loaded, and the open request refs/pr/2 has them as safetensors",
    ),
}  # fmt: skip
"""Published judges by the names of judges/named.py, which profiles list as second judges."""


def checkpoint(repo: str) -> Checkpoint:
    """What is known of a checkpoint; of one that is not listed, only that nothing is."""
    return CHECKPOINTS.get(repo) or Checkpoint(
        repo=repo, family="not known", parameters=None, gigabytes=None, licence="not known"
    )
