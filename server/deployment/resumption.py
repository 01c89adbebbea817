"""Submits again what has stopped: a study whose process died or whose run the SuperLink gave up, and a submission that
has no folder yet. What makes no progress after many attempts is given up, with the reason where people look.

Tested in ``tests/server/deployment/test_superexec.py``.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from contextlib import suppress
from typing import Any

from server.deployment import signing
from server.deployment.queue import Queue, Submission, note_run, run_facts
from server.deployment.server_dir import ServerDir
from server.runtime.flower_private import Control, ControlRefused
from server.study.folder import FAILED, StudyFolder, committed

MOST_RESUMPTIONS = 10
"""After this many in a row without a new round, a study is given up."""
MOST_BIRTHS = 5
"""After this many processes that died before they had a folder, a submission is given up."""
_LONGEST_PAUSE_S = 60.0
_BROKEN = "its process died, or the SuperLink lost its run, {number} times in a row without a new round; see {logs}"
_UNBORN = (
    "its process ended with code {code} before the study started; see the server's logs/{log}, then submit it again"
)


class Resumption:
    """Looks for what nobody plays. The runs that are ours are left alone: claimed ones and those that are played."""

    def __init__(self, server_dir: ServerDir, control: Control, queue: Queue) -> None:
        self._home, self._control, self._queue = server_dir, control, queue

    def submit_again(self, ours: Container[int]) -> None:
        """Submit again what was accepted, has no folder, and that the SuperLink no longer knows or has given up."""
        for run, one in sorted(self._queue.waiting().items(), key=lambda item: item[1].at):
            if run in ours:
                continue
            if is_named(self._home, run):
                self._queue.drop(run)
            elif self._is_over(run, unborn=True) and time.time() >= not_before(one):
                if one.births >= MOST_BIRTHS:
                    self.leave_unborn(run, 1)
                    continue
                text = signing.signed(one.study, self._home.certificate_key, self._home.certificate, one.by)
                again = self._queue.moved(one, self._control.start(text))
                print(f"run {run} is submitted again, as run {again.run}", flush=True)

    def leave_unborn(self, run: int, code: int) -> None:
        """Give up a submission, and tell whoever asked: they would wait in vain."""
        note_run(self._home, run, state=FAILED, error=_UNBORN.format(code=code, log=f"run-{run}.log"))
        self._queue.drop(run)

    def resume(self, unfinished: Mapping[str, Mapping[str, Any]], ours: Container[int]) -> None:
        """Resubmit every study that should be running and is not."""
        for name, facts in unfinished.items():
            if (run := facts.get("run", 0)) not in ours and self._is_over(run):
                self._submit(StudyFolder(name, self._home.path / "studies" / name, resumed=True), facts)

    def _is_over(self, run: int, unborn: bool = False) -> bool:
        """Whether nobody will play a run of which no process is ours. One that an earlier SuperExec has started is
        stopped; one that it has only claimed comes back by itself."""
        found = self._control.find(run)
        if found is None or not found.live:
            return True
        if found.status == "pending" or (unborn and found.status == "starting"):
            return False
        with suppress(ControlRefused):
            self._control.stop(run)
        return True

    def _submit(self, folder: StudyFolder, facts: Mapping[str, Any]) -> None:
        rounds = committed(folder.path)
        before = facts.get("resumptions", {"rounds": -1, "number": 0, "at": 0.0})
        number = before["number"] + 1 if before["rounds"] == rounds else 1
        if number > 1 and time.time() < before["at"] + min(2.0**number, _LONGEST_PAUSE_S):
            return
        if number > MOST_RESUMPTIONS:
            told = _BROKEN.format(number=MOST_RESUMPTIONS, logs=self._home.logs)
            folder.note(state=FAILED, error=f"{told}. The last time: {facts.get('error') or 'unknown'}")
            return
        folder.note(resumptions={"rounds": rounds, "number": number, "at": time.time()})  # on a full disk it ends here
        values = facts["config"] | {"resume": "auto", "propose": ""}
        run = self._control.start(signing.signed(values, self._home.certificate_key, self._home.certificate))
        folder.note(run=run)
        note_run(self._home, run, study=folder.name)
        print(f"{folder.name}: resumes after round {rounds}, as run {run}", flush=True)


def not_before(one: Submission) -> float:
    """When a submission whose process has died may have another one."""
    return one.last + min(2.0**one.births, _LONGEST_PAUSE_S) if one.births else 0.0


def is_named(server_dir: ServerDir, run: int) -> bool:
    """Whether a run has a study or an error, so that whoever asked for it is told."""
    return bool(run_facts(server_dir, run).keys() & {"study", "error"})
