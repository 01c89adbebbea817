"""A study's identity: its document for the hospitals, and the folder that it runs or resumes in."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf import load as conf
from conf.schema.evaluation import looks_first, paired_bins
from conf.schema.model import Custom, weights_named
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from server.errors import CheckpointDamaged, StudyBusy
from server.rounds.evaluation import evaluates
from server.rounds.sampling import asked_at_most
from server.strategy.client_terms import method_of
from server.study.folder import FILE, NOT_COMPUTED, StudyFolder
from server.study.foresight import compared_where_it_pays
from server.study.gate import unfit_gate
from tasks import contract as contracts
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.models import installed, registry, weights
from tasks.models.model_file import MOST_BYTES
from tasks.protocol.study import (
    EvaluationTerms,
    PrivacyTerms,
    SecureSumTerms,
    StudyDocument,
    TrainingTerms,
    WireTerms,
    release,
)
from tasks.tables import answer_terms

_NO_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)
WEIGHTS = "weights"
"""The server's folder with files of weights that studies may name."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def document_in(study: Study, folder: StudyFolder) -> StudyDocument:
    """The document of a study that has a folder: with the sizes and the name of who asks that are fixed there.

    Raises:
        CheckpointDamaged: the folder has no sizes.
    """
    asked_by = folder.facts().get("asked_by") or ""
    return document_of(study, folder.name, fixed_sizes(folder), asked_by, fixed_peers(folder))


def document_of(
    study: Study,
    name: str,
    sizes: Mapping[str, int],
    asked_by: str = "",
    peers: Mapping[str, str] | None = None,
) -> StudyDocument:
    """The document that hospitals are asked to approve.

    Args:
        sizes: their public sizes, by name.
        peers: fingerprints of their enrolled keys, by name, where the study has secure sums.

    Raises:
        ConfigError: the study has secure sums, and too few hospitals for them or no keys of theirs; or weights of
            classes that the task does not have.
    """
    task, model = tasks.get(study.task.name), model_of(study)
    if wrong := task.unfit_weights(study.training.class_weights):
        raise conf.ConfigError(f"training.{wrong}")
    if wrong := unfit_gate(asdict(study.evaluation.gate), task):
        raise conf.ConfigError(wrong)
    evaluated = sum(evaluates(study, number) for number in range(1, study.federation.rounds + 1))
    findings, structures = task.asks(registry.outlines(model, task.form))
    terms = EvaluationTerms(
        releases=evaluated,
        bins=study.evaluation.bins,
        epsilon=study.evaluation.epsilon,
        subgroups=list(study.evaluation.subgroups),
        paired=paired_bins(study.evaluation),
        matrix=study.evaluation.matrix,
        findings=findings,
        structures=structures,
        answers=answer_terms(task, study.evaluation.bins),
        edges="released" if looks_first(study.evaluation) and not study.evaluation.pooled_only else "equal",
    )
    return StudyDocument(
        name=name,
        release=release(),
        task=task.name,
        task_version=task.example_version,
        contract=contracts.digest_of_task(task.name),
        model=model,
        rounds=study.federation.rounds,
        asked=asked_at_most(study),
        training=TrainingTerms(**asdict(study.training)),
        privacy=PrivacyTerms(study.privacy.epsilon, _delta(study, sizes), study.privacy.clip_norm),
        evaluation=compared_where_it_pays(terms, study.privacy.delta, sizes),
        method=method_of(study.strategy),
        wire=WireTerms(**asdict(study.wire)),
        sizes=dict(sizes),
        asked_by=asked_by,
        seed=study.seed if study.privacy.epsilon is None else None,
        secure_sum=_secure_sum(study, evaluated, {name: (peers or {}).get(name) for name in sizes}),
    )


def _delta(study: Study, sizes: Mapping[str, int]) -> float:
    """Of shared noise the largest hospital's: each grants at most a tenth of 1 / its size, and all have one noise."""
    sums = study.privacy.noise == "shared" or study.evaluation.pooled_only
    return min([study.privacy.delta, *(0.1 / size for size in sizes.values() if sums)])


def _secure_sum(study: Study, evaluations: int, peers: Mapping[str, str | None]) -> SecureSumTerms | None:
    privacy = study.privacy
    if privacy.noise == "own" and not study.evaluation.pooled_only:
        return None
    known = {name: key for name, key in peers.items() if key is not None}
    if lacking := sorted(peers.keys() - known.keys()):
        raise conf.ConfigError(f"privacy.noise=shared: no enrolled key is known of {', '.join(lacking)}")
    if len(known) < privacy.least_hospitals:
        raise conf.ConfigError(
            f"privacy.least_hospitals={privacy.least_hospitals}: there are {len(known)} hospitals; invite more, or set "
            "privacy=patient_dp"
        )
    return SecureSumTerms(
        steps=privacy.noise == "shared",
        figures=study.evaluation.pooled_only,
        least_hospitals=privacy.least_hospitals,
        colluding=privacy.colluding,
        spare_steps=math.ceil(study.federation.rounds * privacy.spare - 1e-9),
        spare_evaluations=math.ceil(evaluations * privacy.spare - 1e-9),
        peers=known,
    )


