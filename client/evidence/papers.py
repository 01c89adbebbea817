"""The papers of a hospital: for an impact assessment, for the record of processing, and on what leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from client.evidence.attack_risk import attack_risk, odds
from client.evidence.installation import Installation, day, readable
from client.ledger.audit_log import Kind, Receipt
from client.oversight.approvals import Decision
from client.site import delta_cap
from tasks import task as tasks
from tasks.machine.evidence import Pack, Paper, Section, Sentence, missing, said
from tasks.protocol.study import StudyDocument
from tasks.protocol.survey import table_name

KEEP = (
    "It has figures of this hospital, names of its staff and paths of its machines: it stays in the hospital, and is "
    "no message of a study. No patient, no image and no number of patients is in it."
)


def pack(found: Installation) -> Pack:
    """All papers of a hospital, with their sources."""
    papers = [impact_assessment(found), record_of_processing(found), what_leaves(found), attack_risk(found)]
    return Pack(f"Hospital {found.settings.name}", KEEP, papers, found.sources())


def impact_assessment(found: Installation) -> Paper:
    """Inputs for GDPR article 35(7), by its letters."""
    return Paper(
        "impact-assessment",
        "Inputs for a data protection impact assessment",
        "GDPR article 35(7), by its letters (a) to (d). The assessment itself is the controller's, with the advice "
        "of the "
        "data protection officer (article 35(2)).",
        [
            Section("(a) The processing and its purposes", list(_processing(found))),
            Section("(b) Necessity and proportionality", list(_necessity(found))),
            Section("(c) Risks for patients", list(_risks(found))),
            Section("(d) Measures, safeguards and security", list(_measures(found))),
            Section("For people to add", list(_for_people())),
        ],
    )


def record_of_processing(found: Installation) -> Paper:
    """Inputs for GDPR article 30(1), by its letters."""
    s = found.settings
    return Paper(
        "record-of-processing",
        "Inputs for the record of processing activities",
        "GDPR article 30(1), by its letters (a) to (g).",
        [
            Section("(a) Controller", [
                said(f"The hospital is known as {s.name} in studies.", found.setting("name")),
                missing("name and contact of the controller, joint controllers, and the data protection officer; "
                        "whether the hospitals of a study and the coordinator are joint controllers (article 26)."),
            ]),
            Section("(b) Purposes", list(_purposes(found))),
            Section("(c) People and data", list(_people_and_data(found))),
            Section("(d) Recipients", list(_recipients(found))),
            Section("(e) Third countries", [
                missing("whether the server, the other hospitals, or whoever reads the study's results is in a third "
                        "country, and on which basis what leaves is transferred there."),
            ]),
            Section("(f) Erasure", list(_erasure(found))),
            Section("(g) Security", list(_measures(found))),
        ],
    )  # fmt: skip


def what_leaves(found: Installation) -> Paper:
    """A statement on export and its controls, as SATRE 3.3.07 asks a research environment for."""
    return Paper(
        "what-leaves",
        "What leaves, and under which control",
        "A statement for SATRE v2.0.1, component 3.3.07, as we read it: a policy on exporting model weights, and the "
        "technical controls before anything leaves. Compare it with the text of the component.",
        [
            Section("Policy", list(_policy(found))),
            Section("Controls before anything leaves", list(_controls(found))),
            Section("What has left", list(_left(found))),
            Section("For people to add", [
                missing("who reviews this statement and how often; which agreement binds the coordinator and the other "
                        "hospitals in what they do with the model."),
            ]),
        ],
    )  # fmt: skip


def _processing(found: Installation) -> Iterator[Sentence]:
    yield from _purposes(found)
    yield from _people_and_data(found)
    yield found.checked(
        "Images are read where they are and are not copied to anybody: training runs on this hospital's machine.",
        "Images of source")  # fmt: skip
    yield from _recipients(found)


def _purposes(found: Installation) -> Iterator[Sentence]:
    decided = [one for one in found.books.decisions if one.signatures or one.automatic]
    if not decided:
        yield missing("no study has been approved here, so there is no purpose yet.")
    for one in decided:
        yield from _purpose(found, one)


def _purpose(found: Installation, one: Decision) -> Iterator[Sentence]:
    document = readable(one)
    if document is None:
        yield missing(
            f"what {one.study} asks: its document was written for another release (audit --study {one.study})."
        )
        return
    who = ", ".join(f"{s.by} on {day(s.at)}" for s in one.signatures) or "nobody: a simulated hospital by itself"
    events = [e for e in found.books.events if e.facts.get("digest") == one.digest and e.kind == Kind.APPROVAL]
    question = tasks.get(document.task).question if document.task in tasks.names() else f"task {document.task}"
    asks = f'Study {one.study} asks: "{question}"'
    if not isinstance(document, StudyDocument):
        asks = f"Survey {one.study} counts patients by {', '.join(map(table_name, document.tables))}."
    yield said(asks, found.line(one, "task"))
    yield said(f"{one.study} is {one.state}. Approved by {who}.", *(found.event(event) for event in events))


def _people_and_data(found: Installation) -> Iterator[Sentence]:
    for number, source in enumerate(found.settings.sources):
        yield said(
            f"Patients with images of task {source.task} in source {number + 1} ({source.kind}), numbered by "
            f"{source.issuer}: health data, a special category (article 9).",
            found.setting(f"sources.{number}"), found.setting("policy.tasks"))  # fmt: skip
    yield found.checked(
        "Patients are told apart by keyed hashes of their numbers; the key does not leave this machine.",
        "Nobody but its owner reads the hospital's key")  # fmt: skip
    yield missing("how many patients, from which years, and children among them: consilium-site describe tells the "
                  "exact numbers, for this hospital only.")  # fmt: skip


def _recipients(found: Installation) -> Iterator[Sentence]:
    server = found.settings.server
    if server is None:
        yield missing("the server: site.yaml names none yet.")
    else:
        yield said(f"What leaves goes to the coordinator's server at {server}.", found.setting("server"))
    yield found.checked("The connection is encrypted, and the server proves who it is.", "The server is authenticated")
    asked = dict.fromkeys(
        document.asked_by for one in found.books.decisions
        if isinstance(document := readable(one), StudyDocument) and document.asked_by
    )  # fmt: skip
    for name in asked:
        one = next(d for d in found.books.decisions if getattr(readable(d), "asked_by", "") == name)
        yield said(f"{name} asks for studies, by the coordinator's word.", found.line(one, "asked_by"))
    yield missing("who else receives the model and the figures after the coordinator has them: ask the coordinator.")


def _necessity(found: Installation) -> Iterator[Sentence]:
    yield found.checked(
        "No image, no report and no row of a table leaves; what is exchanged are numbers of a model and histograms, "
        "with noise added here.", "No score and no update leaves without noise", "Every message that left")  # fmt: skip
    yield said(
        f"A study may use images of the tasks {', '.join(found.settings.policy.tasks)} and nothing else.",
        found.setting("policy.tasks"))  # fmt: skip
    yield missing("why these studies need these patients and cannot do with fewer data, or without: the purpose is in "
                  "each study's protocol.")  # fmt: skip
    yield missing("the legal basis (articles 6 and 9), and consent or the law in its place.")


def _risks(found: Installation) -> Iterator[Sentence]:
    delta = delta_cap(found.settings)
    for spent in found.books.cohorts:
        one = spent.budget
        rows = [found.row(e) for e in found.books.entries if e.use.cohort == one.cohort]
        yield said(
            f"That somebody infers from what left that a patient was among the {one.cohort} cohort: epsilon "
            f"{one.epsilon:.3f} so far, {one.with_set_aside:.3f} with what is set aside, of {one.cap:g} for life, at "
            f"delta {delta:g}; the odds change by a factor of at most {odds(one.epsilon)} so far. Paper attack-risk "
            "has this as the chance of a right guess.",
            *(rows[-2:] or [found.setting("policy.max_epsilon_life")]))  # fmt: skip
    if not found.books.cohorts:
        yield said("Nothing has been spent so far.", found.setting("policy.max_epsilon_life"))
    lost = [e for e in found.books.entries if e.committed is None]
    if lost:
        yield said(f"{len(lost)} orders were charged and never answered.", *(found.row(e) for e in lost[-5:]))
    yield missing("risks that are not of this software: wrong labels, bias of the model for groups of patients, its "
                  "use for care (which the software marks as not permitted).")  # fmt: skip


def _measures(found: Installation) -> Iterator[Sentence]:
    people = found.settings.policy.approvers
    how_many = f"{people} different people here have" if people > 1 else "somebody here has"
    for text, promises in (
        (f"A study runs only after {how_many} approved this very document.",
         ("Only studies approved by a person", f"{people} different people approve")),
        ("One command stops everything at once.", ("One command stops",)),
        ("Every message that left has a receipt, and the books show tampering.", ("Every message that left",)),
        ("What may be lost of a patient's privacy is capped, for a study and for life.", ("A patient's privacy loss",)),
        ("Secrets are readable by their owner only.", ("Nobody but its owner",)),
        ("The programs run without root's rights and listen nowhere else.", ("The gateway is not root",
                                                                            "The trainer is not root", "The gateway "
                                                                            "listens",
                                                                            "The trainer listens")),
        ("Traffic is encrypted, and one authority is trusted.", ("The server is authenticated", "Only one "
                                                                                                "certificate")),
        ("Images cannot be changed by these programs.", ("Images of source",)),
        ("The software is a release, and calls nobody.", ("The running code is a release", "Nothing in the")),
    ):  # fmt: skip
        yield found.checked(text, *promises)
    yield missing("encryption of disks and backups, physical access, and who has an account on this machine: no "
                  "program can tell this from inside.")  # fmt: skip


def _erasure(found: Installation) -> Iterator[Sentence]:
    yield found.checked("Patients who withdraw are left out from the next round on.", "Patients who withdraw")
    withdrawn = [e for e in found.books.events if e.kind == Kind.WITHDRAWAL]
    if withdrawn:
        yield said(f"Withdrawals were honoured {len(withdrawn)} time(s).", *(found.event(e) for e in withdrawn[-5:]))
    yield said("What a model learned before a withdrawal is not removed from it; what it can tell of that patient is "
               "bounded as the paper attack-risk says.", found.setting("policy.max_epsilon_life"))  # fmt: skip
    yield missing("time limits for prepared images (the folder catalog), ledger and audit log: nothing deletes them by "
                  "itself.")  # fmt: skip


def _for_people() -> Iterator[Sentence]:
    yield missing("the advice of the data protection officer (article 35(2)).")
    yield missing("the views of patients or of who represents them (article 35(9)), or why they were not sought.")
    yield missing("whether the authority must be consulted before (article 36).")
    yield missing("when this is reviewed again (article 35(11)).")


def _policy(found: Installation) -> Iterator[Sentence]:
    policy = found.settings.policy
    yield said("Weights of models of these kinds may leave, with noise: " + ", ".join(policy.models) + ".",
               found.setting("policy.models"))  # fmt: skip
    yield said(f"A patient may lose at most epsilon {policy.max_epsilon_study:g} in one study and "
               f"{policy.max_epsilon_life:g} in all, at delta {delta_cap(found.settings):g}.",
               found.setting("policy.max_epsilon_study"), found.setting("policy.max_epsilon_life"),
               found.setting("policy.max_delta"))  # fmt: skip
    yield said(f"Scores of validation patients leave as histograms: {policy.scores}.", found.setting("policy.scores"))
    surveys = ", ".join(policy.surveys) or "nothing: surveys are refused"
    yield said(f"A survey may count patients by {surveys}.", found.setting("policy.surveys"))
    groups = ", ".join(policy.subgroups) or "nothing"
    yield said(f"Scores may be grouped by {groups}.", found.setting("policy.subgroups"))
    yield said(f"At most {policy.max_upload_bytes:,} bytes of numbers leave in one message.",
               found.setting("policy.max_upload_bytes"))  # fmt: skip


def _controls(found: Installation) -> Iterator[Sentence]:
    yield from (
        found.checked("People approve first.", "Only studies approved by a person",
                      f"{found.settings.policy.approvers} different people"),
        found.checked("The caps are this hospital's; no message can raise them.", "A patient's privacy loss"),
        found.checked("Noise is added before anything leaves.", "No score and no update leaves without noise"),
        found.checked("The cost is in the ledger before training starts, the receipt before a reply is sent.",
                      "Every message that left has a receipt"),
        found.checked("Only the gateway has a connection outwards, and no data.", "The gateway c",
                      "The trainer connects"),
        found.checked("Everything can be stopped here, at once.", "One command stops"),
    )  # fmt: skip
    raised = [r for r in found.books.receipts if r.policy]
    policies = list(dict.fromkeys(r.policy for r in raised))
    if raised:
        yield said(f"What left did so under {len(policies)} version(s) of the policy.",
                   *(found.receipt(next(r for r in raised if r.policy == p)) for p in policies[-5:]))  # fmt: skip


def _left(found: Installation) -> Iterator[Sentence]:
    receipts = found.books.receipts
    if not receipts:
        yield found.checked("Nothing has left.", "Every message that left has a receipt")
        return
    kinds = Counter(receipt.message for receipt in receipts)
    for kind, number in sorted(kinds.items()):
        of_kind = [r for r in receipts if r.message == kind]
        yield said(f"{number} {kind}: {sum(r.bytes for r in of_kind):,} bytes, from {day(of_kind[0].at)} to "
                   f"{day(of_kind[-1].at)}.", found.receipt(of_kind[0]), found.receipt(of_kind[-1]))  # fmt: skip
    for study in found.books.studies:
        of_study = [r for r in receipts if r.study == study.study and _of(r, study.cohort)]
        entries = [e for e in found.books.entries if (e.use.study, e.use.cohort) == (study.study, study.cohort)]
        if entries:
            yield said(
                f"{study.study} has spent epsilon {study.epsilon:.3f} of its {study.cap:g} on {study.cohort} patients, "
                f"in {study.orders} order(s).", found.row(entries[0]), found.row(entries[-1]),
                *(found.receipt(r) for r in of_study[-1:]))  # fmt: skip


def _of(receipt: Receipt, cohort: str) -> bool:
    return receipt.cohort is not None and cohort in receipt.cohort.split("+")
