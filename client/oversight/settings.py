"""Every setting of a study document, one line each, so that two documents that differ never read alike.

The sentences of ``explain.py`` say what a study does; they cannot say everything. What is approved is the document's
digest, so whoever approves must be able to see all that the digest is of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from tasks.protocol import study as studies
from tasks.protocol.study import StudyDocument

MEANINGS: dict[str, str] = {
    "name": "the study's own name, never used twice",
    "release": "the version of Consilium that computes it",
    "task": "the clinical question",
    "task_version": "the version of how an image becomes an input",
    "contract": "SHA-256 of the rules that an image must keep",
    "model": "an option of the network",
    "rounds": "rounds of training at most",
    "asked": "rounds in which one hospital trains at most",
    "training.steps": "steps in a round",
    "training.learning_rate": "how far a step moves the model, for each unit of gradient",
    "training.momentum": "how much of the last step is taken again",
    "training.weight_decay": "how strongly the model is pulled towards zero",
    "training.sample_rate": "probability with which a patient takes part in a step",
    "training.images_per_patient": "images of a patient that are drawn for a step",
    "training.final_rate": "the last round's learning rate as a part of the first one's",
    "training.final_noise": "the last round's noise as a multiple of the first one's",
    "privacy.epsilon": "privacy loss that is asked for, of a training patient over the whole study; null is no privacy",
    "privacy.delta": "probability with which that promise may fail",
    "privacy.clip_norm": "most that one patient can change the sum of a step; the noise is in proportion to it",
    "evaluation.releases": "times that the model is tried on validation patients",
    "evaluation.bins": "cells of a histogram of scores, a class",
    "evaluation.epsilon": "privacy loss that is asked for, of a validation patient over the whole study",
    "evaluation.subgroups": "attributes by which scores are told apart",
    "evaluation.paired": "cells for each of two models that are compared; 0 is no comparison",
    "evaluation.matrix": "hospitals' own models that are tried here; 0 is none",
    "evaluation.findings": "further findings whose scores leave",
    "evaluation.structures": "structures of which leaves how well they are outlined",
    "method.proximal": "pull towards the model that came, after the noise; 0 is none",
    "method.control_variates": "whether the server sends a correction for each step",
    "method.stays": "the part of the model that never leaves",
    "method.head_steps": "steps of a round that train the last layer alone",
    "method.personal": "pull of a second, personal model towards the shared one; null is no such model",
    "wire.up": "in how many bits a value leaves",
    "wire.down": "in how many bits a value comes",
    "sizes": "public size by which a hospital's updates count",
}
"""What a setting means, by its name in the document; ``model`` and ``sizes`` have any number of entries."""


def every_setting(document: StudyDocument) -> list[str]:
    """All of the document, a line each: name, value as JSON, meaning. Equal lists, equal documents."""
    return [
        f"{name} = {json.dumps(value)}: {MEANINGS[name if name in MEANINGS else name.partition('.')[0]]}"
        for name, value in _leaves(json.loads(studies.canonical(document)))
    ]


def _leaves(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Values by their place; a dictionary that is empty is a value."""
    for key, value in values.items():
        # A key that is no plain word stands in quotes, or it could pretend to be a line of another kind.
        name = above + (key if key.isidentifier() and key.isascii() else json.dumps(key))
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
