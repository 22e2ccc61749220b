"""Every figure: the same each time, no wider than a page, legible, labelled, nothing cut off or covered."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.figure import Figure

from autosteer_lib.plotting.style import FONT_SIZE, WIDTH
from tests import autosteer_figures, mars_figures, safesteer_figures
from tests.reading_figures import drawn_texts, png

FIGURES: dict[str, Callable[[], Figure]] = {
    **autosteer_figures.FIGURES,
    **mars_figures.FIGURES,
    **safesteer_figures.FIGURES,
}
WITHOUT_AXES = {"answer_drift", "case_gallery", "prompt_gallery"}


@pytest.fixture(scope="module", params=sorted(FIGURES))
def figure(request: pytest.FixtureRequest) -> Figure:
    """Drawn once for the tests that only look at it."""
    return FIGURES[request.param]()


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_a_figure_is_the_same_each_time_and_leaves_nothing_behind(name: str) -> None:
    before = dict(mpl.rcParams)
    assert png(FIGURES[name]()) == png(FIGURES[name]())
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_a_figure_fits_a_page_and_is_legible_at_half_size(figure: Figure) -> None:
    assert figure.get_figwidth() <= WIDTH
    assert {t.get_text() for t in drawn_texts(figure) if float(t.get_fontsize()) < FONT_SIZE} == set()


def test_no_text_is_cut_off_and_none_covers_another(figure: Figure) -> None:
    page = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
    for text, box in boxes:
        assert page.x0 - 1 <= box.x0, text
        assert box.x1 <= page.x1 + 1, text
        assert page.y0 - 1 <= box.y0, text
        assert box.y1 <= page.y1 + 1, text
    covered = [
        (one, other)
        for index, (one, a) in enumerate(boxes)
        for other, b in boxes[:index]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 2
    ]
    assert covered == []


@pytest.mark.parametrize("figure", sorted(set(FIGURES) - WITHOUT_AXES), indirect=True)
def test_axes_are_labelled(figure: Figure) -> None:
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert any(axes.get_xlabel() for axes in panels)
    assert any(axes.get_ylabel() or axes.get_yticklabels() for axes in panels)


def test_a_notebook_shows_a_figure_without_pyplot() -> None:
    shown = FIGURES["cost_bars"]()._repr_png_()  # type: ignore[attr-defined]
    assert shown.startswith(b"\x89PNG")
