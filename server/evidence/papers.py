"""The server's papers: its part in the record of processing, what it receives, and two outlines for each model."""

from __future__ import annotations

from collections.abc import Iterator

from server.evidence.installation import NUMBERS, Server, StudyFiles, by_hospital
from server.evidence.model_papers import annex_iv, change_control
from server.study.folder import FINISHED
from tasks import task as tasks
from tasks.machine.evidence import Pack, Paper, Section, Sentence, missing, said
from tasks.metrics.membership import advantage, right_of_100

KEEP = (
    "It names hospitals, people and studies: the coordinator decides who reads it. No patient and no image is in it; "
    "no hospital sends either."
)


def pack(server: Server) -> Pack:
    """All papers of a server, with their sources."""
    papers = [record_of_processing(server), attack_risk(server)]
    for study in server.studies:
        if study.get("study.json", "state") == FINISHED and study.get(NUMBERS, "epsilon") is not None:
            papers += [annex_iv(server, study), change_control(server, study)]
    return Pack(f"Server {server.server_dir.settings.host}", KEEP, papers, server.bases())


def record_of_processing(server: Server) -> Paper:
    """Inputs for GDPR article 30, and for SATRE 3.3.07 as far as the server receives what leaves hospitals."""
    return Paper(
        "record-of-processing",
        "Inputs for the record of processing activities",
        "GDPR article 30, of what the coordinator does. Whether it is a processor (30(2)), a controller or a joint one "
        "(30(1), 26) is for people to decide.",
        [
            Section("Who", [
                said(f"The server is {server.server_dir.settings.host}.", server.setting("host")),
                *_hospitals(server),
                server.checked("People connect by certificate, each with one role.", "Only people with a certificate"),
                missing("name and contact of the coordinator, of its data protection officer, and of each hospital's "
                        "controller."),
            ]),
            Section("Purposes and categories of processing", list(_purposes(server))),
            Section("What is received and kept", list(_received(server))),
            Section("Recipients and third countries", [
                server.checked("Those who may read results are the people with a certificate.", "Only people with"),
                missing("whether any of them is in a third country, and on which basis what leaves goes there."),
            ]),
            Section("Erasure", [
                said("A study is kept until its folder is deleted.", server.page("server/README.md")),
                missing("time limits for studies, logs and backups: nothing deletes them by itself."),
            ]),
            Section("Security", list(_security(server))),
        ],
    )  # fmt: skip


def attack_risk(server: Server) -> Paper:
    """What hospitals have told of epsilon, as the chance of a right guess."""
    return Paper(
        "attack-risk",
        "What an attacker could learn of one patient",
        "Epsilon in words, of every study and hospital, by what hospitals' ledgers reported. Each hospital knows more: "
        "consilium-site evidence computes a sharper bound, over all its studies.",
        [
            Section("How to read it", [
                said("The attacker knows everything but whether one patient was in a hospital's cohort, of whom half "
                     "were. "
                     "With true alarms TPR and false alarms FPR, TPR - FPR is at most (e^epsilon - 1 + 2 delta) / "
                     "(e^epsilon + 1) (Kairouz, Oh and Viswanath, ICML 2015, theorem 2.1; Humphries et al., CSF 2023).",
                     server.page("client/PRIVACY.md")),
            ]),
            *(Section(f"Study {study.name}", list(_guesses(server, study))) for study in server.studies),
        ],
    )  # fmt: skip


def _hospitals(server: Server) -> Iterator[Sentence]:
    register = server.server_dir.ever_admitted()
    for one in register:
        state = f"was admitted on {one.admitted[:10]}" + (f" and revoked on {one.revoked[:10]}" if one.revoked else "")
        yield said(f"Hospital {one.name} {state}, known by its key.", server.hospital(one))
    if not register:
        yield missing("the hospitals: none has been admitted.")


def _purposes(server: Server) -> Iterator[Sentence]:
    if not server.studies:
        yield missing("the purposes: nobody has asked for a study.")
    for study in server.studies:
        name = str(study.get("study.json", "config.task.name"))
        question = tasks.get(name).question if name in tasks.names() else "a task that this release does not know"
        who, state = study.get("study.json", "asked_by") or "somebody here", study.get("study.json", "state")
        yield server.told(f'{study.name}, asked for by {who}, is {state}: "{question}"', study, "config.task.name",
                          "asked_by", "state")  # fmt: skip


def _received(server: Server) -> Iterator[Sentence]:
    yield said("Hospitals send changes of weights and histograms with noise, counts of surveys with noise, and "
               "codes; no "
               "image, no row of a table, no identifier.", server.page("client/README.md"))  # fmt: skip
    yield server.checked("No code that somebody sends is run.", "No code that a researcher sends")
    for study in server.studies:
        if sizes := dict(by_hospital(study, "bytes_up")):
            yield server.told(f"{study.name} received {sum(sizes.values()):,} bytes from {len(sizes)} "
                              "hospitals.", study,
                              "bytes_up", file=NUMBERS)  # fmt: skip


def _security(server: Server) -> Iterator[Sentence]:
    yield server.checked("The server proves its identity by a certificate.", "The server can prove")
    yield server.checked("What is not listed is not let through.", "The reverse proxy lets through")
    yield server.checked("Only hospitals whose keys were compared take part.", "Only hospitals whose keys")
    yield server.checked("Secrets are readable by their owner only.", "Nobody but its owner", "No other user")
    yield server.checked("The programs listen where they should, and without root's rights.", "The SuperLink ",
                         "The studies' runner ", "The MLflow server ", "The nginx ")  # fmt: skip
    yield server.checked("A release is running.", "A release is running")
    yield missing("encryption of disks and backups, physical access, and who has an account on this machine.")


def _guesses(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    delta = study.get("study.json", "config.privacy.delta")
    found = False
    for table, whose in (("epsilon", "training"), ("validation_epsilon", "validation")):
        for hospital, epsilon in by_hospital(study, table):
            found = True
            if epsilon is None:
                text = f"{whose} patients of {hospital}: no noise was added, so nothing bounds what is learned of them."
            else:
                most = advantage(epsilon, float(delta or 0.0))
                text = (
                    f"{whose} patients of {hospital}: epsilon {epsilon:.3f} at delta {delta:g}: a guess is right for "
                    f"at most {right_of_100(most):.1f} of 100 patients (advantage {100 * most:.1f} %)."
                )
            yield server.told(text.capitalize() if text[0].islower() else text, study, table, file=NUMBERS)
    if not found:
        yield missing(f"what {study.name} has spent: it has no results.")
