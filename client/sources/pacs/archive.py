"""What DICOMweb and DIMSE have in common: choose what to retrieve, spool it, and continue as with a folder.

Tested in ``tests/client/sources/pacs/test_dicomweb.py``.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from client.errors import ArchiveShrunk, EmptySource, LabelsMatchNothing, SiteError
from client.sources.acquisition import acquisition_reader
from client.sources.files.folder import known_of, list_files
from client.sources.labels.annotations import labels_of
from client.sources.labels.table import Labels, following, renamed
from client.sources.pacs.choice import choose, name_of
from client.sources.pacs.fidelity import sentences
from client.sources.pacs.own import own_under
from client.sources.pacs.search import Search
from client.sources.pacs.seen import opened as seen_in
from client.sources.pacs.spool import Instance, MissingReason, Spool, is_spool, opened
from client.sources.pacs.walk import Found, Progress, Walk
from client.sources.record import Listing
from client.sources.settings import DicomwebSource, DimseSource
from client.sources.visit import Sighting, Visit
from tasks.task import Task

_FEW = 3
"""So few images may be gone from an archive at once, however small the spool is."""
_DAY_S = 86400.0


class Archive(Protocol):
    """An archive that can be searched and sends what it stores."""

    def check(self) -> None:
        """Send a minimal request, to see whether it answers.

        Raises:
            ArchiveUnreachable, ArchiveRefused: as below, with a remedy.
        """

    def searching(self) -> AbstractContextManager[Search]:
        """Open a way to search it.

        Raises:
            ArchiveUnreachable: it does not answer, however often it is asked.
            ArchiveRefused: it does not accept us.
        """

    def fetch(self, instances: list[Instance], spool: Spool, progress: Progress) -> Counter[MissingReason]:
        """Retrieve these into the spool; failures are counted.

        Raises:
            ArchiveUnreachable, ArchiveRefused: as above; what was fetched before stays.
            SpoolFull: they do not fit.
        """

    def remarks(self, spool: Spool) -> list[str]:
        """Warnings about the archive's behaviour, one sentence each."""


def list_archive(
    source: DicomwebSource | DimseSource,
    archive: Archive,
    owner: str,
    task: Task,
    withdrawn: frozenset[str],
    visit: Visit,
) -> Listing:
    """Update the spool from the archive, then list it as a folder.

    Only labelled images of patients who have not withdrawn are fetched, and the segmentations of those patients where
    the task outlines; what is spooled, whole and told as before is not fetched again. What the archive does not list
    any more is deleted here only after it was asked for that very examination.

    Args:
        owner: the archive, as messages call it.

    Raises:
        EmptySource: the archive has no image in scope.
        LabelsMatchNothing, SiteMisconfigured: as for a folder.
        AnswerIncomplete: the archive leaves out studies, and says so.
        ArchiveShrunk: more is gone than ``most_lost`` allows.
        ArchiveUnreachable, ArchiveRefused, SpoolFull: see ``Archive``.
    """
    labels = following(labels_of(source, task), visit, source.issuer)
    return _Update(source, archive, owner, task, withdrawn=withdrawn, visit=visit, labels=labels).run()


