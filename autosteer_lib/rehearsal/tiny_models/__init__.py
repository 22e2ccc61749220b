"""Tiny random-weight checkpoints in the real Hugging Face folder layout, one builder a family.

`BUILDERS[family](folder, seed=…)` writes configuration, safetensors, tokenizer with its chat template
and processor, as `save_pretrained` does. To add a family, write a builder in a file beside this one and
enter it here; the battery (test_battery.py) runs over all of them.
"""

from autosteer_lib.rehearsal.tiny_models.chameleon import build_chameleon
from autosteer_lib.rehearsal.tiny_models.gemma3 import build_gemma3
from autosteer_lib.rehearsal.tiny_models.internvl import build_internvl
from autosteer_lib.rehearsal.tiny_models.llava import build_llava, build_llava_next_video
from autosteer_lib.rehearsal.tiny_models.llava_onevision import build_llava_onevision
from autosteer_lib.rehearsal.tiny_models.molmo2 import build_molmo2
from autosteer_lib.rehearsal.tiny_models.parts import SIDE, Builder
from autosteer_lib.rehearsal.tiny_models.qwen3_5 import build_qwen3_5
from autosteer_lib.rehearsal.tiny_models.qwen_vl import build_qwen2_5_vl, build_qwen3_vl
from autosteer_lib.rehearsal.tiny_models.smolvlm import build_smolvlm

__all__ = ["BUILDERS", "SIDE", "Builder"]

BUILDERS: dict[str, Builder] = {
    "chameleon": build_chameleon,
    "gemma3": build_gemma3,
    "internvl": build_internvl,
    "llava": build_llava,
    "llava_next_video": build_llava_next_video,
    "llava_onevision": build_llava_onevision,
    "molmo2": build_molmo2,
    "qwen2_5_vl": build_qwen2_5_vl,
    "qwen3_5": build_qwen3_5,
    "qwen3_vl": build_qwen3_vl,
    "smolvlm": build_smolvlm,
}
