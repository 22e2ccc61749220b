"""What a processor does to a prompt, as one hash: how pictures are resized and scaled, and what the template writes.

    hash = SHA-256(picture and clip settings, chat template, end of the prompt, its options, size of the vocabulary)

It is taken of the objects in memory. A setting that was changed after loading is in no file of the checkpoint, and
changes states and answers all the same.
"""

from __future__ import annotations

import hashlib
import json

from autosteer_lib.models import MLLM


def processor_fingerprint(mllm: MLLM) -> str:
    """Hash of picture settings and chat template as they are in memory now, which the files may not say."""
    processor = mllm.processor
    settings = [
        processor.to_json_string(),
        processor.chat_template,
        mllm.add_generation_prompt,
        len(mllm.tokenizer),
    ]
    if mllm.template_options:  # without any, the hash is what it was before there were some
        settings.append(dict(mllm.template_options))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
