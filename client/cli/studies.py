"""Studies: review in plain words, approve, revoke.

Tested in ``tests/client/cli/test_main.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from client import policy
from client.cli.output import (
    HERE,
    REFUSED,
    AsJson,
    By,
    SiteFile,
    amount,
    answer,
    fail,
    opened,
    plain,
    short,
    table,
    who,
)
from client.errors import NotApproved, SiteMisconfigured
from client.ledger.records import Records
from client.oversight import approvals as decided
from client.oversight import surveys
from client.oversight.approvals import MOST_BYTES, Decision
from client.oversight.explain import words
from client.oversight.review import Cost, Review, examine, require_informative
from client.oversight.surveys import SurveyReview
from client.policy import PART_WORDS
from client.site import SiteSettings
from tasks import faults
from tasks import task as tasks
from tasks.machine.language import later, number, say
from tasks.machine.language import moment as when
from tasks.metrics.interval import Interval
from tasks.protocol import documents
from tasks.protocol.documents import Document
from tasks.protocol.received import Unusable, text_in
from tasks.protocol.study import BadDocument
from tasks.protocol.survey import SurveyDocument

StudyDigest = Annotated[
    str, typer.Argument(metavar="DIGEST", help="The study's digest, or its first 8 digits or more.")
]


def review(
    study: Annotated[
        str, typer.Argument(metavar="[FILE|DIGEST]", help="A study document, - for standard input, or a digest.")
    ] = "",
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Explain in plain words what a study or survey does, what leaves and what it costs. Alone: list pending ones.

    A reviewed file is kept as pending, so that it can be approved by its digest. Exit code 1 when the policy refuses
    any part of it.
    """
    with opened(site, as_json) as (settings, records):
        if not study:
            _list_waiting(settings, records, as_json)
            return
        reviewed = _examined(_document(study, settings, records), settings, records)
        decision = decided.decisions(records.audit_log, settings).get(reviewed.digest)
        if decision is None and not decided.keep(reviewed.document, settings):
            raise SiteMisconfigured(f"the study document has more than {MOST_BYTES} bytes, too many to review")
        said = surveys.words(reviewed) if isinstance(reviewed, SurveyReview) else words(reviewed)
        lines = [*said.items(), (say("Decision"), _to_decide(reviewed, decision, settings.policy.approvers))]
    state = _state(decision)
    shown = [part for heading, sentences in lines for part in _section(heading, sentences)]
    facts = plain(reviewed) | {"state": state, "words": dict(lines)}
    answer(as_json, facts, *shown)
    if any(reviewed.refused.values()):
        fail(REFUSED)


def _examined(document: Document, settings: SiteSettings, records: Records) -> Review | SurveyReview:
    if isinstance(document, SurveyDocument):
        return surveys.examine(document, settings, records.ledger)
    return examine(document, settings, records.ledger)


def _document(study: str, settings: SiteSettings, records: Records) -> Document:
    """The document in a file, or the one whose digest starts with these digits."""
    if study == "-" or os.path.lexists(study):
        try:
            return documents.read(sys.stdin.read() if study == "-" else text_in(Path(study), "a document", MOST_BYTES))
        except (UnicodeDecodeError, BadDocument, Unusable) as error:
            raise SiteMisconfigured(
                f"{study}: {error}; a study's document is the file that the coordinator sent you"
            ) from None
    if not decided.is_digest(study):
        raise SiteMisconfigured(
            f"{study}: there is no such file; name the file that the coordinator sent you, or a digest that "
            "consilium-site review lists"
        )
    known = _known(settings, records)
    return _readable(known[decided.one_of(study, known)])


def _known(settings: SiteSettings, records: Records) -> dict[str, str]:
    """Text of every pending or decided study, by digest."""
    old = {digest: decision.document for digest, decision in decided.decisions(records.audit_log, settings).items()}
    return old | decided.waiting(settings)


def _readable(text: str) -> Document:
    try:
        return documents.read(text)
    except BadDocument as error:
        raise NotApproved(f"the study was written for another release of Consilium: {error}") from None


def _list_waiting(settings: SiteSettings, records: Records, as_json: bool) -> None:
    rows, facts, known = [], [], decided.decisions(records.audit_log, settings)
    for digest, text in decided.waiting(settings).items():
        study, decision = _readable(text), known.get(digest)
        refused = [*policy.other_release(study), *_objections(study, settings)]
        approved_by = _approved_by(decision)
        rows.append(
            (short(digest), study.name, study.task, _epsilons(study), say("refuses") if refused else say("permits"))
            + ((", ".join(approved_by) or say("nobody"),) if settings.policy.approvers > 1 else ())
        )
        facts.append(
            {"digest": digest, "study": study.name, "task": study.task, "refused": refused, "approved_by": approved_by}
            | {"approvers": settings.policy.approvers}
        )
    columns = [say("digest"), say("study"), say("task"), say("epsilon"), say("policy")]
    whole = (columns[0], *columns[3:])
    columns += [say("approved by")] if settings.policy.approvers > 1 else []
    title = say("Studies and surveys pending a decision (epsilon of training / of scores, or of a survey)")
    answer(as_json, facts, table(title, columns, rows, whole=whole) if rows else say("No study is pending."))


