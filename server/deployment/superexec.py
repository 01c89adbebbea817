"""Starts the SuperLink's runs: one process each, of the installed code. A run's own bundle is never unpacked.

A study whose process died, or whose run the SuperLink gave up, is submitted again and resumes after its last committed
round. One that makes no progress after many attempts is given up, with the reason in its folder.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.deployment import signing
from server.deployment.server_dir import ServerDir, read
from server.errors import StudyError
from server.runtime.flower_private import Control, ControlRefused, RunAcquirer
from server.study.folder import FAILED, RUNNING, StudyFolder, committed
from tasks.machine.disk import write_whole
from tasks.machine.supervision import end_with_parent

MOST_RESUMPTIONS = 10
"""After this many in a row without a new round, a study is given up."""
_LONGEST_PAUSE_S = 60.0
_POLL_S = 0.25
_LOOK_S = 2.0
_BROKEN = "its process died, or the SuperLink lost its run, {number} times in a row without a new round; see {logs}"
_UNBORN = (
    "its process ended with code {code} before the study started; see the server's logs/{log}, then submit it again"
)


@dataclass(frozen=True)
class _Playing:
    run: int
    process: subprocess.Popen[bytes]


class SuperExec:
    """Starts pending runs, and resubmits studies that have stopped."""

    def __init__(self, server_dir: ServerDir) -> None:
        self._home = server_dir
        self._acquirer = RunAcquirer(
            server_dir.superlink, server_dir.authority, server_dir.superexec_secret.read_bytes()
        )
        self._control = Control(server_dir.superlink, server_dir.authority)
        self._playing: list[_Playing] = []
        self._looked = 0.0
        self._told = ""
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until SIGTERM; then all running studies end too, and resume at the next start."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        while not self._stop.wait(_POLL_S):
            try:
                self._reap()
                if (task := self._acquirer.next()) is not None:
                    self._play(*task)
                if time.monotonic() - self._looked > _LOOK_S:
                    self._resume()
                    self._looked = time.monotonic()
                self._tell("")
            except ControlRefused as error:
                self._tell(f"the SuperLink does not answer: {error}")
                self._stop.wait(1)
            except (StudyError, OSError) as error:
                self._tell(f"{type(error).__name__}: {error}")
                self._stop.wait(1)
        for one in self._playing:
            one.process.terminate()
        for one in self._playing:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(10)

    def _tell(self, text: str) -> None:
        if text and text != self._told:
            print(text, flush=True)
        self._told = text

    def _play(self, run: int, token: str) -> None:
        log = self._home.logs / f"run-{run}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "server.app", str(self._home.path)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,
            )
        assert process.stdin is not None
        with process.stdin:
            process.stdin.write(token.encode() + b"\n")
        self._playing.append(_Playing(run, process))
        print(f"run {run} runs as process {process.pid} ({log})", flush=True)

    def _reap(self) -> None:
        for one in [one for one in self._playing if one.process.poll() is not None]:
            self._playing.remove(one)
            print(f"run {one.run}: its process ended with code {one.process.returncode}", flush=True)
            if one.process.returncode:
                with suppress(ControlRefused):
                    self._control.stop(one.run)
                self._explain(one)
            self._looked = 0.0

    def _explain(self, one: _Playing) -> None:
        """Leave a reason for a run that died before it named its study; the researcher would wait in vain."""
        path = self._home.runs / f"{one.run}.json"
        if not path.exists():
            error = _UNBORN.format(code=one.process.returncode, log=f"run-{one.run}.log")
            write_whole(path, json.dumps({"state": FAILED, "error": error}).encode())

    def _resume(self) -> None:
        """Resubmit every study that should be running and is not."""
        for path in sorted((self._home.path / "studies").glob("*/study.json")):
            folder = StudyFolder(path.parent.name, path.parent, resumed=True)
            facts = folder.facts()
            run = facts.get("run", 0)
            if facts.get("state") != RUNNING or any(one.run == run for one in self._playing):
                continue
            if self._waits(run):
                continue
            self._submit(folder, facts)

    def _waits(self, run: int) -> bool:
        """Whether a run is pending."""
        try:
            found = self._control.runs().get(run)
        except ControlRefused:
            return True  # it cannot be known now
        if found is not None and found.live and found.status == "pending":
            return True
        if found is not None and found.live:  # acquired by a SuperExec that has ended
            with suppress(ControlRefused):
                self._control.stop(run)
        return False

    def _submit(self, folder: StudyFolder, facts: dict[str, Any]) -> None:
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
        write_whole(self._home.runs / f"{run}.json", json.dumps({"study": folder.name}).encode())
        print(f"{folder.name}: resumes after round {rounds}, as run {run}", flush=True)


def main() -> None:
    """Run the runs of the server whose folder is the first argument."""
    SuperExec(read(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
