"""Sites: the named places of a text decoder where a defence reads and writes. One mechanism for both.

    resid_pre(l)    input of decoder block l   = hidden_states[l] of Hugging Face
    resid_post(l)   output of decoder block l  = resid_pre(l + 1)
    final_norm()    output of the last norm, the state that the unembedding reads
    logits()        output of the unembedding

    with attach(mllm, {resid_post(3): lambda hidden: hidden + vector}):
        ...                                     # every forward pass in here is steered

An edit is given the states of all tokens of the present pass, [batch, tokens, dim]: the whole
prompt in the prefill, one token in each later step of a cached generation. It returns the states to
go on with, or None when it only looks. It must never change its argument in place: that tensor is
the model's own.

Why not `output_hidden_states`: in some families it shows a block's edit and in others not. Here the
one hook both reads and writes. Why blocks are unpacked: they return a bare tensor in most families
and a tuple in others, and `output[0] += v` on a bare tensor would steer row 0 only, in silence.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from autosteer_lib.arguments import check_given, described
from autosteer_lib.models import MLLM, check_mllm

SiteKind: TypeAlias = Literal["resid_pre", "resid_post", "final_norm", "logits"]
States: TypeAlias = Float[Tensor, "batch tokens dim"]
Edit: TypeAlias = Callable[[States], States | None]


@dataclass(frozen=True, order=True)
class Site:
    """A place in the text decoder. Build it with the constructors below."""

    kind: SiteKind
    layer: int | None = None

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}({self.layer})"


def resid_pre(layer: int) -> Site:
    """Input of decoder block `layer`; resid_pre(0) is the embedding."""
    return Site("resid_pre", layer)


def resid_post(layer: int) -> Site:
    """Output of decoder block `layer`, before any norm."""
    return Site("resid_post", layer)


def final_norm() -> Site:
    """Output of the last norm: what the unembedding is multiplied with."""
    return Site("final_norm")


def logits() -> Site:
    """Output of the unembedding: `dim` is the size of the vocabulary here."""
    return Site("logits")


def check_sites(mllm: MLLM, *, sites: Iterable[Site]) -> None:
    """Check that the model has each site.

    Raises:
        TypeError: no list of sites.
        ValueError: names the site and lists the layers that exist.
    """
    remedy = "sites, as in [resid_pre(3), final_norm()]"
    check_given(sites, Iterable, name="sites", remedy=remedy)
    for site in sites:
        check_given(site, Site, name="a site", remedy=remedy)
        if site.kind in ("final_norm", "logits"):
            if site.layer is not None:
                raise ValueError(f"site {site}: {site.kind} has no layer; use {site.kind}()")
        elif site.kind not in ("resid_pre", "resid_post"):
            raise ValueError(
                f"site kind {site.kind!r} does not exist; allowed are resid_pre(layer), "
                "resid_post(layer), final_norm() and logits()"
            )
        elif not isinstance(site.layer, Integral) or not 0 <= site.layer < mllm.layers:
            raise ValueError(
                f"site {site}: layer {site.layer!r} does not exist; {mllm.name} has layers "
                f"0…{mllm.layers - 1}, pick one of them"
            )


class Attachment:
    """The hooks of one `attach`, by site."""

    def __init__(self) -> None:
        self._handles: dict[Site, RemovableHandle] = {}

    @property
    def sites(self) -> tuple[Site, ...]:
        """Sites whose edit still runs."""
        return tuple(self._handles)

    def detach(self, site: Site) -> None:
        """Remove one site's hook now; harmless when it is gone already.

        May be called from inside an edit, its own too: a defence that sees in the prefill that it
        has nothing to do leaves no hook behind, and the rest of the answer costs nothing.
        """
        handle = self._handles.pop(site, None)
        if handle is not None:
            handle.remove()

    def _attach(self, mllm: MLLM, *, site: Site, edit: Edit) -> None:
        module = _module(mllm, site)
        if site.kind == "resid_pre":
            handle = module.register_forward_pre_hook(_before(site, edit), with_kwargs=True)
        else:
            handle = module.register_forward_hook(_after(site, edit))
        self._handles[site] = handle


@contextmanager
def attach(mllm: MLLM, edits: Mapping[Site, Edit]) -> Iterator[Attachment]:
    """Run each edit at its site in every forward pass inside the `with`; then remove all hooks.

    Hooks are the model's: passes of other threads are edited too. `respond` and all that reads states take turns by
    `mllm.lock`; threads with loops of their own hold it likewise (`with mllm.lock, attach(…)`).

    Raises:
        TypeError: edits that are no functions by site, or (from the pass) an edit that returns no tensor.
        ValueError: a site that the model does not have (before anything is attached), or, from the
            pass itself, an edit that returns another shape, dtype or device than it was given.
    """
    check_mllm(mllm)
    check_given(edits, Mapping, name="edits", remedy="a mapping, as in {resid_post(3): edit}")
    check_sites(mllm, sites=edits)
    for site, edit in edits.items():
        if not callable(edit):
            raise TypeError(
                f"the edit at {site} is {described(edit)}; give a function of the states [batch, tokens, dim]"
            )
    attachment = Attachment()
    try:
        for site, edit in edits.items():
            attachment._attach(mllm, site=site, edit=edit)
        yield attachment
    finally:
        for site in attachment.sites:
            attachment.detach(site)


def _module(mllm: MLLM, site: Site) -> nn.Module:
    if site.kind == "final_norm":
        return mllm.final_norm
    if site.kind == "logits":
        return mllm.lm_head
    assert site.layer is not None  # check_sites
    return mllm.blocks[site.layer]


def _before(site: Site, edit: Edit) -> Callable[..., Any]:
    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # Families differ in whether the states are passed by position or by this name.
        hidden = args[0] if args else kwargs["hidden_states"]
        edited = edit(hidden)
        if edited is None:
            return None
        _check_edited(site, before=hidden, after=edited)
        if args:
            return (edited, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edited}

    return hook


def _after(site: Site, edit: Edit) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        bare = isinstance(output, Tensor)
        hidden = output if bare else output[0]
        edited = edit(hidden)
        if edited is None:
            return None
        _check_edited(site, before=hidden, after=edited)
        return edited if bare else (edited, *output[1:])

    return hook


def _check_edited(site: Site, *, before: Tensor, after: Tensor) -> None:
    if not isinstance(after, Tensor):
        raise TypeError(
            f"the edit at {site} returned {described(after)}; it must return the states to go on with, or None to change "
            "nothing"
        )
    # A float32 edit of a bfloat16 state would be promoted in silence and change every later layer.
    if after.shape != before.shape or after.dtype != before.dtype or after.device != before.device:
        raise ValueError(
            f"the edit at {site} returned {after.dtype} {list(after.shape)} on {after.device}; it "
            f"was given {before.dtype} {list(before.shape)} on {before.device} and must return "
            "the same kind of tensor (cast with .to(hidden)) or None to change nothing"
        )
