"""Papers for those who must sign for an installation: sentences, each with the sources that a reader can follow.

A sentence without a source is not written. What no source tells is said as missing, with who may know it. Markdown and
HTML are written from the same sentences, in the language spoken. Checks of ``security`` are quoted as that command
writes them, in English: whoever follows a source finds the very words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from tasks.machine.checklist import Checklist, ClaimState
from tasks.machine.disk import write_whole
from tasks.machine.language import later, moment, say, say_many, tag
from tasks.protocol.study import release

NOT_ADVICE = later(
    "Input for those who must sign: written by a program from what it found in this installation. It is not legal "
    "advice, no assessment, and complete only where it says so; what is marked as missing is for people to add."
)
SOURCES = "sources"
_KEY = re.compile(r"[A-Z][A-Za-z0-9.-]*")


@dataclass(frozen=True)
class Basis:
    """What a sentence rests on.

    Attributes:
        key: its short name, such as ``S12``; unique in a pack.
        group: the heading under which sources of its kind are listed.
        text: what it says.
        see: how to look at it without this program; "" for nothing.
        state: of a check, whether it held.
    """

    key: str
    group: str
    text: str
    see: str = ""
    state: ClaimState = ClaimState.OK


@dataclass(frozen=True)
class Sentence:
    """One sentence of a paper, and the keys of its sources; one that is ``missing`` has none, and says what is not
    known here."""

    text: str
    sources: tuple[str, ...] = ()
    missing: bool = False


@dataclass(frozen=True)
class Section:
    heading: str
    sentences: Sequence[Sentence]


@dataclass(frozen=True)
class Paper:
    """One paper. ``name`` is its file's, without extension; ``about`` says what it is input for."""

    name: str
    title: str
    about: str
    sections: Sequence[Section]

    def sentences(self) -> Iterator[Sentence]:
        for section in self.sections:
            yield from section.sentences


@dataclass(frozen=True)
class Pack:
    """All papers of one installation. ``keep`` says where they may go."""

    whose: str
    keep: str
    papers: Sequence[Paper]
    sources: Sequence[Basis]
    written: datetime = field(default_factory=lambda: datetime.now(UTC))


def said(text: str, *sources: str) -> Sentence:
    """A sentence with its sources, each once."""
    return Sentence(text, tuple(dict.fromkeys(sources)))


def missing(text: str) -> Sentence:
    """What is not known here, and who may know it."""
    return Sentence(text, missing=True)


def of_checks(checklist: Checklist) -> list[Basis]:
    """Every claim of a checklist as a source: S1, S2 and so on, in its order."""
    claims = [(heading, claim) for heading, claims in checklist.items() for claim in claims]
    return [
        Basis(f"S{number}", say("Checks of `security`"), f"{heading}: {one.promise}: {one.found}", one.see, one.state)
        for number, (heading, one) in enumerate(claims, start=1)
    ]


def checks_of(checklist: Checklist, promises: tuple[str, ...]) -> list[str]:
    """Keys of the checks whose claims begin with one of these."""
    claims = [claim.promise for claims in checklist.values() for claim in claims]
    return [f"S{n}" for n, claim in enumerate(claims, start=1) if claim.startswith(promises)]


def write(folder: Path, pack: Pack) -> list[Path]:
    """Write a pack into a new folder that only its owner can enter. Returns the files, ``index.html`` first.

    Raises:
        FileExistsError: the folder exists.
        ValueError: a sentence has no source, or one that is not listed, or two sources share a key.
    """
    _require_founded(pack)
    folder.mkdir(mode=0o700, parents=True)
    files = {"index": (_index_html(pack), _index_md(pack)), SOURCES: (_sources_html(pack), _sources_md(pack))}
    files |= {paper.name: (_paper_html(pack, paper), _paper_md(pack, paper)) for paper in pack.papers}
    written = []
    for name, texts in files.items():
        for suffix, text in zip((".html", ".md"), texts, strict=True):
            write_whole(folder / f"{name}{suffix}", text.encode(), 0o600)
            written.append(folder / f"{name}{suffix}")
    return written


