"""A study in a process of its own, with everything that is sent written down, and accidents at one hospital.

``python -m tests.federation.canary_study OUTPUT SENT`` plays, in this order and with ``MARK`` between them on both
standard streams: a study; a study that fails; and, to show that such a thing would be seen, a leak.
"""

from __future__ import annotations

import logging
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message

import client.app
from client import report
from client.noise import entropy
from client.site import SiteSettings
from client.train import train_locally
from server import local_grid
from server.__main__ import client_app
from server.errors import RoundFailed
from server.flower_private import Deflated, deflate
from server.launch import Hospitals
from server.rounds import Roster, exchange
from tasks.study import StudyDocument
from tasks.wire import Refusal, TrainOrder, TrainReport
from tests.federation import canaries
from tests.federation.embedded import HOSPITALS, configure, console, found, run_study

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
        self._open = client.app.open_cohort
        self._site = ""
        self.left = 2

    def open_cohort(self, site: SiteSettings, task: Any, side: str, *more: Any) -> Any:
        self._site = site.name
        if side == "validation" and self._due():
            raise Panic(STORY)
        return self._open(site, task, side, *more)

    def train_locally(self, *given: Any) -> Any:
        if self._due():
            try:
                raise OSError(5, STORY, STORY)
            except OSError as error:
                raise RuntimeError(STORY) from error
        return train_locally(*given)

    def _due(self) -> bool:
        due = self._site == SPOILT and self.left > 0
        self.left -= due
        return due


def main(output: Path, sent: Path) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    recorder, accidents = Recorder(sent), Accidents()
    local_grid.deflate = recorder  # type: ignore[assignment]
    client.app.open_cohort = accidents.open_cohort
    client.app.train_locally = accidents.train_locally
    shown_on, text = console()

    founded: list[Hospitals] = []

    def remember(*given: Any) -> Hospitals:
        founded.append(found(*given))
        return founded[-1]

    study = configure(output, "canary", ["tracking=mlflow", "evaluation.arms=[local]"])
    results = run_study(study, remember, client_app, shown_on)
    document = _document(sent)
    _order(founded[0], replace(document, rounds=10**6), "NOT_PERMITTED")
    print(text.getvalue(), results)

    recorder.next_act("failure")
    accidents.left = 1
    try:
        run_study(configure(output, "failing", ["federation.quorum=1.0"]), found, client_app, shown_on)
    except RoundFailed:
        traceback.print_exc()
    else:
        raise AssertionError("this study cannot have a quorum")
    print(text.getvalue())

    recorder.next_act("leak")
    _leak(founded[0], document)


def _document(sent: Path) -> StudyDocument:
    """The study's document, as the first order brought it."""
    import json

    from tasks import study as studies

    first = next((sent / "study").iterdir()).read_bytes()
    raise NotImplementedError(json, studies, first)
