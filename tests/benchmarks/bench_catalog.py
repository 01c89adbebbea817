"""How a catalog grows: header pass, ingest, second ingest, memory, look-alikes, and reading what is cached.

    python -m tests.benchmarks.bench_catalog [--sizes 10 100 1000 5000 20000] [--folder DIR] [--out FILE.json]

Instances are made from a few phantom X-rays (99 x 111 pixels, 12 bits) with numbers and noise of their own, two a
patient, uncompressed. Each size is ingested by a fresh process into a fresh catalog, then once more with nothing new.
Wall and CPU time are of the ingesting process and its decoding processes; peak memory is VmHWM of the former. Reading
is from a warm page cache, random order, one thread: it compares formats, not disks. The exponent is the slope of log
time over log size from the third size on; 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, generate_uid
from rich.console import Console
from rich.table import Table

from client.cohort import catalog
from client.cohort.cache import load_example
from client.cohort.preparation import Decoding
from client.reading.dicom import read_frame, read_header
from client.setup.provisioning import provision
from client.site import SiteSettings, load
from client.sources.acquisition import acquisition_reader
from tasks import task as tasks
from tasks.task import PhantomHospital

_TASK = "pneumonia_xray"
_TEMPLATES = 16
_READS = 1000


def generate(folder: Path, number: int) -> None:
    """Write ``dicom`` and ``labels.csv`` with so many instances."""
    tasks.get(_TASK).draw_phantom(folder / "templates", PhantomHospital("bench", _TEMPLATES), 1)
    templates = [dcmread(path) for path in sorted((folder / "templates" / "dicom").rglob("*.dcm"))]
    rng = np.random.default_rng(number)
    rows = ["PatientID,label"]
    for instance in range(number):
        patient = f"P{instance // 2:06d}"
        _write(templates[instance % len(templates)], folder / "dicom" / patient / f"{instance}.dcm", patient, rng)
        if instance % 2 == 0:
            rows.append(f"{patient},{instance // 2 % 2}")
    (folder / "labels.csv").write_text("\n".join(rows), "utf-8")


def _write(template: Dataset, path: Path, patient: str, rng: np.random.Generator) -> None:
    pixels = np.frombuffer(template.PixelData, np.uint16)
    grid = rng.normal(0, 250, (12, 12)).repeat(10, 0).repeat(10, 1)[: template.Rows, : template.Columns]
    changed = (pixels + grid.ravel() + rng.normal(0, 8, pixels.size)).clip(0, 4095).astype(np.uint16)
    template.PatientID, template.SOPInstanceUID = patient, generate_uid()
    template.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
    template.PixelData = changed.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    template.save_as(path)


def _site(folder: Path) -> SiteSettings:
    source = {"kind": "folder", "task": _TASK, "issuer": "bench", "path": "dicom", "labels": "labels.csv"}
    settings = {"name": "bench", "public_size": 1000, "sources": [source], "policy": {"tasks": [_TASK]}}
    (folder / "site.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    site = load(folder / "site.yaml")
    provision(site)
    return site


def measure(folder: Path, number: int) -> dict[str, Any]:
    """Ingest a folder that ``generate`` has filled, in this process."""
    site, task = _site(folder), tasks.get(_TASK)
    files = sorted((folder / "dicom").rglob("*.dcm"))
    read = acquisition_reader(site.sources[0], task)
    headers = _cpu(lambda: [read(read_header(path)) for path in files[:2000]]) / min(number, 2000)
    first, first_cpu = _timed(lambda: catalog.ingest(site, task))
    second, second_cpu = _timed(lambda: catalog.ingest(site, task))
    report = catalog.report(site, task)
    return {
        "instances": number,
        "usable": report.images,
        "headers_per_cpu_s": 1 / headers,
        "ingest_s": first,
        "ingest_cpu_s": first_cpu,
        "again_s": second,
        "again_cpu_s": second_cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "index_mb": (site.catalog / "index.sqlite").stat().st_size / 1e6,
        "look_alikes": report.near_duplicates.pairs,
    }


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    begun, cpu = time.perf_counter(), _cpu_of_all()
    work()
    return time.perf_counter() - begun, _cpu_of_all() - cpu


def _cpu_of_all() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _cpu(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def reading(folder: Path) -> dict[str, float]:
    """Samples a second: from the cache as the breast task makes them, and 512 x 512 JPEG 2000 by our reader."""
    task = tasks.get("breast_ultrasound")
    task.draw_phantom(folder, PhantomHospital("reading", 60, images_per_patient=(3, 4)), 3)
    source = {"kind": "folder", "task": task.name, "issuer": "r", "path": "dicom", "labels": "labels.csv"}
    settings = {"name": "reading", "public_size": 50, "sources": [source], "policy": {"tasks": [task.name]}}
    (folder / "site.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    site = load(folder / "site.yaml")
    provision(site)
    with Decoding() as decoding:
        catalog.ingest(site, task, decoding=decoding)
    examples = [entry.example for side in ("train", "validation") for entry in catalog.entries(site, task, side)]
    chosen = random.Random(0).choices(examples, k=_READS)
    for path in examples:
        load_example(path)
    cached_wall, cached_cpu = _timed(lambda: [load_example(path) for path in chosen])
    compressed = [_jpeg_2000(folder / f"{number}.dcm", number) for number in range(20)]
    wall, cpu = _timed(lambda: [read_frame(path) for path in compressed * 2])
    return {
        "cached_per_s": _READS / cached_wall,
        "cached_per_cpu_s": _READS / cached_cpu,
        "jpeg_2000_per_s": 40 / wall,
        "jpeg_2000_per_cpu_s": 40 / cpu,
        "cached_bytes": float(examples[0].stat().st_size),
    }


def _jpeg_2000(path: Path, number: int) -> Path:
    source = dcmread(next(path.parent.joinpath("dicom").rglob("*.dcm")))
    rng = np.random.default_rng(number)
    smooth = rng.normal(0, 1, (64, 64)).repeat(8, 0).repeat(8, 1)
    pixels = (2048 + 400 * smooth + rng.normal(0, 20, (512, 512))).clip(0, 4095).astype(np.uint16)
    source.set_pixel_data(pixels, "MONOCHROME2", 12, generate_instance_uid=False)
    source.compress(JPEG2000Lossless, generate_instance_uid=False)
    source.save_as(path)
    return path


def _exponent(rows: list[dict[str, Any]], what: str) -> float | None:
    large = rows[2:]
    if len(large) < 2:
        return None
    slope = np.polyfit(np.log([row["instances"] for row in large]), np.log([row[what] for row in large]), 1)[0]
    return float(slope)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 100, 1000, 5000, 20000])
    parser.add_argument("--folder", type=Path, default=None, help="where instances go; about 25 kB each")
    parser.add_argument("--out", type=Path, default=Path("bench_catalog.json"))
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "NUMBER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(Path(args.one[0]), int(args.one[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for number in args.sizes:
            folder = Path(name) / str(number)
            generate(folder, number)
            command = [sys.executable, "-m", "tests.benchmarks.bench_catalog", "--one", str(folder), str(number)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(told.splitlines()[-1]))
            print(rows[-1], file=sys.stderr, flush=True)
        read = reading(Path(name) / "reading")
    exponents = {what: _exponent(rows, what) for what in ("ingest_s", "ingest_cpu_s", "again_s", "again_cpu_s")}
    table = Table(title="Catalog: X-ray phantoms, two processes decoding")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" for value in row.values()))
    Console(width=140).print(table, exponents, read)
    conditions = {"cpus": os.cpu_count(), "load": os.getloadavg(), "python": sys.version.split()[0]}
    results = {"conditions": conditions, "rows": rows, "exponents": exponents, "reading": read}
    args.out.write_text(json.dumps(results, indent=1), "utf-8")


if __name__ == "__main__":
    main()
