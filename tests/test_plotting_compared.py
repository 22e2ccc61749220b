"""The figures of the comparison: every rate in its cell, every method at its place, reported ones apart."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from autosteer_lib.plotting import Plane, method_planes, rate_table
from autosteer_lib.plotting.rate_table import Better
from autosteer_lib.plotting.style import METHOD_COLOURS, WIDTH

RATES = pd.DataFrame(
    [
        ("attacks", "image", "Orig.", 0.9),
        ("attacks", "image", "CAST", 0.2),
        ("attacks", "words", "Orig.", 1.0),
        ("attacks", "words", "CAST", 0.05),
        ("utility", "facts", "Orig.", 0.98),
        ("utility", "facts", "CAST", 0.5),
    ],
    columns=["panel", "surface", "defence", "rate"],
)
BETTER: dict[str, Better] = {"attacks": "lower", "utility": "higher"}
TABLE = pd.DataFrame(
    {
        "method": ["Orig.", "CAST", "ECSO"],
        "x": [0.0, 0.1, 0.2],
        "y": [0.9, 0.2, 0.95],
        "y_low": [0.85, 0.15, 0.9],
        "y_high": [0.95, 0.25, 0.99],
    }
)


def _place(line: Line2D) -> tuple[list[float], list[float]]:
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def test_every_cell_has_its_number_and_unwanted_is_dark() -> None:
    figure = rate_table(RATES, better=BETTER)
    attacks, utility = figure.axes
    assert sorted(text.get_text() for text in attacks.texts) == ["100", "20", "5", "90"]
    shown = np.asarray(attacks.images[0].get_array())
    np.testing.assert_allclose(shown, [[0.9, 1.0], [0.2, 0.05]])
    np.testing.assert_allclose(np.asarray(utility.images[0].get_array()), [[0.02], [0.5]])
    assert [label.get_text() for label in attacks.get_yticklabels()] == ["Orig.", "CAST"]


def _wide(sets: int) -> pd.DataFrame:
    cells = [(panel, f"set {i}", "Orig.", 1.0) for panel in BETTER for i in range(sets)]
    return pd.DataFrame(cells, columns=RATES.columns)


@pytest.mark.parametrize(("sets", "beside"), [(1, True), (8, True), (9, False), (16, False)])
def test_a_table_is_no_wider_than_a_page_and_its_numbers_never_touch(sets: int, beside: bool) -> None:
    figure = rate_table(_wide(sets), better=BETTER)
    assert round(figure.get_figwidth(), 6) <= WIDTH
    figure.draw_without_rendering()
    first, second = (axes.get_position() for axes in figure.axes)
    assert bool(first.y0 == second.y0) is beside
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_a_table_says_how_many_answers_a_cell_holds() -> None:
    def above(table: pd.DataFrame, title: str) -> str:
        return rate_table(table, better=BETTER, title=title).get_suptitle()

    assert above(RATES, "") == ""
    assert above(RATES.assign(n=24), "") == "n = 24 a cell"
    assert above(RATES.assign(n=[24, 24, 24, 24, 60, 60]), "organism") == "organism, n = 24–60 a cell"


def test_a_table_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="nothing of panel 'utility'"):
        rate_table(RATES, better={"attacks": "lower"})
    with pytest.raises(ValueError, match="several for image, Orig"):
        rate_table(pd.concat([RATES, RATES.iloc[:1]]), better=BETTER)
    with pytest.raises(ValueError, match="missing: \\['rate'\\]"):
        rate_table(RATES.drop(columns="rate"), better=BETTER)


def test_methods_stand_at_their_place_and_lead_from_the_published_setting() -> None:
    published = TABLE.assign(y=[0.9, 0.6, 0.95])
    figure = method_planes(
        [
            Plane(title="ours", table=TABLE, x_label="refused (%)", published=published),
            Plane(title="theirs", table=TABLE[["method", "x", "y"]], x_label="refused (%)", reported=True),
            Plane(title="price", table=TABLE.assign(x=[1.0, 1.0, 3.1]), x_label="tokens", share=False),
        ]
    )
    ours, theirs, price = figure.axes[:3]
    colour = METHOD_COLOURS["CAST"].lower()
    points = [line for line in ours.lines if to_hex(line.get_color()) == colour]
    assert ([0.1], [0.2]) in [_place(line) for line in points]
    assert ([0.1], [0.6]) in [_place(line) for line in points]
    unmoved = METHOD_COLOURS["ECSO"].lower()
    assert len([line for line in ours.lines if to_hex(line.get_color()) == unmoved]) == 1
    hollow = [line for line in theirs.lines if to_hex(line.get_color()) == colour]
    assert [to_hex(line.get_markerfacecolor()) for line in hollow] == ["#ffffff"]
    assert price.get_xscale() == "log"
    assert price.get_xlim()[1] > 3.1


def test_no_plane_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        method_planes([])
