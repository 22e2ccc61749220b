"""What the tiny checkpoints share: words, tokenizer, sizes, and how one is written to a folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

SIDE = 32  # px
CONTEXT = 256  # tokens: two pictures and a clip of the longest-winded family, and room for an answer
LAYERS = 4
WIDTH = 32
WORDS = tuple(
    "how do i make buy use a an the this that picture word sun poison knife what is it describe "  # noqa: SIM905
    "sorry cannot help with sure please tell me about red green blue one two three ? . , !".split()
)

Builder = Callable[..., Path]
"""(folder, *, seed) → the folder, a whole checkpoint."""


def build_tokenizer(
    *, special: Sequence[str], words: Sequence[str] = (), names: Mapping[str, str], **options: str
) -> PreTrainedTokenizerFast:
    """One token a word; a line break and a colon are tokens of their own, as templates end with them.

    Args:
        special: the family's special tokens, found wherever they stand in a text.
        words: what its template says besides.
        names: which special token is the tokenizer's image_token and so on.
        options: eos_token, bos_token, …; padding is <pad>.
    """
    vocabulary = {word: i for i, word in enumerate(("<pad>", "<unk>", *special, "\n", ":", *words, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" +"), behavior="removed"),
            pre_tokenizers.Split(Regex("[\n:]"), behavior="isolated"),
        ]
    )
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=dict(names),
        model_max_length=CONTEXT,
        **options,
    )


def text_sizes(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Arguments that the text configurations of all families know."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # Larger weights than the usual 0.02, at which a random model's states hardly differ from
        # token to token and a wrong hook could go unseen.
        "initializer_range": 0.15,
    }


def save(
    folder: Path,
    *,
    model_class: type[PreTrainedModel],
    config: Any,
    processor: ProcessorMixin,
    seed: int,
    zeros: Sequence[str] = (),
    filled: Mapping[str, float] | None = None,
) -> Path:
    """Draw the weights and write the checkpoint as `save_pretrained` does.

    `zeros` are parameters that the family starts at zero, at which pictures would change nothing; `filled` gives
    parameters of these last names one value.
    """
    tokenizer: Any = processor.tokenizer
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = model_class(config)
        for name in zeros:
            torch.nn.init.normal_(model.get_parameter(name), std=0.15)
        for name, parameter in model.named_parameters():
            if (value := (filled or {}).get(name.rpartition(".")[2])) is not None:
                torch.nn.init.constant_(parameter, value)
        silence(model.get_output_embeddings().weight, tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def silence(weight: torch.Tensor, tokenizer: PreTrainedTokenizerFast) -> None:
    """A random model would say <image> or <eos> now and then; with a logit of 0 they never win."""
    weight[sorted({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder})] = 0.0
