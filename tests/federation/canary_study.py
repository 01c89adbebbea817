"""A study in a process of its own, with everything that is sent written down, and accidents at one hospital.

``python -m tests.federation.canary_study OUTPUT SENT`` plays, in this order and with ``MARK`` between them on both
standard streams: a study; a study that fails; and, to show that such a thing would be seen, a leak.
"""

from __future__ import annotations

import logging
import shutil
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from flwr.app import Message

import client.app
from client import report
from client.cohort.dataset import Cohort, open_cohort
from client.site import SiteSettings
from server.__main__ import client_app
from server.errors import RoundFailed
from server.rounds.exchange import Channel, exchange
from server.rounds.state import Roster
from server.runtime import local_grid
from server.runtime.flower_private import Deflated, deflate
from server.runtime.local_grid import LocalGrid
from server.study.document import document_of
from tasks import task as tasks
from tasks.models import registry
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import Arrays, ErrorCode, Refusal, TrainOrder, TrainReport
from tests.federation import canaries
from tests.federation.embedded import HOSPITALS, configure, play

MARK = "=== next act ==="
SPOILT = HOSPITALS[1]
STORY = " ".join(canaries.TEXTS.values())


class Panic(BaseException):
    """As a decoder written in Rust raises it."""


class Recorder:
    """Writes every object of every message, both ways, into a folder."""

    def __init__(self, sent: Path) -> None:
        self._sent, self._act, self._count = sent, "study", 0

    def next_act(self, name: str) -> None:
        self._act = name
        for stream in (sys.stdout, sys.stderr):
            print(MARK, file=stream, flush=True)

    def __call__(self, message: Message) -> Deflated:
        deflated = deflate(message)
        way = "up" if message.metadata.reply_to_message_id else "down"
        self._count += 1
        path = self._sent / self._act / f"{self._count:04d}-{way}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(deflated[0].encode() + b"".join(deflated[1].values()))
        return deflated


class Accidents:
    """The spoilt hospital fails at its first orders, each time with everything it knows in the error's text."""

    def __init__(self) -> None:
        self._site = ""
        self.left = 2

    def open_cohort(self, site: SiteSettings, task: Any, side: str, *more: Any) -> Any:
        """Before a cohort is open an error may leave, as a code; after it nothing may."""
        self._site = site.name
        if self._due():
            if side == "validation":
                raise Panic(STORY)
            try:
                raise OSError(5, STORY, STORY)
            except OSError as error:
                raise RuntimeError(STORY) from error
        return open_cohort(site, task, side, *more)

    def _due(self) -> bool:
        due = self._site == SPOILT and self.left > 0
        self.left -= due
        return due


def main(output: Path, sent: Path) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, force=True)
    recorder, accidents = Recorder(sent), Accidents()
    with (
        patch.object(local_grid, "deflate", recorder),
        patch.object(local_grid, "deflate_all", lambda messages: [recorder(message) for message in messages]),
        patch.object(client.app, "open_cohort", accidents.open_cohort),
    ):
        ended = play(output, "canary", "tracking=mlflow", "evaluation.arms=[]")
        sites = {name: ended.folder / "sites" / f"{name}.yaml" for name in HOSPITALS}
        document = document_of(configure(output, "canary"), ended.results.study, ended.sizes())
        refused = _order(sites, replace(document, rounds=10**5, name="too-long"))
        print(ended.shown, ended.results, refused)

        recorder.next_act("failure")
        accidents.left = 1
        try:
            play(output, "failing", "federation.quorum=1.0")
        except RoundFailed:
            traceback.print_exc()

        shutil.copytree(ended.folder / "sites", sent / "books")
        recorder.next_act("leak")
        with patch.object(client.app, "train_locally", _images_instead):
            _order(sites, document)
        accidents.left = 1
        with patch.object(report, "refusal", _the_story_instead):
            _order(sites, replace(document, evaluation=replace(document.evaluation, bins=2)))


def _order(sites: dict[str, Path], document: StudyDocument) -> list[str]:
    """What the hospitals' answers to one order are worth to the server."""
    form = tasks.get(document.task).form
    weights = registry.arrays_of(registry.build(document.model, form, 1).trainable)
    with LocalGrid(sites, client_app) as grid:
        order = TrainOrder(document, 1, weights)
        roster = Roster(document, grid.nodes)
        return [answer.problem for answer in exchange(Channel(grid, deadline_s=60), roster, order, TrainReport)]


def _images_instead(module: Any, task: Any, cohort: Cohort, *more: Any, **named: Any) -> Arrays:
    """A hospital that sends a patient's features for an update."""
    size = next(p.numel() for p in module.parameters())
    return {"weight": cohort.inputs[0].reshape(1, -1)[:, :size].numpy(), "bias": np.zeros(1, np.float32)}


def _the_story_instead(study: str, round: int, error: BaseException) -> Refusal:
    """A hospital that tells what went wrong."""
    logging.getLogger("client.app").error("%s", error)
    return Refusal(str(error)[:120], round, ErrorCode.INTERNAL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
