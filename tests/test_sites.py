"""Reading and writing at sites: one mechanism, exact, and gone afterwards."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autosteer_lib.encoding import Encoded, encode
from autosteer_lib.models import MLLM
from autosteer_lib.prompts import Prompt
from autosteer_lib.sites import (
    Edit,
    Site,
    attach,
    check_sites,
    final_norm,
    logits,
    resid_post,
    resid_pre,
)


@pytest.fixture(scope="module")
def encoded(tiny: MLLM, mixed_prompts: list[Prompt]) -> Encoded:
    return encode(tiny, mixed_prompts)


def run(mllm: MLLM, encoded: Encoded, edits: dict[Site, Edit]) -> Tensor:
    with attach(mllm, edits):
        return mllm.forward(encoded.inputs).logits


def read(mllm: MLLM, encoded: Encoded, *sites: Site, edits: dict[Site, Edit]) -> list[Tensor]:
    seen: dict[Site, Tensor] = {}

    def keep(site: Site) -> Edit:
        def edit(hidden: Tensor) -> None:
            seen[site] = hidden.clone()

        return edit

    with attach(mllm, {**{site: keep(site) for site in sites}, **edits}):
        mllm.forward(encoded.inputs)
    return [seen[site] for site in sites]


def test_resid_pre_is_the_hidden_state_of_transformers(tiny: MLLM, encoded: Encoded) -> None:
    sites = [resid_pre(layer) for layer in range(tiny.layers)]
    states = read(tiny, encoded, *sites, final_norm(), edits={})
    expected = tiny.model(**encoded.inputs, output_hidden_states=True).hidden_states
    for ours, theirs in zip(states, expected, strict=True):
        real = encoded.inputs["attention_mask"].bool()
        torch.testing.assert_close(ours[real], theirs[real], rtol=1e-5, atol=1e-5)


def test_resid_post_is_the_next_resid_pre(tiny: MLLM, encoded: Encoded) -> None:
    after, before = read(tiny, encoded, resid_post(1), resid_pre(2), edits={})
    assert torch.equal(after, before)


def test_an_edit_sees_only_one_token_of_logits(tiny: MLLM, encoded: Encoded) -> None:
    (seen,) = read(tiny, encoded, logits(), edits={})
    assert seen.shape == (len(encoded.prompts), 1, len(tiny.unembedding))


@pytest.mark.parametrize("site", [resid_pre(2), resid_post(2), final_norm(), logits()])
def test_what_an_edit_returns_is_what_the_model_goes_on_with(
    tiny: MLLM, encoded: Encoded, site: Site
) -> None:
    """At the last places the effect is known exactly; at the others the output moves."""
    plain = run(tiny, encoded, {})
    width = plain.shape[-1] if site.kind == "logits" else tiny.dim
    vector = torch.linspace(-1, 1, width)
    steered = run(tiny, encoded, {site: lambda hidden: hidden + vector})
    if site.kind == "logits":
        assert torch.equal(steered, plain + vector)
    elif site.kind == "final_norm":
        torch.testing.assert_close(steered - plain, (vector @ tiny.unembedding.T).expand_as(plain))
    else:
        assert (steered - plain).abs().amax(dim=-1).min() > 1e-3, "every row moves"


def test_nested_edits_run_in_order_of_attachment(tiny: MLLM, encoded: Encoded) -> None:
    with attach(tiny, {logits(): lambda hidden: hidden + 1.0}):
        twice = run(tiny, encoded, {logits(): lambda hidden: hidden * 2.0})
    assert torch.equal(twice, (run(tiny, encoded, {}) + 1.0) * 2.0)


def test_detach_from_inside_an_edit(tiny: MLLM, encoded: Encoded) -> None:
    calls: list[int] = []

    def edit(hidden: Tensor) -> Tensor:
        calls.append(len(hidden))
        attachment.detach(resid_post(0))
        attachment.detach(resid_post(0))  # twice is harmless
        return hidden * 0.0

    with attach(tiny, {resid_post(0): edit}) as attachment:
        assert attachment.sites == (resid_post(0),)
        first = tiny.forward(encoded.inputs).logits
        assert len(attachment.sites) == 0
        second = tiny.forward(encoded.inputs).logits
    assert len(calls) == 1
    plain = run(tiny, encoded, {})
    assert torch.equal(second, plain)
    assert not torch.equal(first, plain)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (resid_post(4), r"layer 4 does not exist; tiny has layers 0…3"),
        (resid_pre(-1), r"layer -1 does not exist; tiny has layers 0…3"),
        (Site("resid_pre"), r"layer None does not exist"),
        (Site("final_norm", 2), r"final_norm has no layer; use final_norm\(\)"),
    ],
)
def test_a_site_that_does_not_exist(tiny: MLLM, site: Site, message: str) -> None:
    before = len(tiny.blocks[0]._forward_hooks)  # transformers may have some of its own there
    with (
        pytest.raises(ValueError, match=message),
        attach(tiny, {resid_post(0): lambda hidden: hidden, site: lambda hidden: hidden}),
    ):
        pass
    assert len(tiny.blocks[0]._forward_hooks) == before, "nothing is attached when one site is wrong"


@pytest.mark.usefixtures("as_a_user")
def test_an_unknown_kind_of_site(tiny: MLLM) -> None:
    with (
        pytest.raises(ValueError, match=r"kind 'attention' does not exist; allowed are"),
        attach(
            tiny,
            {Site("attention", 1): lambda hidden: hidden},  # type: ignore[arg-type]
        ),
    ):
        pass


@pytest.mark.parametrize("site", [resid_pre(1), resid_post(1)])
@pytest.mark.parametrize("wrong", [lambda hidden: hidden[:, -1:], lambda hidden: hidden.double()])
def test_an_edit_must_return_what_it_was_given(tiny: MLLM, encoded: Encoded, site: Site, wrong: Edit) -> None:
    with pytest.raises(ValueError, match=r"the edit at resid_.*returned .* it was given torch.float32"):
        run(tiny, encoded, {site: wrong})


class Wrapped(nn.Module):
    """A block as another family would write it: a tuple out, the states in by name."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, str]:
        return self.block(hidden_states, **kwargs), "attention weights"