def _require_founded(pack: Pack) -> None:
    keys = [source.key for source in pack.sources]
    if len(set(keys)) < len(keys) or not all(map(_KEY.fullmatch, keys)):
        raise ValueError("sources need keys of their own, such as S12")
    for paper in pack.papers:
        for sentence in paper.sentences():
            if sentence.missing == bool(sentence.sources) or not set(sentence.sources) <= set(keys):
                raise ValueError(f"{paper.name}: {sentence.text!r} rests on {sentence.sources or 'nothing'}")


def _weak(pack: Pack, sentence: Sentence) -> list[Basis]:
    """Sources of a sentence that are checks which did not hold."""
    return [s for s in pack.sources if s.key in sentence.sources and s.state is not ClaimState.OK]


_DID_NOT = {ClaimState.WARN: later("needs a look"), ClaimState.FAIL: later("FAILS")}


def _did_not(source: Basis) -> str:
    return say(_DID_NOT[source.state])


def _when(pack: Pack) -> str:
    return f"{moment(pack.written)} UTC, Consilium {release()}"


# --- Markdown ---------------------------------------------------------------------------------------------------------

_SIGNS = re.compile(r"[\\`*\[\]<>|&~$]|(?<!\w)_|_(?!\w)|^(?:[#+=-]|\d+(?=[.)]))")


def _md(text: str) -> str:
    """Text on one line that Markdown shows as it is (CommonMark 0.31, section 2.4)."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _SIGNS.sub(lambda m: f"{m[0]}\\" if m[0].isdigit() else f"\\{m[0]}", line)


def _head_md(pack: Pack, title: str) -> str:
    advice = f"**{_md(say(NOT_ADVICE))}** {_md(pack.keep)}"
    return f"# {_md(title)}\n\n{_md(f'{pack.whose}, {_when(pack)}')}\n\n{advice}\n"


def _index_md(pack: Pack) -> str:
    head = f"| {say('paper')} | {say('input for')} | {say('sentences')} | {say('missing')} |\n|---|---|---|---|\n"
    rows = "\n".join(
        f"| [{_md(p.title)}]({p.name}.md) | {_md(p.about)} | {counted(p)[0]} | {counted(p)[1]} |" for p in pack.papers
    )
    sources = f"[{say('All sources')}]({SOURCES}.md)"
    return f"{_head_md(pack, say('Evidence'))}\n{head}{rows}\n\n{sources}\n"


def _paper_md(pack: Pack, paper: Paper) -> str:
    parts = [_head_md(pack, paper.title), f"\n{_md(paper.about)}\n"]
    for section in paper.sections:
        parts.append(f"\n## {_md(f'.{section.heading}')[1:]}\n\n")  # no list begins in a heading
        parts += [f"{_sentence_md(pack, sentence)}\n" for sentence in section.sentences]
    return "".join(parts)


def _sentence_md(pack: Pack, sentence: Sentence) -> str:
    if sentence.missing:
        return f"- **{say('Missing:')}** {_md(sentence.text)}"
    links = ", ".join(f"[{key}]({SOURCES}.md#{key.lower()})" for key in sentence.sources)
    weak = "".join(f" **{s.key} {_did_not(s)}.**" for s in _weak(pack, sentence))
    return f"- {_md(sentence.text)} ({links}){weak}"


def _sources_md(pack: Pack) -> str:
    parts = [_head_md(pack, say("Sources"))]
    for group, sources in _grouped(pack):
        parts.append(f"\n## {group}\n")
        for s in sources:
            state = f" **{_did_not(s)}**" if s.state is not ClaimState.OK else ""
            see = f" {say('See for yourself:')} {_md(s.see)}" if s.see else ""
            parts.append(f"\n### {s.key}\n\n{_md(s.text)}{state}{see}\n")
    return "".join(parts)


# --- HTML -------------------------------------------------------------------------------------------------------------

_STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { margin-bottom: 0 } h2 { margin-top: 2rem; break-after: avoid } .small { font-size: 14px; color: #555 }
.advice { border-left: 4px solid #8a5a00; padding: .3rem 1rem; background: #faf6ee } li { margin: .35rem 0 }
li, td { overflow-wrap: anywhere } .missing { background: #fbeeee; padding: .1rem .4rem; border-radius: 3px }
.missing b, .fail { color: #a01818 } .warn { color: #7a4f00 } .ref { font-size: 13px } a { color: #0b4f8a }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; vertical-align: top;
padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #ddd } dt { font-weight: 600; margin-top: .8rem }
dd { margin: 0 } dt:target { background: #fff3c4 } code { font: 13px/1.4 ui-monospace, monospace }
@media (max-width: 40rem) { body { margin: 1rem auto } thead { display: none } tr, td { display: block; border: 0;
padding: .1rem 0 } tr { padding: .6rem 0; border-bottom: 1px solid #ddd } }
"""


