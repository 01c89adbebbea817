"""The reading room's list as one page: highest probability first, or the value that is farthest on the event's side. It
is self-contained and stays in the hospital.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import cycle

from client.cohort.picture import COLOURS
from client.cohort.remedies import remedy_of
from client.prediction.local_image import LeftOut, LocalImage
from client.prediction.model import CheckedModel
from client.prediction.predict import Predictions, ScoredImage, ScoredPatient, called
from client.prediction.told import Told, measures, named, value_at
from tasks import contract as contracts
from tasks.answers import Classes, Grade, Measure
from tasks.protocol.study import release
from tasks.task import QUESTION, Task

_MOST_PATIENTS, _MOST_IMAGES, _MOST_LEFT_OUT = 500, 4, 500
_BANNER = "Not for clinical use"
_STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --red: #9a1616; --bar: #2f5f98; --warn: #7a4b00 }
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); max-width: 70rem; margin: 0 auto;
  padding-bottom: 3rem }
table { border-collapse: collapse; width: 100% } .pages > tbody > tr > td { padding: 0 1rem }
.pages > thead th { position: sticky; top: 0; z-index: 1 }
.banner { background: var(--red); color: #fff; font-weight: 700; font-size: 1.05rem; padding: .55rem 1rem;
  text-align: left; -webkit-print-color-adjust: exact; print-color-adjust: exact }
.banner small { font-weight: 400; font-size: .85rem; margin-left: .6rem }
h1 { font-size: 1.35rem; margin: 1.2rem 0 .2rem } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem }
p { margin: .3rem 0 } .soft { color: var(--soft) } .remark { border-left: 4px solid var(--warn); padding-left: .7rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0; font-size: .9rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
.list { margin-top: .6rem } .list th { text-align: left; font-size: .8rem; color: var(--soft); font-weight: 600 }
.list th, .list td { padding: .5rem .8rem .5rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
.list tr { break-inside: avoid }
td.rank { color: var(--soft); width: 2.2rem } td.who { width: 14rem } td.score { width: 14rem } .side { display: block }
.number { font-size: 1.25rem; font-weight: 650; font-variant-numeric: tabular-nums }
.bar { position: relative; height: .7rem; background: #dfe5eb; margin: .35rem 0; -webkit-print-color-adjust: exact;
  print-color-adjust: exact } .bar i { position: absolute; inset: 0 auto 0 0; background: var(--bar) }
.bar b { position: absolute; top: -.25rem; bottom: -.25rem; width: 2px; background: var(--ink) }
figure { display: inline-block; margin: 0 .5rem .4rem 0 } figcaption { font-size: .75rem; color: var(--soft) }
img { width: 104px; height: 104px; background: #000; object-fit: contain; display: block }
img.large { width: 208px; height: 208px } .legend i { display: inline-block; width: .8rem; height: .3rem;
  margin: 0 .3rem 0 .6rem; -webkit-print-color-adjust: exact; print-color-adjust: exact }
.warn { color: var(--warn); font-size: .85rem } .id { font-weight: 600; overflow-wrap: anywhere }
@media (max-width: 640px) { .list td, .list th { display: block; width: auto; border: 0; padding: .15rem 0 }
  .list tr { display: block; border-bottom: 1px solid var(--line); padding: .6rem 0 }
  .list thead th { display: none } .list thead th.seen { display: block } }
@media print { @page { margin: 12mm } body { max-width: none; font-size: 12px } .pages > thead th { position: static }
  .pages > tbody > tr > td { padding: 0 } td.who, td.score { width: 11rem } img { width: 72px; height: 72px }
  img.large { width: 144px; height: 144px } }
"""


def page(site: str, model: CheckedModel, predictions: Predictions, made: datetime) -> str:
    """The page.

    Args:
        site: the hospital's name.
        made: when, in local time.
    """
    what = noun(model.task)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{_BANNER}: {escape(model.task.name)} at {escape(site)}</title><style>{_STYLE}</style>"
        f"<table role=presentation class=pages><thead><tr><th class=banner>{_words()}</th></tr></thead><tbody><tr><td>"
        f"<h1>{escape(model.task.question)}</h1>"
        f"<p class=soft>{len(predictions.patients)} patients, {predictions.images} {what}, {_first(model.task)} "
        f"first. {_meaning(model)}</p>"
        f"{''.join(f'<p class=remark>{escape(text)}</p>' for text in remarks(model, predictions))}"
        f"{_facts(site, model, made)}{_patients(model, predictions.patients)}{_left_out(model, predictions.left_out)}"
        "</td></tr></tbody></table></html>"
    )