@dataclass(frozen=True)
class _Update:
    """One update of a spool; the attributes are the arguments of ``list_archive``."""

    source: DicomwebSource | DimseSource
    archive: Archive
    owner: str
    task: Task
    withdrawn: frozenset[str]
    visit: Visit
    labels: Labels

    def run(self) -> Listing:
        source = self.source
        with ExitStack() as line:
            search = line.enter_context(self.archive.searching())
            seen = None
            if self.labels.key == "SOPInstanceUID" and not self.visit.verify:
                seen = line.enter_context(seen_in(source.path, self.visit.key, source.scope, self.labels.values))
            walk = Walk(search, source.scope, self.labels, own_under(self.visit.key), self.visit.progress, seen=seen)
            found = walk.find(outlines=bool(self.task.structures))
            if not found.instances and not is_spool(source.path):
                raise self._nothing_in_scope(found)
            name = f"{self.owner} for {self.task.name} of {source.issuer}"
            with opened(source.path, name, source.max_gigabytes, source.holds) as spool:
                warnings = _missed(walk, search, found, spool)
                line.close()
                listing = self._spooled(found, spool)
        return replace(listing, warnings=warnings + listing.warnings)

    def _seen(self, instance: Instance) -> Sighting:
        return Sighting(
            patient=instance.patient_id,
            issuer=self.source.issuer,
            image=instance.uid,
            study=instance.study,
            accession=instance.accession,
            born=instance.told.get("PatientBirthDate", ""),
            sex=instance.told.get("PatientSex", ""),
        )

    def _is_unwilling(self, instance: Instance) -> bool:
        return instance.patient_id in self.withdrawn or self.visit.unwilling(self._seen(instance))

    def _nothing_in_scope(self, found: Found) -> SiteError:
        without, scope = found.left_out["STUDY_WITHOUT_LABEL"], self.source.scope
        if not without:
            return EmptySource(f"{self.owner} has no image for {scope.modalities} {scope.dates() or 'of any date'}")
        return LabelsMatchNothing(
            f"none of {without} examinations of {self.owner} has a label: {self.labels.path} is keyed by "
            f"{self.labels.key}, with values like {next(iter(self.labels.values), 'none')!r}; the archive has values "
            f"like {found.example!r}"
        )

    def _spooled(self, found: Found, spool: Spool) -> Listing:
        left_out, outlines = found.left_out, bool(self.task.structures)
        unwilling = {instance.uid for instance in found.instances if self._is_unwilling(instance)}
        labels = renamed(self.labels, map(self._seen, found.instances))
        wanted = choose(found.instances, labels, unwilling, left_out, outlines)
        sightings = [self._seen(instance) for instance in wanted]
        hidden = [self._seen(instance) for instance in found.instances if instance.uid in unwilling]
        kept = self._forget(found, wanted, spool)
        refused = self.archive.fetch(spool.missing(wanted, self._verified_since()), spool, self.visit.progress)
        left_out.update({str(reason): number for reason, number in refused.items()})
        spool.forget_stale(wanted)
        warnings = _on_changes(spool, kept)
        warnings += sentences(spool.verdicts(), refused[MissingReason.TRANSCODED]) + self.archive.remarks(spool)
        if not spool.digests():
            empty = Listing([], left_out + self.labels.left_out, warnings, unwilling=hidden)
            return self._nothing(found.instances, wanted, empty)
        listing = list_files(
            spool.images,
            labels,
            withdrawn=self.withdrawn,
            acquired=acquisition_reader(self.source, self.task),
            task=self.task,
            answered={name_of(instance, labels) for instance in found.instances},
            known=known_of(self.visit, spool.images),
        )
        return Listing(
            listing.records,
            left_out + listing.left_out,
            warnings + listing.warnings,
            sightings=sightings + listing.sightings,
            unwilling=hidden + listing.unwilling,
        )

    def _forget(self, found: Found, wanted: list[Instance], spool: Spool) -> int:
        """Delete what is not wanted any more. Returns how many images stay although the archive did not list them.

        Raises:
            ArchiveShrunk: so much is gone from the archive that a person must say so; nothing was deleted.
        """
        here, listed = spool.spooled(), {instance.uid for instance in found.instances}
        unwanted = here.keys() - {instance.uid for instance in wanted}
        unlisted = unwanted - listed
        kept = {uid for uid in unlisted if here[uid] in found.short and not spool.belongs_to(uid, self.withdrawn)}
        ours = found.outside | (found.studies - found.opened)  # it is we who do not want these any more
        gone = [uid for uid in unlisted - kept if here[uid] not in ours]
        allowed = max(_FEW, int(self.source.most_lost * len(here)))
        if len(gone) > allowed and not self.visit.accept_shrink:
            raise ArchiveShrunk(
                f"{len(gone)} of {len(here)} spooled images are gone from {self.owner}, which was asked for each "
                f"examination again. More than {allowed} at once are not deleted here without a person's word. If the "
                "archive has really deleted or moved them: consilium-site ingest --accept-shrink. If not, ask its "
                "administrator whether our AE title or account still sees all examinations, and correct the source"
            )
        spool.forget(unwanted - kept)
        return len(kept)

    def _verified_since(self) -> float:
        """What was retrieved before this time is retrieved again."""
        if self.visit.verify:
            return time.time()
        days = self.source.verify_days
        return 0.0 if days is None else time.time() - days * _DAY_S

    def _nothing(self, instances: list[Instance], wanted: list[Instance], listing: Listing) -> Listing:
        """Nothing is spooled: an error that gives the reason, unless all patients have withdrawn."""
        if wanted:
            story = "; ".join([f"{reason} {number}" for reason, number in listing.left_out.items()] + listing.warnings)
            raise EmptySource(f"none of {len(wanted)} images could be retrieved from {self.owner}: {story}")
        if listing.left_out["IMAGE_WITHOUT_LABEL"] or listing.left_out["STUDY_WITHOUT_LABEL"]:
            example = f"; the archive has {name_of(instances[0], self.labels)!r}" if instances else ""
            raise LabelsMatchNothing(
                f"none of {len(instances)} images of {self.owner} has a label: {self.labels.path} is keyed by "
                f"{self.labels.key}, with values like {next(iter(self.labels.values), 'none')!r}{example}"
            )
        return listing


def _missed(walk: Walk, search: Search, found: Found, spool: Spool) -> list[str]:
    """Ask for each examination of the spool that the search did not find. One that is there makes the search short."""
    there = 0
    for study in sorted({study for study in spool.spooled().values() if study} - found.studies - found.opened):
        for match in search.studies({"StudyInstanceUID": study, **walk.returned}).matches:
            if walk.takes(match):
                there += not walk.is_renamed(match)
                walk.open_missed(match, found)
            else:
                found.outside.add(study)
    if not there:
        return []
    return [
        f"SHORT_ANSWER: a search left out {there} examination(s) that the archive has when it is asked for each; they "
        "were kept, but others that are not yet here may be missing. Have its administrator raise its limit on answers"
    ]


def _on_changes(spool: Spool, kept: int) -> list[str]:
    warnings = []
    if spool.replaced:
        warnings.append(
            f"REPLACED: {len(spool.replaced)} image(s) have other pixels in the archive than when they were retrieved, "
            "under the same SOPInstanceUID; the new ones are used from now on, and the audit log notes how many of the "
            "old ones were in use"
        )
    if kept:
        warnings.append(
            f"NOT_LISTED: {kept} image(s) of examinations that the archive listed incompletely are kept as they were"
        )
    return warnings
