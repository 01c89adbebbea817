"""A question before a study: how many patients a hospital has, by what. The document that a person approves.

A survey trains nothing and scores nothing. It asks for tables of counts, over all patients of a task that a hospital
could bring into a study: those with an image that keeps the contract, on both sides of the split. Each patient adds
one count to one cell of each table, or divides one count among its cells (intensities), so that adding or removing a
patient changes a table by 1 in the L1 norm at most, and so in the L2 norm.

Cells are fixed by the document alone: its bands, its list of makers, and what is written here. No value that is found
in a file adds a cell, takes one away or names one.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from tasks.protocol.study import STRICT, Count, Delta, Epsilon, HexDigest, Name, validated
from tasks.protocol.subgroups import LEVELS, UNKNOWN, level, years

LABEL, SEX, AGE, VENDOR, SPACING, THICKNESS, INTENSITY = (
    *("label", "sex", "age", "vendor"),
    *("spacing", "thickness", "intensity"),
)
KNOWN = (LABEL, SEX, AGE, VENDOR, SPACING, THICKNESS, INTENSITY)
"""What can be asked of every task; a task's secondary findings can be asked for by their own names."""
WORDS = {
    LABEL: "finding",
    SEX: "sex",
    AGE: "age",
    VENDOR: "maker of the scanner",
    SPACING: "size of pixels",
    THICKNESS: "thickness of slices",
    INTENSITY: "brightness of pixels",
}
"""What each is called where people read."""
MOST_CELLS = 4096
"""Of all tables together."""
_MOST_TABLES = 20

Attribute = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Vendor = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 &-]{0,39}$")]
Length = Annotated[float, Field(ge=1e-4, le=1000)]
_BANDS = {AGE: "ages", VENDOR: "vendors", SPACING: "spacings_mm", THICKNESS: "thicknesses_mm", INTENSITY: "intensities"}