def _first(task: Task) -> str:
    if isinstance(task.answer, Measure):
        return f"{'lowest' if task.answer.event_above is None else 'highest'} value"
    return f"highest probability of <b>{escape(task.classes[1])}</b>"


def _meaning(model: CheckedModel) -> str:
    if measures(model.task):
        return f"A patient's value is the mean over the {noun(model.task)}."
    if model.head.calibration is None:
        return f"A patient's probability is the mean over the {noun(model.task)}."
    return f"A patient's probability is the mean score of the {noun(model.task)}, calibrated."


def noun(task: Task) -> str:
    """What is scored."""
    return "scans" if task.sequences else "images"


def remarks(model: CheckedModel, predictions: Predictions) -> list[str]:
    """What a reader must know before looking at any number."""
    notes = list(model.remarks)
    if trained := sum(patient.trained for patient in predictions.patients):
        notes.append(
            f"{trained} of {len(predictions.patients)} patients are on the training side of this hospital's split. If "
            "it took part in the study, the model was trained on them, and their scores look better than they should."
        )
    if predictions.left_out:
        not_used = "Not used, of scans, their series and outlines, and files" if model.task.sequences else "Not scored"
        notes.append(f"{not_used}: {len(predictions.left_out)}, listed with the reason.")
    return notes


def _words() -> str:
    return (
        f"{_BANNER}<small>Output of a research model. It must not guide the care of any patient. "
        "Patient data: must not leave the hospital.</small>"
    )


def _facts(site: str, model: CheckedModel, made: datetime) -> str:
    threshold = model.threshold
    rows = {
        "Hospital": site,
        "Model": f"study {model.head.study}, {model.head.model.get('name')}, SHA-256 {model.sha256}",
        "Operating threshold": "none" if threshold is None else f"{_level(model, threshold)} (the line in each bar)",
        "Computed": f"{made:%Y-%m-%d %H:%M} by Consilium {release()}",
    }
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{escape(value)}</dd>' for name, value in rows.items())}</dl>"


def _level(model: CheckedModel, probability: float) -> str:
    """A probability, or the value where one is measured."""
    return value_at(model.task, probability) if measures(model.task) else f"{100 * probability:.1f} %"


def _patients(model: CheckedModel, patients: Sequence[ScoredPatient]) -> str:
    rows = "".join(_row(model, rank, patient) for rank, patient in enumerate(patients[:_MOST_PATIENTS], start=1))
    more = len(patients) - _MOST_PATIENTS
    return (
        "<table class=list><thead><tr><th></th><th>Patient</th>"
        f"<th>{'Value' if measures(model.task) else 'Probability'}</th>"
        f"<th class=seen>As the model sees it{_planes(model)}{_legend(model)}</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>"
        + (f"<p>{more} more in scores.csv.</p>" if more > 0 else "")
        + _meanings(model, patients)
    )


def _planes(model: CheckedModel) -> str:
    if not model.task.sequences:
        return ""
    which = "the slice with the largest outlines" if model.network.outlines else "the middle slice"
    names = [sequence.name for sequence in model.task.sequences]
    return escape(f": {which}" + (f" of {', '.join(names)}, row by row" if len(names) > 1 else ""))


def _legend(model: CheckedModel) -> str:
    """The structure of each outline colour."""
    if not model.network.outlines:
        return ""
    named = zip(model.task.structures, cycle(COLOURS), strict=False)
    keys = [f"<i style='background:{colour}'></i>{escape(structure.label)}" for structure, colour in named]
    return f"<span class=legend>{' '.join(keys)}</span>"


