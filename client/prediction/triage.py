"""The reading room's list as one page, in the language spoken: highest probability first, or the value that is farthest
on the event's side. It is self-contained and stays in the hospital.
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
from tasks.machine.language import day as written
from tasks.machine.language import moment, number, say, say_many, tag
from tasks.protocol.study import release
from tasks.task import QUESTION, Task

_MOST_PATIENTS, _MOST_IMAGES, _MOST_LEFT_OUT = 500, 4, 500
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
    title = say("Not for clinical use: {task} at {hospital}", task=model.task.name, hospital=site)
    return (
        f"<!doctype html><html lang={tag()}><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<table role=presentation class=pages><thead><tr><th class=banner>{_words()}</th></tr></thead><tbody><tr><td>"
        f"<h1>{escape(say(model.task.question))}</h1><p class=soft>{escape(_order(model.task, predictions))} "
        f"{escape(_meaning(model))}</p>"
        f"{''.join(f'<p class=remark>{escape(text)}</p>' for text in remarks(model, predictions))}"
        f"{_facts(site, model, made)}{_patients(model, predictions.patients)}{_left_out(model, predictions.left_out)}"
        "</td></tr></tbody></table></html>"
    )


def _order(task: Task, predictions: Predictions) -> str:
    patients = say_many("{n} patient", "{n} patients", len(predictions.patients))
    said = {"patients": patients, "scored": _number(task, predictions.images)}
    if isinstance(task.answer, Measure):
        if task.answer.event_above is None:
            return say("{patients}, {scored}, lowest value first.", **said)
        return say("{patients}, {scored}, highest value first.", **said)
    event = say(task.classes[1].replace("_", " "))
    return say("{patients}, {scored}, highest probability of “{event}” first.", event=event, **said)


def _number(task: Task, scored: int) -> str:
    return say_many("{n} scan", "{n} scans", scored) if task.sequences else say_many("{n} image", "{n} images", scored)


def _meaning(model: CheckedModel) -> str:
    scored = noun(model.task)
    if measures(model.task):
        return say("A patient's value is the mean over the {scored}.", scored=scored)
    if model.head.calibration is None:
        return say("A patient's probability is the mean over the {scored}.", scored=scored)
    return say("A patient's probability is the mean score of the {scored}, calibrated.", scored=scored)


def noun(task: Task) -> str:
    """What is scored."""
    return say("scans") if task.sequences else say("images")


def remarks(model: CheckedModel, predictions: Predictions) -> list[str]:
    """What a reader must know before looking at any number."""
    notes = list(model.remarks)
    if trained := sum(patient.trained for patient in predictions.patients):
        notes.append(
            say(
                "{trained} of {patients} patients are on the training side of this hospital's split. If it took part "
                "in the study, the model was trained on them, and their scores look better than they should.",
                trained=trained,
                patients=len(predictions.patients),
            )
        )
    if predictions.left_out:
        lost = len(predictions.left_out)
        notes.append(
            say(
                "Not used, of scans, their series and outlines, and files: {number}, listed with the reason.",
                number=lost,
            )
            if model.task.sequences
            else say("Not scored: {number}, listed with the reason.", number=lost)
        )
    return notes


def _words() -> str:
    small = say(
        "Output of a research model. It must not guide the care of any patient. Patient data: must not leave the "
        "hospital."
    )
    return f"{escape(say('Not for clinical use'))}<small>{escape(small)}</small>"


def _facts(site: str, model: CheckedModel, made: datetime) -> str:
    threshold, line = model.threshold, say("none")
    if threshold is not None:
        line = say("{level} (the line in each bar)", level=_level(model, threshold))
    network = model.head.model.get("name")
    rows = {
        say("Hospital"): site,
        say("Model"): say(
            "study {study}, {network}, SHA-256 {digest}", study=model.head.study, network=network, digest=model.sha256
        ),
        say("Operating threshold"): line,
        say("Computed"): say("{at} by Consilium {release}", at=moment(made), release=release()),
    }
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in rows.items())}</dl>"


def _level(model: CheckedModel, probability: float) -> str:
    """A probability, or the value where one is measured."""
    return value_at(model.task, probability) if measures(model.task) else f"{number(100 * probability, '.1f')} %"


def _patients(model: CheckedModel, patients: Sequence[ScoredPatient]) -> str:
    rows = "".join(_row(model, rank, patient) for rank, patient in enumerate(patients[:_MOST_PATIENTS], start=1))
    level = say("Value") if measures(model.task) else say("Probability")
    return (
        f"<table class=list><thead><tr><th></th><th>{escape(say('Patient'))}</th><th>{escape(level)}</th>"
        f"<th class=seen>{escape(say('As the model sees it'))}{_planes(model)}{_legend(model)}</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>" + _more(len(patients) - _MOST_PATIENTS) + _meanings(model, patients)
    )


def _more(number: int) -> str:
    """A line on rows that are in the table of scores only."""
    if number <= 0:
        return ""
    return f"<p>{escape(say_many('{n} more in scores.csv.', '{n} more in scores.csv.', number))}</p>"


def _planes(model: CheckedModel) -> str:
    if not model.task.sequences:
        return ""
    which = say("the slice with the largest outlines") if model.network.outlines else say("the middle slice")
    names = [sequence.name for sequence in model.task.sequences]
    if len(names) == 1:
        return escape(f": {which}")
    return escape(say(": {slice} of {sequences}, row by row", slice=which, sequences=", ".join(names)))


def _legend(model: CheckedModel) -> str:
    """The structure of each outline colour."""
    if not model.network.outlines:
        return ""
    named = zip(model.task.structures, cycle(COLOURS), strict=False)
    keys = [f"<i style='background:{colour}'></i>{escape(say(structure.label))}" for structure, colour in named]
    return f"<span class=legend>{' '.join(keys)}</span>"


def _row(model: CheckedModel, rank: int, patient: ScoredPatient) -> str:
    examined = sorted({(s.image.study_date, s.image.accession) for s in patient.images})
    when = "<br>".join(escape(f"{_date(day)} {accession}".strip()) for day, accession in examined[:_MOST_IMAGES])
    side = say("Training side of this hospital's split")
    trained = f"<p class=warn>{escape(side)}</p>" if patient.trained else ""
    return (
        f"<tr><td class=rank>{rank}</td><td class=who><div class=id>{escape(patient.patient)}</div>"
        f"<div class=soft>{when}</div>{trained}{_warnings(patient)}</td>"
        f"<td class=score>{_bar(model, patient.score)}{_answers(patient.told)}</td>"
        f"<td>{_pictures(model, patient.images)}</td></tr>"
    )


def _warnings(patient: ScoredPatient) -> str:
    if not patient.warned:
        return ""
    return f"<p class=warn>{escape(say('Contract warnings: {rules}', rules=', '.join(patient.warned)))}</p>"


def _meanings(model: CheckedModel, patients: Sequence[ScoredPatient]) -> str:
    """The meaning of the contract's warnings, once for all patients."""
    warned = {rule for patient in patients for rule in patient.warned}
    rules = [rule for rule in contracts.of_task(model.task.name).rules if rule.id in warned]
    meanings = "".join(f"<dt>{escape(rule.id)}</dt><dd>{escape(say(rule.remedy))}</dd>" for rule in rules)
    return f"<dl><dt class=warn>{escape(say('Contract warnings'))}</dt><dd></dd>{meanings}</dl>" if rules else ""


