"""Import one source's records into the catalog: unchanged ones stay, new and changed ones are prepared.

Tested in ``tests/client/cohort/test_catalog.py``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import closing

from client.cohort.cache import ExampleCache
from client.cohort.index import Index
from client.cohort.preparation import Decoding, Job, Prepared, prepare
from client.cohort.rows import Image, Patient
from client.errors import SiteMisconfigured
from client.reading.contract import Judgement, judge_pixels, merged
from client.reading.evidence import PixelEvidence
from client.site import SiteSettings, secret
from client.sources.record import Record, Unreadable
from client.sources.settings import Source
from tasks import contract as contracts
from tasks.task import Task

_AT_ONCE = 50
_BEYOND = {None: 0, "train": 1, "validation": -1}
"""What a published split adds to a position in [0, 1): beyond every fraction that may separate the sides."""
_MAY_PASS = ("UNREADABLE_FILE", "TIME_LIMIT", "MEMORY_LIMIT", "DECODER_DIED")
"""Reasons that may be due to the machine rather than the file: such an image is tried again."""

IngestProgress = Callable[[str, int, int], None]
"""Called with the issuer, the number of images done and the total."""


class Intake:
    """An ingest in progress.

    Attributes:
        cache: where examples go.
        superseded: examples of images that have changed since.
    """

    def __init__(
        self,
        site: SiteSettings,
        task: Task,
        catalog: Index,
        progress: IngestProgress,
        decoding: Decoding,
        person: Callable[[str, str], Patient],
    ) -> None:
        """Begin.

        Args:
            person: who has an issuer's number, see ``people.py``.
        """
        self._task, self._catalog, self._progress = task, catalog, progress
        self._decoding, self._person = decoding, person
        self._key = secret(site)
        self._fraction = site.validation_fraction
        self._contract = contracts.of_task(task.name)
        self.cache = ExampleCache(site, task)
        self.superseded: list[str] = []

    def take_in(self, source: Source, records: list[Record]) -> set[str]:
        """Bring one source up to date. Returns the keys of all its images.

        Raises:
            SiteMisconfigured: patients would change sides of the split, see ``_require_same_sides``.
        """
        self._require_same_sides(source, records)
        known = {image.image: image for image in self._catalog.images(self._task.name, [source.issuer])}
        settled: list[tuple[Patient, Image]] = []
        jobs: list[tuple[str, Job]] = []
        for record in records:
            name = keyed(self._key, "image", source.issuer, record.image_id)
            job = Job(record, self.cache.name(str(source.path), record.image_id, record.signature))
            if self._is_settled(job, known.get(name)):
                settled.append(self._row(name, source, job, known.get(name)))
            else:
                jobs.append((name, job))
            if name in known and known[name].example != job.example:
                self.superseded.append(known[name].example)
        self._catalog.put(settled)
        self._progress(source.issuer, len(settled), len(records))
        self._work_off(source, jobs, len(settled))
        return {name for name, _ in jobs} | {image.image for _, image in settled}

    def _is_settled(self, job: Job, old: Image | None) -> bool:
        """Whether decoding would give nothing new."""
        acquisition = job.record.acquisition
        if acquisition is not None and not acquisition.judgement.conforms:
            return True
        if old is None or (old.signature, old.example) != (job.record.signature, job.example):
            return False
        if old.unreadable:
            return old.unreadable not in _MAY_PASS
        return old.fingerprint is not None and self.cache.has(job.example)

    def _work_off(self, source: Source, jobs: list[tuple[str, Job]], before: int) -> None:
        names = [name for name, _ in jobs]
        rows: list[tuple[Patient, Image]] = []
        total = before + len(jobs)
        # Closed here and not whenever it is collected: its threads must end before the decoding processes do.
        with closing(prepare([job for _, job in jobs], self._task, self.cache, self._decoding)) as outcomes:
            try:
                for done, (name, (job, outcome)) in enumerate(zip(names, outcomes, strict=True), start=before + 1):
                    rows.append(self._row(name, source, job, outcome))
                    if len(rows) >= _AT_ONCE or done == total:
                        self._catalog.put(rows)
                        rows.clear()
                        self._progress(source.issuer, done, total)
            finally:
                self._catalog.put(rows)  # an interrupt loses nothing that was read

    def _row(
        self, name: str, source: Source, job: Job, outcome: Prepared | Unreadable | Image | None
    ) -> tuple[Patient, Image]:
        """The index's row of an image: its header now, and the findings in its pixels, from now or before."""
        record, acquisition = job.record, job.record.acquisition
        header = Judgement() if acquisition is None else acquisition.judgement
        fingerprint, evidence, unreadable = _pixels(outcome if header.conforms else None)
        pixels = Judgement()
        if acquisition is not None and evidence is not None:
            pixels = judge_pixels(self._contract, evidence, acquisition.bits_stored)
        both = merged(self._contract, header, pixels)
        patient = self._patient(source.issuer, record)
        return patient, Image(
            image=name,
            task=self._task.name,
            issuer=source.issuer,
            patient=patient.pseudonym,
            label=record.label,
            signature=record.signature,
            example=job.example,
            fingerprint=fingerprint,
            jpeg=None if evidence is None else evidence.jpeg,
            levels=None if evidence is None else evidence.levels,
            unreadable=unreadable,
            rejected=both.rejected,
            warned=both.warned,
            facts="{}" if acquisition is None else acquisition.facts,
            usable=both.conforms and fingerprint is not None,
            findings=record.findings,
            outlined=isinstance(outcome, Prepared | Image) and outcome.outlined,
            glyphs=0 if evidence is None else evidence.glyphs,
        )

    def _patient(self, issuer: str, record: Record) -> Patient:
        """The patient's pseudonym, and the position in the split that follows from the key and a published split."""
        person = self._person(issuer, record.patient_id)
        return Patient(person.pseudonym, person.position + _BEYOND[record.side])

    def _require_same_sides(self, source: Source, records: list[Record]) -> None:
        """Refuse a published split that moves patients whom the catalog knows: who was trained on is never scored.

        Raises:
            SiteMisconfigured: with their number.
        """
        placed = [record for record in records if record.side is not None]
        before = self._catalog.positions() if placed else {}
        moved = set()
        for record in placed:
            patient = self._patient(source.issuer, record)
            was = before.get(patient.pseudonym, patient.position)
            if (was < self._fraction) != (patient.position < self._fraction):
                moved.add(patient.pseudonym)
        if moved:
            raise SiteMisconfigured(
                f"the published split of {source.path} would move {len(moved)} patients of {source.issuer!r} to the "
                "other side, and who was trained on is never scored. Leave their sides as they were, give this source "
                "an issuer of its own, or begin with a new site.yaml, ledger and catalog"
            )


def _pixels(outcome: Prepared | Unreadable | Image | None) -> tuple[int | None, PixelEvidence | None, str]:
    """Fingerprint, evidence, and the reason if there is none."""
    if isinstance(outcome, Unreadable):
        return None, None, outcome.reason
    if isinstance(outcome, Prepared):
        return outcome.fingerprint, outcome.evidence, ""
    if outcome is None or outcome.levels is None:
        return None, None, "" if outcome is None else outcome.unreadable
    return outcome.fingerprint, PixelEvidence(outcome.jpeg, outcome.levels, outcome.glyphs), outcome.unreadable


def patient_under(key: bytes, issuer: str, patient_id: str) -> Patient:
    """A number's pseudonym, and the position in the split that follows from the key."""
    position = int(keyed(key, "split", issuer, patient_id)[:13], 16) / 16**13
    return Patient(keyed(key, "patient", issuer, patient_id), position)


def keyed(key: bytes, purpose: str, issuer: str, name: str) -> str:
    """HMAC-SHA-256: without the hospital's key nobody can reverse or link it."""
    message = json.dumps([purpose, issuer, name]).encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:32]
