"""Find the text decoder of a multimodal model by its structure, never by names or by counting.

    multimodal wrapper
    ├── vision tower            may have more blocks than the text decoder
    └── language model          transformers' get_decoder()
        ├── embedding
        ├── blocks              the one ModuleList of text_config.num_hidden_layers modules
        └── final norm          the one later child whose only weight is a vector of the model's width
    unembedding                 transformers' get_output_embeddings(), weight [vocabulary, width]

What is found is checked against the checkpoint's text configuration; anything else is an error
here, not a wrong answer later. The parts of a family that is built otherwise are named by hand:

    load(…, decoder=DecoderPaths(blocks="model.layers", final_norm="model.norm", lm_head="lm_head"))
"""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoder:
    """The parts of a text decoder that are read and steered."""

    blocks: nn.ModuleList
    final_norm: nn.Module
    lm_head: nn.Module


@dataclass(frozen=True, kw_only=True)
class DecoderPaths:
    """Where the parts are in a model in which they cannot be found: names as in model.named_modules()."""

    blocks: str
    """The list of decoder blocks, an nn.ModuleList."""
    final_norm: str
    """The norm whose output the unembedding reads."""
    lm_head: str
    """The unembedding, a module with a weight [vocabulary, width]."""


def find_decoder(model: PreTrainedModel, *, paths: DecoderPaths | None = None) -> Decoder:
    """The blocks, the last norm and the unembedding of the language model.

    Args:
        model: any of transformers' models that generate text.
        paths: where they are; None to look for them.

    Raises:
        ValueError: no such structure; says what was looked for, what is there, and how to name it by hand.
    """
    if paths is not None:
        return _named(model, paths)
    text_config = model.config.get_text_config(decoder=True)
    depth, width = text_config.num_hidden_layers, text_config.hidden_size
    language_model = model.get_decoder()
    children = list(language_model.named_children())

    found = [i for i, (_, child) in enumerate(children) if _is_block_list(child, depth=depth)]
    if len(found) != 1:
        raise _not_found(model, children, f"one list of {depth} decoder blocks")
    blocks = children[found[0]][1]
    assert isinstance(blocks, nn.ModuleList)  # _is_block_list

    norms = [child for _, child in children[found[0] + 1 :] if _is_norm(child, width=width)]
    if len(norms) != 1:
        raise _not_found(model, children, f"one norm of width {width} after the blocks")

    lm_head = model.get_output_embeddings()
    weight = getattr(lm_head, "weight", None)
    if lm_head is None or weight is None or weight.ndim != 2 or weight.shape[1] != width:
        shape = None if weight is None else list(weight.shape)
        raise ValueError(
            f"{type(model).__name__} has no unembedding to read: looked for a weight "
            f"[vocabulary, {width}], found {type(lm_head).__name__} with {shape}; load a class that "
            "generates text (AutoModelForImageTextToText)"
        )
    return Decoder(blocks=blocks, final_norm=norms[0], lm_head=lm_head)


def _named(model: PreTrainedModel, paths: DecoderPaths) -> Decoder:
    blocks = _module_at(model, "blocks", paths.blocks)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise ValueError(
            f"DecoderPaths(blocks={paths.blocks!r}) is a {type(blocks).__name__}; name the nn.ModuleList "
            "that holds the decoder blocks"
        )
    lm_head = _module_at(model, "lm_head", paths.lm_head)
    weight = getattr(lm_head, "weight", None)
    if weight is None or weight.ndim != 2:
        raise ValueError(
            f"DecoderPaths(lm_head={paths.lm_head!r}) is a {type(lm_head).__name__} without a weight "
            "[vocabulary, width]; name the unembedding"
        )
    return Decoder(
        blocks=blocks, final_norm=_module_at(model, "final_norm", paths.final_norm), lm_head=lm_head
    )


def _module_at(model: PreTrainedModel, part: str, path: str) -> nn.Module:
    parent: nn.Module = model
    walked: list[str] = []
    for name in path.split("."):
        children = dict(parent.named_children())
        if name not in children:
            where = ".".join(walked) or type(model).__name__
            raise ValueError(
                f"DecoderPaths({part}={path!r}): {where} has no {name!r}; it has {', '.join(children) or 'none'}"
            )
        parent = children[name]
        walked.append(name)
    return parent


def _is_block_list(module: nn.Module, *, depth: int) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) == depth


def _is_norm(module: nn.Module, *, width: int) -> bool:
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    # One vector (RMSNorm) or two (LayerNorm with its bias), and nothing else.
    return 1 <= len(shapes) <= 2 and all(shape == (width,) for shape in shapes)


def _not_found(model: PreTrainedModel, children: list[tuple[str, nn.Module]], wanted: str) -> ValueError:
    there = ", ".join(
        f"{name}: {type(child).__name__}" + (f" of {len(child)}" if isinstance(child, nn.ModuleList) else "")
        for name, child in children
    )
    return ValueError(
        f"no text decoder found in {type(model).__name__}: looked for {wanted} directly under "
        f"{type(model.get_decoder()).__name__}, which holds ({there}); name its parts by hand: load(…, "
        "decoder=DecoderPaths(blocks='…', final_norm='…', lm_head='…')), with names of model.named_modules()"
    )
