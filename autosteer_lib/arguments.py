"""What a caller gives, held to its type before anything is computed with it.

A strength of "0.1" would show where it is first multiplied, after the fit; a seed of numpy's where the state is written
as JSON. Values are looked at and never converted: the hashes of states are over them as given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def check_given(value: object, kind: type | tuple[type, ...], *, name: str, remedy: str) -> None:
    """One value of a kind.

    Raises:
        TypeError: names what was given instead, and the remedy.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {described(value)}; give {remedy}")


def check_numbers(**values: object) -> None:
    """Plain finite numbers, by name.

    Raises:
        TypeError, ValueError: one is none; names it.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(
                f"{name} is {described(value)}; give a plain number, as in 0.1 (float(…) of an array's)"
            )
        if not math.isfinite(value):
            raise ValueError(f"{name} = {value}; give a finite number")


def check_whole(**values: object) -> None:
    """Plain whole numbers, by name.

    Raises:
        TypeError: one is none; names it.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(
                f"{name} is {described(value)}; give a plain whole number, as in 3 (int(…) of an array's)"
            )


def check_flags(**values: object) -> None:
    """True or False, by name; "no" would count as true.

    Raises:
        TypeError: one is neither; names it.
    """
    for name, value in values.items():
        check_given(value, bool, name=name, remedy="True or False")


def check_list(value: object, kind: type | tuple[type, ...], *, name: str, remedy: str) -> None:
    """A list of values of a kind; a bare string would be taken letter by letter, a set in another order each time.

    Raises:
        TypeError: no list, or one of other values; names the first, and the remedy.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} is {described(value)}; give {remedy}")
    for one in value:
        if not isinstance(one, kind) or (isinstance(one, bool) and kind is not bool):
            raise TypeError(f"{name} holds {described(one)}; give {remedy}")


def check_choice(value: object, allowed: Sequence[object], *, name: str) -> None:
    """One of a few values.

    Raises:
        ValueError: another one; lists those that there are.
    """
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; allowed: {', '.join(map(repr, allowed))}")


def check_names(given: Iterable[str], known: Iterable[str], *, of: str) -> None:
    """Names of hyper-parameters, before a class's `__init__` would refuse them without saying which it has.

    Raises:
        TypeError: a name that is none; lists those that there are.
    """
    if unknown := sorted({*given} - {*known}):
        raise TypeError(f"{of} has no hyper-parameter {', '.join(unknown)}; it has {', '.join(known)}")


def described(value: object) -> str:
    """A value and its type, short enough for a message."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if value is None:
        return "None"
    shown = " ".join(repr(value).split())
    return f"{shown:.60}, of type {type(value).__name__}"
