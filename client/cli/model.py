"""Run a study's model on the hospital's own images, for hospital staff.

Tested in ``tests/client/prediction/test_predict.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from client.cli.output import HERE, REFUSED, AsJson, SiteFile, answer, fail, language_of, progress, short, table
from client.cohort.remedies import remedy_of
from client.ledger.audit_log import AuditLog, Fact, Kind
from client.site import SiteSettings, load, secret
from tasks.machine.language import joined, say, say_many, spoken
from tasks.machine.language import number as decimal

if TYPE_CHECKING:
    from client.prediction.model import CheckedModel
    from client.prediction.outcome import Written
    from client.prediction.predict import Predictions, ScoredPatient
    from client.prediction.store import Delivery

_MOST_ROWS = 30
StoreTo = Annotated[str, typer.Option("--store-to", metavar="AET@HOST:PORT", help="Send them to this archive.")]
Unchecked = Annotated[
    bool, typer.Option("--unchecked", help="With --store-to: also where the peer does not know the examinations.")
]
Tls = Annotated[bool, typer.Option("--tls", help="With --store-to: encrypt, and check the certificate.")]
Authority = Annotated[
    Path | None, typer.Option("--authority", metavar="FILE", help="With --tls: authority of its certificate, PEM.")
]
OwnCertificate = Annotated[
    Path | None, typer.Option("--certificate", metavar="FILE", help="With --tls: our certificate, PEM.")
]
OwnKey = Annotated[Path | None, typer.Option("--certificate-key", metavar="FILE", help="Its private key, mode 0600.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="With --store-to: unencrypted to another machine.")]


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model file you were given, or its folder.")],
    sha256: Annotated[str, typer.Option("--sha256", metavar="DIGEST", help="Digest you were given for that file.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new folder for the output.")],
    path: Annotated[
        Path | None,
        typer.Option("--path", metavar="FOLDER", help="Folder of DICOM images or scans. Default: the catalog."),
    ] = None,
    organ: Annotated[str, typer.Option("--organ", help="Organ in all images of --path whose headers lack it.")] = "",
    store: Annotated[bool, typer.Option("--store", help="Send reports and outlines to the task's archive.")] = False,
    store_to: StoreTo = "",
    unchecked: Unchecked = False,
    tls: Tls = False,
    authority: Authority = None,
    certificate: OwnCertificate = None,
    certificate_key: OwnKey = None,
    insecure: Insecure = False,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Run a study's model on images of this hospital. Not for clinical use.

    Writes a DICOM structured report for each examination, segmentations if the model outlines, a list for the reading
    room, and a table. Nothing leaves the hospital and nothing is charged; the audit log records the run. Before an
    examination's objects are stored, the archive is asked for it: if patient or images are not as they were scored,
    nothing is stored for it, and the reason is shown. What the archive has already is not stored again. Exit code 1
    when something could not be reported or stored.
    """
    from client.prediction import destination, outcome, workitems, worklist
    from client.prediction import predict as predicting
    from client.prediction import store as storing
    from client.prediction.model import moved, open_model
    from tasks.machine.device import placement

    settings = load(site)
    opened = moved(open_model(model, sha256, settings.policy.models), placement(settings.trainer.device))
    way = destination.DimseTransport(tls, insecure, authority, certificate, certificate_key)
    sent = store or store_to or way != destination.DimseTransport()
    target = destination.target_of(settings, opened.task, store_to, way) if sent else None
    folder = outcome.new_folder(out)
    with progress(as_json) as update:
        if path is None:
            work = worklist.of_catalog(settings, opened.task, update)
        else:
            work = worklist.of_folder(settings, opened.task, path, organ, update)
        predictions = predicting.predict(opened, work, update)
        key, lang = secret(settings), settings.lang
        written = outcome.write(folder, settings.name, opened, predictions, update, key=key, language=lang)
        delivery, files = storing.Delivery(), [*written.reports, *written.outlines]
        asked = destination.origins(settings, opened.task) if path is None else []
        try:
            if target is not None:
                send = partial(storing.store, settings, target, files, progress=update, into=delivery)
                send(asked=asked, unchecked=unchecked, priorities=workitems.priorities(opened, predictions))
        finally:
            _note(settings, opened, predictions, written, delivery)
    facts = _facts(opened, predictions, written, delivery, out)
    answer(as_json, facts, *_said(settings, as_json, _shown(opened, predictions, written, delivery, out)))
    if written.refused or delivery.withheld or delivery.uncommitted:
        fail(REFUSED)


def conformance() -> None:
    """Show the DICOM conformance statement, for the archive's administrator."""
    from client.prediction.conformance import statement

    typer.echo(statement(), nl=False)


def _said(settings: SiteSettings, as_json: bool, shown: Iterator[RenderableType]) -> list[RenderableType]:
    """What is shown, in the hospital's language: it is put into words here, one part after the other."""
    with spoken(language_of(settings, as_json)):
        return list(shown)


