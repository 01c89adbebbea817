"""A set of clips with sites of one class only: it trains, warns that the site reveals the label, and reports per
site. ``experiment=lung`` is such a study of real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from conf import load
from server.__main__ import client_app, provision_hospitals
from server.launch import run_study
from tests.federation.embedded import console

SITES = {"volunteers": (10, 0), "journals": (0, 10), "clinic": (12, 12)}
SMALL = ("federation.rounds=2", "training.steps=3", "training.sample_rate=0.8", "evaluation.arms=[local]")
MODEL = ("model.resolution=16", "model.J=2", "model.L=2", "model.pool=2")


def _write_set(folder: Path) -> None:
    """Clips of three frames; the ill have a bright streak, and sites differ in brightness."""
    signs = "x_blines,x_consolidation,x_effusion,x_alines,x_pleural"
    rng, rows = np.random.default_rng(0), [f"file,x_split_group,site,label_pathology,{signs}"]
    for level, (site, sizes) in enumerate(SITES.items()):
        for number in range(sum(sizes)):
            ill = number >= sizes[0]
            frames = rng.integers(20 + 40 * level, 80 + 40 * level, (3, 40, 40), dtype=np.uint8)
            frames[:, :, 18:22] += np.uint8(60 * ill)
            name = f"{site}{number}.gif"
            first, *others = map(Image.fromarray, frames)
            first.save(folder / name, save_all=True, append_images=others, duration=40)
            noted = f"{float(ill)},{float(ill)},,0.0," if site == "clinic" else ",,,,"
            rows.append(f"{name},{site}-{number},{site},{int(ill)},{noted}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", "utf-8")


def test_sites_of_one_class_train_and_are_warned_of(tmp_path: Path) -> None:
    _write_set(tmp_path)
    folders = (f"data_root={tmp_path}", f"output_dir={tmp_path / 'out'}")
    shown_on, shown = console()
    study = load.load(["experiment=lung", "tracking=none", *SMALL, *MODEL, *folders])
    results = run_study(study, provision_hospitals, client_app, shown_on)
    assert results.dropped == {}
    assert results.arms["federated"].keys() == results.arms["local"].keys() == SITES.keys()
    assert results.arms["federated"]["clinic"].auc is not None
    assert results.arms["federated"]["volunteers"].auc is None
    assert all(value is not None and value <= 8 for value in results.epsilon.values())
    told = " ".join(shown.getvalue().split())
    assert "volunteers validated with negative patients only, journals with positive ones only" in told
    assert "journals has validation patients of one class only: it has no AUC" in told
    page = (tmp_path / "out" / "studies" / results.study / "report.html").read_text("utf-8")
    assert "reveals the label" in page
