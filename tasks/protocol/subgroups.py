"""Subgroups of patients with figures of their own: by sex, by age, by the maker of the scanner.

The levels of an attribute are fixed here and not by any hospital's data, so their names reveal nothing. Each attribute
puts every patient into exactly one level: its histogram is one release to which a patient adds one count, whatever the
number of levels (parallel composition). Two attributes are two releases about the same patients, and cost twice. All
combinations of attributes at once would be one release, but with so many cells that noise would hide each group.
"""

from __future__ import annotations

UNKNOWN = "not recorded"
LEVELS: dict[str, tuple[str, ...]] = {
    "sex": ("female", "male", UNKNOWN),
    "age": ("under 18", "18 to 39", "40 to 59", "60 to 74", "75 and over", UNKNOWN),
    "vendor": ("Canon", "Fujifilm", "GE", "Hologic", "Mindray", "Philips", "Samsung", "Siemens", "other", UNKNOWN),
}
"""The levels of each attribute in order; the last one is for files without the value."""
LEAST = 10
"""Subgroups with fewer patients of either class are not shown."""

_AGES = ((18, "under 18"), (40, "18 to 39"), (60, "40 to 59"), (75, "60 to 74"))
_A_YEAR_HAS = {"Y": 1, "M": 12, "W": 52, "D": 365}
_MOST_DIGITS = 9
_MAKERS = {"toshiba": "Canon", "canon": "Canon", "fuji": "Fujifilm", "hitachi": "Fujifilm", "general electric": "GE",
           "ge ": "GE", "hologic": "Hologic", "supersonic": "Hologic", "mindray": "Mindray", "philips": "Philips",
           "atl": "Philips", "samsung": "Samsung", "medison": "Samsung", "siemens": "Siemens", "acuson": "Siemens",
           "agfa": "other", "carestream": "other", "esaote": "other"}  # fmt: skip


def known(attribute: str) -> str:
    """The attribute itself.

    Raises:
        ValueError: there is no such attribute.
    """
    if attribute not in LEVELS:
        raise ValueError(f"there is no attribute {attribute!r}; there are {', '.join(LEVELS)}")
    return attribute


def level(attribute: str, value: str) -> int:
    """The number of the level for a value as DICOM writes it: PatientSex, PatientAge or Manufacturer; "" where absent.

    Sex: PS3.3 C.7.1.1 (F, M; O counts as not recorded). Age: a string like 045Y, 018M, 003W or 010D (PS3.5 6.2, AS).
    """
    names = LEVELS[attribute]
    name = {"sex": _sex, "age": _age, "vendor": _vendor}[attribute](value.strip())
    return names.index(name or UNKNOWN)


def _sex(value: str) -> str | None:
    return {"F": "female", "M": "male"}.get(value.upper())


def years(value: str) -> int | None:
    """Whole years of an age as DICOM writes it (PS3.5 6.2, AS), such as 045Y or 018M; ``None`` of any other text.

    >>> years("045Y"), years("018M"), years("52"), years("")
    (45, 1, None, None)
    """
    number, unit = value[:-1], value[-1:].upper()
    if not (number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS and unit in _A_YEAR_HAS):
        return None
    return int(number) // _A_YEAR_HAS[unit]


def _age(value: str) -> str | None:
    age = years(value)
    return None if age is None else next((name for below, name in _AGES if age < below), "75 and over")


def _vendor(value: str) -> str | None:
    if not value:
        return None
    padded = f"{value.lower()} "
    return next((name for part, name in _MAKERS.items() if padded.startswith(part)), "other")
