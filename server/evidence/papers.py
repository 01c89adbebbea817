"""The server's papers: its part in the record of processing, what it receives, and two outlines for each model."""

from __future__ import annotations

from collections.abc import Iterator

from server.evidence.installation import NUMBERS, Server, StudyFiles, by_hospital
from server.evidence.model_papers import annex_iv, change_control
from server.study.folder import FINISHED
from tasks import task as tasks
from tasks.machine.evidence import Pack, Paper, Section, Sentence, missing, said
from tasks.machine.language import later, number, say, say_many
from tasks.metrics.membership import advantage, right_of_100

KEEP = later(
    "It names hospitals, people and studies: the coordinator decides who reads it. No patient and no image is in it; "
    "no hospital sends either."
)

UNKNOWN_TASK = later("a task that this release does not know")


def pack(server: Server) -> Pack:
    """All papers of a server, with their sources, in the language spoken."""
    papers = [record_of_processing(server), attack_risk(server)]
    for study in server.studies:
        if study.get("study.json", "state") == FINISHED and study.get(NUMBERS, "epsilon") is not None:
            papers += [annex_iv(server, study), change_control(server, study)]
    return Pack(say("Server {name}", name=server.server_dir.settings.host), say(KEEP), papers, server.bases())


def record_of_processing(server: Server) -> Paper:
    """Inputs for GDPR article 30, and for SATRE 3.3.07 as far as the server receives what leaves hospitals."""
    host = server.server_dir.settings.host
    return Paper(
        "record-of-processing",
        say("Inputs for the record of processing activities"),
        say("GDPR article 30, of what the coordinator does. Whether it is a processor (30(2)), a controller or a joint "
            "one (30(1), 26) is for people to decide."),
        [
            Section(say("Who"), [
                said(say("The server is {host}.", host=host), server.setting("host")),
                *_hospitals(server),
                server.checked(say("People connect by certificate, each with one role."),
                               "Only people with a certificate"),
                missing(say("name and contact of the coordinator, of its data protection officer, and of each "
                            "hospital's controller.")),
            ]),
            Section(say("Purposes and categories of processing"), list(_purposes(server))),
            Section(say("What is received and kept"), list(_received(server))),
            Section(say("Recipients and third countries"), [
                server.checked(say("Those who may read results are the people with a certificate."),
                               "Only people with"),
                missing(say("whether any of them is in a third country, and on which basis what leaves goes there.")),
            ]),
            Section(say("Erasure"), [
                said(say("A study is kept until its folder is deleted."), server.page("server/README.md")),
                missing(say("time limits for studies, logs and backups: nothing deletes them by itself.")),
            ]),
            Section(say("Security"), list(_security(server))),
        ],
    )  # fmt: skip


def attack_risk(server: Server) -> Paper:
    """What hospitals have told of epsilon, as the chance of a right guess."""
    return Paper(
        "attack-risk",
        say("What an attacker could learn of one patient"),
        say("Epsilon in words, of every study and hospital, by what hospitals' ledgers reported. Each hospital knows "
            "more: consilium-site evidence computes a sharper bound, over all its studies."),
        [
            Section(say("How to read it"), [
                said(say("The attacker knows everything but whether one patient was in a hospital's cohort, of whom "
                         "half were. With true alarms TPR and false alarms FPR, TPR - FPR is at most (e^epsilon - 1 + "
                         "2 delta) / (e^epsilon + 1) (Kairouz, Oh and Viswanath, ICML 2015, theorem 2.1; Humphries et "
                         "al., CSF 2023)."),
                     server.page("client/PRIVACY.md")),
            ]),
            *(Section(say("Study {study}", study=study.name), list(_guesses(server, study)))
              for study in server.studies),
        ],
    )  # fmt: skip


def _hospitals(server: Server) -> Iterator[Sentence]:
    register = server.server_dir.ever_admitted()
    for one in register:
        facts = {"name": one.name, "admitted": one.admitted[:10]}
        text = say("Hospital {name} was admitted on {admitted}, known by its key.", **facts)
        if one.revoked:
            text = say(
                "Hospital {name} was admitted on {admitted} and revoked on {revoked}, known by its key.",
                **facts, revoked=one.revoked[:10])  # fmt: skip
        yield said(text, server.hospital(one))
    if not register:
        yield missing(say("the hospitals: none has been admitted."))


def _purposes(server: Server) -> Iterator[Sentence]:
    if not server.studies:
        yield missing(say("the purposes: nobody has asked for a study."))
    for study in server.studies:
        name = str(study.get("study.json", "config.task.name"))
        question = tasks.get(name).question if name in tasks.names() else UNKNOWN_TASK
        text = say(
            '{study}, asked for by {who}, is {state}: "{question}"',
            study=study.name, who=study.get("study.json", "asked_by") or say("somebody here"),
            state=study.get("study.json", "state"), question=say(question))  # fmt: skip
        yield server.told(text, study, "config.task.name", "asked_by", "state")


def _received(server: Server) -> Iterator[Sentence]:
    yield said(
        say("Hospitals send changes of weights and histograms with noise, counts of surveys with noise, and codes; no "
            "image, no row of a table, no identifier."),
        server.page("client/README.md"))  # fmt: skip
    yield server.checked(say("No code that somebody sends is run."), "No code that a researcher sends")
    for study in server.studies:
        if sizes := dict(by_hospital(study, "bytes_up")):
            text = say_many(
                "{study} received {bytes} bytes from {n} hospital.",
                "{study} received {bytes} bytes from {n} hospitals.",
                len(sizes), study=study.name, bytes=number(sum(sizes.values()), ","))  # fmt: skip
            yield server.told(text, study, "bytes_up", file=NUMBERS)


def _security(server: Server) -> Iterator[Sentence]:
    yield from (
        server.checked(say("The server proves its identity by a certificate."), "The server can prove"),
        server.checked(say("What is not listed is not let through."), "The reverse proxy lets through"),
        server.checked(say("Only hospitals whose keys were compared take part."), "Only hospitals whose keys"),
        server.checked(say("Secrets are readable by their owner only."), "Nobody but its owner", "No other user"),
        server.checked(say("The programs listen where they should, and without root's rights."), "The SuperLink ",
                       "The studies' runner ", "The MLflow server ", "The nginx "),
        server.checked(say("A release is running."), "A release is running"),
        missing(say("encryption of disks and backups, physical access, and who has an account on this machine.")),
    )  # fmt: skip


def _guesses(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    delta = float(study.get("study.json", "config.privacy.delta") or 0.0)
    found = False
    for table, patients in (
        ("epsilon", say("Training patients")), ("validation_epsilon", say("Validation patients"))
    ):  # fmt: skip
        for hospital, epsilon in by_hospital(study, table):
            found = True
            if epsilon is None:
                text = say(
                    "{patients} of {hospital}: no noise was added, so nothing bounds what is learned of them.",
                    patients=patients, hospital=hospital)  # fmt: skip
            else:
                most = advantage(epsilon, delta)
                text = say(
                    "{patients} of {hospital}: epsilon {epsilon} at delta {delta}: a guess is right for at most "
                    "{number} of 100 patients (advantage {percent} %).",
                    patients=patients, hospital=hospital, epsilon=number(epsilon, ".3f"), delta=number(delta),
                    number=number(right_of_100(most), ".1f"), percent=number(100 * most, ".1f"))  # fmt: skip
            yield server.told(text, study, table, file=NUMBERS)
    if not found:
        yield missing(say("what {study} has spent: it has no results.", study=study.name))