class Unwrapping(nn.Module):
    """Calls a wrapped block by keyword and takes the states out of its tuple."""

    def __init__(self, inner: Wrapped) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        hidden, extra = self.inner(hidden_states=hidden_states, **kwargs)
        assert extra == "attention weights", "what else a block returns must be passed on"
        return hidden


@pytest.mark.parametrize("site", [resid_pre(1), resid_post(1)])
def test_blocks_that_return_a_tuple_and_take_keywords(tiny: MLLM, encoded: Encoded, site: Site) -> None:
    """The same edit has the same effect, in every row, whatever a family's blocks return."""
    vector = torch.linspace(-1, 1, tiny.dim)
    expected = run(tiny, encoded, {site: lambda hidden: hidden + vector})
    blocks = tiny.model.get_decoder().layers
    block = blocks[1]
    wrapped = Wrapped(block)
    blocks[1] = Unwrapping(wrapped)
    # The site's module is the one whose output is a tuple, as in a family like Chameleon.
    stand_in = nn.ModuleList([*tiny.blocks])
    stand_in[1] = wrapped
    family = replace(tiny, blocks=stand_in)
    try:
        assert torch.equal(run(family, encoded, {site: lambda hidden: hidden + vector}), expected)
    finally:
        blocks[1] = block


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("given", [resid_pre(1), [1], [final_norm]])
def test_what_is_no_list_of_sites_is_named(tiny: MLLM, given: Any) -> None:
    with pytest.raises(TypeError, match=r"site.* is .*; give sites, as in"):
        check_sites(tiny, sites=given)


@pytest.mark.usefixtures("as_a_user")
def test_a_layer_of_another_type_does_not_exist(tiny: MLLM) -> None:
    for layer in ("1", 1.0):
        with pytest.raises(ValueError, match=r"layer .* does not exist; .* has layers 0…3"):
            check_sites(tiny, sites=[resid_pre(cast(Any, layer))])
    check_sites(tiny, sites=[resid_pre(cast(Any, np.int64(1)))])


@pytest.mark.usefixtures("as_a_user")
def test_a_vector_is_no_edit(tiny: MLLM) -> None:
    with (
        pytest.raises(TypeError, match=r"the edit at resid_post\(1\) is tensor.*; give a function"),
        attach(tiny, {resid_post(1): cast(Any, torch.zeros(2))}),
    ):
        pass


@pytest.mark.usefixtures("as_a_user")
def test_an_edit_returns_states(tiny: MLLM) -> None:
    inputs = encode(tiny, [Prompt(text="make a sun")]).inputs

    def edit(hidden: Tensor) -> Any:
        return (hidden,)

    with attach(tiny, {resid_post(1): edit}), pytest.raises(TypeError, match=r"returned .* of type tuple"):
        tiny.forward(inputs)
