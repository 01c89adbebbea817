"""The command ``consilium``: the only file that sees both the server's rooms and the hospitals'.

It exists for the embedded runtime, where one process plays everybody. A deployed server never imports it.

Tested in ``tests/federation/test_whole_study.py``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
# Threads that wait for each other must sleep, not spin: on a busy machine spinning makes torch five times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from server import command_line
from server.errors import HospitalNotReady

if TYPE_CHECKING:  # what runs a study takes seconds to import, which a mistyped command need not wait for
    from flwr.clientapp import ClientApp
    from torch import Tensor

    from conf.schema.study import Study
    from server.simulation import Hospitals
    from server.study.baselines import Advance


def main() -> None:
    """Run the study that the command line describes, or one of the commands about studies."""
    if len(sys.argv) > 1 and sys.argv[1] in command_line.COMMANDS:
        from server import commands

        sys.exit(commands.main(sys.argv[1:], phantom_examples))
    command_line.main(provision_hospitals, client_app)


def provision_hospitals(study: Study, folder: Path, advance: Advance) -> Hospitals:
    """Provision the simulated hospitals of a study.

    Raises:
        HospitalNotReady: images, labels, settings or folders of one cannot be used.
    """
    from client.errors import SiteError
    from client.setup import partition, virtual
    from server.simulation import Hospitals

    try:
        simulated = virtual.provision_virtual_hospitals(
            study, folder, lambda issuer, done, total: advance(f"ingest {issuer}", done, total)
        )
    except (SiteError, ValueError, OSError) as error:
        raise HospitalNotReady(str(error)) from error
    return Hospitals(
        federated=simulated.federated,
        alone=simulated.alone,
        imaginary={"pooled": [partition.POOLED], "shuffled": virtual.shufflings(study)},
        again=simulated.again,
        public_sizes=simulated.public_sizes,
        peers=simulated.peers,
        sizes=simulated.sizes,
        warnings={name: ingested.warnings for name, ingested in simulated.reports.items()},
        notes=simulated.notes,
        conformance={
            name: (ingested.contract.conforming, ingested.contract.examined)
            for name, ingested in simulated.reports.items()
            if ingested.contract.examined
        },
    )


def phantom_examples(task: str, number: int) -> Tensor:
    """Phantoms of a task as a hospital sees them: float32 (images, channels, ...).

    Raises:
        HospitalNotReady: they cannot be drawn.
    """
    from client.errors import SiteError
    from client.setup.phantom_examples import drawn

    try:
        return drawn(task, number)
    except (SiteError, ValueError, OSError) as error:
        raise HospitalNotReady(str(error)) from error


def client_app() -> ClientApp:
    """The hospitals' app, the very object that a deployed hospital runs."""
    from client.app import app

    return app


if __name__ == "__main__":
    main()
