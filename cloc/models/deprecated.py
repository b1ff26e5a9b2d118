"""Spellings of an earlier version that still work in this one, each with a `FutureWarning`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def warn_deprecated(old: str, new: str) -> None:
    """Say that `old` goes with the next version, and what to write instead."""
    warnings.warn(f"{old} is deprecated and goes with version 0.2; use {new}", FutureWarning, stacklevel=3)


def rename_argument(old: str, new: str) -> Callable[[Function], Function]:
    """Take a keyword argument under the name `old` as well, for which `new` is meant.

    Raises:
        TypeError: in a call that gives both.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{function.__name__}: got {new} and {old}, which are one argument; give {new}")
                warn_deprecated(f"{function.__name__}({old}=...)", f"{new}=")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
