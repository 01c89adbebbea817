"""The readiness check as a web page with sample images. It stays in the hospital: readable by its owner only, and
self-contained.

Tested in ``tests/client/cli/test_data.py``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from client.cohort import catalog, index
from client.cohort.cache import ExampleCache, load_example
from client.cohort.findings import IngestReport, alike, images_of_classes
from client.cohort.picture import png
from client.cohort.rows import Image
from client.errors import SiteError
from client.setup.check import Rung
from client.site import SiteSettings
from tasks import contract as contracts
from tasks.task import Task

_SAMPLES = 12
_PAIRS = 20
_TEXTS = 60
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 } th, td { text-align: left; vertical-align: top;
padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd } .ok { color: #1a6b2d } .warn { color: #8a5a00 }
.fail { color: #a01818; font-weight: 600 } figure { display: inline-block; margin: 0 .5rem .5rem 0 }
img { image-rendering: pixelated; width: 128px; height: 128px; background: #000 } figcaption { font-size: 12px }
.private { border: 2px solid #a01818; padding: .5rem 1rem }
"""


def write_page(path: Path, site: SiteSettings, ladders: Sequence[tuple[Task, Sequence[Rung]]]) -> None:
    """Write the page, mode 0600, in the place of an older one.

    Raises:
        OSError: the folder cannot be written.
    """
    body = "".join(_section(site, task, rungs) for task, rungs in ladders)
    text = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{escape(site.name)}: readiness</title><style>{_STYLE}</style><h1>{escape(site.name)}</h1>"
        "<p class=private>This page shows patient images and exact counts. It must not leave the hospital.</p>"
        f"{body}</html>"
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def _section(site: SiteSettings, task: Task, rungs: Sequence[Rung]) -> str:
    rows = [(rung.state, rung.name, rung.found, rung.remedy) for rung in rungs]
    ladder = _table(("", "", "found", "what to do"), rows, states=True)
    return f"<h2>{escape(task.name)}</h2><p>{escape(task.question)}</p>{ladder}{_cohort(site, task)}"


def _cohort(site: SiteSettings, task: Task) -> str:
    try:
        report = catalog.report(site, task)
    except SiteError:
        return ""  # the ladder says what is the matter
    issuers = [source.issuer for source in site.sources if source.task == task.name]
    with index.opened(site) as opened:
        usable = [image for image in opened.images(task.name, issuers) if image.usable]
    cache = ExampleCache(site, task)
    parts = _rules(report, task), _with_text(usable, task, cache), _samples(usable, task, cache)
    return f"{''.join(parts)}{_pairs(usable, task, cache)}"


def _rules(report: IngestReport, task: Task) -> str:
    contract, remedies = report.contract, {rule.id: rule.remedy for rule in contracts.of_task(task.name).rules}
    rows = [
        (rule, contract.first.get(rule, 0), contract.every.get(rule, 0), contract.warned.get(rule, 0), remedies[rule])
        for rule in remedies
        if rule in contract.every or rule in contract.warned
    ]
    columns = ("rule", "rejected first by this rule", "rejected in total", "warned", "what to do")
    summary = f"{contract.conforming} of {contract.examined} labelled images meet the contract."
    return f"<h3>Contract</h3><p>{summary}</p>" + (_table(columns, rows) if rows else "")


def _with_text(usable: Sequence[Image], task: Task, cache: ExampleCache) -> str:
    """All images in which a line of text was found, or that say so, as the network sees them."""
    rules = {rule.id for rule in contracts.of_task(task.name).rules if rule.check in ("no_text", "not_burned_in")}
    shown = sorted((image for image in usable if rules & set(image.warned)), key=lambda image: -image.glyphs)
    if not shown:
        return ""
    captions = [f"patient {image.patient[:8]}, {image.glyphs} glyphs in a line" for image in shown[:_TEXTS]]
    figures = "".join(_figure(image, name, cache) for image, name in zip(shown, captions, strict=False))
    least = f"the first {_TEXTS} of {len(shown)}" if len(shown) > _TEXTS else str(len(shown))
    return f"<h3>Images that may show text: {least}</h3><p>Leave out those in which a name can be read.</p>{figures}"


def _samples(usable: Sequence[Image], task: Task, cache: ExampleCache) -> str:
    """Some images of each class, from different patients, as the network sees them."""
    parts = ["<h3>Samples, as the model sees them</h3>"]
    for name, images in images_of_classes(task, usable).items():
        of_patient = {image.patient: image for image in images}
        shown = list(of_patient.values())[:: max(1, len(of_patient) // _SAMPLES)][:_SAMPLES]
        parts.append(f"<p>{escape(name)}</p>" + "".join(_figure(image, name, cache) for image in shown))
    return "".join(parts)


def _pairs(usable: Sequence[Image], task: Task, cache: ExampleCache) -> str:
    pairs, complete = alike(usable, cache)
    if not pairs:
        return ""
    least = "" if complete else "at least "
    parts = [f"<h3>Images of different patients that look the same: {least}{len(pairs)}</h3>"]
    for pair in pairs[:_PAIRS]:
        names = [f"{task.said(image.label)}, patient {image.patient[:8]}" for image in pair]
        parts.append("".join(_figure(i, name, cache) for i, name in zip(pair, names, strict=True)) + "<br>")
    return "".join(parts)


def _figure(image: Image, caption: str, cache: ExampleCache) -> str:
    data = base64.b64encode(png(load_example(cache.path(image.example)))).decode()
    return f'<figure><img alt="" src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]], states: bool = False) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr{f' class={escape(str(row[0]))}' if states else ''}>"
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
