"""This hospital's own keys for secure sums: the deputy that others know it by, and one sum key for each study.

A sum key is random and in ``kept/``, readable by its owner only. Beside it stands the ledger's last row when it was
last used: books that lack that row were restored from an older backup, and could let a pad be used twice. Then the key
is refused until a person deletes it; the next one makes new pads.

Tested in ``tests/client/test_secure_orders.py``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from client.errors import LedgerBroken, SiteMisconfigured
from client.ledger.ledger import Ledger
from client.site import SiteSettings
from tasks.machine.disk import private_folder, write_private, write_secret
from tasks.protocol import study as studies
from tasks.protocol import sum_key
from tasks.protocol.study import StudyDocument
from tasks.protocol.sum_key import BadSumKey, Deputy, SumKey

DEPUTY = "deputy.key"
"""Its file in the folder ``link``."""
_KEY_BYTES = 32
_DIGITS = 16


def fingerprint(settings: SiteSettings) -> str:
    """Of this hospital's enrolled key, by which others pin it.

    Raises:
        SiteMisconfigured: there is no deputy's key here.
    """
    return sum_key.own_fingerprint(_deputy(settings))


@dataclass(frozen=True)
class OwnKey:
    """The sum key of one study."""

    path: Path
    secret: X25519PrivateKey

    @classmethod
    def of(cls, settings: SiteSettings, document: StudyDocument, ledger: Ledger) -> OwnKey:
        """The study's key; made at the first call.

        Raises:
            LedgerBroken: the ledger lacks a row that it had when the key was last used.
            SiteMisconfigured: the file is damaged, or cannot be written.
        """
        name = f"{settings.name}.{document.name}.{studies.digest(document)[:_DIGITS]}.sum-key"
        path = settings.kept / name
        if not path.exists():
            private_folder(path.parent)
            with suppress(FileExistsError):  # another process has just made it
                write_secret(path, os.urandom(_KEY_BYTES) + ledger.head().hash.encode())
        own, seen = _read(path)
        if not ledger.contains(seen):
            raise LedgerBroken(
                f"{path} was used when the ledger had the row {seen[:12]}, which is missing now: an older copy of "
                "ledger and audit log was restored, and a pad could be used twice. Restore the newest backup; or "
                "delete this file, and the study goes on with a new key"
            )
        return cls(path, own)

    @property
    def public(self) -> str:
        """The public key, in base64 as ``SumKey.key``."""
        return sum_key.encoded(self.secret.public_key().public_bytes_raw())

    def note(self, ledger: Ledger) -> None:
        """Note the ledger's last row, before anything leaves that the key has masked.

        Raises:
            SiteMisconfigured: the file cannot be written.
        """
        try:
            write_private(self.path, self.secret.private_bytes_raw() + ledger.head().hash.encode())
        except OSError as error:
            raise SiteMisconfigured(f"cannot write {self.path}: {error.strerror}") from error

    def signed(self, settings: SiteSettings, document: StudyDocument) -> SumKey:
        """What peers are shown of it.

        Raises:
            SiteMisconfigured: the deputy's key is missing or damaged.
        """
        try:
            return sum_key.signed(_deputy(settings), settings.name, studies.digest(document), self.secret.public_key())
        except BadSumKey as error:
            raise SiteMisconfigured(f"{settings.link / DEPUTY}: {error}") from None


def write_deputy(folder: Path, enrolled_key: bytes) -> None:
    """Make the deputy of an enrolled key, if there is none in the folder yet.

    Raises:
        BadEnrolment: it is not such a key.
    """
    with suppress(FileExistsError):
        if not (folder / DEPUTY).exists():
            write_secret(folder / DEPUTY, sum_key.new_deputy(enrolled_key))


def _deputy(settings: SiteSettings) -> Deputy:
    path = settings.link / DEPUTY
    try:
        return sum_key.read_deputy(path.read_bytes())
    except FileNotFoundError:
        raise SiteMisconfigured(
            f"{path} is missing, by which other hospitals know this one in secure sums: run consilium-site enroll "
            "--invitation FILE again, which makes it, and let the trainer read it"
        ) from None
    except (OSError, BadSumKey) as error:
        raise SiteMisconfigured(f"cannot read {path}: {error}") from None


def _read(path: Path) -> tuple[X25519PrivateKey, str]:
    """The secret key, and the hash of the ledger's row."""
    try:
        content = path.read_bytes()
        own = X25519PrivateKey.from_private_bytes(content[:_KEY_BYTES])
        return own, content[_KEY_BYTES:].decode("ascii")
    except (OSError, ValueError) as error:
        raise SiteMisconfigured(f"cannot read {path}: {error}; delete it, and a new key is made") from None
