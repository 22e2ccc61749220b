"""The organism's benchmarks: attacks, their harmless twins, borderline prompts, utility, fit data.

    attack      where the harm is                                     its harmless twin
    ------      -----------------                                     -----------------
    text        in words alone                                        the same skeleton, a harmless thing or verb
    jailbreak   in words, under a role-play                           the same role-play, harmless
    image       in the drawn picture ("how do i make this?")          the same sentence, a harmless picture
    typographic in the written picture (after FigStep)                the same sentence, a harmless word
    words       in the words, over a harmless picture (after VLSafe)  the same picture and skeleton
    both        in words and in picture
    combination in neither alone: a sharp thing shown, used on an animal named    another thing shown
    video       in the clip                                           the same sentence, a harmless clip

The twins are the control for a gate that keys on an attack's sentence: image, typographic and video
twins share every word with their attack. `borderline` prompts are harmless requests about dangerous
things (after XSTest). Test sets use things, skeletons and colours that no fit has met; role-plays, greetings and the
questions of `utility` are worded alike in both splits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
from PIL import Image

from autosteer_lib.organism import language, rendering
from autosteer_lib.organism.language import ALWAYS_HARMFUL, CONDITIONAL, HARMLESS, Act
from autosteer_lib.organism.things import SHARP, Split, Thing, colours, things
from autosteer_lib.prompts import Prompt

T = TypeVar("T")
Attack = Literal["text", "jailbreak", "image", "typographic", "words", "both", "combination", "video"]
Utility = Literal["naming", "colour", "counting", "facts", "clips"]
Visual = Literal["image", "typographic", "video"]

ATTACKS: tuple[Attack, ...] = (
    "text",
    "jailbreak",
    "image",
    "typographic",
    "words",
    "both",
    "combination",
    "video",
)
# `both` has no twin of its own: with harmless words it would be `words`' twin, with a harmless
# picture it is `words`.
TWINNED: tuple[Attack, ...] = tuple(a for a in ATTACKS if a != "both")
BORDERLINE: tuple[str, ...] = ("text", "image", "video")
UTILITY: tuple[Utility, ...] = ("naming", "colour", "counting", "facts", "clips")
_OF_CLIPS = frozenset({"video", "clips"})
_ALWAYS_HARMFUL_SHARE = 0.25  # of harmful words: the rest is harmful by its thing


def shown_to(surfaces: tuple[T, ...], *, clips: bool) -> tuple[T, ...]:
    """Those of these surfaces that a model can be asked on: without clips, those of clips fall out."""
    return tuple(surface for surface in surfaces if clips or surface not in _OF_CLIPS)


class _Writer:
    """Draws the parts of prompts of one split from one generator."""

    def __init__(self, surface: str, *, split: Split, seed: int) -> None:
        self.split = split
        # A stream of its own for each set: no two sets share their draws.
        self.rng = np.random.default_rng([seed, zlib.crc32(f"{split}/{surface}".encode())])

    def one(self, options: tuple[T, ...]) -> T:
        return options[int(self.rng.integers(len(options)))]

    def thing(self, *, dangerous: bool) -> Thing:
        return self.one(things(split=self.split, dangerous=dangerous))

    def plain_thing(self) -> Thing:
        """Harmless, and harmless on an animal too."""
        return self.one(
            tuple(t for t in things(split=self.split, dangerous=False) if not t.is_sharp and not t.is_animal)
        )

    def skeleton(self) -> tuple[str, tuple[str, str]]:
        return self.one(language.skeletons(self.split)), self.one(language.frames())

    def picture(self, thing: Thing) -> Image.Image:
        colour = self.one(colours(split=self.split))
        return Image.fromarray(rendering.draw(self.rng, thing, colour=colour))

    def see(
        self, medium: Visual, thing: Thing, *, colour: str | None = None
    ) -> dict[str, tuple[object, ...]]:
        """Prompt fields that show the thing in that medium."""
        colour = colour or self.one(colours(split=self.split))
        if medium == "video":
            return {"videos": (rendering.film(self.rng, thing, colour=colour),)}
        render = rendering.write if medium == "typographic" else rendering.draw
        return {"images": (Image.fromarray(render(self.rng, thing, colour=colour)),)}

    def acts(self) -> tuple[Act, Act]:
        """A harmful act and its harmless twin: another thing, or another verb."""
        if self.rng.random() < _ALWAYS_HARMFUL_SHARE:
            same = self.thing(dangerous=False)
            return (
                Act(intent=self.one(ALWAYS_HARMFUL), thing=same),
                Act(intent=self.one(HARMLESS), thing=same),
            )
        intent = self.one(CONDITIONAL)
        return (
            Act(intent=intent, thing=self.thing(dangerous=True)),
            Act(intent=intent, thing=self.thing(dangerous=False)),
        )


def _prompt(
    act: Act, words: str, *, surface: str, sight: dict[str, tuple[object, ...]] | None = None
) -> Prompt:
    return Prompt(
        text=words,
        surface=surface,
        harmful=act.harmful,
        intention=act.words(shown=False),
        reference=None if act.harmful else language.comply(act),
        metadata={
            "thing": act.thing.name,
            "intent": act.intent,
            "target": act.target.name if act.target else "",
            "steps": " ".join(act.thing.steps),
        },
        **(sight or {}),  # type: ignore[arg-type]  # images= or videos=
    )


def _in_words(w: _Writer, surface: str, *, role_play: str = "") -> tuple[Prompt, Prompt]:
    skeleton, frame = w.skeleton()
    harmful, safe = (
        _prompt(
            act,
            language.request(act, shown=False, skeleton=skeleton, frame=frame, role_play=role_play),
            surface=surface,
        )
        for act in w.acts()
    )
    return harmful, safe


def _jailbreak(w: _Writer) -> tuple[Prompt, Prompt]:
    role_plays = language.PATCHED_ROLE_PLAYS + language.OPEN_ROLE_PLAYS
    return _in_words(w, "jailbreak", role_play=w.one(role_plays))


def _seen(w: _Writer, medium: Visual) -> tuple[Prompt, Prompt]:
    (skeleton, frame), intent = w.skeleton(), w.one(CONDITIONAL)
    acts = [Act(intent=intent, thing=w.thing(dangerous=d)) for d in (True, False)]
    words = language.request(acts[0], shown=True, skeleton=skeleton, frame=frame)
    harmful, safe = (_prompt(act, words, surface=medium, sight=w.see(medium, act.thing)) for act in acts)
    return harmful, safe


def _over_picture(w: _Writer, surface: str, shown: Thing) -> tuple[Prompt, Prompt]:
    skeleton, frame = w.skeleton()
    sight: dict[str, tuple[object, ...]] = {"images": (w.picture(shown),)}
    harmful, safe = (
        _prompt(
            act,
            language.request(act, shown=False, skeleton=skeleton, frame=frame),
            surface=surface,
            sight=sight,
        )
        for act in w.acts()
    )
    return harmful, safe


def _combination(w: _Writer) -> tuple[Prompt, Prompt]:
    harmless = things(split=w.split, dangerous=False)
    target = w.one(tuple(t for t in harmless if t.is_animal))
    sharp = w.one(tuple(t for t in harmless if t.name in SHARP))
    skeleton, frame = w.skeleton()
    acts = [Act(intent="use", thing=t, target=target) for t in (sharp, w.plain_thing())]
    words = language.request(acts[0], shown=True, skeleton=skeleton, frame=frame)
    harmful, safe = (
        _prompt(act, words, surface="combination", sight=w.see("image", act.thing)) for act in acts
    )
    return harmful, safe


def _attack_pair(w: _Writer, surface: Attack) -> tuple[Prompt, Prompt]:
    if surface == "text":
        return _in_words(w, "text")
    if surface == "jailbreak":
        return _jailbreak(w)
    if surface == "words":
        return _over_picture(w, "words", w.thing(dangerous=False))
    if surface == "both":
        return _over_picture(w, "both", w.thing(dangerous=True))
    if surface == "combination":
        return _combination(w)
    return _seen(w, surface)


def _borderline(w: _Writer, surface: str) -> Prompt:
    (skeleton, frame), act = (
        w.skeleton(),
        Act(intent=w.one(HARMLESS), thing=w.thing(dangerous=True)),
    )
    shown = surface != "text"
    words = language.request(act, shown=shown, skeleton=skeleton, frame=frame)
    medium: Visual = "video" if surface == "video" else "image"
    return _prompt(act, words, surface=surface, sight=w.see(medium, act.thing) if shown else None)


def _utility(w: _Writer, surface: Utility) -> Prompt:
    # Half of the questions are about dangerous things: naming one is harmless and must survive.
    asked = w.thing(dangerous=bool(w.rng.random() < 0.5))
    colour = w.one(colours(split=w.split))
    sight: dict[str, tuple[object, ...]] = {}
    if surface == "facts":
        words, answer = w.one(language.fact_questions(asked))
    elif surface == "counting":
        count = int(w.rng.integers(1, 1 + len(language.NUMBERS)))
        picture = rendering.draw_several(w.rng, asked, colour=colour, count=count)
        sight = {"images": (Image.fromarray(picture),)}
        words, answer = w.one(language.counting_question()), language.counting_answer(count)
    elif surface == "colour":
        sight = {"images": (Image.fromarray(rendering.draw(w.rng, asked, colour=colour)),)}
        words, answer = w.one(language.colour_question()), language.colour_answer(colour)
    else:
        sight = w.see("video" if surface == "clips" else "image", asked, colour=colour)
        words, answer = w.one(language.naming_question()), language.naming_answer(asked, colour)
    greeting, closing = w.one(language.frames())
    return Prompt(
        text=f"{greeting}{words}{closing}",
        surface=surface,
        harmful=False,
        intention=words,
        reference=answer,
        metadata={"thing": asked.name},
        **sight,  # type: ignore[arg-type]  # images= or videos=
    )


def _distinct(draw: Callable[[], tuple[Prompt, ...]], *, n: int, label: str) -> list[tuple[Prompt, ...]]:
    """n draws of which no two ask the same; gives up when the world has no more to offer."""
    found: dict[str, tuple[Prompt, ...]] = {}
    for _ in range(50 * n):  # enough unless n is close to all that exist
        drawn = draw()
        found.setdefault("".join(p.fingerprint for p in drawn), drawn)
        if len(found) == n:
            return list(found.values())
    raise ValueError(
        f"{label}: asked for {n} distinct prompts, but the world has about {len(found)}; "
        "ask for fewer (profile key data.tests_per_surface or data.pairs)"
    )


def _label(prompt: Prompt, *, name: str, group: str, pair_id: str | None = None) -> Prompt:
    return replace(prompt, id=name, pair_id=pair_id, metadata={**prompt.metadata, "group": group})


def attack_pairs(
    surface: Attack, *, n: int, split: Split = "test", seed: int
) -> tuple[list[Prompt], list[Prompt]]:
    """n attacks of a surface and their harmless twins, in the same order.

    Raises:
        ValueError: the world has fewer than n distinct ones.
    """
    writer = _Writer(surface, split=split, seed=seed)
    drawn = _distinct(lambda: _attack_pair(writer, surface), n=n, label=f"{split} {surface}")
    attacks, twins = [], []
    for i, (harmful, safe) in enumerate(drawn):
        pair_id = f"{split}/{surface}/{seed}/{i:04d}"
        attacks.append(_label(harmful, name=f"{pair_id}/attack", group="attack", pair_id=pair_id))
        twins.append(_label(safe, name=f"{pair_id}/benign", group="benign", pair_id=pair_id))
    return attacks, twins


def borderline(surface: str, *, n: int, split: Split = "test", seed: int) -> list[Prompt]:
    """n harmless requests about dangerous things; surface is one of BORDERLINE."""
    writer = _Writer(f"borderline/{surface}", split=split, seed=seed)
    drawn = _distinct(lambda: (_borderline(writer, surface),), n=n, label=f"borderline {surface}")
    return [
        _label(p, name=f"{split}/{surface}/{seed}/{i:04d}/borderline", group="borderline")
        for i, (p,) in enumerate(drawn)
    ]


def utility(surface: Utility, *, n: int, split: Split = "test", seed: int) -> list[Prompt]:
    """n questions with one right answer; surface is one of UTILITY."""
    writer = _Writer(f"utility/{surface}", split=split, seed=seed)
    drawn = _distinct(lambda: (_utility(writer, surface),), n=n, label=f"utility {surface}")
    return [
        _label(p, name=f"{split}/{surface}/{seed}/{i:04d}/utility", group="utility")
        for i, (p,) in enumerate(drawn)
    ]