def _approved_by(decision: Decision | None) -> list[str]:
    return [] if decision is None else [signature.by for signature in decision.signatures]


def _objections(document: Document, settings: SiteSettings) -> list[str]:
    if isinstance(document, SurveyDocument):
        return policy.objections_to_survey(document, settings)
    return [reason for part in policy.PARTS for reason in policy.objections(document, part, settings)]


def _epsilons(document: Document) -> str:
    if isinstance(document, SurveyDocument):
        return amount(document.epsilon)
    return f"{amount(document.privacy.epsilon)} / {amount(document.evaluation.epsilon)}"


def _section(heading: str, sentences: list[str]) -> list[Text | Padding]:
    lines = [Padding(Text(_printable(line)), (0, 0, 0, 2)) for line in sentences]
    return [Text(heading, style="bold"), *lines, Text()]


def _printable(line: str) -> str:
    """A document may hold anything; a terminal must not obey it."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def _to_decide(reviewed: Review | SurveyReview, decision: Decision | None, approvers: int) -> list[str]:
    survey, state = isinstance(reviewed, SurveyReview), _state(decision)
    is_so = (
        say("This survey is {state}.", state=say(state)) if survey else say("This study is {state}.", state=say(state))
    )
    lines = [say("Digest: {digest}", digest=reviewed.digest), is_so]
    if decision is not None:
        lines += [say("Approved by {who} on {at} UTC.", who=s.by, at=when(s.at)) for s in decision.signatures]
    if state != "approved":
        waits = say("{n} people must approve (policy.approvers).", n=approvers) if approvers > 1 else ""
        waits = f"{decision.waits_for()}." if decision is not None and decision.signatures else waits
        lines += [waits] if waits else []
        lines.append(say("To approve it: {command}", command=_command(reviewed.digest, approvers)))
    if any(reviewed.refused.values()):
        lines.append(
            say("What the policy refuses stays refused even if the survey is approved.")
            if survey
            else say("What the policy refuses stays refused even if the study is approved.")
        )
    return lines


def _command(digest: str, approvers: int) -> str:
    return f"consilium-site approve {short(digest)}" + (" --by NAME" if approvers > 1 else "")


def _state(decision: Decision | None) -> str:
    return decided.NOT_APPROVED if decision is None else decision.state


def _own_name(by: str, approvers: int) -> str:
    """The name of who approves. Where several people must, a login name is not taken for one: they may share it.

    Raises:
        SiteMisconfigured: nobody was named.
    """
    if approvers > 1 and not by.strip():
        raise SiteMisconfigured(f"{approvers} people must approve (policy.approvers): add --by with your own name")
    return who(by)


def approve(
    digest: StudyDigest,
    uninformative: Annotated[
        bool,
        typer.Option("--uninformative", help="Approve it although its figures will say nothing about this hospital."),
    ] = False,
    site: SiteFile = HERE,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Approve a reviewed study or survey: from now on its orders are answered, within the policy and the budget.

    The hospital must have ingested enough patients to take part. With policy.approvers: 2 another person must approve
    as well. Exit code 1 when you have approved it before.
    """
    from client.cohort.enough import require_enough  # takes seconds to import

    with opened(site, as_json) as (settings, records):
        known = _known(settings, records)
        document = _readable(known[decided.one_of(digest, known)])
        name = _own_name(by, settings.policy.approvers)
        if document.task in tasks.names():
            require_enough(settings, tasks.get(document.task))
        reviewed = _examined(document, settings, records)
        if isinstance(reviewed, Review) and not uninformative:
            require_informative(reviewed)
        decided.approve(document, name, records.audit_log, settings)
        decision = decided.decisions(records.audit_log, settings)[documents.digest(document)]
        refused = reviewed.refused
        lines = [_told(decision), *_still_refused(refused)]
        lines += [squeeze for cost in reviewed.costs for squeeze in _squeeze(cost)]
    answer(as_json, _facts(decision) | {"refused": refused}, *(Text(_printable(line)) for line in lines))


def _still_refused(refused: Mapping[Any, Sequence[str]]) -> Iterator[str]:
    for part, reasons in refused.items():
        name = say(PART_WORDS[part]) if part in PART_WORDS else say(part)
        yield from (say("The policy still refuses ({part}): {why}.", part=name, why=why) for why in reasons)


