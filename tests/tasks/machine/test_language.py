"""What people read in their language: whole catalogues, with the source's placeholders; and nothing else changes."""

from __future__ import annotations

import re
import string
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache
from threading import Barrier

import pytest
from babel.messages.catalog import Catalog, Message

from tasks.machine import language
from tasks.machine.language import joined, later, moment, number, say, say_many, spoken, tag
from tests import catalogues

AT = datetime(2026, 12, 1, 9, 5, 7, tzinfo=UTC)


@cache
def source() -> Catalog:
    return catalogues.messages()


@cache
def catalogue(locale: str) -> Catalog:
    return catalogues.read(locale)


def forms(value: str | tuple[str, ...] | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def placeholders(text: str) -> set[str]:
    """Of ``str.format`` and of templates; one without a name is ``""``."""
    named = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    return named | {f"%{name}" for name in re.findall(r"%\((\w*)\)s", text)}


def test_the_catalogues_are_those_of_the_languages() -> None:
    assert set(language._LOCALES) == set(language.LANGUAGES)
    assert {locale for name, locale in language._LOCALES.items() if name != "en"} == set(catalogues.LOCALES)
    assert {path.stem for path in catalogues.FOLDER.glob("*.po")} == set(catalogues.LOCALES)


@pytest.mark.parametrize("locale", catalogues.LOCALES)
def test_no_catalogue_misses_a_message_or_keeps_one_that_nobody_says(locale: str) -> None:
    ours = {m.id for m in catalogue(locale) if m.id}
    wanted = {m.id for m in source() if m.id}
    assert len(wanted) > 500  # the extraction is not empty by mistake
    assert wanted - ours == set(), "run `make catalogues` and translate what is new"
    assert ours - wanted == set(), "run `make catalogues`"
    assert [m.id for m in catalogue(locale) if m.fuzzy and m.id] == []
    assert catalogue(locale).obsolete == {}


@pytest.mark.parametrize("locale", catalogues.LOCALES)
def test_each_translation_is_there_and_has_the_placeholders_of_its_source(locale: str) -> None:
    plurals = catalogue(locale).num_plurals
    assert plurals == {"de": 2, "zh_CN": 1}[locale]
    wrong = [(m.id, m.string) for m in catalogue(locale) if m.id and not is_sound(m, plurals)]
    assert wrong == []


def is_sound(message: Message, plurals: int) -> bool:
    told, said = forms(message.string), forms(message.id)
    whole = len(told) == (plurals if len(said) > 1 else 1) and all(text.strip() for text in told)
    names = placeholders(said[-1])
    return whole and "" not in names and all(placeholders(text) == names for text in told)


def test_the_rule_would_see_a_wrong_translation() -> None:
    assert is_sound(Message("{n} of {all}", "{all} 中的 {n}"), 1)
    for said in ("", " ", "{n} of {sum}", "{n}", "{n} {all} {}"):
        assert not is_sound(Message("{n} of {all}", said), 1)
    assert not is_sound(Message(("{n} one", "{n} many"), ("{n} eins",)), 2)
    assert not is_sound(Message("{} of", "{} von"), 1)
    assert is_sound(Message("%(a)s", "%(a)s!"), 1)
    assert not is_sound(Message("%(a)s", "%(b)s"), 1)


def test_a_message_is_said_in_the_language_spoken_and_in_english_otherwise() -> None:
    told = {}
    for one in language.LANGUAGES:
        with spoken(one):
            told[one] = (say("{epsilon} at most", epsilon="8"), say_many("{n} round", "{n} rounds", 1), tag())
    assert told["en"] == ("8 at most", "1 round", "en")
    assert told["de"] == ("höchstens 8", "1 Runde", "de")
    assert told["zh"] == ("至多 8", "1 轮", "zh-Hans")
    assert say("approved") == later("approved") == "approved"
    with spoken("de"):
        assert say("nobody has translated this") == "nobody has translated this"
        assert say("") == ""  # of which gettext would give the header
        assert joined(["A", "B"]) == "A und B"


def test_a_value_is_never_read_as_a_message() -> None:
    with spoken("de"):
        assert say("{epsilon} at most", epsilon="{epsilon.__class__} %(x)s") == "höchstens {epsilon.__class__} %(x)s"


def test_numbers_and_times_are_written_as_readers_write_them() -> None:
    values = [(1234.5, ",.1f"), (0.056, ".1%"), (1e-5, "g"), (1234567, ",")]
    written = {}
    for one in language.LANGUAGES:
        with spoken(one):
            written[one] = [*(number(value, spec) for value, spec in values), moment(AT), moment(AT, seconds=True)]
    assert written["en"] == ["1,234.5", "5.6%", "1e-05", "1,234,567", "2026-12-01 09:05", "2026-12-01 09:05:07"]
    assert written["zh"] == [*written["en"][:4], "2026年12月1日 09:05", "2026年12月1日 09:05:07"]
    german = ["1.234,5", "5,6\N{NO-BREAK SPACE}%", "1e-05", "1.234.567", "01.12.2026 09:05", "01.12.2026 09:05:07"]
    assert written["de"] == german


def test_threads_do_not_hear_each_other() -> None:
    both = Barrier(2)

    def told(one: language.Language) -> list[str]:
        with spoken(one):
            both.wait()
            first = say("approved")
            both.wait()
            return [first, say("revoked")]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(told, ["de", "zh"])) == [["genehmigt", "widerrufen"], ["已批准", "已撤销"]]
    assert say("approved") == "approved"


def test_a_language_ends_with_an_error_as_well() -> None:
    with pytest.raises(ZeroDivisionError), spoken("de"):
        _ = 1 / 0
    assert tag() == "en"