def _row(model: CheckedModel, rank: int, patient: ScoredPatient) -> str:
    examined = sorted({(s.image.study_date, s.image.accession) for s in patient.images})
    when = "<br>".join(escape(f"{_date(day)} {accession}".strip()) for day, accession in examined[:_MOST_IMAGES])
    trained = "<p class=warn>Training side of this hospital's split</p>" if patient.trained else ""
    return (
        f"<tr><td class=rank>{rank}</td><td class=who><div class=id>{escape(patient.patient)}</div>"
        f"<div class=soft>{when}</div>{trained}{_warnings(patient)}</td>"
        f"<td class=score>{_bar(model, patient.score)}{_answers(patient.told)}</td>"
        f"<td>{_pictures(model, patient.images)}</td></tr>"
    )


def _warnings(patient: ScoredPatient) -> str:
    return f"<p class=warn>Contract warnings: {escape(', '.join(patient.warned))}</p>" if patient.warned else ""


def _meanings(model: CheckedModel, patients: Sequence[ScoredPatient]) -> str:
    """The meaning of the contract's warnings, once for all patients."""
    warned = {rule for patient in patients for rule in patient.warned}
    rules = [rule for rule in contracts.of_task(model.task.name).rules if rule.id in warned]
    meanings = "".join(f"<dt>{escape(rule.id)}</dt><dd>{escape(rule.remedy)}</dd>" for rule in rules)
    return f"<dl><dt class=warn>Contract warnings</dt><dd></dd>{meanings}</dl>" if rules else ""


def _bar(model: CheckedModel, score: float) -> str:
    threshold, positive, probability = model.threshold, called(model, score), model.probability(score)
    line = "" if threshold is None else f"<b style='left:calc({100 * threshold:.2f}% - 1px)'></b>"
    side = "" if positive is None else f"{'at or above' if positive else 'below'} the threshold"
    if isinstance(model.task.answer, Classes | Grade):  # beside it stands what is told, which has a number of its own
        side = ", ".join(filter(None, [escape(model.task.classes[1].replace("_", " ")), side]))
    return (
        f"<span class=number>{_level(model, probability)}</span> <span class='soft side'>{side}</span>"
        f"<div class=bar><i style='width:{100 * probability:.2f}%'></i>{line}</div>"
    )


def _answers(told: Told | None) -> str:
    """What is told besides: a class, a grade, and values of secondary findings."""
    if told is None:
        return ""
    shown = [
        escape(told.words(name) if name == QUESTION else f"{named(name)}: {told.words(name)}")
        for name, answer in told.answers.items()
        if name != QUESTION or not isinstance(answer, Measure)
    ]
    return "".join(f"<div>{words}</div>" for words in shown)


def _pictures(model: CheckedModel, images: Sequence[ScoredImage]) -> str:
    """The images with the highest probability."""
    shown = sorted(images, key=lambda scored: -scored.score)
    parts = [
        f"<figure><img{_size(scored)} alt='' src='data:image/png;base64,"
        f"{base64.b64encode(scored.seen).decode()}'>"
        f"<figcaption>{_level(model, model.probability(scored.score))}{_without(scored.image)}</figcaption></figure>"
        for scored in shown[:_MOST_IMAGES]
    ]
    more = len(shown) - _MOST_IMAGES
    return "".join(parts) + (f"<span class=soft>and {more} more</span>" if more > 0 else "")


def _size(scored: ScoredImage) -> str:
    """Several planes or outlines need more space."""
    return " class=large" if scored.image.scan is not None or scored.outline is not None else ""


def _without(image: LocalImage) -> str:
    return escape(f", read without {', '.join(image.without)}") if image.without else ""


def _left_out(model: CheckedModel, left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ""
    counts = Counter(image.reason for image in left_out)
    reasons = "".join(
        f"<dt>{number} &times; {escape(reason)}</dt><dd>{escape(remedy_of(model.task, reason))}</dd>"
        for reason, number in counts.most_common()
    )
    rows = "".join(
        f"<tr><td>{escape(one.patient or 'unknown')}</td><td>{escape(one.path.name)}</td><td>{escape(one.reason)}</td>"
        for one in left_out[:_MOST_LEFT_OUT]
    )
    more = len(left_out) - _MOST_LEFT_OUT
    return (
        f"<h2>{'Not used' if model.task.sequences else 'Not scored'}</h2><dl>{reasons}</dl>"
        f"<table class=list><thead><tr><th>Patient</th><th>File</th><th>Reason</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>" + (f"<p>{more} more in scores.csv.</p>" if more > 0 else "")
    )


def _date(day: str) -> str:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if len(day) == 8 and day.isdecimal() else day
