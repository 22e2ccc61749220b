"""What is given in place of a number, a flag or an object is named, with the remedy."""

import numpy as np
import pytest

from autosteer_lib.arguments import check_flags, check_given, check_numbers, check_whole


@pytest.mark.parametrize("value", ["0.1", None, True, np.float32(0.1), [0.1]])
def test_what_is_no_plain_number_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=r"epsilon is .*; give a plain number"):
        check_numbers(epsilon=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match=f"lr = {value}; give a finite number"):
        check_numbers(epsilon=0.1, lr=value)


@pytest.mark.parametrize("value", ["3", 3.0, True, np.int64(3), None])
def test_what_is_no_whole_number_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=r"layer is .*; give a plain whole number"):
        check_whole(layer=value)


def test_a_word_is_no_flag() -> None:
    with pytest.raises(TypeError, match="recentre is 'no', of type str; give True or False"):
        check_flags(every_layer=True, recentre="no")


def test_a_class_in_place_of_an_object_is_named() -> None:
    with pytest.raises(TypeError, match="head is the class int itself; give a number"):
        check_given(int, int, name="head", remedy="a number")


def test_plain_values_pass() -> None:
    check_numbers(epsilon=0, threshold=np.float64(0.5))
    check_whole(seed=-1)
    check_flags(align=False)
    check_given("a", (str, int), name="folder", remedy="a name")