def _bar(model: CheckedModel, score: float) -> str:
    threshold, positive, probability = model.threshold, called(model, score), model.probability(score)
    line = "" if threshold is None else f"<b style='left:calc({100 * threshold:.2f}% - 1px)'></b>"
    side = ""
    if positive is not None:
        side = say("at or above the threshold") if positive else say("below the threshold")
    if isinstance(model.task.answer, Classes | Grade):  # beside it stands what is told, which has a number of its own
        side = ", ".join(filter(None, [say(model.task.classes[1].replace("_", " ")), side]))
    return (
        f"<span class=number>{_level(model, probability)}</span> <span class='soft side'>{escape(side)}</span>"
        f"<div class=bar><i style='width:{100 * probability:.2f}%'></i>{line}</div>"
    )


def _answers(told: Told | None) -> str:
    """What is told besides: a class, a grade, and values of secondary findings."""
    if told is None:
        return ""
    shown = [
        escape(told.words(name) if name == QUESTION else f"{say(named(name))}: {told.words(name)}")
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
    others = say_many("and {n} more", "and {n} more", more)
    return "".join(parts) + (f"<span class=soft>{escape(others)}</span>" if more > 0 else "")


def _size(scored: ScoredImage) -> str:
    """Several planes or outlines need more space."""
    return " class=large" if scored.image.scan is not None or scored.outline is not None else ""


def _without(image: LocalImage) -> str:
    return escape(say(", read without {sequences}", sequences=", ".join(image.without))) if image.without else ""


def _left_out(model: CheckedModel, left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ""
    counts = Counter(image.reason for image in left_out)
    reasons = "".join(
        f"<dt>{number} &times; {escape(reason)}</dt><dd>{escape(remedy_of(model.task, reason))}</dd>"
        for reason, number in counts.most_common()
    )
    rows = "".join(
        f"<tr><td>{escape(one.patient or say('unknown'))}</td><td>{escape(one.path.name)}</td>"
        f"<td>{escape(one.reason)}</td>"
        for one in left_out[:_MOST_LEFT_OUT]
    )
    heading = say("Not used") if model.task.sequences else say("Not scored")
    head = "".join(f"<th>{escape(name)}</th>" for name in (say("Patient"), say("File"), say("Reason")))
    return (
        f"<h2>{escape(heading)}</h2><dl>{reasons}</dl><table class=list><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>{_more(len(left_out) - _MOST_LEFT_OUT)}"
    )


def _date(day: str) -> str:
    """A date of DICOM, for a reader; as it is where it is none."""
    try:
        return written(datetime.strptime(day, "%Y%m%d"))
    except ValueError:
        return day
