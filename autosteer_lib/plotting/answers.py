"""Answers to read: how they drift as ε grows (AutoSteer's Fig. 7), and case studies (its Fig. 13–25).

The verdict is a word at the edge of each answer and the tint behind it, so that neither is needed alone.
Harmful answers of the model organisms are about symbols and harmless by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle
from PIL import Image

from autosteer_lib.plotting.style import (
    LIGHT,
    NEUTRAL,
    WIDTH,
    method_colour,
    new_figure,
    require,
    styled,
    tint,
    verdict_colour,
)  # fmt: skip
from autosteer_lib.videos import frame_indices

LINE = 0.17  # inches a line of 9 pt text
CHARACTERS_PER_INCH = 15.0  # of 9 pt DejaVu Sans; measured: 15.5–17 on English sentences in lower case
MARGIN = 0.06  # inches around a page
LONGEST = 400  # characters of an answer that are shown; the records hold all of it


@styled
def answer_drift(answers: pd.DataFrame, *, columns: int = 2) -> Figure:
    """Draw a table: a row for each ε that changes an answer, a column for each prompt.

    Args:
        answers: columns prompt, epsilon, answer, verdict ("unsafe", "refused", "safe", …); one row a cell. Neighbouring
            strengths with the same answers share a row.
        columns: most prompts shown; the first ones are taken.
    """
    require(answers, ["prompt", "epsilon", "answer", "verdict"], figure="answer_drift")
    prompts = list(dict.fromkeys(answers["prompt"]))[:columns]
    left = 0.75
    width = (WIDTH - left) / len(prompts)
    letters = int((width - 0.25) * CHARACTERS_PER_INCH)
    cells = {
        (row["prompt"], row["epsilon"]): (_wrapped(row["answer"], letters), str(row["verdict"]))
        for row in answers.to_dict("records")
    }
    spans = _alike(sorted(answers["epsilon"].unique()), lambda e: [cells.get((p, e)) for p in prompts])
    header = [_wrapped(prompt, letters) for prompt in prompts]
    top = LINE * (1 + max(text.count("\n") for text in header)) + 0.12
    heights = [
        LINE * (2 + max(cells[p, e][0].count("\n") for p in prompts if (p, e) in cells)) + 0.16
        for e, _ in spans
    ]
    figure = new_figure(top + sum(heights))
    axes = _page(figure, top + sum(heights))
    for column, text in enumerate(header):
        axes.text(left + column * width + 0.1, 0.02, text, va="top", ha="left", fontweight="bold")
    y = top
    for (strength, last), height in zip(spans, heights, strict=True):
        span = f"ε = {strength:g}" + (f"\nto {last:g}" if last > strength else "")
        axes.text(0.02, y + height / 2, span, va="center", ha="left")
        for column, prompt in enumerate(prompts):
            if (prompt, strength) in cells:
                text, verdict = cells[prompt, strength]
                _cell(axes, left + column * width, y, width, height, text=text, verdict=verdict)
        y += height
    return figure


@styled
def case_gallery(
    cases: pd.DataFrame,
    *,
    defence: str = "AutoSteer",
    threshold: float | None = 0.5,
    projection: bool = False,
) -> Figure:
    """Draw one row a case: the picture, the prompt and its gate score, the answer before and after.

    Args:
        cases: columns prompt, before, before_verdict, after, after_verdict, gate_score; optionally picture
            (a PIL image, an array, or a sequence of them; None for a text prompt).
        defence: what the answers after are of.
        threshold: τ of the gate, drawn on its scale; None draws none.
        projection: the score is a projection on a direction and has no scale: it is written alone.
    """
    require(
        cases,
        ["prompt", "before", "before_verdict", "after", "after_verdict", "gate_score"],
        figure="case_gallery",
    )
    picture, asked = 0.95, 1.75
    width = (WIDTH - picture - asked) / 2
    letters, letters_asked = (
        int((width - 0.25) * CHARACTERS_PER_INCH),
        int((asked - 0.2) * CHARACTERS_PER_INCH),
    )
    rows = []
    for row in cases.to_dict("records"):
        texts = (
            _wrapped(row["prompt"], letters_asked),
            _wrapped(row["before"], letters),
            _wrapped(row["after"], letters),
        )
        lines = max(texts[0].count("\n") + 4, texts[1].count("\n") + 2, texts[2].count("\n") + 2)
        rows.append((row, texts, max(picture + 0.05, LINE * lines + 0.2)))
    header = 0.26
    total = header + sum(height for _, _, height in rows)
    figure = new_figure(total)
    axes = _page(figure, total)
    right = picture + asked
    axes.text(picture + 0.08, 0.03, "prompt", va="top", fontweight="bold")
    axes.text(right + 0.1, 0.03, "without defence", va="top", fontweight="bold", color=method_colour("Orig."))
    axes.text(right + width + 0.1, 0.03, defence, va="top", fontweight="bold", color=method_colour(defence))
    y = header
    for row, (prompt, before, after), height in rows:
        _pictures(axes, row.get("picture"), y=y, size=picture - 0.1)
        _limits(axes, total)  # imshow sets its own
        axes.text(picture + 0.08, y + 0.08, prompt, va="top")
        x, below = picture + 0.08, y + 0.18 + LINE * (prompt.count("\n") + 1)
        if projection:
            _projection(axes, x, below, row["gate_score"])
        else:
            _gate(axes, x, below, asked - 0.3, row["gate_score"], threshold)
        _cell(axes, right, y, width, height, text=before, verdict=row["before_verdict"])
        _cell(axes, right + width, y, width, height, text=after, verdict=row["after_verdict"])
        y += height
    return figure


@styled
def prompt_gallery(examples: pd.DataFrame) -> Figure:
    """Draw one row a prompt: the picture, its surface and words, the answer to it.

    Args:
        examples: columns surface, prompt, answer, verdict; optionally picture (as in `case_gallery`).
    """
    require(examples, ["surface", "prompt", "answer", "verdict"], figure="prompt_gallery")
    picture, asked = 0.72, 2.75
    width = WIDTH - picture - asked
    rows = [
        (
            row,
            _wrapped(row["prompt"], int((asked - 0.15) * CHARACTERS_PER_INCH)),
            _wrapped(row["answer"], int((width - 0.25) * CHARACTERS_PER_INCH)),
        )
        for row in examples.to_dict("records")
    ]
    heights = [
        max(picture, LINE * (2 + max(words.count("\n"), answer.count("\n"))) + 0.2)
        for row, words, answer in rows
    ]
    total = 0.3 + sum(heights)
    figure = new_figure(total + 2 * MARGIN)
    axes = _page(figure, total)
    for x, title in ((picture + 0.1, "surface and words"), (picture + asked + 0.05, "undefended answer")):
        axes.text(x, 0.12, title, fontweight="bold", va="center")
    y = 0.3
    for (row, words, answer), height in zip(rows, heights, strict=True):
        axes.plot([0, WIDTH], [y, y], color=LIGHT, linewidth=0.8)
        _pictures(axes, row.get("picture"), y=y, size=picture - 0.1)
        axes.text(picture + 0.1, y + 0.08, row["surface"], va="top", color=NEUTRAL, fontweight="bold")
        axes.text(picture + 0.1, y + 0.08 + LINE, words, va="top")
        _cell(axes, picture + asked, y, width, height, text=answer, verdict=str(row["verdict"]))
        y += height
    _limits(axes, total)  # pictures change the limits
    return figure


def _alike(strengths: Sequence[float], what: Callable[[float], object]) -> list[tuple[float, float]]:
    """Runs of neighbours with the same content, each by its first and last."""
    spans: list[tuple[float, float]] = []
    for strength in strengths:
        if spans and what(spans[-1][1]) == what(strength):
            spans[-1] = (spans[-1][0], strength)
        else:
            spans.append((strength, strength))
    return spans


def _page(figure: Figure, height: float) -> Axes:
    """Axes in inches over the whole figure, y downwards."""
    figure.set_layout_engine("none")
    axes = figure.add_subplot(GridSpec(1, 1, figure=figure, left=0, right=1, bottom=0, top=1)[0])
    _limits(axes, height)
    axes.axis("off")
    return axes


def _limits(axes: Axes, height: float) -> None:
    axes.set_xlim(-MARGIN, WIDTH + MARGIN)
    axes.set_ylim(height + MARGIN, -MARGIN)


def _wrapped(text: str, letters: int) -> str:
    text = " ".join(str(text).split())
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    # a dollar sign would start mathtext
    return fill(text, letters).replace("$", r"\$") or "(empty)"


def _cell(axes: Axes, x: float, y: float, width: float, height: float, *, text: str, verdict: str) -> None:
    colour = verdict_colour(verdict)
    edge = 0.05
    axes.add_patch(
        Rectangle(
            (x + edge, y + 0.03),
            width - edge,
            height - 0.06,
            facecolor=tint(colour, strength=0.12),
            linewidth=0,
        )
    )
    axes.add_patch(Rectangle((x + edge, y + 0.03), 0.04, height - 0.06, facecolor=colour, linewidth=0))
    axes.text(x + edge + 0.1, y + 0.08, verdict, va="top", color=colour, fontweight="bold")
    axes.text(x + edge + 0.1, y + 0.08 + LINE, text, va="top")


def _projection(axes: Axes, x: float, y: float, score: float | None) -> None:
    if score is not None and not np.isnan(score):
        axes.text(x, y + 0.06, f"projection {score:+.1f}".replace("-", "−"), va="center")


def _gate(axes: Axes, x: float, y: float, width: float, score: float | None, threshold: float | None) -> None:
    """A scale from 0 to 1 with the gate's score on it."""
    if score is None or np.isnan(score):
        return
    shown = "< 0.001" if score < 0.001 else "> 0.999" if score > 0.999 else f"= {score:.3f}"
    axes.text(x, y + 0.06, f"gate s {shown}", va="center")
    y += 0.21
    colour = method_colour("AutoSteer") if threshold is None or score >= threshold else NEUTRAL
    axes.add_patch(Rectangle((x, y - 0.03), width, 0.06, facecolor=LIGHT, linewidth=0))
    axes.add_patch(Rectangle((x, y - 0.03), width * score, 0.06, facecolor=colour, linewidth=0))
    if threshold is not None:
        axes.plot([x + width * threshold] * 2, [y - 0.07, y + 0.07], color="black", linewidth=1.2)


def _pictures(axes: Axes, picture: object, *, y: float, size: float) -> None:
    frames = picture if isinstance(picture, Sequence | list | tuple) else [picture]
    frames = [frame for frame in frames if isinstance(frame, Image.Image | np.ndarray)]
    if not frames:
        axes.text(0.05 + size / 2, y + 0.05 + size / 2, "text\nonly", ha="center", va="center", color=NEUTRAL)
        return
    across = 1 if len(frames) == 1 else 2
    side = size / across
    shown = frame_indices(len(frames), frames=min(len(frames), across * across))
    for index, frame in enumerate(frames[i] for i in shown):
        pixels = np.asarray(frame.convert("RGB") if isinstance(frame, Image.Image) else frame)
        left, top = 0.05 + side * (index % across), y + 0.05 + side * (index // across)
        axes.imshow(
            pixels, extent=(left + 0.01, left + side - 0.01, top + side - 0.01, top + 0.01),
            interpolation="nearest", aspect="auto", zorder=2,
        )  # fmt: skip
        axes.add_patch(
            Rectangle(
                (left + 0.01, top + 0.01), side - 0.02, side - 0.02, fill=False, edgecolor=LIGHT, zorder=3
            )
        )
