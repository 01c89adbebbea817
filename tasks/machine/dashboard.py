"""A page of this machine for a person in front of it: on loopback, to be read only, behind a secret in its address.

It needs no JavaScript and loads nothing; the browser asks for it anew by itself. Whoever else has an account on the
machine does not know the address; a page from elsewhere cannot have it read in its name (DNS rebinding), because only
the machine's own names are served.
"""

from __future__ import annotations

import hmac
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Self

from tasks import faults
from tasks.machine.exposition import is_local, split
from tasks.machine.language import moment, number, say, tag
from tasks.machine.small_server import SmallServer
from tasks.protocol.study import release

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

REFRESH_S = 20
_FRESH_S = 3.0
"""A page that is asked for again within so many seconds is the same one: looking costs something."""
_HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy",
     "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
]  # fmt: skip


class LocalPage:
    """Serves one page, in threads of its own; a context manager.

    Args:
        address: ``host:port`` of loopback; port 0 for any that is free.
        page: makes the page; it is called for one caller at a time.

    Raises:
        ValueError: the address is none, not one of this machine's own, or cannot be bound.
    """

    def __init__(self, address: str, page: Callable[[], str]) -> None:
        self._page, self._made, self._at = page, b"", -_FRESH_S
        self._alone = threading.Lock()
        self._path = f"/{secrets.token_urlsafe(24)}/"
        try:
            self._host, port = split(address)
            if not is_local(address):
                raise ValueError
            self._server = SmallServer(self._host, port, self._answer, "dashboard")
        except OSError as error:
            raise ValueError(f"{address}: {faults.of_system(error)}") from None
        except (ValueError, OverflowError):
            raise ValueError(
                f"{address}: it must be an address of this machine only, and a port, such as 127.0.0.1:9480"
            ) from None

    @property
    def url(self) -> str:
        """Where the page is; the secret in it is new at every start."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.port}{self._path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.close()

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        status = self._status(environ)
        body = self._current() if status == "200 OK" else b""
        start(status, [*_HEADERS, ("Content-Length", str(len(body)))] + ([("Allow", "GET, HEAD")] if not body else []))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _status(self, environ: WSGIEnvironment) -> str:
        """Who came by another name, or wants something else, gets no page, and is not told which address is right."""
        ours = {f"{name}:{self._server.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        if str(environ.get("HTTP_HOST", "")).lower() not in ours:
            return "421 Misdirected Request"
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed"
        asked = str(environ.get("PATH_INFO", "")).encode("utf-8", "replace")
        return "200 OK" if hmac.compare_digest(asked, self._path.encode()) else "404 Not Found"

    def _current(self) -> bytes:
        with self._alone:
            if time.monotonic() - self._at >= _FRESH_S:
                self._made, self._at = self._page().encode("utf-8", "replace"), time.monotonic()
            return self._made


def until_ended() -> None:
    """Wait until SIGTERM or Ctrl-C."""
    ended = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: ended.set())
    ended.wait()


class Markup(str):
    """HTML that is written as it is; any other text is escaped."""


def shown(cell: object) -> str:
    """A cell as HTML."""
    return cell if isinstance(cell, Markup) else escape(str(cell))


def mark(state: str, text: str) -> Markup:
    """A word that stands out: ``state`` is ``ok``, ``warn``, ``fail`` or ``soft``."""
    return Markup(f'<span class="mark {escape(state)}">{escape(text)}</span>')


def command(text: str) -> Markup:
    """What somebody would type."""
    return Markup(f"<code>{escape(text)}</code>")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> str:
    """A table, whose rows are cards on a narrow screen; a sentence where there is no row."""
    if not rows:
        return f"<p class=soft>{escape(nothing)}</p>"
    head = "".join(f"<th scope=col>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, columns, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(column: str, cell: object) -> str:
    return f'<td data-is="{escape(column)}"><span>{shown(cell)}</span></td>'


def gauge(title: str, parts: Sequence[tuple[str, str, float]], whole: float, words: str) -> str:
    """A bar of what is used of a whole; what it says is in ``words`` as well.

    Args:
        parts: class (``spent``, ``aside`` or ``next``), name and amount, from the left.
    """
    most, at, drawn = max(whole, sum(amount for _, _, amount in parts), 1e-12), 0.0, []
    for kind, name, amount in parts:
        width = 100 * amount / most
        drawn.append(f'<rect class={kind} x="{at:.2f}" y=0 width="{width:.2f}" height=10><title>{escape(name)}</title>')
        drawn.append("</rect>")
        at += width
    end = 100 * whole / most
    drawn.append(f'<line class=cap x1="{end:.2f}" x2="{end:.2f}" y1="-1" y2="11"></line>')
    legend = "".join(f"<li class={kind}>{escape(name)} {number(amount, '.2f')}</li>" for kind, name, amount in parts)
    label = escape(f"{title} {words}")
    head = f"<figcaption><b>{escape(title)}</b> {escape(words)}</figcaption>"
    whole_bar = '<rect class=whole x=0 y=0 width="100" height=10></rect>'
    box = f'<svg viewBox="-0.5 -1 101 12" role=img preserveAspectRatio="none" aria-label="{label}">'
    return f"<figure>{head}{box}{whole_bar}{''.join(drawn)}</svg><ul class=legend>{legend}</ul></figure>"


def page(title: str, lead: Sequence[object], sections: Sequence[tuple[str, str]]) -> str:
    """The page. ``sections`` are headings and HTML; ``lead`` is what must be seen first."""
    body = "".join(f"<section><h2>{escape(heading)}</h2>{html}</section>" for heading, html in sections)
    leads = "".join(f"<p>{shown(one)}</p>" for one in lead)
    made = say(
        "{now} UTC, anew every {seconds} seconds. Consilium {release}. Read only: decisions are commands.",
        now=moment(datetime.now(UTC), seconds=True),
        seconds=REFRESH_S,
        release=release(),
    )
    return (
        f'<!doctype html><html lang={tag()}><head><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<meta http-equiv=refresh content={REFRESH_S}><title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><header><h1>{escape(title)}</h1><p class=soft>{escape(made)}</p>{leads}</header>"
        f"<main>{body}</main></body></html>"
    )


def problem(text: str, remedy: str = "") -> str:
    """What is shown in the place of what cannot be read."""
    return f"<p>{mark('fail', say('cannot be read'))} {escape(text)} {command(remedy) if remedy else ''}</p>"


_STYLE = """
:root { --ink: #1c2733; --soft: #56636f; --line: #d9e0e7; --blue: #0b4f8a; }
* { box-sizing: border-box } body { margin: 0; background: #f5f8fa; color: var(--ink);
font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 24px } header { padding-top: 20px }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere } h2 { font-size: 1.1rem; margin: 0 0 8px }
p { margin: 4px 0 8px }
section { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 14px 18px; margin: 14px 0 }
.soft { color: var(--soft); font-size: .92rem } table { border-collapse: collapse; width: 100%; font-size: .94rem;
font-variant-numeric: tabular-nums } th, td { text-align: left; vertical-align: top; padding: 6px 14px 6px 0;
border-bottom: 1px solid var(--line); overflow-wrap: anywhere } th { font-size: .85rem; color: #3c4a58 }
tbody tr:last-child td { border-bottom: 0 } code { font: .85em ui-monospace, monospace; background: #eef2f5;
padding: 1px 5px; border-radius: 3px } pre { font: 12.5px/1.45 ui-monospace, monospace; background: #f5f8fa;
border: 1px solid var(--line); padding: 8px 10px; white-space: pre-wrap; overflow-wrap: anywhere; margin: 4px 0 12px }
.mark { font-weight: 600 } .mark.ok { color: #1a6b2d } .mark.warn { color: #7a4f00 } .mark.fail { color: #a01818 }
progress { width: 7rem; accent-color: #0b4f8a; vertical-align: middle }
.mark.soft { color: var(--soft); font-weight: 400 }
figure { margin: 6px 0 14px } figure svg { display: block; width: 100%; height: 26px; margin-top: 4px }
.whole { fill: #e3e9ee } .spent { fill: #0b4f8a } .aside { fill: #4a86c5 } .next { fill: #b25e00 }
.cap { stroke: #1c2733; stroke-width: 2px; vector-effect: non-scaling-stroke }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 20px;
margin: 4px 0; padding: 0; font-size: .88rem; color: var(--soft) } .legend li { fill: none }
.legend li::before { content: ""; display: inline-block; width: 11px; height: 11px; margin-right: 6px;
border-radius: 2px }
.legend .spent::before { background: #0b4f8a } .legend .aside::before { background: #4a86c5 }
.legend .next::before { background: #b25e00 }
@media (max-width: 46rem) { header, main { padding-left: 12px; padding-right: 12px } section { padding: 12px }
thead { display: none } tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--line) }
td { display: grid; grid-template-columns: 7.2rem 1fr; gap: 8px; border: 0; padding: 2px 0 }
td::before { content: attr(data-is); color: var(--soft); font-size: .85rem } tbody tr:last-child { border-bottom: 0 }
td:has(> span:empty) { display: none } }
"""