def _page(pack: Pack, title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang={tag()}><meta charset=utf-8><meta name=viewport content="width=device-width">'
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}: {escape(pack.whose)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p class=small>{escape(pack.whose)}, {escape(_when(pack))}</p>"
        f"<p class=advice><b>{escape(say(NOT_ADVICE))}</b> {escape(pack.keep)}</p>{body}</html>"
    )


def _index_html(pack: Pack) -> str:
    rows = "".join(
        f'<tr><td><a href="{p.name}.html">{escape(p.title)}</a><td>{escape(p.about)}'
        f"<td>{escape(say_many('{n} sentence', '{n} sentences', counted(p)[0]))}"
        f"<td>{escape(say_many('{n} gap', '{n} gaps', counted(p)[1]))}"
        for p in pack.papers
    )
    head = f"<thead><tr><th>{escape(say('paper'))}<th>{escape(say('input for'))}<th><th></thead>"
    sources = f'<p><a href="{SOURCES}.html">{escape(say("All sources"))}</a></p>'
    return _page(pack, say("Evidence"), f"<table>{head}{rows}</table>{sources}")


def _back() -> str:
    return f'<a href="index.html">{escape(say("All papers"))}</a>'


def _paper_html(pack: Pack, paper: Paper) -> str:
    parts = [f"<p>{escape(paper.about)}</p><p class=small>{_back()}</p>"]
    for section in paper.sections:
        sentences = "".join(_sentence_html(pack, sentence) for sentence in section.sentences)
        parts.append(f"<h2>{escape(section.heading)}</h2><ul>{sentences}</ul>")
    return _page(pack, paper.title, "".join(parts))


def _sentence_html(pack: Pack, sentence: Sentence) -> str:
    if sentence.missing:
        return f"<li class=missing><b>{escape(say('Missing:'))}</b> {escape(sentence.text)}</li>"
    links = ", ".join(f'<a href="{SOURCES}.html#{key}">{key}</a>' for key in sentence.sources)
    weak = "".join(f" <b class={s.state}>{s.key} {escape(_did_not(s))}.</b>" for s in _weak(pack, sentence))
    return f"<li>{escape(sentence.text)} <span class=ref>({links})</span>{weak}</li>"


def _sources_html(pack: Pack) -> str:
    parts = [f"<p class=small>{_back()}</p>"]
    for group, sources in _grouped(pack):
        parts.append(f"<h2>{escape(group.replace('`', ''))}</h2><dl>")
        for s in sources:
            state = f" <b class={s.state}>{escape(_did_not(s))}</b>" if s.state is not ClaimState.OK else ""
            look = escape(say("See for yourself:"))
            see = f"<dd class=small>{look} <code>{escape(s.see)}</code></dd>" if s.see else ""
            parts.append(f"<dt id={s.key}>{s.key}{state}</dt><dd>{escape(s.text)}</dd>{see}")
        parts.append("</dl>")
    return _page(pack, say("Sources"), "".join(parts))


def _grouped(pack: Pack) -> list[tuple[str, list[Basis]]]:
    groups: dict[str, list[Basis]] = {}
    for source in pack.sources:
        groups.setdefault(source.group, []).append(source)
    return list(groups.items())


def summary(pack: Pack) -> tuple[list[tuple[str, int, int]], dict[str, Any]]:
    """Of each paper its title, sentences and gaps, as rows for a person, and as facts for a program its name and
    gaps: titles are in the language of the papers."""
    rows = [(paper.title, *counted(paper)) for paper in pack.papers]
    return rows, {"papers": [{"name": paper.name, "missing": counted(paper)[1]} for paper in pack.papers]}


def counted(paper: Paper) -> tuple[int, int]:
    """How many sentences have sources, and how many are missing."""
    gaps = sum(sentence.missing for sentence in paper.sentences())
    return sum(1 for _ in paper.sentences()) - gaps, gaps
