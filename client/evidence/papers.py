"""The papers of a hospital: for an impact assessment, for the record of processing, and on what leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from client.evidence.attack_risk import attack_risk, odds, patients
from client.evidence.installation import Installation, day, readable
from client.ledger.audit_log import Kind, Receipt
from client.oversight.approvals import Decision
from client.site import delta_cap
from tasks import task as tasks
from tasks.machine.evidence import Pack, Paper, Section, Sentence, missing, said
from tasks.machine.language import later, number, say, say_many
from tasks.protocol.study import StudyDocument
from tasks.protocol.survey import table_name

KEEP = later(
    "It has figures of this hospital, names of its staff and paths of its machines: it stays in the hospital, and is "
    "no message of a study. No patient, no image and no number of patients is in it."
)


def pack(found: Installation) -> Pack:
    """All papers of a hospital, with their sources, in the language spoken."""
    papers = [impact_assessment(found), record_of_processing(found), what_leaves(found), attack_risk(found)]
    return Pack(say("Hospital {name}", name=found.settings.name), say(KEEP), papers, found.sources())


def impact_assessment(found: Installation) -> Paper:
    """Inputs for GDPR article 35(7), by its letters."""
    return Paper(
        "impact-assessment",
        say("Inputs for a data protection impact assessment"),
        say("GDPR article 35(7), by its letters (a) to (d). The assessment itself is the controller's, with the advice "
            "of the data protection officer (article 35(2))."),
        [
            Section(say("(a) The processing and its purposes"), list(_processing(found))),
            Section(say("(b) Necessity and proportionality"), list(_necessity(found))),
            Section(say("(c) Risks for patients"), list(_risks(found))),
            Section(say("(d) Measures, safeguards and security"), list(_measures(found))),
            Section(say("For people to add"), list(_for_people())),
        ],
    )  # fmt: skip


def record_of_processing(found: Installation) -> Paper:
    """Inputs for GDPR article 30(1), by its letters."""
    name = found.settings.name
    return Paper(
        "record-of-processing",
        say("Inputs for the record of processing activities"),
        say("GDPR article 30(1), by its letters (a) to (g)."),
        [
            Section(say("(a) Controller"), [
                said(say("The hospital is known as {name} in studies.", name=name), found.setting("name")),
                missing(say("name and contact of the controller, joint controllers, and the data protection officer; "
                            "whether the hospitals of a study and the coordinator are joint controllers (article "
                            "26).")),
            ]),
            Section(say("(b) Purposes"), list(_purposes(found))),
            Section(say("(c) People and data"), list(_people_and_data(found))),
            Section(say("(d) Recipients"), list(_recipients(found))),
            Section(say("(e) Third countries"), [
                missing(say("whether the server, the other hospitals, or whoever reads the study's results is in a "
                            "third country, and on which basis what leaves is transferred there.")),
            ]),
            Section(say("(f) Erasure"), list(_erasure(found))),
            Section(say("(g) Security"), list(_measures(found))),
        ],
    )  # fmt: skip


def what_leaves(found: Installation) -> Paper:
    """A statement on export and its controls, as SATRE 3.3.07 asks a research environment for."""
    return Paper(
        "what-leaves",
        say("What leaves, and under which control"),
        say("A statement for SATRE v2.0.1, component 3.3.07, as we read it: a policy on exporting model weights, and "
            "the technical controls before anything leaves. Compare it with the text of the component."),
        [
            Section(say("Policy"), list(_policy(found))),
            Section(say("Controls before anything leaves"), list(_controls(found))),
            Section(say("What has left"), list(_left(found))),
            Section(say("For people to add"), [
                missing(say("who reviews this statement and how often; which agreement binds the coordinator and the "
                            "other hospitals in what they do with the model.")),
            ]),
        ],
    )  # fmt: skip


def _processing(found: Installation) -> Iterator[Sentence]:
    yield from _purposes(found)
    yield from _people_and_data(found)
    yield found.checked(
        say("Images are read where they are and are not copied to anybody: training runs on this hospital's machine."),
        "Images of source",
    )
    yield from _recipients(found)


def _purposes(found: Installation) -> Iterator[Sentence]:
    decided = [one for one in found.books.decisions if one.signatures or one.automatic]
    if not decided:
        yield missing(say("no study has been approved here, so there is no purpose yet."))
    for one in decided:
        yield from _purpose(found, one)


def _purpose(found: Installation, one: Decision) -> Iterator[Sentence]:
    document = readable(one)
    if document is None:
        yield missing(
            say("what {study} asks: its document was written for another release (audit --study {study}).",
                study=one.study)
        )  # fmt: skip
        return
    if isinstance(document, StudyDocument):
        known = document.task in tasks.names()
        question = say(tasks.get(document.task).question) if known else say("task {task}", task=document.task)
        asks = say('Study {study} asks: "{question}"', study=one.study, question=question)
    else:
        tables = ", ".join(map(table_name, document.tables))
        asks = say("Survey {survey} counts patients by {tables}.", survey=one.study, tables=tables)
    yield said(asks, found.line(one, "task"))
    who = ", ".join(say("{name} on {day}", name=s.by, day=day(s.at)) for s in one.signatures)
    events = [e for e in found.books.events if e.facts.get("digest") == one.digest and e.kind == Kind.APPROVAL]
    yield said(
        say("{study} is {state}. Approved by {who}.", study=one.study, state=say(one.state),
            who=who or say("nobody: a simulated hospital by itself")),
        *(found.event(event) for event in events))  # fmt: skip


def _people_and_data(found: Installation) -> Iterator[Sentence]:
    for place, source in enumerate(found.settings.sources):
        yield said(
            say("Patients with images of task {task} in source {number} ({kind}), numbered by {issuer}: health data, a "
                "special category (article 9).",
                task=source.task, number=place + 1, kind=source.kind, issuer=source.issuer),
            found.setting(f"sources.{place}"), found.setting("policy.tasks"))  # fmt: skip
    yield found.checked(
        say("Patients are told apart by keyed hashes of their numbers; the key does not leave this machine."),
        "Nobody but its owner reads the hospital's key",
    )
    yield missing(
        say("how many patients, from which years, and children among them: consilium-site describe tells the exact "
            "numbers, for this hospital only.")
    )  # fmt: skip


def _recipients(found: Installation) -> Iterator[Sentence]:
    server = found.settings.server
    if server is None:
        yield missing(say("the server: site.yaml names none yet."))
    else:
        yield said(
            say("What leaves goes to the coordinator's server at {server}.", server=server), found.setting("server")
        )
    yield found.checked(
        say("The connection is encrypted, and the server proves who it is."), "The server is authenticated"
    )
    asked = dict.fromkeys(
        document.asked_by for one in found.books.decisions
        if isinstance(document := readable(one), StudyDocument) and document.asked_by
    )  # fmt: skip
    for name in asked:
        one = next(d for d in found.books.decisions if getattr(readable(d), "asked_by", "") == name)
        yield said(say("{name} asks for studies, by the coordinator's word.", name=name), found.line(one, "asked_by"))
    yield missing(
        say("who else receives the model and the figures after the coordinator has them: ask the coordinator.")
    )


def _necessity(found: Installation) -> Iterator[Sentence]:
    yield found.checked(
        say("No image, no report and no row of a table leaves; what is exchanged are numbers of a model and "
            "histograms, with noise added here."),
        "No score and no update leaves without noise", "Every message that left")  # fmt: skip
    yield said(
        say("A study may use images of the tasks {tasks} and nothing else.",
            tasks=", ".join(found.settings.policy.tasks)),
        found.setting("policy.tasks"))  # fmt: skip
    yield missing(
        say("why these studies need these patients and cannot do with fewer data, or without: the purpose is in each "
            "study's protocol.")
    )  # fmt: skip
    yield missing(say("the legal basis (articles 6 and 9), and consent or the law in its place."))


def _risks(found: Installation) -> Iterator[Sentence]:
    delta = delta_cap(found.settings)
    for spent in found.books.cohorts:
        one = spent.budget
        rows = [found.row(e) for e in found.books.entries if e.use.cohort == one.cohort]
        yield said(
            say("{patients}: that somebody infers from what left that one of them took part. Epsilon {epsilon} so "
                "far, {with_set_aside} with what is set aside, of {cap} for life, at delta {delta}; the odds change by "
                "a factor of at most {odds} so far. Paper attack-risk has this as the chance of a right guess.",
                patients=patients(one.cohort), epsilon=number(one.epsilon, ".3f"),
                with_set_aside=number(one.with_set_aside, ".3f"), cap=number(one.cap), delta=number(delta),
                odds=odds(one.epsilon)),
            *(rows[-2:] or [found.setting("policy.max_epsilon_life")]))  # fmt: skip
    if not found.books.cohorts:
        yield said(say("Nothing has been spent so far."), found.setting("policy.max_epsilon_life"))
    lost = [e for e in found.books.entries if e.committed is None]
    if lost:
        yield said(
            say_many("{n} order was charged and never answered.", "{n} orders were charged and never answered.",
                     len(lost)),
            *(found.row(e) for e in lost[-5:]))  # fmt: skip
    yield missing(
        say("risks that are not of this software: wrong labels, bias of the model for groups of patients, its use for "
            "care (which the software marks as not permitted).")
    )  # fmt: skip


def _measures(found: Installation) -> Iterator[Sentence]:
    people = found.settings.policy.approvers
    yield from (
        found.checked(
            say_many("A study runs only after {n} person here has approved this very document.",
                     "A study runs only after {n} different people here have approved this very document.", people),
            "Only studies approved by a person", f"{people} different people approve"),
        found.checked(say("One command stops everything at once."), "One command stops"),
        found.checked(say("Every message that left has a receipt, and the books show tampering."),
                      "Every message that left"),
        found.checked(say("What may be lost of a patient's privacy is capped, for a study and for life."),
                      "A patient's privacy loss"),
        found.checked(say("Secrets are readable by their owner only."), "Nobody but its owner"),
        found.checked(say("The programs run without root's rights and listen nowhere else."), "The gateway is not root",
                      "The trainer is not root", "The gateway listens", "The trainer listens"),
        found.checked(say("Traffic is encrypted, and one authority is trusted."), "The server is authenticated",
                      "Only one certificate"),
        found.checked(say("Images cannot be changed by these programs."), "Images of source"),
        found.checked(say("The software is a release, and calls nobody."), "The running code is a release",
                      "Nothing in the"),
        missing(say("encryption of disks and backups, physical access, and who has an account on this machine: no "
                    "program can tell this from inside.")),
    )  # fmt: skip


def _erasure(found: Installation) -> Iterator[Sentence]:
    yield found.checked(say("Patients who withdraw are left out from the next round on."), "Patients who withdraw")
    withdrawn = [e for e in found.books.events if e.kind == Kind.WITHDRAWAL]
    if withdrawn:
        yield said(
            say_many("Withdrawals were honoured {n} time.", "Withdrawals were honoured {n} times.", len(withdrawn)),
            *(found.event(e) for e in withdrawn[-5:]))  # fmt: skip
    yield said(
        say("What a model learned before a withdrawal is not removed from it; what it can tell of that patient is "
            "bounded as the paper attack-risk says."),
        found.setting("policy.max_epsilon_life"))  # fmt: skip
    yield missing(
        say("time limits for prepared images (the folder catalog), ledger and audit log: nothing deletes them by "
            "itself.")
    )  # fmt: skip


def _for_people() -> Iterator[Sentence]:
    yield missing(say("the advice of the data protection officer (article 35(2))."))
    yield missing(say("the views of patients or of who represents them (article 35(9)), or why they were not sought."))
    yield missing(say("whether the authority must be consulted before (article 36)."))
    yield missing(say("when this is reviewed again (article 35(11))."))


def _policy(found: Installation) -> Iterator[Sentence]:
    policy = found.settings.policy
    yield said(
        say("Weights of models of these kinds may leave, with noise: {models}.", models=", ".join(policy.models)),
        found.setting("policy.models"))  # fmt: skip
    yield said(
        say("A patient may lose at most epsilon {study} in one study and {life} in all, at delta {delta}.",
            study=number(policy.max_epsilon_study), life=number(policy.max_epsilon_life),
            delta=number(delta_cap(found.settings))),
        found.setting("policy.max_epsilon_study"), found.setting("policy.max_epsilon_life"),
        found.setting("policy.max_delta"))  # fmt: skip
    yield said(
        say("Scores of validation patients leave as histograms: {scores}.", scores=policy.scores),
        found.setting("policy.scores"))  # fmt: skip
    surveys = ", ".join(policy.surveys) or say("nothing: surveys are refused")
    yield said(say("A survey may count patients by {surveys}.", surveys=surveys), found.setting("policy.surveys"))
    groups = ", ".join(policy.subgroups) or say("nothing")
    yield said(say("Scores may be grouped by {groups}.", groups=groups), found.setting("policy.subgroups"))
    yield said(
        say("At most {bytes} bytes of numbers leave in one message.", bytes=number(policy.max_upload_bytes, ",")),
        found.setting("policy.max_upload_bytes"))  # fmt: skip


def _controls(found: Installation) -> Iterator[Sentence]:
    yield from (
        found.checked(say("People approve first."), "Only studies approved by a person",
                      f"{found.settings.policy.approvers} different people"),
        found.checked(say("The caps are this hospital's; no message can raise them."), "A patient's privacy loss"),
        found.checked(say("Noise is added before anything leaves."), "No score and no update leaves without noise"),
        found.checked(say("The cost is in the ledger before training starts, the receipt before a reply is sent."),
                      "Every message that left has a receipt"),
        found.checked(say("Only the gateway has a connection outwards, and no data."), "The gateway c",
                      "The trainer connects"),
        found.checked(say("Everything can be stopped here, at once."), "One command stops"),
    )  # fmt: skip
    raised = [r for r in found.books.receipts if r.policy]
    policies = list(dict.fromkeys(r.policy for r in raised))
    if raised:
        yield said(
            say_many("What left did so under {n} version of the policy.",
                     "What left did so under {n} versions of the policy.", len(policies)),
            *(found.receipt(next(r for r in raised if r.policy == p)) for p in policies[-5:]))  # fmt: skip


def _left(found: Installation) -> Iterator[Sentence]:
    receipts = found.books.receipts
    if not receipts:
        yield found.checked(say("Nothing has left."), "Every message that left has a receipt")
        return
    for kind, times in sorted(Counter(receipt.message for receipt in receipts).items()):
        of_kind = [r for r in receipts if r.message == kind]
        yield said(
            say("{number} {kind}: {bytes} bytes, from {first} to {last}.", number=times, kind=kind,
                bytes=number(sum(r.bytes for r in of_kind), ","), first=day(of_kind[0].at), last=day(of_kind[-1].at)),
            found.receipt(of_kind[0]), found.receipt(of_kind[-1]))  # fmt: skip
    for study in found.books.studies:
        of_study = [r for r in receipts if r.study == study.study and _of(r, study.cohort)]
        entries = [e for e in found.books.entries if (e.use.study, e.use.cohort) == (study.study, study.cohort)]
        if entries:
            yield said(
                say("{patients}: {study} has spent epsilon {epsilon} of its {cap}, in {orders}.",
                    patients=patients(study.cohort), study=study.study, epsilon=number(study.epsilon, ".3f"),
                    cap=number(study.cap), orders=say_many("{n} order", "{n} orders", study.orders)),
                found.row(entries[0]), found.row(entries[-1]),
                *(found.receipt(r) for r in of_study[-1:]))  # fmt: skip


def _of(receipt: Receipt, cohort: str) -> bool:
    return receipt.cohort is not None and cohort in receipt.cohort.split("+")