def fixed_sizes(folder: StudyFolder, declared: Mapping[str, int] | None = None) -> dict[str, int]:
    """The size that weights each hospital's updates: as it was declared when the study first started.

    Args:
        declared: what hospitals declare now; it is stored if the study has no sizes yet.

    Raises:
        CheckpointDamaged: the study's folder has no sizes, and none are given.
    """
    known = folder.facts().get("sizes")
    if known is None and declared is not None:
        known = dict(declared)
        folder.note(sizes=known)
    if known is None:
        raise CheckpointDamaged(f"{folder.path / FILE} has no sizes of hospitals: it was written by another release")
    return dict(known)


def fixed_peers(folder: StudyFolder, declared: Mapping[str, str] | None = None) -> dict[str, str]:
    """Fingerprints of the hospitals' enrolled keys, as they were when the study first started; as ``fixed_sizes``."""
    known = folder.facts().get("peers")
    if known is None and declared:
        known = dict(declared)
        folder.note(peers=known)
    return dict(known or {})


def model_of(study: Study) -> dict[str, Any]:
    """Name and options of the network, with the SHA-256 of its file of weights in place of the path, and the version of
    the package that another package's network comes from.

    Raises:
        ConfigError: there is no such file or package.
    """
    model = asdict(study.model)
    if (path := weights_file(study)) is not None:
        model["weights"] = _digest_of(path)
    if isinstance(study.model, Custom) and not study.model.version:
        model["version"] = _package_of(study.model.entry)
    return model


def _package_of(entry: str) -> str:
    try:
        return installed.package_of(entry)
    except installed.NotUsable as error:
        raise conf.ConfigError(f"model.entry={entry}: {error}") from error


def weights_of(study: Study) -> weights.Finder | None:
    """Finds the file of weights that the network starts from."""
    path = weights_file(study)
    return None if path is None else (lambda digest: path if _digest_of(path) == digest else None)


def weights_file(study: Study) -> Path | None:
    """The file that ``model.weights`` names: on a researcher's machine by its path, on a server by its SHA-256 among
    the files in ``weights/``. Nothing else is opened; ``None`` where the network starts from no file.

    Raises:
        ConfigError: there is no such file.
    """
    named = weights_named(study.model)
    if not named:
        return None
    if named.startswith("shipped:"):
        folder, file = Path("tasks/models/shipped"), weights.shipped(named)
    elif is_digest(named) and isinstance(study.runtime, SuperlinkRuntime):
        folder = Path(study.output_dir) / WEIGHTS
        files = [path for path in weights.files_in(folder) if _is_plain(path)] + weights.files_in(weights.SHIPPED)
        file = next((path for path in files if _digest_of(path) == named), None)
    else:
        folder, file = Path(named).parent, Path(named) if Path(named).is_file() else None
        if file is not None and file.suffix not in weights.SUFFIXES:
            raise conf.ConfigError(
                f"model.weights={named}: must be {' or '.join(weights.SUFFIXES)}; convert it: consilium encoder {named}"
            )
    if file is None:
        raise conf.ConfigError(f"model.weights={named}: there is no such file in {folder.name or '.'}/")
    return file


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 in hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def _is_plain(path: Path) -> bool:
    """Whether it is a regular file of a size that a model can have: no link, pipe or device."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size <= MOST_BYTES


def _digest_of(path: Path) -> str:
    try:
        return weights.digest_of(path)
    except OSError as error:
        raise conf.ConfigError(f"model.weights={path}: cannot be read: {error.strerror}") from error


def digest(study: Study) -> str:
    """Identifies the configuration: equal for two command lines that request the same computation."""
    plain = {key: value for key, value in conf.to_plain(study).items() if key not in NOT_COMPUTED}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def open_study(study: Study) -> StudyFolder:
    """The newest unfinished study of this configuration, or a new one.

    Raises:
        StudyBusy: another process is creating the folder at this moment.
        CheckpointDamaged: the newest one's file does not hold what was written.
    """
    root = Path(study.output_dir).resolve() / "studies"
    stem = f"{study.experiment}-{digest(study)[:8]}"
    numbers = [path.name.removeprefix(f"{stem}-") for path in root.glob(f"{stem}-*")]
    newest = max((int(number) for number in numbers if number.isdecimal()), default=0)
    if newest and study.resume == "auto":
        last = StudyFolder(f"{stem}-{newest}", root / f"{stem}-{newest}", resumed=True)
        if (last.path / FILE).exists() and not last.facts()["finished"]:
            return last
    folder = StudyFolder(f"{stem}-{newest + 1}", root / f"{stem}-{newest + 1}", resumed=False)
    try:
        folder.path.mkdir(parents=True)
    except FileExistsError:
        if root.is_dir():
            raise StudyBusy(f"another process is just starting {folder.name}; run this command again") from None
        raise conf.ConfigError(f"output_dir={study.output_dir}: is a file; set output_dir=FOLDER") from None
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        raise conf.ConfigError(
            f"output_dir={study.output_dir}: no folder can be made there ({error.strerror}); set "
            "output_dir=FOLDER, one that you may write to"
        ) from error
    facts = {"study": folder.name, "finished": False, "config": conf.to_plain(study)}
    write_whole(folder.path / FILE, json.dumps(facts, indent=1).encode())
    return folder
