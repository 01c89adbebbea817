"""What people read, in their language: gettext catalogues, and numbers and times as readers write them.

English stands in the source and is what every message falls back to; ``catalogues/*.po`` have the others. They are
parsed once in a process, by Babel, when first needed: no compiled copy can be stale, and a wheel, a source archive and
a checkout hold the same files. The language is of a context, not of the process: threads and tasks do not hear each
other, and who says nothing of it speaks English, as logs, JSON and everything that leaves do.

    with spoken(settings.lang):
        say("{study} has ended.", study=name)

Placeholders have names, so that a translation may order them as it likes. ``tests/catalogues.py`` extracts messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from io import BytesIO

from babel import Locale
from babel.dates import format_date, format_time
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import get_decimal_symbol, get_group_symbol

from conf.schema.report import LANGUAGES
from conf.schema.report import Language as Language  # whoever speaks has it from here

_LOCALES: dict[Language, str] = {"en": "en", "zh": "zh_CN", "de": "de"}

_spoken: ContextVar[Language] = ContextVar("spoken", default="en")


def language_of(name: str) -> Language:
    """The language of that name.

    Raises:
        ValueError: there is none.
    """
    for language in LANGUAGES:
        if language == name:
            return language
    raise ValueError(f"{name!r} is no language here; there are {', '.join(LANGUAGES)}")


@contextmanager
def spoken(language: Language) -> Iterator[None]:
    """Within it, this thread or task speaks the language."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def tag() -> str:
    """The language spoken, as HTML's ``lang`` wants it (BCP 47)."""
    return {"en": "en", "zh": "zh-Hans", "de": "de"}[_spoken.get()]


def say(message: str, /, **values: object) -> str:
    """The message in the language spoken, with its placeholders filled. Values are text: nothing in them is filled."""
    told = translations(_spoken.get()).gettext(message) if message else ""
    return told.format(**values) if values else told


def say_many(one: str, many: str, n: int, /, **values: object) -> str:
    """As ``say``, in the plural form that the language has for ``n``, which ``{n}`` shows."""
    return translations(_spoken.get()).ngettext(one, many, n).format(n=number(n, ","), **values)


def later(message: str) -> str:
    """The message as it is, marked for the catalogues: whoever shows it says it."""
    return message


def joined(items: Iterable[str]) -> str:
    """This and that."""
    return say(" and ").join(items)


def number(value: float, spec: str = "g") -> str:
    """A number by Python's format specification, with the separators and the percent sign of the language spoken."""
    locale = _locale()
    written = format(value, spec)
    figures = written.removesuffix("%")
    separators = str.maketrans({".": get_decimal_symbol(locale), ",": get_group_symbol(locale)})
    return figures.translate(separators) + (locale.percent_formats[None].suffix[0] if figures != written else "")


def moment(at: datetime, seconds: bool = False) -> str:
    """A time, to the minute or the second."""
    return f"{day(at)} {format_time(at, 'HH:mm:ss' if seconds else 'HH:mm', locale=_locale())}"


def day(at: datetime) -> str:
    """A date. In English as ISO 8601 orders it, because readers of English order days and months in two ways."""
    return f"{at:%Y-%m-%d}" if _spoken.get() == "en" else format_date(at, "medium", _locale())


@cache
def translations(language: Language) -> NullTranslations:
    """The catalogue of a language; of English, one that gives every message back."""
    if language == "en":
        return NullTranslations()
    text = (files("tasks") / "machine" / "catalogues" / f"{_LOCALES[language]}.po").read_bytes()
    compiled = BytesIO()
    write_mo(compiled, read_po(BytesIO(text), locale=_LOCALES[language]))
    compiled.seek(0)
    return GNUTranslations(compiled)


def _locale() -> Locale:
    return Locale.parse(_LOCALES[_spoken.get()])
