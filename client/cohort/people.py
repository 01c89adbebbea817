"""Who is who: a patient keeps pseudonym, side of the split, withdrawal and place in the ledger under a new PatientID.

Hospitals merge and correct patient numbers every week. The image, the examination and what is known of the person stay:
keyed hashes of them tie a new number to the pseudonym that it had. Each tie is journalled in the audit log. Where a tie
would join two patients who are known as two, and they are on different sides of the split, or differ in birth date or
sex, or both still have images, nothing is decided here: both are left out until a person has said what they are.

This file of its own outlives spool and ``catalog/``, which are made again from the sources and know nothing of the
past. It holds keyed hashes only. If it is lost, ties of the journal are restored, and what a number change hides since
then is not recognised; PRIVACY.md says what that costs.

Simulated hospitals have no real patients, and share a catalog: of them nothing is kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from client.cohort.intake import keyed, patient_under
from client.cohort.merges import Merge
from client.cohort.rows import Patient
from client.errors import SiteMisconfigured
from client.ledger.audit_log import AuditLog, Kind
from client.site import SiteSettings, secret
from client.sources.visit import Sighting
from tasks.machine.disk import private_database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS people (
    pseudonym TEXT PRIMARY KEY, position REAL NOT NULL, born TEXT NOT NULL, sex TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ties (pseudonym TEXT PRIMARY KEY, person TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS traces (trace TEXT PRIMARY KEY, pseudonym TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS conflicts (
    one TEXT NOT NULL, other TEXT NOT NULL, why TEXT NOT NULL, decided TEXT NOT NULL, PRIMARY KEY (one, other));
"""
SAME, DIFFERENT = "same person", "different people"
"""What a person may decide of a conflict."""


@dataclass(frozen=True)
class IdentityConflict:
    """Two patients, by pseudonym, whom something ties, and who may not be joined without a person's word."""

    one: str
    other: str
    why: str