def _told(decision: Decision) -> str:
    said = {"study": decision.study, "digest": short(decision.digest)}
    names = ", ".join(_approved_by(decision)) or decision.by
    if decision.approved:
        return say("Approved {study} ({digest}), by {names}.", names=names, **said)
    return say(
        "{study} ({digest}) has the approval of {names}, {number} of {needed}. It is not approved yet: {waits}.",
        names=names,
        number=len(decision.signatures),
        needed=decision.needed,
        waits=decision.waits_for(),
        **said,
    )


def _squeeze(cost: Cost) -> Iterator[str]:
    """A warning when the study gets more noise than its epsilon would need, because too little budget is left."""
    if cost.squeezed and cost.plan is not None and cost.alone is not None:
        get, want = cost.plan[-1].noise_multiplier, cost.alone[-1].noise_multiplier
        yield say(
            "Little of the {cohort} patients' lifetime budget is left: at present the study would get noise of {get}, "
            "where its epsilon of {epsilon} would only need {want}.",
            cohort=cost.cohort,
            get=number(get, ".2f"),
            epsilon=number(cost.granted or 0.0),
            want=number(want, ".2f"),
        )


def revoke(digest: StudyDigest, site: SiteFile = HERE, by: By = "", as_json: AsJson = False) -> None:
    """Revoke all approvals of a study: its next order is refused, and everybody must approve anew.

    What was spent stays spent; what the study had set aside for further rounds is freed.
    """
    with opened(site, as_json) as (settings, records):
        known = decided.decisions(records.audit_log, settings)
        freed = decided.revoke(known[decided.one_of(digest, known)], who(by), records, settings)
        decision = decided.decisions(records.audit_log, settings)[decided.one_of(digest, known)]
        told = say(
            "Revoked {study} ({digest}), by {who}.",
            study=decision.study,
            digest=short(decision.digest),
            who=decision.by,
        )
        aside = later("The epsilon it had set aside for the {cohort} patients is freed.")
        lines = [told, *(say(aside, cohort=mark.cohort) for mark in freed)]
    answer(as_json, _facts(decision) | {"freed": [mark.cohort for mark in freed]}, *map(Text, lines))


def approvals(site: SiteFile = HERE, as_json: AsJson = False) -> None:
    """List approved and revoked studies, and who decided."""
    with opened(site, as_json) as (settings, records):
        known = list(decided.decisions(records.audit_log, settings).values())
        rows = [
            (short(d.digest), d.study, say(_state(d)), ", ".join(_approved_by(d)) or d.by, when(d.at)) for d in known
        ]
        columns = (say("digest"), say("study"), say("state"), say("by"), say("at (UTC)"))
        shown = table(say("Decisions"), columns, rows, whole=(columns[0], columns[-1]))
        nothing = say("No study has been decided on yet.")
    answer(as_json, [_facts(decision) for decision in known], shown if rows else nothing)


def _facts(decision: Decision) -> dict[str, object]:
    return {
        "digest": decision.digest,
        "study": decision.study,
        "state": _state(decision),
        "by": decision.by,
        "at": decision.at,
        "approved_by": decision.signatures,
        "approvers": decision.needed,
        "waits_for": decision.waits_for(),
        "automatic": decision.automatic,
    }


def compare(
    study: Annotated[str, typer.Argument(metavar="FILE|DIGEST", help="The study's document, or its digest.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The study's model: a safetensors file.")],
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Compare a study's model with one trained on this hospital's patients only. Nothing leaves."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from client.training.compare import with_own

    with opened(site) as (settings, records):
        document = _document(study, settings, records)
    if isinstance(document, SurveyDocument):
        raise SiteMisconfigured(f"{study} is a survey, which has no model to compare: name a study")
    try:
        weights = load_file(model)
    except OSError as error:
        raise SiteMisconfigured(f"cannot read the model {model}: {faults.of_system(error)}") from None
    except SafetensorError as error:
        raise SiteMisconfigured(
            f"{model} is no study's model ({error}): name the safetensors file that you were given, as it was sent"
        ) from None
    comparison = with_own(settings, document, weights)
    rows = [
        (f"trained by {document.name}", _figure(comparison.federated)),
        ("trained here alone, without noise", _figure(comparison.own)),
        ("difference, on the same patients", _figure(comparison.gain)),
    ]
    conclusion = "The scored patients are all of one class: no comparison is possible."
    if comparison.gain is not None:
        low, high = comparison.gain.low, comparison.gain.high
        verdict = "helps" if low > 0 else "harms" if high < 0 else ""
        conclusion = (
            f"Federation {verdict} here." if verdict else "No evidence either way on whether federation helps here."
        )
    head = f"AUC on {comparison.scored} validation patients, trained on {comparison.trained_on}"
    note = Text(f"{conclusion} Exact figures, for this hospital only; they are not stored.")
    answer(as_json, comparison, table(head, ("model", "95 % interval"), rows), note)


def _figure(interval: Interval | None) -> str:
    return "none" if interval is None else f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
