"""autosteer_lib: make multimodal language models refuse unsafe requests, at inference time.

    from autosteer_lib import AutoSteer, ContrastPairs, GenerationSettings, Prompt, load

    mllm = load("data/organisms/llava_onevision")
    defence = AutoSteer().fit(mllm, pairs, refusal_prompts=…, refusal_text="…")
    defence.respond(mllm, [Prompt(text="what is this ?", images=(picture,))], settings=…)

The flow is one way: prompts → encoding → sites (read) → fit → defence (write) → responses → records →
judge → tables and figures. Each name is imported from its module when it is first used, so that
reading the papers' reported numbers, say, does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autosteer_lib.activations import answer_states, collect
    from autosteer_lib.decoder import DecoderPaths
    from autosteer_lib.defences.autosteer import AutoSteer
    from autosteer_lib.defences.mars import Mars
    from autosteer_lib.defences.steer import Steer
    from autosteer_lib.defences.undefended import Undefended
    from autosteer_lib.encoding import encode
    from autosteer_lib.evaluation import evaluate
    from autosteer_lib.generation import GenerationSettings, Response, respond
    from autosteer_lib.models import MLLM, load
    from autosteer_lib.neutral_sights import neutral_clips, neutral_pictures
    from autosteer_lib.pairs import ContrastPairs
    from autosteer_lib.prompts import Prompt
    from autosteer_lib.sites import attach, final_norm, logits, resid_post, resid_pre
    from autosteer_lib.text_sets import TextSets
    from autosteer_lib.videos import VideoFile

__all__ = [
    "MLLM",
    "AutoSteer",
    "ContrastPairs",
    "DecoderPaths",
    "GenerationSettings",
    "Mars",
    "Prompt",
    "Response",
    "Steer",
    "TextSets",
    "Undefended",
    "VideoFile",
    "answer_states",
    "attach",
    "collect",
    "encode",
    "evaluate",
    "final_norm",
    "load",
    "logits",
    "neutral_clips",
    "neutral_pictures",
    "resid_post",
    "resid_pre",
    "respond",
]

_HOME = {
    "MLLM": "models",
    "Mars": "defences.mars",
    "TextSets": "text_sets",
    "VideoFile": "videos",
    "neutral_clips": "neutral_sights",
    "neutral_pictures": "neutral_sights",
    "AutoSteer": "defences.autosteer",
    "ContrastPairs": "pairs",
    "DecoderPaths": "decoder",
    "GenerationSettings": "generation",
    "Prompt": "prompts",
    "Response": "generation",
    "Steer": "defences.steer",
    "Undefended": "defences.undefended",
    "answer_states": "activations",
    "attach": "sites",
    "collect": "activations",
    "encode": "encoding",
    "evaluate": "evaluation",
    "final_norm": "sites",
    "load": "models",
    "logits": "sites",
    "resid_post": "sites",
    "resid_pre": "sites",
    "respond": "generation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"autosteer_lib has no {name!r}; its public names are {', '.join(__all__)}")
    return getattr(import_module(f"autosteer_lib.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
