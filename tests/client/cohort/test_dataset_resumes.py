"""Features that take long are kept while they are made: who is ended in between goes on, and makes none twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from client.cohort import dataset
from client.cohort.dataset import open_cohort
from tasks import task as tasks
from tasks.models.network import Network
from tests.client.hospital import TASK, Hospital, draw_archive

SPEC: dict[str, Any] = {"name": "slow"}


class Slow(nn.Module):
    """Counts the images that it has seen, and is ended at one of them."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.seen, self._last = 0, last

    def forward(self, images: Tensor) -> Tensor:
        if images.any():
            if self.seen == self._last:
                raise KeyboardInterrupt
            self.seen += 1
        return images.flatten(1).mean(dim=1, keepdim=True)


def test_what_was_made_before_the_end_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hospital = Hospital.provision(tmp_path, draw_archive(tmp_path / "archive"))
    task = tasks.get(TASK)
    monkeypatch.setattr(dataset, "_AT_ONCE", 1)
    monkeypatch.setattr(dataset, "_TELL_EVERY_S", 0.0)
    caplog.set_level("INFO")
    first = Slow(last=3)
    with pytest.raises(KeyboardInterrupt):
        open_cohort(hospital.settings, task, "train", SPEC, Network(first, nn.Linear(1, 1)))
    second = Slow(last=10_000)
    cohort = open_cohort(hospital.settings, task, "train", SPEC, Network(second, nn.Linear(1, 1)))
    assert first.seen == 3
    assert second.seen == len(cohort.inputs) - 3 > 0
    assert f"3 of {len(cohort.inputs)} images are made ready" in caplog.text
    monkeypatch.undo()
    plain = open_cohort(hospital.settings, task, "train", SPEC | {"x": 1}, Network(Slow(10_000), nn.Linear(1, 1)))
    torch.testing.assert_close(cohort.inputs, plain.inputs, rtol=0, atol=0)
