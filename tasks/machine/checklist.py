"""A checklist for a security officer: claims about an installation, each verified now, and the page with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from html import escape
from pathlib import Path

from tasks.machine.disk import write_whole
from tasks.protocol.study import release


class ClaimState(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Claim:
    """One claim: whether it holds, what was observed, what to do if it does not, and how to verify it independently."""

    promise: str
    state: ClaimState
    found: str
    remedy: str = ""
    see: str = ""


Checklist = Mapping[str, Sequence[Claim]]
"""Claims by heading."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
h1 { margin-bottom: 0 } h2 { margin-top: 2rem; break-after: avoid } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #ddd;
overflow-wrap: anywhere } tr { break-inside: avoid } th { font-weight: 600; font-size: 13px; color: #555 }
td:first-child { width: 4.5rem; font-weight: 600 } td:nth-child(2) { width: 38% }
.ok { color: #1a6b2d } .warn { color: #8a5a00 } .fail { color: #a01818 } .small { font-size: 13px; color: #555 }
code { font: 13px/1.4 ui-monospace, monospace; background: #f4f4f2; padding: .05rem .25rem; border-radius: 3px }
.sum { font-size: 17px }
@media (max-width: 40rem) { thead { display: none } td, td:first-child, td:nth-child(2) { display: block; width: auto;
border: 0; padding: .1rem 0 } tr { display: block; padding: .6rem 0; border-bottom: 1px solid #ddd } }
"""
_WORDS = {ClaimState.OK: "holds", ClaimState.WARN: "check", ClaimState.FAIL: "fails"}


def worst(checklist: Checklist) -> ClaimState:
    """The state of the whole: as bad as its worst claim."""
    states = {claim.state for claims in checklist.values() for claim in claims}
    return next((state for state in (ClaimState.FAIL, ClaimState.WARN) if state in states), ClaimState.OK)


def count(checklist: Checklist) -> str:
    """How many claims hold, in words."""
    states = [claim.state for claims in checklist.values() for claim in claims]
    counted = {state: states.count(state) for state in ClaimState}
    rest = [f"{counted[state]} {word}" for state, word in ((ClaimState.WARN, "to check"), (ClaimState.FAIL, "failed"))
            if counted[state]]  # fmt: skip
    return ", ".join([f"{counted[ClaimState.OK]} of {len(states)} claims hold", *rest])


def facts(checklist: Checklist) -> dict[str, list[dict[str, str]]]:
    """The checklist as JSON values."""
    return {heading: [asdict(claim) for claim in claims] for heading, claims in checklist.items()}


def write(path: Path, whose: str, checklist: Checklist, unseen: Sequence[str]) -> None:
    """Write the page, readable by its owner only."""
    text = page(f"{whose}: security checklist", f"Consilium {release()}.", checklist, unseen)
    write_whole(path, text.encode(), 0o600)


def page(title: str, subtitle: str, checklist: Checklist, unseen: Sequence[str]) -> str:
    """The checklist as one HTML page that loads nothing and can be printed.

    Args:
        unseen: what matters as well, but cannot be verified from here.
    """
    sections = "".join(_section(heading, claims) for heading, claims in checklist.items())
    rest = "".join(f"<li>{escape(one)}</li>" for one in unseen)
    return (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p class=small>{escape(subtitle)} Verified on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC.</p>"
        f"<p class=sum>{escape(count(checklist))}.</p>{sections}"
        f"<h2>What cannot be verified from here</h2><ul>{rest}</ul></html>"
    )


def _section(heading: str, claims: Sequence[Claim]) -> str:
    rows = "".join(_row(claim) for claim in claims)
    head = "<thead><tr><th></th><th>claim</th><th>observed</th></tr></thead>"
    return f"<h2>{escape(heading)}</h2><table>{head}{rows}</table>"


def _row(claim: Claim) -> str:
    found = escape(claim.found)
    if claim.remedy:
        found += f"<br><b>{escape(claim.remedy)}</b>"
    if claim.see:
        found += f"<br><span class=small>verify it yourself: <code>{escape(claim.see)}</code></span>"
    state = f"<td class={claim.state}>{_WORDS[claim.state]}</td>"
    return f"<tr>{state}<td>{escape(claim.promise)}</td><td>{found}</td></tr>"
