"""Outlines of two papers on a study's model: annex IV of the EU AI Act, and the FDA's plan for changes.

Most of either is for people: what the software knows is a part of development and testing.

Tested in ``tests/server/evidence/test_papers.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from server.evidence.installation import NUMBERS, Server, StudyFiles, by_hospital
from tasks import contract as contracts
from tasks import task as tasks
from tasks.machine.evidence import Paper, Section, Sentence, missing, said
from tasks.machine.language import number, say


def annex_iv(server: Server, study: StudyFiles) -> Paper:
    """Technical documentation by the numbers of annex IV of Regulation (EU) 2024/1689."""
    return Paper(
        f"annex-iv-{study.name}",
        say("Outline of technical documentation: {study}", study=study.name),
        say("Regulation (EU) 2024/1689 (AI Act), annex IV, by its numbers 1 to 9. A model that is used only for "
            "research is outside of it (article 2(6)); this is an outline for whoever makes a product of it."),
        [
            Section(say("1. General description"), list(_general(server, study))),
            Section(say("2. Elements and development"), list(_development(server, study))),
            Section(say("2(g). Validation and testing"), list(_validation(server, study))),
            Section(say("2(h). Cybersecurity"), list(_cybersecurity(server))),
            Section(say("3. Monitoring, functioning and control"), list(_control(server, study))),
            Section(say("4. Fitness of the performance metrics"), [
                said(say("How each figure is computed, and how often its interval holds the truth, is written down."),
                     server.page("server/STATISTICS.md")),
                missing(say("why these figures are the right ones for the intended use.")),
            ]),
            Section(say("5. Risk management system (article 9)"), [
                missing(say("the risk management system of the provider. The paper attack-risk is an input on "
                            "privacy.")),
            ]),
            Section(say("6. Changes through the lifecycle"), [
                server.told(say("The model does not learn after the study has ended; another training is another "
                                "study."), study, "state"),
                missing(say("changes that the provider makes: see the paper on change control.")),
            ]),
            Section(say("7. Harmonised standards"), [
                missing(say("the list of standards applied in full or in part.")),
            ]),
            Section(say("8. EU declaration of conformity"), [missing(say("the declaration (article 47)."))]),
            Section(say("9. Post-market monitoring"), [missing(say("the system and the plan (article 72)."))]),
        ],
    )  # fmt: skip


def change_control(server: Server, study: StudyFiles) -> Paper:
    """A predetermined change control plan, by the FDA's three parts."""
    return Paper(
        f"change-control-{study.name}",
        say("Outline of a plan for predetermined changes: {study}", study=study.name),
        say("FDA, Marketing Submission Recommendations for a Predetermined Change Control Plan for AI-Enabled Device "
            "Software Functions (2024), by its three parts."),
        [
            Section(say("Description of modifications"), list(_modifications(server, study))),
            Section(say("Modification protocol: data management"), list(_data(server, study))),
            Section(say("Modification protocol: re-training"), list(_training(server, study))),
            Section(say("Modification protocol: performance evaluation"), list(_thresholds(server, study))),
            Section(say("Modification protocol: update procedures"), list(_updates(server, study))),
            Section(say("Impact assessment"), list(_impact(server, study))),
        ],
    )  # fmt: skip


def _config(study: StudyFiles, key: str) -> Any:
    return study.get("study.json", f"config.{key}")