def _note(
    settings: SiteSettings, model: CheckedModel, predictions: Predictions, written: Written, delivery: Delivery
) -> None:
    facts: dict[str, Fact] = {
        "study": model.head.study,
        "task": model.task.name,
        "model": model.sha256,
        "patients": len(predictions.patients),
        "images": predictions.images,
        "left_out": len(predictions.left_out),
        "reports": len(written.reports),
        "outlines": len(written.outlines),
        "stored": delivery.stored,
        "already_stored": delivery.present,
        "withheld": len(delivery.withheld),
        "not_committed": sum(len(one.files) for one in delivery.uncommitted),
        "workitems": delivery.workitems,
    }
    with AuditLog.open(settings.audit_log, secret(settings)) as audit_log:
        audit_log.append_event(Kind.PREDICTION, facts)


def _facts(
    model: CheckedModel, predictions: Predictions, written: Written, delivery: Delivery, out: Path
) -> dict[str, object]:
    return {
        "use": "not for clinical use",
        "model": asdict(model.head) | {"sha256": model.sha256},
        "patients": [
            {
                "patient": patient.patient,
                "probability": model.probability(patient.score),
                "score": patient.score,
                "images": len(patient.images),
            }
            | ({} if patient.told is None else {"told": {q: patient.told.cell(q) for q in patient.told.answers}})
            for patient in predictions.patients
        ],
        "left_out": Counter(one.reason for one in predictions.left_out),
        "reports": len(written.reports),
        "outlines": len(written.outlines),
        "reports_refused": written.refused,
        "stored": delivery.stored,
        "already_stored": delivery.present,
        "withheld": delivery.withheld,
        "not_committed": delivery.uncommitted,
        "workitems": delivery.workitems,
        "out": out,
    }


def _shown(
    model: CheckedModel, predictions: Predictions, written: Written, delivery: Delivery, out: Path
) -> Iterator[RenderableType]:
    from client.prediction.told import measures, named, questions
    from client.prediction.triage import noun, remarks

    yield Text(say("NOT FOR CLINICAL USE. Output of a research model."), style="bold red")
    rows = [_row(model, rank, patient) for rank, patient in enumerate(predictions.patients[:_MOST_ROWS], start=1)]
    score = say("score") if measures(model.task) else f"{say(model.task.classes[1].replace('_', ' '))} %"
    answers = [say(named(name)) for name in questions(model.task)]
    columns = ("", say("patient"), noun(model.task), score, "", *answers, say("contract warnings"))
    yield table(say(model.task.question), columns, rows, numbers=columns[2:4], whole=("",))
    if len(predictions.patients) > _MOST_ROWS:
        more = len(predictions.patients) - _MOST_ROWS
        yield Text(say_many("{n} more patient.", "{n} more patients.", more))
    if predictions.left_out:
        counts = Counter(one.reason for one in predictions.left_out).most_common()
        reasons = [(reason, number, remedy_of(model.task, reason)) for reason, number in counts]
        title = say("Not used") if model.task.sequences else say("Not scored")
        columns = (say("reason"), say("number"), say("what to do"))
        yield table(title, columns, reasons, numbers=columns[1:2])
    for remark in remarks(model, predictions):
        yield Text(say("Note: {remark}", remark=remark))
    for kind, number in written.refused.items():
        yield Text(
            say(
                "{number} reports or outlines could not be written ({kind}): a header has invalid values, or an image "
                "can no longer be read.",
                number=number,
                kind=kind,
            )
        )
    if delivery.withheld:
        rows = [(_printable(one.patient), ", ".join(one.files), one.why) for one in delivery.withheld]
        yield table(say("NOT written to the archive"), (say("patient"), say("files"), say("why, and what to do")), rows)
    if delivery.uncommitted:
        rows = [(_printable(one.patient), ", ".join(one.files), one.why) for one in delivery.uncommitted]
        title = say("Stored, and NOT committed by the archive")
        yield table(title, (say("patient"), say("files"), say("why")), rows)
    if delivery.workitems:
        yield Text(say("{number} workitems were entered into the archive's worklist.", number=delivery.workitems))
    if delivery.stored or delivery.present:
        yield Text(say("{number} objects were written to the archive.", number=delivery.stored))
    if delivery.present:
        yield Text(say("{number} it had already, from an earlier run.", number=delivery.present))
    yield Text(say("Model {study}, SHA-256 {digest}.", study=model.head.study, digest=short(model.sha256)))
    reports = say_many("{n} report", "{n} reports", len(written.reports))
    if written.outlines:
        outlines = say_many("{n} segmentation", "{n} segmentations", len(written.outlines))
        reports = joined([reports, outlines])
    yield Text(
        say("In {folder}: {files}. They identify patients and must not leave the hospital.", files=reports, folder=out)
    )


def _row(model: CheckedModel, rank: int, patient: ScoredPatient) -> tuple[object, ...]:
    from client.prediction.predict import called

    side = {None: "", True: say("at or above threshold"), False: say("below")}[called(model, patient.score)]
    warned = ", ".join(patient.warned)
    return (
        rank,
        _printable(patient.patient),
        len(patient.images),
        decimal(100 * model.probability(patient.score), ".1f"),
        side,
        *([] if patient.told is None else map(patient.told.words, patient.told.answers)),
        warned,
    )


def _printable(name: str) -> str:
    """Without commands to terminals."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
