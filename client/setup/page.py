"""The readiness check as a web page with sample images. It stays in the hospital: readable by its owner only, and
self-contained.

Tested in ``tests/client/cli/test_data.py``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from client.cohort import catalog, index
from client.cohort.cache import ExampleCache, load_example
from client.cohort.findings import IngestReport, alike, images_of_classes
from client.cohort.picture import png
from client.cohort.rows import Image
from client.errors import SiteError
from client.setup.check import STATE_WORDS, Rung
from client.site import SiteSettings
from tasks import contract as contracts
from tasks.machine.language import say, tag
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
@media (max-width: 40rem) { th { display: none } td { display: block; border: 0; padding: .1rem 0 }
tr { display: block; padding: .5rem 0; border-bottom: 1px solid #ddd } }
"""


def write_page(path: Path, site: SiteSettings, ladders: Sequence[tuple[Task, Sequence[Rung]]]) -> None:
    """Write the page, mode 0600, in the place of an older one, in the language spoken, as the ladders are.

    Raises:
        OSError: the folder cannot be written.
    """
    body = "".join(_section(site, task, rungs) for task, rungs in ladders)
    text = (
        f'<!doctype html><html lang={tag()}><meta charset=utf-8><meta name=viewport content="width=device-width">'
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{escape(say('{hospital}: readiness', hospital=site.name))}</title><style>{_STYLE}</style>"
        f"<h1>{escape(site.name)}</h1><p class=private>"
        f"{escape(say('This page shows patient images and exact counts. It must not leave the hospital.'))}</p>"
        f"{body}</html>"
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def _section(site: SiteSettings, task: Task, rungs: Sequence[Rung]) -> str:
    rows = [(say(STATE_WORDS[rung.state]), say(rung.name), rung.found, rung.remedy) for rung in rungs]
    ladder = _table(("", "", say("found"), say("what to do")), rows, states=[rung.state for rung in rungs])
    return f"<h2>{escape(task.name)}</h2><p>{escape(say(task.question))}</p>{ladder}{_cohort(site, task)}"


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
        (
            rule,
            contract.first.get(rule, 0),
            contract.every.get(rule, 0),
            contract.warned.get(rule, 0),
            say(remedies[rule]),
        )
        for rule in remedies
        if rule in contract.every or rule in contract.warned
    ]
    columns = (
        *(say("rule"), say("rejected first by this rule"), say("rejected in total")),
        *(say("warned"), say("what to do")),
    )
    meeting = {"conforming": contract.conforming, "examined": contract.examined}
    summary = say("{conforming} of {examined} labelled images meet the contract.", **meeting)
    return f"<h3>{escape(say('Contract'))}</h3><p>{escape(summary)}</p>" + (_table(columns, rows) if rows else "")


def _with_text(usable: Sequence[Image], task: Task, cache: ExampleCache) -> str:
    """All images in which a line of text was found, or that say so, as the network sees them."""
    rules = {rule.id for rule in contracts.of_task(task.name).rules if rule.check in ("no_text", "not_burned_in")}
    shown = sorted((image for image in usable if rules & set(image.warned)), key=lambda image: -image.glyphs)
    if not shown:
        return ""
    captions = [
        say("patient {patient}, {number} glyphs in a line", patient=image.patient[:8], number=image.glyphs)
        for image in shown[:_TEXTS]
    ]
    figures = "".join(_figure(image, name, cache) for image, name in zip(shown, captions, strict=False))
    least = str(len(shown))
    if len(shown) > _TEXTS:
        least = say("the first {number} of {all}", number=_TEXTS, all=len(shown))
    heading = say("Images that may show text: {number}", number=least)
    advice = say("Leave out those in which a name can be read.")
    return f"<h3>{escape(heading)}</h3><p>{escape(advice)}</p>{figures}"


def _samples(usable: Sequence[Image], task: Task, cache: ExampleCache) -> str:
    """Some images of each class, from different patients, as the network sees them."""
    parts = [f"<h3>{escape(say('Samples, as the model sees them'))}</h3>"]
    for name, images in images_of_classes(task, usable).items():
        of_patient = {image.patient: image for image in images}
        shown = list(of_patient.values())[:: max(1, len(of_patient) // _SAMPLES)][:_SAMPLES]
        told = say(name.replace("_", " "))
        parts.append(f"<p>{escape(told)}</p>" + "".join(_figure(image, told, cache) for image in shown))
    return "".join(parts)


def _pairs(usable: Sequence[Image], task: Task, cache: ExampleCache) -> str:
    pairs, complete = alike(usable, cache)
    if not pairs:
        return ""
    least = str(len(pairs)) if complete else say("at least {number}", number=len(pairs))
    heading = say("Images of different patients that look the same: {number}", number=least)
    parts = [f"<h3>{escape(heading)}</h3>"]
    for pair in pairs[:_PAIRS]:
        names = [say("{label}, patient {patient}", label=task.said(i.label), patient=i.patient[:8]) for i in pair]
        parts.append("".join(_figure(i, name, cache) for i, name in zip(pair, names, strict=True)) + "<br>")
    return "".join(parts)


def _figure(image: Image, caption: str, cache: ExampleCache) -> str:
    data = base64.b64encode(png(load_example(cache.path(image.example)))).decode()
    return f'<figure><img alt="" src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], states: Sequence[str] = ()) -> str:
    """``states`` are the rows' classes, where they have any."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr{f' class={escape(state)}' if state else ''}>"
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        + "</tr>"
        for row, state in zip(rows, states or [""] * len(rows), strict=True)
    )
    return f"<table><tr>{head}</tr>{body}</table>"
