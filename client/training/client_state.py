"""What a hospital keeps of a study between rounds: local parts of the model, control variates, rounding errors. None of
it leaves.

There is one file per order, written before the order's reply is committed and named after the order; it is valid once
the ledger has committed that order. So at whatever moment the process is killed, what is read belongs to the last valid
reply, and an order that is computed again starts from the same state as the first time.

Privacy: everything here was made from gradients with noise, or is a difference of what was sent. It spends nothing
beyond what the ledger holds.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load, save

from client.errors import KeptLost
from client.ledger.account import Use
from client.ledger.ledger import Ledger
from client.site import SiteSettings
from tasks.machine.disk import private_folder, write_whole
from tasks.protocol.wire import Arrays

_DIGITS = 32


def read(settings: SiteSettings, ledger: Ledger, study: str, cohort: str) -> Arrays:
    """The state after the last committed order of a study on a cohort; empty before the first.

    Raises:
        KeptLost: its file is gone or broken.
    """
    newest = _last_committed(ledger, study, cohort)
    if newest is None:
        return {}
    path = _file(settings, newest)
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise KeptLost(
            f"{path} holds this hospital's state of study {study} after round {newest.round}, and cannot be read "
            f"({error}); restore it from your backup, or the hospital cannot continue in this study"
        ) from error


def write(settings: SiteSettings, ledger: Ledger, use: Use, arrays: Arrays) -> None:
    """Write an order's state to disk, next to that of the last committed one; older files are deleted."""
    path, newest = _file(settings, use), _last_committed(ledger, use.study, use.cohort)
    private_folder(path.parent)
    write_whole(path, save(arrays), mode=0o600)
    counting = {path, path if newest is None else _file(settings, newest)}
    for old in set(path.parent.glob(f"{_stem(settings, use)}*")) - counting:
        old.unlink(missing_ok=True)


def _last_committed(ledger: Ledger, study: str, cohort: str) -> Use | None:
    commits = [(e.committed, e.use) for e in ledger.entries() if (e.use.study, e.use.cohort) == (study, cohort)]
    newest = max(((seq, use) for seq, use in commits if seq is not None), key=lambda pair: pair[0], default=None)
    return None if newest is None else newest[1]


def _file(settings: SiteSettings, use: Use) -> Path:
    return settings.kept / f"{_stem(settings, use)}{use.order_digest[:_DIGITS]}.safetensors"


def _stem(settings: SiteSettings, use: Use) -> str:
    return f"{settings.name}~{use.study}~"  # neither name has a '~'