def _general(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    name = str(_config(study, "task.name"))
    if name in tasks.names():
        question = say(tasks.get(name).question)
        yield server.told(say('It answers one question: "{question}"', question=question), study, "config.task.name")
    yield said(say("Research only, and not a medical device: every output says so."), server.page("server/README.md"))
    yield server.told(
        say("The version is study {study}; the weights are model.safetensors, by SHA-256.", study=study.name),
        study, "study", "model_sha256")  # fmt: skip
    yield missing(
        say("intended purpose, intended users and patients, the provider, and how it is placed on the market.")
    )
    yield missing(say("the hardware and software that it is meant to run with, and instructions for use."))


def _development(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    yield server.told(
        say("(a) A {model} was trained by {strategy} in {rounds} rounds.", model=_config(study, "model.name"),
            strategy=_config(study, "strategy.name"), rounds=_config(study, "federation.rounds")),
        study, "config.model", "config.strategy", "config.federation.rounds")  # fmt: skip
    if weights := _config(study, "model.weights"):
        yield server.told(
            say("(a) It starts from weights made by others: {weights}.", weights=weights),
            study, "config.model.weights")  # fmt: skip
    yield server.told(
        say("(b) Settings of its training and of its noise are those of the study."),
        study, "config.training", "config.privacy")  # fmt: skip
    yield server.told(
        say("(c) Its rounds took {seconds} s in all.", seconds=number(study.get(NUMBERS, "seconds") or 0, ",.0f")),
        study, "seconds", file=NUMBERS)  # fmt: skip
    yield from _data(server, study)
    yield missing(say("(e) measures for human oversight (article 14)."))
    yield missing(say("(f) changes that are determined beforehand: see the paper on change control."))


def _data(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    hospitals = study.get("study.json", "hospitals")
    named = ", ".join(map(str, hospitals)) if isinstance(hospitals, list) else say("not named")
    yield server.told(say("Hospitals: {hospitals}. Their images never left them.", hospitals=named), study, "hospitals")
    name = str(_config(study, "task.name"))
    if name in tasks.names():
        yield server.told(
            say("Images keep the acquisition contract of {task} ({digest} in this release); what a label means is in "
                "tasks/{folder}/labels.md.",
                task=name, digest=contracts.digest_of_task(name)[:16], folder=tasks.folder_of(name)),
            study, "config.task.name")  # fmt: skip
    yield server.told(
        say("A fraction of the patients was held back for validation, by a keyed hash at each hospital."),
        study, "config.federation.validation_fraction")  # fmt: skip
    yield missing(
        say("where the data come from: years, devices, selection, who labelled and how well; each hospital knows it.")
    )


def _training(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    keys = [f"config.{part}" for part in ("training", "model", "strategy", "seed")]
    yield server.told(say("A training is repeated by the same configuration, as a study of its own."), study, *keys)
    yield server.told(
        say("Its privacy is asked for in the configuration, and capped and charged by each hospital."),
        study, "config.privacy")  # fmt: skip
    yield missing(say("what triggers a re-training, and who decides it."))


def _validation(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    for hospital, figures in by_hospital(study, "arms.federated"):
        low, high = (figures.get(key) for key in ("auc_low", "auc_high")) if isinstance(figures, dict) else (None, None)
        if low is None or high is None:
            yield missing(say("the AUC at {hospital}: its figures give none.", hospital=hospital))
            continue
        keys = [f"arms.federated.{hospital}.{end}" for end in ("auc_low", "auc_high")]
        text = say(
            "AUC at {hospital}, on its validation patients: 95 % interval {low} to {high}.",
            hospital=hospital, low=number(low, ".2f"), high=number(high, ".2f"))  # fmt: skip
        yield server.told(text, study, *keys, file=NUMBERS)
    if study.get(NUMBERS, "groups"):
        yield server.told(say("Figures by groups of patients are in the report."), study, "groups", file=NUMBERS)
    else:
        yield missing(say("figures by sex, age and scanner: the study did not ask for them (evaluation.subgroups)."))
    yield missing(say("tests on data of hospitals that did not take part, and of later years."))


def _cybersecurity(server: Server) -> Iterator[Sentence]:
    yield server.checked(
        say("The server lets through what is listed, and runs no code that is sent to it."),
        "The reverse proxy", "No code that a researcher")  # fmt: skip
    yield said(
        say("A model is handed over as a file of numbers and a header, checked by SHA-256 and by results that it must "
            "reproduce."),
        server.page("client/README.md"))  # fmt: skip
    yield missing(say("cybersecurity of the product that uses the model (article 15)."))


def _control(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    warnings = study.get(NUMBERS, "warnings") or []
    for place, warning in enumerate(warnings, 1):
        yield server.told(
            say("A reader must know first ({number}): {warning}", number=place, warning=warning),
            study, "warnings", file=NUMBERS)  # fmt: skip
    for hospital, why in by_hospital(study, "dropped"):
        yield server.told(
            say("{hospital} was left out of rounds: {why}", hospital=hospital, why=why),
            study, "dropped", file=NUMBERS)  # fmt: skip
    yield missing(say("foreseeable unintended outcomes and risks to health, safety and fundamental rights."))
    yield missing(say("specifications of input data for whoever deploys it, beyond the acquisition contract."))


def _modifications(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    yield server.told(say("What another study could change is what this one's configuration sets."), study, "config")
    yield missing(say("which modifications are planned, and that each stays within the intended use."))


def _thresholds(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    gate = _config(study, "evaluation.gate") or {}
    wanted = {key: value for key, value in gate.items() if value is not None} if isinstance(gate, dict) else {}
    if not wanted:
        yield missing(
            say("thresholds: the study set no evaluation.gate before it began, so nothing was accepted by one.")
        )
        return
    asked = ", ".join(f"{key} {number(value)}" for key, value in wanted.items())
    failed = study.get(NUMBERS, "gate")
    keys = [server.value(study, "study.json", "config.evaluation.gate")]
    keys += [server.value(study, NUMBERS, "gate")] if failed is not None else []
    if failed == []:
        text = say("Thresholds set before the study began: {asked}. They were reached at every hospital.", asked=asked)
    else:
        text = say(
            "Thresholds set before the study began: {asked}. They were not reached: {reasons}.",
            asked=asked, reasons="; ".join(map(str, failed or [say("it has no result")])))  # fmt: skip
    yield said(text, *keys)


def _updates(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    yield server.told(
        say("A model is known by its SHA-256, which a hospital types in from another channel."), study, "model_sha256"
    )
    yield said(
        say("A hospital refuses a file of another task or contract, and one that computes other results there."),
        server.page("client/README.md"))  # fmt: skip
    yield missing(say("who tells users of a change, how it is undone, and how versions in use are followed."))


def _impact(server: Server, study: StudyFiles) -> Iterator[Sentence]:
    yield server.told(
        say("What another training costs in privacy is what this one did, and is charged anew."),
        study, "epsilon", file=NUMBERS)  # fmt: skip
    yield missing(say("benefits and risks of each modification and of all together, and how the protocol bounds them."))
