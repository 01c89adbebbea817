"""Words of others in the card are words: read by a CommonMark parser, they make no element and are shown as written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from server.pages.model_card import _code, card, plain
from server.pages.report import Story
from tests.server.outcome import story

EVIL = [
    "[/red]<script>alert(1)</script>", "![x](http://y)", "| a |", "a\n\n# b", "[x](javascript:alert(1))", "<img src=x>",
    "# h", "- x", "+ x", "1. x", "2) x", "===", "---", "> q", "    code", "```\ncode\n```", "~~~",
    "**b** __b__ *i* _i_",
    "http://evil.example", "www.evil.example", "<http://evil.example>", "a@evil.example", "&lt;b&gt;", "a\\\nb", "$x$",
    "a  \nb", "[a]: http://evil.example", ":-", "<!-- x -->", "~~x~~", "\u202eabc", "\u2028# x",
]  # fmt: skip
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
PLAIN = {"inline", "text", "paragraph_open", "paragraph_close", "bullet_list_open", "bullet_list_close"}
PLAIN |= {"list_item_open", "list_item_close", "softbreak"}
TEXT = st.text(st.sampled_from("<>[]()!|*_`~#-+=.:/\\&$@ \n\t1awh") | st.characters()) | st.sampled_from(EVIL)


def tokens(markdown: str) -> list[Token]:
    found = PARSER.parse(markdown)
    return found + [inner for token in found for inner in token.children or ()]


def is_plain(written: str) -> bool:
    """Whether it makes nothing but text, at the three places where the card puts words of others."""
    alone, item, cell = written, f"- {written}", f"| a | b |\n|---|---|\n| {written} | x |"
    if {token.type for token in [*tokens(alone), *tokens(item)]} - PLAIN:
        return False
    if any(bare in written.lower() for bare in ("://", "www.", "@", "$")):
        return False  # links of GitHub's dialect and formulas, which this parser does not know
    cells = [token.type for token in tokens(cell)]
    return cells.count("td_open") == 2 and not set(cells) & {"link_open", "image", "html_inline", "code_inline"}


@given(text=TEXT)
@example(text="a\\")
def test_any_words_stay_words(text: str) -> None:
    assert is_plain(plain(text))
    shown = "".join(token.content for token in tokens(plain(text)) if token.type == "text")
    assert shown == " ".join("".join(c if c.isprintable() else " " for c in text).split())


@given(text=TEXT)
def test_any_name_of_fixed_width_is_one_piece(text: str) -> None:
    kinds = [token.type for token in tokens(f"A {_code(text)}.")]
    assert kinds == ["paragraph_open", "inline", "paragraph_close", "text", "code_inline", "text"]


def unescaped(text: str) -> str:
    return text


def as_html(text: str) -> str:
    """Enough for a page, and not for Markdown."""
    return escape(" ".join(text.split()))


def first_character(text: str) -> str:
    return f"\\{' '.join(text.split())}"


@pytest.mark.parametrize("wrong", [unescaped, as_html, first_character])
def test_wrong_versions_are_seen(wrong: Callable[[str], str]) -> None:
    assert [text for text in EVIL if not is_plain(wrong(text))]


def kinds_of_a_card(told: Story, words: str) -> list[str]:
    found = replace(told.results, notes=[words, words], warnings=[words])
    return [token.type for token in PARSER.parse(card(replace(told, results=found), "0" * 64))]


@pytest.fixture(scope="module")
def told() -> Story:
    return story()


@pytest.fixture(scope="module")
def usual(told: Story) -> list[str]:
    return kinds_of_a_card(told, "words")


@pytest.mark.parametrize("evil", EVIL)
def test_a_card_is_the_same_elements_whatever_hospitals_say(told: Story, usual: list[str], evil: str) -> None:
    assert kinds_of_a_card(told, evil) == usual


def test_usual_sentences_stay_as_they_are() -> None:
    usual = "Federation helps ash: +0.090 AUC, 95 % interval −0.01 to 0.2 (elm; 3 rounds), as 'oak' said!"
    assert plain(usual) == usual
