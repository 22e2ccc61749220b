"""MLLM: a checkpoint, its processor, and the parts of its text decoder that the papers name.

    mllm = load("data/organisms/llava_onevision")
    mllm.blocks[l]      decoder block l, 0 ≤ l < mllm.layers
    mllm.final_norm     its output is h, the state that predicts the next token
    mllm.lm_head        logits = h Eᵀ, E of shape [vocabulary, dim]

The model is frozen and greedy: evaluation mode, no gradients, no sampling options of the
checkpoint. Only safetensors are read, and no code that comes with a checkpoint is ever run.
"""

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import logging as transformers_logging

from autosteer_lib.arguments import check_flags, check_given
from autosteer_lib.chat_template import TemplateOptions, check_template, rendered
from autosteer_lib.checkpoints import check_folder, fingerprint, locate
from autosteer_lib.decoder import DecoderPaths, find_decoder
from autosteer_lib.families import DEFAULT_TEMPLATES, check_family, model_type

DtypeName: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What `load` was given, made exact: with it another process loads the same model."""

    name: str
    """A folder's full path, or owner/name on the hub."""
    dtype: DtypeName
    device: DeviceName
    device_map: str | dict[str, int | str] | None
    revision: str | None
    add_generation_prompt: bool
    decoder: DecoderPaths | None
    template_options: TemplateOptions = field(default_factory=dict)

    def load(self) -> "MLLM":
        """Load it here."""
        return load(
            self.name,
            dtype=self.dtype,
            device=self.device,
            device_map=self.device_map,
            revision=self.revision,
            add_generation_prompt=self.add_generation_prompt,
            decoder=self.decoder,
            template_options=self.template_options,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MLLM:
    """A multimodal language model, ready to be read and steered."""

    model: PreTrainedModel
    processor: Any  # a ProcessorMixin; transformers leaves its parts (tokenizer, …) untyped
    name: str
    """owner/name on the hub, or the folder's own name: never a path of this machine."""
    revision: str | None
    """Commit on the hub; None for a folder, whose fingerprint says what it holds."""
    blocks: nn.ModuleList
    final_norm: nn.Module
    lm_head: nn.Module
    fingerprint: str
    """SHA-256 over weights, configuration, tokenizer, processor and chat template."""
    add_generation_prompt: bool = True
    """Whether the chat template ends with the assistant's header. AutoSteer's code has False."""
    template_options: TemplateOptions = field(default_factory=dict)
    """What the chat template is told besides, by its author's names: {"enable_thinking": False}."""
    origin: Origin | None = None
    """Where `load` took it from; None for a model that was put together in memory."""
    lock: Any = field(default_factory=RLock, repr=False)
    """Held while this library runs the model: hooks are the model's, so a pass of another thread would be edited too."""

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def dim(self) -> int:
        """Width of the residual stream."""
        return self.unembedding.shape[1]

    @property
    def unembedding(self) -> Float[Tensor, "vocabulary dim"]:
        """E of logits = h Eᵀ; frozen, the model's own tensor and no copy."""
        weight = self.lm_head.weight
        assert isinstance(weight, Tensor)  # find_decoder
        return weight

    @property
    def device(self) -> torch.device:
        """Where inputs go; of a model spread over devices, the one that holds the embedding."""
        embedding = self.model.get_input_embeddings()
        return next(embedding.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of the states that an edit sees."""
        return self.model.dtype

    @property
    def context_length(self) -> int:
        """Most tokens that prompt and answer may have together."""
        return int(self.model.config.get_text_config(decoder=True).max_position_embeddings)

    @property
    def family(self) -> str:
        """What config.json calls its kind (model_type), with its class: what errors name."""
        return f"{self.model.config.model_type} ({type(self.model).__name__})"

    @property
    def sees_images(self) -> bool:
        """Whether prompts may have pictures: its processor has a part for them."""
        return getattr(self.processor, "image_processor", None) is not None

    @property
    def sees_videos(self) -> bool:
        """Whether prompts may have clips: its processor has a part for them."""
        return getattr(self.processor, "video_processor", None) is not None

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    def render(self, turns: Sequence[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        """What the chat template writes of turns, under this model's options."""
        return rendered(
            self.processor,
            turns,
            add_generation_prompt=add_generation_prompt,
            options=self.template_options,
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Any:
        """One pass over whole sequences, without a cache, with logits for the last token only.

        Positions are the ones that `generate` itself would use, so that a state read here is the
        state of an answer's prefill, in families with multimodal positions too.
        """
        parameters = inspect.signature(self.model.forward).parameters
        extra: dict[str, Any] = {}
        if "position_ids" in parameters:
            extra["position_ids"] = self.model._prepare_position_ids_for_generation(
                inputs["input_ids"], dict(inputs)
            )
        if "logits_to_keep" in parameters:
            extra["logits_to_keep"] = 1  # a prompt's logits would be tokens × vocabulary numbers
        return self.model(**inputs, **extra, use_cache=False)


def load(
    name: str | Path,
    *,
    dtype: DtypeName = "auto",
    device: DeviceName = "auto",
    device_map: str | dict[str, int | str] | None = None,
    revision: str | None = None,
    add_generation_prompt: bool = True,
    decoder: DecoderPaths | None = None,
    template_options: TemplateOptions | None = None,
) -> MLLM:
    """Load a checkpoint from a folder or from the hub.

    Args:
        name: a folder that `save_pretrained` wrote, or owner/name on the hub.
        dtype: "auto" is float32 on a CPU and the checkpoint's own on an accelerator.
        device: "auto" prefers cuda, then mps, then cpu. Left out when `device_map` is given.
        device_map: spread a large model over devices, as transformers does ("auto", or a map).
        revision: branch, tag or commit on the hub.
        add_generation_prompt: whether prompts end with the assistant's header.
        decoder: where the text decoder's parts are, for a family in which they are not found by structure.
        template_options: handed to the chat template, which must read them: {"enable_thinking": False} has a Qwen3.5
            begin its answer where it would begin a thought.

    Raises:
        FileNotFoundError, ValueError, OSError: what is missing or broken, and the remedy. Files are
            checked before any weight is read.
    """
    _check_choice("dtype", dtype, get_args(DtypeName))
    _check_choice("device", device, get_args(DeviceName))
    if device_map is not None and device != "auto":
        raise ValueError(
            f"device={device!r} and device_map={device_map!r} were both given; leave device='auto' "
            "when device_map places the model"
        )
    check_flags(add_generation_prompt=add_generation_prompt)
    remedy = "DecoderPaths(blocks=…, final_norm=…, lm_head=…)"
    check_given(decoder, (DecoderPaths, NoneType), name="decoder", remedy=remedy)
    target = _pick_device(device)
    folder, commit = locate(name, revision=revision)
    check_family(folder)
    check_folder(folder)
    options = dict(template_options or {})
    processor = _load_processor(folder, options=options)
    on_cpu = device_map is None and target == "cpu"
    weights_dtype = "float32" if dtype == "auto" and on_cpu else dtype
    with quiet_transformers():
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=weights_dtype,
            device_map=device_map,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
        )
    if report["mismatched_keys"]:
        name, found_shape, expected = sorted(report["mismatched_keys"])[0]
        raise ValueError(
            f"{len(report['mismatched_keys'])} tensors in {folder} are of other sizes than config.json asks for ({name} is "
            f"{list(found_shape)} and not {list(expected)}, …); weights and configuration do not belong together, download "
            "or save the checkpoint again"
        )
    if report["missing_keys"]:
        # transformers would go on with random numbers in their place.
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"the weights in {folder} lack {len(missing)} tensors that config.json asks for "
            f"({', '.join(missing[:3])}, …); weights and configuration do not belong together, "
            "download or save the checkpoint again"
        )
    if device_map is None:
        model = model.to(target)
    model.eval().requires_grad_(False)
    model.generation_config = _greedy(model.generation_config, processor.tokenizer)
    found = find_decoder(model, paths=decoder)
    return MLLM(
        model=model,
        processor=processor,
        name=str(name) if commit else folder.resolve().name,
        revision=commit,
        blocks=found.blocks,
        final_norm=found.final_norm,
        lm_head=found.lm_head,
        fingerprint=_fingerprint(folder, decoder=decoder),
        add_generation_prompt=add_generation_prompt,
        template_options=options,
        origin=Origin(
            name=str(name) if commit else str(folder.resolve()),
            dtype=dtype,
            device="auto" if device_map is not None else target,
            device_map=device_map,
            revision=commit,
            add_generation_prompt=add_generation_prompt,
            decoder=decoder,
            template_options=options,
        ),
    )


def check_mllm(mllm: object, *, name: str = "mllm") -> None:
    """Check that a model is given, and not its name or transformers' object.

    Raises:
        TypeError: says what was given.
    """
    check_given(mllm, MLLM, name=name, remedy="the model that load(…) returned")


def _check_choice(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{what}={value!r} is not known; allowed are {', '.join(allowed)}")


def _pick_device(device: DeviceName) -> DeviceName:
    available: dict[DeviceName, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, there in available.items() if there)
    if not available[device]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise ValueError(
            f"device={device!r} was asked for and is not available here; available: {there} "
            "(device='auto' takes the best of them)"
        )
    return device


def _fingerprint(folder: Path, *, decoder: DecoderPaths | None) -> str:
    files = fingerprint(folder)
    # Parts named by hand are other sites under the same names.
    return files if decoder is None else hashlib.sha256(f"{files} {decoder}".encode()).hexdigest()


def _load_processor(folder: Path, *, options: TemplateOptions) -> Any:
    try:
        with quiet_transformers():
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"transformers cannot make a processor and a tokenizer of {folder} ({type(error).__name__}: {error}); look "
            "whether tokenizer.json and the processor's files are of this checkpoint, or download or save it again"
        ) from error
    if not isinstance(processor, ProcessorMixin):
        raise ValueError(
            f"{folder} holds a {type(processor).__name__} and no multimodal processor; save one "
            "with processor.save_pretrained(folder)"
        )
    if processor.chat_template is None:
        # Some processors do not read it from their folder, though saving them writes it there.
        processor.chat_template = _template_of(folder, processor)
    if processor.chat_template is None:
        raise ValueError(
            f"{folder} has no chat template (chat_template.jinja): the prompt's last token, which is "
            "what a prober reads, would be arbitrary; set processor.chat_template and save it"
        )
    with quiet_transformers():
        check_template(folder, processor, options=options)
    if processor.tokenizer.pad_token_id is None:
        # Padding is masked, so any token serves; the end of the turn always exists.
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def _template_of(folder: Path, processor: Any) -> str | None:
    files, _ = type(processor).get_processor_dict(folder, local_files_only=True)
    template: str | None = files.get("chat_template") or processor.tokenizer.chat_template
    return template or DEFAULT_TEMPLATES.get(model_type(folder))


def _greedy(checkpoint: GenerationConfig, tokenizer: Any) -> GenerationConfig:
    """Only the ends of an answer are the checkpoint's; sampling options would make it random."""
    return GenerationConfig(
        do_sample=False,
        eos_token_id=_ends(checkpoint.eos_token_id, tokenizer.eos_token_id),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=checkpoint.bos_token_id,
    )


def _ends(of_checkpoint: int | list[int] | None, of_tokenizer: int | None) -> int | list[int] | None:
    """Both: some checkpoints list <|endoftext|> alone, with which none of their turns ends, and would write on."""
    listed = [of_checkpoint] if isinstance(of_checkpoint, int) else of_checkpoint or []
    ends = [end for end in dict.fromkeys([*listed, of_tokenizer]) if end is not None]
    return ends if len(ends) > 1 else next(iter(ends), None)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without progress bars and notes about sampling flags; errors still raise."""
    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()