@dataclass(frozen=True, config=STRICT)
class SurveyDocument:
    """One survey, complete.

    Attributes:
        kind: tells it apart from a study's document.
        name, release, task, task_version, contract, asked_by: as in a study's document.
        tables: what patients are counted by; a pair of attributes is one table of all their combinations.
        epsilon, delta: privacy of one patient in all tables together.
        ages: years, rising: where one band of ages ends and the next begins; empty where nothing is counted by age.
            The other bands likewise.
        vendors: makers of scanners that have a cell of their own.
        spacings_mm: of pixels, the larger one of an image's two.
        thicknesses_mm: of slices.
        intensities: number of equally wide cells between 0 and 1, the range of a prepared image; 0 for none.
    """

    kind: Literal["survey"]
    name: Name
    release: Annotated[str, Field(max_length=40)]
    task: Name
    task_version: Count
    contract: HexDigest
    tables: Annotated[
        list[Annotated[list[Attribute], Field(min_length=1, max_length=2)]],
        Field(min_length=1, max_length=_MOST_TABLES),
    ]
    epsilon: Epsilon
    delta: Delta
    ages: Annotated[list[Annotated[int, Field(ge=1, le=150)]], Field(max_length=20)]
    vendors: Annotated[list[Vendor], Field(max_length=40)]
    spacings_mm: Annotated[list[Length], Field(max_length=40)]
    thicknesses_mm: Annotated[list[Length], Field(max_length=40)]
    intensities: Annotated[int, Field(ge=0, le=256)]
    asked_by: Name | Literal[""] = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if wrong := [*unfit_tables(self.tables), *self._unfit_bands()]:
            raise ValueError("; ".join(wrong))
        if (cells := sum(math.prod(shape) for shape in self.shapes().values())) > MOST_CELLS:
            raise ValueError(f"{cells} cells in all, at most {MOST_CELLS}")
        return self

    def _unfit_bands(self) -> Iterator[str]:
        asked = {attribute for table in self.tables for attribute in table}
        for attribute, field in _BANDS.items():
            value = getattr(self, field)
            if bool(value) != (attribute in asked):
                yield f"{field}: {'needed' if attribute in asked else 'not needed'}, since {attribute} is " + (
                    "asked for" if attribute in asked else "not asked for"
                )
            if isinstance(value, list) and (wrong := unfit_band(value)):
                yield f"{field}: {wrong}"

    def attributes(self) -> list[str]:
        """All that is asked for, once each."""
        return list(dict.fromkeys(attribute for table in self.tables for attribute in table))

    def findings(self) -> list[str]:
        """The secondary findings among them."""
        return [attribute for attribute in self.attributes() if attribute not in KNOWN]

    def levels(self, attribute: str) -> tuple[str, ...]:
        """The names of an attribute's levels, in order."""
        match attribute:
            case "label":
                return ("negative", "positive")
            case "sex":
                return LEVELS[SEX]
            case "age":
                return (*_between([str(age) for age in self.ages], [str(age - 1) for age in self.ages]), UNKNOWN)
            case "vendor":
                return (*self.vendors, "other", UNKNOWN)
            case "spacing" | "thickness":
                edges = [f"{length:g}" for length in getattr(self, _BANDS[attribute])]
                return (*_between(edges, [f"below {edge}" for edge in edges], " mm"), UNKNOWN)
            case "intensity":
                edges = [f"{number / self.intensities:.3g}" for number in range(self.intensities + 1)]
                return tuple(f"{low} to {high}" for low, high in pairwise(edges))
        return ("no", "yes", UNKNOWN)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the float64 tables in a report; they follow from the document alone."""
        return {table_name(table): tuple(len(self.levels(one)) for one in table) for table in self.tables}

    def level(self, attribute: str, value: str) -> int:
        """The number of the level for a value as the catalog has it; "" where absent.

        Whatever the text is, it has a level: the last one, ``not recorded``, where it says nothing.

        Args:
            attribute: one that is read from headers: sex, age, vendor, spacing or thickness.
        """
        unknown = len(self.levels(attribute)) - 1
        match attribute:
            case "sex":
                return level(SEX, value)
            case "age":
                age = years(value.strip())
                return unknown if age is None else bisect_right(self.ages, age)
            case "vendor":
                return self._vendor(value.strip())
        length = _number(value)
        return unknown if length is None else bisect_right(getattr(self, _BANDS[attribute]), length)

    def _vendor(self, value: str) -> int:
        """By the name that this release knows a maker by, or by how its name begins."""
        if not value:
            return len(self.vendors) + 1
        known = LEVELS[VENDOR][level(VENDOR, value)]
        named = (name == known or value.lower().startswith(name.lower()) for name in self.vendors)
        return next((number for number, holds in enumerate(named) if holds), len(self.vendors))


def table_name(table: Sequence[str]) -> str:
    """What a table is called in a report.

    >>> table_name(["label", "sex"])
    'label.sex'
    """
    return ".".join(table)


def unfit_tables(tables: Sequence[Sequence[str]]) -> list[str]:
    """Why tables cannot be asked for, each in a sentence; empty if they can."""
    wrong = [f"{table_name(t)}: twice the same attribute" for t in tables if len(set(t)) < len(t)]
    wrong += [
        f"{table_name(t)}: intensities divide a patient among cells, so they stand alone"
        for t in tables
        if INTENSITY in t and len(t) > 1
    ]
    seen = [frozenset(table) for table in tables]
    return wrong + [f"{table_name(t)}: asked for twice" for n, t in enumerate(tables) if frozenset(t) in seen[:n]]


def unfit_band(values: Sequence[object]) -> str:
    """Why a list cannot be bands or makers; "" if it can."""
    if all(isinstance(value, str) for value in values):
        twice = len({str(value).lower() for value in values}) < len(values)
        return "names one twice" if twice else ""
    numbers = [value for value in values if isinstance(value, int | float)]
    return "" if all(low < high for low, high in pairwise(numbers)) else "must rise"


def _between(edges: Sequence[str], last: Sequence[str], unit: str = "") -> Iterator[str]:
    """Names of the bands below, between and above edges."""
    if edges:
        yield f"under {edges[0]}{unit}"
        yield from (f"{low} to {high}{unit}" for low, high in zip(edges, last[1:], strict=False))
        yield f"{edges[-1]}{unit} and over"


def _number(value: str) -> float | None:
    try:
        length = float(value)
    except ValueError:
        return None
    return length if 0 < length < math.inf else None


_ADAPTER: TypeAdapter[SurveyDocument] = TypeAdapter(SurveyDocument)


def canonical(document: SurveyDocument) -> str:
    """The document as JSON with sorted keys and no spaces: equal documents, equal text."""
    return json.dumps(asdict(document), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(document: SurveyDocument) -> str:
    """SHA-256 of the canonical text, as hexadecimal digits: what is approved."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def read(text: str) -> SurveyDocument:
    """The document in a JSON text, however it is spaced.

    Raises:
        BadDocument: listing every field that is missing, unknown or out of range.
    """
    return validated(_ADAPTER, text, "survey")