class People:
    """The open file; ``opened`` makes it."""

    def __init__(self, connection: sqlite3.Connection, site: SiteSettings) -> None:
        self._connection, self._site, self._key = connection, site, secret(site)

    def person(self, issuer: str, patient: str) -> Patient:
        """The patient's pseudonym and position in the split: those of the first number by which they were known."""
        own = patient_under(self._key, issuer, patient)
        person = self._person_of(own.pseudonym)
        row = self._connection.execute("SELECT position FROM people WHERE pseudonym = ?", (person,)).fetchone()
        return Patient(person, own.position if row is None else row[0])

    def pseudonyms(self, issuers: Iterable[str], patients: Iterable[str]) -> set[str]:
        """The pseudonyms that the catalog may have of these PatientIDs, whatever number they had first or have now."""
        names = sorted(patients)
        own = {keyed(self._key, "patient", issuer, name) for issuer in issuers for name in names}
        return own | {self._person_of(one) for one in own}

    def is_one_of(self, sighting: Sighting, persons: set[str]) -> bool:
        """Whether an image is of one of these, by number or by what it was known under before."""
        if self.person(sighting.issuer, sighting.patient).pseudonym in persons:
            return True
        traces = [trace for kind, trace in self._traces(sighting) if kind != "accession"]
        return any(self._person_of(owner) in persons for owner in map(self._owner, traces) if owner)

    def known_as(self, issuer: str, numbers: Iterable[str]) -> Callable[[Sighting], str]:
        """Tells of an image by which of an issuer's numbers its patient is known, "" if by none or several.

        Two who are not joined, by a person's word or until there is one, are not known by each other's number.
        """
        names: dict[str, set[str]] = {}
        for name in numbers:
            names.setdefault(self._person_of(keyed(self._key, "patient", issuer, name)), set()).add(name)

        def known(sighting: Sighting) -> str:
            one = replace(sighting, issuer=issuer)
            own = self.person(issuer, one.patient).pseudonym
            traces = [trace for kind, trace in self._traces(one) if kind != "accession"]
            owners = {self._person_of(owner) for owner in map(self._owner, traces) if owner}
            persons = [own] if own in names else [p for p in owners if p == own or not self._is_decided(p, own)]
            found = set[str]().union(*(names.get(person, ()) for person in persons))
            return found.pop() if len(found) == 1 else ""

        return known

    def remember(self, sightings: Iterable[Sighting]) -> None:
        """Note whom images belong to, of people who are not used: a withdrawal outlives a change of number."""
        with self._connection:
            for one in sightings:
                self._found(patient_under(self._key, one.issuer, one.patient), *self._facts(one))
                for _, trace in self._traces(one):
                    own = keyed(self._key, "patient", one.issuer, one.patient)
                    self._connection.execute("INSERT OR IGNORE INTO traces VALUES (?, ?)", (trace, own))

    def settle(self, sightings: Iterable[Sighting]) -> None:
        """Tie numbers that show what was known under others, and note what is new.

        Raises:
            LedgerBroken: the audit log cannot be written, so nothing was tied.
        """
        seen = [(one, patient_under(self._key, one.issuer, one.patient).pseudonym) for one in sightings]
        facts = {own: self._facts(one) for one, own in seen}
        wanted: dict[tuple[str, str], str] = {}
        first: dict[str, str] = {}
        for one, own in seen:
            for kind, trace in self._traces(one):
                owner = self._owner(trace) or first.setdefault(trace, own)
                if self._person_of(owner) == self._person_of(own):
                    continue
                if kind != "accession" or _agree(self._facts_of(owner), facts[own]):  # numbers are used again
                    wanted.setdefault((owner, own), kind)
        for (owner, own), why in wanted.items():
            self._join(owner, own, why, facts, both_present=owner in facts)
        self.remember(one for one, _ in seen)

    def merge(self, issuer: str, retired: str, surviving: str) -> None:
        """Tie two numbers that the hospital's own list says are one person's.

        Raises:
            LedgerBroken: the audit log cannot be written, so nothing was tied.
        """
        old, new = (patient_under(self._key, issuer, name) for name in (retired, surviving))
        one, other = self._person_of(old.pseudonym), self._person_of(new.pseudonym)
        if one == other:
            return
        if self._is_known(other) and not self._is_known(one):
            self._join(other, one, "merge list", {}, both_present=False)
            return
        with self._connection:
            self._found(old)
        self._join(one, other, "merge list", {}, both_present=False)

    def merge_all(self, issuers: Iterable[str], merges: Iterable[Merge]) -> None:
        """``merge`` of a whole list; a list does not say whose numbers it has, so it counts for every issuer here."""
        found = list(merges)
        for issuer in dict.fromkeys(issuers):
            for merge in found:
                self.merge(issuer, merge.retired, merge.surviving)

    def conflicts(self) -> list[IdentityConflict]:
        """Those that nobody has decided."""
        rows = self._connection.execute("SELECT one, other, why FROM conflicts WHERE decided = '' ORDER BY one, other")
        return [IdentityConflict(*row) for row in rows]

    def left_out(self) -> set[str]:
        """Pseudonyms of those who are not used until somebody has decided."""
        return {name for conflict in self.conflicts() for name in (conflict.one, conflict.other)}

    def decide(self, decided: str, by: str) -> int:
        """Enter a person's decision on all conflicts that wait; ``SAME`` joins them on the training side. Returns how
        many.

        Someone who was on both sides may have been trained on, so no score of theirs may count any more.

        Raises:
            LedgerBroken: the audit log cannot be written, so nothing was decided.
        """
        waiting = self.conflicts()
        for conflict in waiting:
            facts = {"one": conflict.one, "other": conflict.other, "decided": decided, "by": by}
            self._journal({**facts, "why": conflict.why})
            with self._connection:
                self._connection.execute(
                    "UPDATE conflicts SET decided = ? WHERE one = ? AND other = ?",
                    (decided, conflict.one, conflict.other),
                )
                if decided == SAME:
                    first, second = sorted((conflict.one, conflict.other), key=self._position, reverse=True)
                    self._tie(second, first)
        return len(waiting)

    def _join(self, owner: str, own: str, why: str, facts: dict[str, tuple[str, str]], both_present: bool) -> None:
        person, other = self._person_of(owner), self._person_of(own)
        if self._is_decided(person, other):
            return
        known = self._is_known(other)
        reasons = []
        if known and self._side(person) != self._side(other):
            reasons.append("on different sides of the split")
        if _contradict(self._facts_of(person), facts.get(own) or self._facts_of(other)):
            reasons.append("birth date or sex differs")
        if known and both_present:
            reasons.append("both still have images")
        if reasons:
            with self._connection:
                row = (*sorted((person, other)), f"one {why} of both; {', '.join(reasons)}", "")
                self._connection.execute("INSERT OR IGNORE INTO conflicts VALUES (?, ?, ?, ?)", row)
            return
        self._journal({"one": person, "other": other, "decided": SAME, "why": why, "position": self._position(person)})
        with self._connection:
            self._tie(other, person)

    def _journal(self, facts: dict[str, str | float]) -> None:
        """The journal is written first: what it lacks has not happened."""
        if not self._site.audit_log.exists():
            raise SiteMisconfigured(f"the audit log {self._site.audit_log} is missing; run: consilium-site init")
        with AuditLog.open(self._site.audit_log, self._key) as audit_log:
            audit_log.append_event(Kind.IDENTITY, dict(facts))

    def _tie(self, pseudonym: str, person: str) -> None:
        self._connection.execute("UPDATE ties SET person = ? WHERE person = ?", (person, pseudonym))
        self._connection.execute("INSERT OR REPLACE INTO ties VALUES (?, ?)", (pseudonym, person))

    def _found(self, own: Patient, born: str = "", sex: str = "") -> None:
        self._connection.execute("INSERT OR IGNORE INTO people VALUES (?, ?, '', '')", (own.pseudonym, own.position))
        if born or sex:
            self._connection.execute(
                "UPDATE people SET born = iif(born = '', ?2, born), sex = iif(sex = '', ?3, sex) WHERE pseudonym = ?1",
                (own.pseudonym, born, sex),
            )

    def _facts(self, one: Sighting) -> tuple[str, str]:
        """Keyed, and of no more use than to be compared."""
        born, sex = (keyed(self._key, "fact", one.issuer, text) if text else "" for text in (one.born, one.sex))
        return born, sex

    def _facts_of(self, person: str) -> tuple[str, str]:
        row = self._connection.execute("SELECT born, sex FROM people WHERE pseudonym = ?", (person,)).fetchone()
        return ("", "") if row is None else (row[0], row[1])

    def _traces(self, one: Sighting) -> Iterator[tuple[str, str]]:
        """What may be seen again under another number, by kind."""
        for kind, text in (("image", one.image), ("examination", one.study), ("accession", one.accession)):
            if text:
                yield kind, keyed(self._key, f"trace {kind}", one.issuer, text)

    def _owner(self, trace: str) -> str:
        row = self._connection.execute("SELECT pseudonym FROM traces WHERE trace = ?", (trace,)).fetchone()
        return "" if row is None else str(row[0])

    def _person_of(self, pseudonym: str) -> str:
        row = self._connection.execute("SELECT person FROM ties WHERE pseudonym = ?", (pseudonym,)).fetchone()
        return pseudonym if row is None else str(row[0])

    def _is_known(self, person: str) -> bool:
        query = "SELECT EXISTS (SELECT 1 FROM people WHERE pseudonym = ?)"
        return bool(self._connection.execute(query, (person,)).fetchone()[0])

    def _is_decided(self, one: str, other: str) -> bool:
        """Whether a person has decided, or is asked already."""
        query = "SELECT EXISTS (SELECT 1 FROM conflicts WHERE one = ? AND other = ?)"
        return bool(self._connection.execute(query, sorted((one, other))).fetchone()[0])

    def _position(self, person: str) -> float:
        row = self._connection.execute("SELECT position FROM people WHERE pseudonym = ?", (person,)).fetchone()
        return 0.0 if row is None else float(row[0])

    def _side(self, person: str) -> str:
        return "validation" if self._position(person) < self._site.validation_fraction else "train"

    def restore(self) -> None:
        """Ties of the journal, for a file that is new."""
        if not self._site.audit_log.exists():
            return
        with AuditLog.open(self._site.audit_log, self._key) as audit_log:
            events = audit_log.events(Kind.IDENTITY)
        with self._connection:
            for event in events:
                one, other = str(event.facts["one"]), str(event.facts["other"])
                if event.facts["decided"] == SAME:
                    position = event.facts.get("position")
                    if isinstance(position, float):
                        self._found(Patient(one, position))
                    self._tie(other, one)


def _agree(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return all(a and a == b for a, b in zip(one, other, strict=True))


def _contradict(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return any(a and b and a != b for a, b in zip(one, other, strict=True))


def backup(site: SiteSettings, folder: Path) -> Path:
    """Copy the hospital's file, which may be in use; returns the copy."""
    copy = private_database(folder / site.people.name)
    with closing(sqlite3.connect(site.people, timeout=60)) as ours, closing(sqlite3.connect(copy)) as theirs:
        ours.backup(theirs)
    return copy


@contextmanager
def opened(site: SiteSettings) -> Iterator[People]:
    """The hospital's file, made and filled from the journal if it is missing; of a simulated hospital none is kept."""
    path = ":memory:" if site.simulated else private_database(site.people)
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        new = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        connection.executescript(_SCHEMA)
        people = People(connection, site)
        if new and not site.simulated:
            people.restore()
        yield people
