"""A question before a study: how many patients hospitals have, by what.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from conf.schema.constraints import Cells, Epsilon, Length, SettingsGroup, Year, matches

JOINED = "*"
"""Between two attributes: one table of all their combinations."""

Table = Annotated[
    str, matches(r"[a-z][a-z0-9_]*(\*[a-z][a-z0-9_]*)?", "must be an attribute, or two with * between them: label*sex")
]
Maker = Annotated[
    str, matches(r"[A-Za-z0-9][A-Za-z0-9 &-]{0,39}", "a maker has at most 40 letters, digits, spaces, '&', '-'")
]


@dataclass
class Ask(SettingsGroup):
    """A question before a study: how many patients hospitals have, by what. ``consilium ask`` asks it in place of a
    study; nothing is trained."""

    by: list[Table] = field(default_factory=list)
    """Tables of counts, each its share of ``epsilon``: ``label``, ``sex``, ``age``, ``vendor`` (maker of the scanner),
    ``spacing`` (of pixels), ``thickness`` (of slices), ``intensity`` (brightness of the prepared images), or one of the
    task's secondary findings by its name. ``label*sex`` is one table of both. None: this is a study."""
    epsilon: Epsilon = 1.0
    """Privacy loss of a patient in all tables together, at ``privacy.delta``."""
    ages: list[Year] = field(default_factory=lambda: [20, 40, 60, 80])
    """Years at which one band of ages ends and the next begins."""
    vendors: list[Maker] = field(default_factory=lambda: ["Canon", "Fujifilm", "GE", "Philips", "Samsung", "Siemens"])
    """Makers of scanners with a cell of their own; all others share one."""
    spacings_mm: list[Length] = field(default_factory=lambda: [0.1, 0.2, 0.5, 1.0])
    """Sizes of pixels at which one band ends and the next begins."""
    thicknesses_mm: list[Length] = field(default_factory=lambda: [1.0, 2.0, 3.0, 5.0])
    """Thicknesses of slices at which one band ends and the next begins."""
    intensities: Cells = 16
    """Equally wide cells for the brightness of prepared images, which lies between 0 and 1."""
