"""Plays the SuperLink's runs: one process each, of the installed code. A run's own bundle is never unpacked.

Every pending run is claimed at once and its claim renewed, so the order in which studies start is decided here: first
those that had begun, then the others as they came (``queue.py``), at most ``studies_at_once`` at a time.

A study whose process died, or whose run the SuperLink gave up, is submitted again (``resumption.py``) and resumes after
its last committed round. A process that the SuperLink no longer hears is ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from server.deployment import register, signing, stopping
from server.deployment.late_results import LateResults
from server.deployment.leases import Leases
from server.deployment.queue import Queue, Submission, note_run, refuse_deep, run_facts, twin_of
from server.deployment.resumption import MOST_BIRTHS, Resumption, is_named, not_before
from server.deployment.server_dir import ServerDir, read
from server.deployment.unfinished import UnfinishedStudies
from server.errors import CheckpointDamaged, NotSigned
from server.runtime.flower_private import STOPPED, Control, ControlRefused, RunAcquirer
from server.study import stopped
from server.study.folder import FAILED
from tasks.machine.disk import private_file
from tasks.machine.logs import Output
from tasks.machine.pulse import ALIVE, HEARD, SILENT, Pulse
from tasks.machine.supervision import end_with_parent

MOST_WAITING = 20
"""Submissions of one person that wait at a time."""
_CLAIMED_AT_ONCE = 20
"""In one step, so that signs of life go on however many come."""
_POLL_S = 1.0
_LOOK_S = 2.0
_REGISTER_S = 15.0
_DEAF_S, _BIRTH_S = 60.0, 900.0
"""For how long a process may play a run that the SuperLink has given up, and for how long it may take to begin."""


@dataclass
class _Claimed:
    """A run that is ours and that no process plays yet."""

    run: int
    token: str
    submission: Submission | None = None
    resumes: str = ""


@dataclass
class _Playing:
    run: int
    process: subprocess.Popen[bytes]
    submission: Submission | None = None
    started: float = 0.0
    begun: bool = False
    unheard: float | None = None


class SuperExec:
    """Claims runs, starts a process for each in its turn, and submits again what has stopped."""

    def __init__(self, server_dir: ServerDir, acquirer: RunAcquirer, control: Control) -> None:
        self._home, self._acquirer, self._control = server_dir, acquirer, control
        self._queue, self._leases = Queue(server_dir), Leases(acquirer)
        self._resumption, self._look = Resumption(server_dir, control, self._queue), UnfinishedStudies(server_dir)
        self._late = LateResults(server_dir)
        self._claimed: dict[int, _Claimed] = {}
        self._playing: list[_Playing] = []
        self._unfinished: dict[str, dict[str, Any]] = {}
        self._due: dict[str, float] = {}
        self._lapsed: set[int] = set()
        self._registered = False
        self._told: dict[str, str] = {}
        self._stop = threading.Event()

    def run(self, alive: Pulse = SILENT, heard: Pulse = SILENT) -> None:
        """Work until SIGTERM; then all running studies end too, and resume at the next start.

        Args:
            alive: beats while this works.
            heard: beats while the SuperLink answers.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        self._leases.start()
        while not self._stop.wait(_POLL_S):
            alive.beat()
            try:
                self._step()
                heard.beat()
                self._tell("loop", "")
            except ControlRefused as error:
                self._registered = self._registered and error.code is not None  # it may come back with an empty list
                self._tell("loop", f"the SuperLink does not answer: {error}")
                self._stop.wait(1)
            except Exception as error:  # a full disk, a damaged register: it must not end what runs already
                self._tell("loop", f"{type(error).__name__}: {error}")
                self._stop.wait(1)
        self._leases.stop()
        self._late.end()
        for one in self._playing:
            one.process.terminate()
        for one in self._playing:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(10)

    def _step(self) -> None:
        self._reap()
        self._give_up_lapsed()
        if self._is_due("register", _REGISTER_S) or not self._registered:
            self._tell("register", "\n".join(register.reconcile(self._home, self._control)))
            self._registered = True
        self._claim()
        if self._is_due("look", _LOOK_S):
            self._unfinished = self._look()
            self._let_begin()
            self._end_stopped()
            self._late.send(self._unfinished)
            ours = self._claimed.keys() | {one.run for one in self._playing}
            self._resumption.submit_again(ours)
            self._resumption.resume(self._unfinished, ours)
        if self._is_due("watch", _REGISTER_S):
            self._end_unheard()
        self._start()
        self._show()

    def _is_due(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every_s
        return True

    def _tell(self, about: str, text: str) -> None:
        if text and text != self._told.get(about):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
        self._told[about] = text

    # --- runs that are ours -------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        """Claim what is pending, and accept what carries a good signature."""
        for _ in range(_CLAIMED_AT_ONCE):
            task = self._acquirer.next()
            if task is None:
                break
            run, token = task
            self._end_elder(run)
            self._claimed[run] = _Claimed(run, token)
            self._leases.keep(run, token)
        new = [one for one in self._claimed.values() if one.submission is None][:_CLAIMED_AT_ONCE]
        if not new:
            return
        self._unfinished, waiting = self._look(), self._queue.waiting()
        for one in new:
            try:
                self._accept(one, waiting)
            except ControlRefused as error:  # it is asked again; the others need not wait for that
                self._tell(f"run {one.run}", f"run {one.run}: its text cannot be fetched: {error}")
            except OSError as error:  # a full disk: likewise
                self._tell(f"run {one.run}", f"run {one.run}: it cannot be accepted yet: {error}")
            except Exception as error:  # whatever a text provokes costs its sender that text
                self._refuse(one.run, f"Its text cannot be processed ({type(error).__name__})")

    def _end_elder(self, run: int) -> None:
        """End a process that plays a run under a claim which has lapsed. Its failure is not the run's."""
        for one in [one for one in self._playing if one.run == run]:
            print(f"run {run}: its claim has lapsed; process {one.process.pid} is ended", flush=True)
            self._playing.remove(one)
            one.process.kill()
            one.process.wait()
            if one.submission is not None and one.submission.births:
                self._queue.put(replace(one.submission, births=one.submission.births - 1, last=0.0))

    def _accept(self, claimed: _Claimed, waiting: dict[int, Submission]) -> None:
        run = claimed.run
        resumes = next((name for name, facts in self._unfinished.items() if facts.get("run") == run), "")
        kept = waiting.get(run)
        if kept is None:
            text = self._control.text(run)
            try:
                asked = signing.read(self._home, run, text)
                refuse_deep(asked.study)
            except NotSigned as error:
                self._refuse(run, f"It is not known who submits it: {error}")
                return
            except (ValueError, RecursionError) as error:
                self._refuse(run, f"Invalid configuration: {error}")
                return
            if stopping.is_asked(asked.study):
                note_run(self._home, run, **stopping.answer(self._home, self._control, asked.study, asked.by))
                self._forget(run)
                return
            kept = Submission(run, asked.study, asked.name, time.time())
            if asked.name is not None and sum(one.by == asked.name for one in waiting.values()) >= MOST_WAITING:
                self._refuse(run, f"{MOST_WAITING} of your submissions wait already: stop some, or wait until they run")
                return
            if not resumes:
                self._queue.put(kept)
                waiting[run] = kept
        claimed.submission, claimed.resumes = kept, resumes

    def _refuse(self, run: int, why: str) -> None:
        note_run(self._home, run, state=FAILED, error=why)
        self._forget(run)

    def _forget(self, run: int) -> None:
        """Let go of a run that needs no process."""
        self._claimed.pop(run, None)
        self._leases.drop(run)
        self._queue.drop(run)
        with suppress(ControlRefused):
            self._control.stop(run)

    def _give_up_lapsed(self) -> None:
        """Drop runs that are no longer ours; the SuperLink gives them out again, and then an elder process is ended.

        One that somebody has stopped while it waited is not submitted again.
        """
        self._lapsed |= self._leases.lapsed()
        for run in sorted(self._lapsed):
            claimed = self._claimed.get(run)
            found = self._control.find(run) if claimed is not None and not claimed.resumes else None
            if found is not None and (found.live, found.sub_status) == (False, STOPPED):
                self._refuse(run, "It was stopped while it waited in the queue.")
            self._claimed.pop(run, None)
            self._lapsed.discard(run)

    # --- their processes ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start as many as there are places; a few at once, because each imports for seconds."""
        for one in list(self._in_order()):
            submission = one.submission
            if submission is None or self._starting() >= max(1, os.cpu_count() or 1):
                break
            if not one.resumes and (twin := twin_of(self._unfinished, submission)):
                note_run(self._home, one.run, study=twin, **({"asked_by": submission.by} if submission.by else {}))
                self._forget(one.run)
            elif not one.resumes and is_named(self._home, one.run):  # somebody has stopped it while it waited
                self._forget(one.run)
            elif self._has_place(one) and time.time() >= not_before(submission):
                self._play(one, submission)

    def _in_order(self) -> Iterator[_Claimed]:
        """Claimed runs: first the studies that had begun; then the others, first of those people of whom the fewest
        run, as they came."""
        running = Counter(self._busy().values())

        def place(one: _Claimed) -> tuple[bool, int, float]:
            assert one.submission is not None
            return (not one.resumes, running[one.submission.by], one.submission.at)

        return iter(sorted((one for one in self._claimed.values() if one.submission is not None), key=place))

    def _starting(self) -> int:
        return sum(not one.begun for one in self._playing)

    def _has_place(self, one: _Claimed) -> bool:
        if one.submission is not None and one.submission.proposes:
            return not any(other.submission and other.submission.proposes for other in self._playing)
        at_once, busy = self._home.settings.studies_at_once, self._busy()
        if one.resumes:
            return sum(other.run in busy for other in self._playing) < at_once
        by = one.submission.by if one.submission is not None else None
        return len(busy) < at_once and list(busy.values()).count(by) < self._home.settings.most_of_one_person

    def _busy(self) -> dict[int, str | None]:
        """The runs that have a place, and who has asked for each. A study that had begun keeps its place."""
        playing = (other for other in self._playing if not (other.submission and other.submission.proposes))
        busy = {other.run: other.submission.by if other.submission is not None else None for other in playing}
        return busy | {facts.get("run", 0): facts.get("asked_by") for facts in self._unfinished.values()}

    def _play(self, claimed: _Claimed, submission: Submission) -> None:
        log = self._home.logs / f"run-{claimed.run}.log"
        private_file(log)
        if not claimed.resumes:
            submission = replace(submission, births=submission.births + 1, last=time.time())
            self._queue.put(submission)
        output, _ = Output(log, self._home.log_bytes).pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "server.app", str(self._home.path)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,
            )
        finally:
            os.close(output)
        self._playing.append(_Playing(claimed.run, process, submission, time.monotonic()))
        del self._claimed[claimed.run]
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(claimed.token.encode() + b"\n")
        print(f"run {claimed.run} runs as process {process.pid} ({log})", flush=True)

    def _let_begin(self) -> None:
        """Leave a claim to the process that plays its run, once that has begun: its own heartbeats count from there."""
        for one in [one for one in self._playing if not one.begun]:
            found = self._control.find(one.run)
            if found is None or found.status not in ("pending", "starting"):
                one.begun = True
                self._leases.drop(one.run)

    def _reap(self) -> None:
        for one in [one for one in self._playing if one.process.poll() is not None]:
            self._playing.remove(one)
            self._leases.drop(one.run)
            print(f"run {one.run}: its process ended with code {one.process.returncode}", flush=True)
            if one.process.returncode:
                with suppress(ControlRefused):
                    self._control.stop(one.run)
            self._explain(one)
            self._due["look"] = 0.0

    def _explain(self, one: _Playing) -> None:
        """Leave a reason for a run that died before it named its study, unless it is tried again; the researcher would
        wait in vain."""
        if is_named(self._home, one.run) or not one.process.returncode:
            self._queue.drop(one.run)
        elif one.submission is None or one.submission.births >= MOST_BIRTHS:
            self._resumption.leave_unborn(one.run, one.process.returncode)

    def _end_unheard(self) -> None:
        """End a process that hangs, or that the SuperLink has given up."""
        now = time.monotonic()
        for one in self._playing:
            if not one.begun:
                if now - one.started > _BIRTH_S:
                    one.process.kill()
                continue
            found = self._control.find(one.run)
            if found is not None and found.live:
                one.unheard = None
            elif one.unheard is None:
                one.unheard = now
            elif now - one.unheard > _DEAF_S:
                print(f"run {one.run}: the SuperLink has given it up; process {one.process.pid} is ended", flush=True)
                one.process.kill()

    def _end_stopped(self) -> None:
        """End what somebody has stopped for good, also if the SuperLink did not answer then."""
        for folder in stopped.unsettled(self._home.path / "studies"):
            with suppress(CheckpointDamaged, OSError):
                if stopping.end(self._control, folder):
                    continue
                for one in self._playing:
                    if run_facts(self._home, one.run).get("study") == folder.name:
                        one.process.kill()

    def _show(self) -> None:
        names = {facts.get("run", 0): name for name, facts in self._unfinished.items()}
        waiting = list(self._in_order())
        self._queue.show(
            [one.submission for one in waiting if one.submission is not None],
            {one.run: one.resumes for one in waiting},
            [names.get(one.run, f"run {one.run}") for one in self._playing],
        )


def main() -> None:
    """Run the runs of the server whose folder is the first argument."""
    signs = [Pulse(Path(os.environ[name])) if name in os.environ else SILENT for name in (ALIVE, HEARD)]
    home = read(Path(sys.argv[1]))
    acquirer = RunAcquirer(home.superlink, home.authority, home.superexec_secret.read_bytes())
    SuperExec(home, acquirer, Control(home.superlink, home.authority)).run(*signs)


if __name__ == "__main__":
    main()
