"""What the value of a setting must keep: annotations that stand beside the field, in words and as a rule.

Pydantic reads them (``conf/validation.py``), so that a number without one is a fault that ``tests/conf`` finds, and a
type without words of its own is told in those of ``conf/messages.py``.

Tested in ``tests/conf/test_schema.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, PlainValidator, ValidationInfo

MISSING: Any = "???"
"""Stands where a value must be given: by the choice of a group, or on the command line."""
TYPES_ALONE = {"types alone": True}
"""Pydantic's context for a look at types only, so that all else can be judged together and told at once."""


class SettingsGroup:
    """Base of all settings: a misspelt key is refused, and a name of digits alone is still a name."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class NotOneOf(ValueError):
    """A text is none of the few that there are."""

    def __init__(self, choices: tuple[str, ...]) -> None:
        super().__init__(f"must be one of {', '.join(choices)}")
        self.choices = choices


def rule(text: str, holds: Callable[[Any], bool]) -> AfterValidator:
    """A constraint: what is told where it does not hold."""

    def check(value: Any, info: ValidationInfo) -> Any:
        if info.context != TYPES_ALONE and not holds(value):
            raise ValueError(text)
        return value

    return AfterValidator(check)


def one_of(*choices: str) -> AfterValidator:
    """A constraint: one of these texts."""

    def check(value: str, info: ValidationInfo) -> str:
        if info.context != TYPES_ALONE and value not in choices:
            raise NotOneOf(choices)
        return value

    return AfterValidator(check)


def matches(pattern: str, text: str) -> AfterValidator:
    """A constraint: all of a text is as a regular expression says."""
    compiled = re.compile(pattern)
    return rule(text, lambda value: compiled.fullmatch(value) is not None)


def _no_truth(value: object) -> object:
    """``true`` is no number, though Python counts it as 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _least_and_most(value: object, info: ValidationInfo) -> tuple[Any, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else ()
    whole = len(found) == 2 and all(type(number) is int for number in found)
    if info.context != TYPES_ALONE and not (whole and 1 <= found[0] <= found[1]):
        raise ValueError("must be the least and the most, like [1, 4]")
    return found


_Int = Annotated[int, BeforeValidator(_no_truth)]
_Float = Annotated[float, BeforeValidator(_no_truth)]
_POSITIVE = rule("must be a positive number", lambda value: 0 < value < math.inf)
_NOT_NEGATIVE = rule("must not be negative or infinite", lambda value: 0 <= value < math.inf)
_ONE_TO_100000 = rule("must lie between 1 and 100000", lambda value: 1 <= value <= 100_000)

Count = Annotated[_Int, _POSITIVE]
CountOrNone = Annotated[_Int, _NOT_NEGATIVE]
"""Where 0 stands for none."""
Steps = Annotated[_Int, _ONE_TO_100000]
Images = Annotated[_Int, rule("must lie between 1 and 1000", lambda value: 1 <= value <= 1000)]
Range = Annotated[tuple[int, int], PlainValidator(_least_and_most)]
Bins = Annotated[_Int, rule("must lie between 2 and 65536", lambda value: 2 <= value <= 65536)]
Cells = Annotated[_Int, rule("must lie between 2 and 256", lambda value: 2 <= value <= 256)]
Seed = Annotated[_Int, rule("must lie between 0 and 4294967295", lambda value: 0 <= value < 2**32)]
Positive = Annotated[_Float, _POSITIVE]
NotNegative = Annotated[_Float, _NOT_NEGATIVE]
Wait = Annotated[_Float, rule("must lie above 0 and not above 86400, a day", lambda value: 0 < value <= 86_400)]
"""Seconds: a study must not hold others up for longer than a person takes to notice."""
WaitOrNone = Annotated[_Float, rule("must lie between 0 and 86400, a day", lambda value: 0 <= value <= 86_400)]
Attempts = Annotated[_Int, rule("must lie between 1 and 100", lambda value: 1 <= value <= 100)]
Measure = Annotated[_Float, rule("must lie between 1e-06 and 1e+06", lambda value: 1e-6 <= value <= 1e6)]
"""A step size or a length, within the bounds of the study's document."""
Epsilon = Annotated[_Float, rule("must lie above 0 and not above 1000", lambda value: 0 < value <= 1000)]
Decay = Annotated[_Float, rule("must be at least 0 and below 1", lambda value: 0 <= value < 1)]
Weight = Annotated[_Float, rule("must lie from 0.001 to 1", lambda value: 1e-3 <= value <= 1)]
Share = Annotated[_Float, rule("must lie above 0 and not above 1", lambda value: 0 < value <= 1)]
ShareOrNone = Annotated[_Float, rule("must lie between 0 and 1", lambda value: 0 <= value <= 1)]
Part = Annotated[_Float, rule("must lie between 0 and 1, both excluded", lambda value: 0 < value < 1)]
Multiple = Annotated[_Float, rule("must lie between 0.1 and 10", lambda value: 0.1 <= value <= 10)]
Trim = Annotated[_Float, rule("must lie above 0 and below 0.5", lambda value: 0 < value < 0.5)]

Length = Annotated[_Float, rule("must lie between 0.0001 and 1000 mm", lambda value: 1e-4 <= value <= 1000)]
Year = Annotated[_Int, rule("must lie between 1 and 150", lambda value: 1 <= value <= 150)]

Optimizer = Annotated[str, one_of("sgd", "adam")]
Decays = Annotated[str, one_of("geometric", "cosine")]
Encoding = Annotated[str, one_of("float32", "float16", "int8")]
ExperimentName = Annotated[
    str,
    matches(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", "names a folder: at most 40 letters, digits, '_', '-' and '.'"),
]
RESERVED = ("pooled", "shuffled")
"""The comparison plays imaginary hospitals of these names."""
HospitalName = Annotated[
    str,
    matches(
        rf"(?!(?:{'|'.join(RESERVED)})$)[A-Za-z0-9][A-Za-z0-9_-]{{0,39}}",
        f"a hospital's name has at most 40 letters, digits, '_', '-', and is not {' or '.join(RESERVED)}",
    ),
]
