"""Clips of manifests: the frames that a task takes, each decoded once, and broken ones refused one by one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.errors import SiteMisconfigured
from client.sources.files import clips
from client.sources.files.clips import Clip, is_clip
from client.sources.files.manifest import list_manifest
from client.sources.record import Unreadable
from client.sources.settings import ManifestSource
from tasks.lung_ultrasound import TASK

NOBODY: frozenset[str] = frozenset()
LEVELS = [10 * number for number in range(20)]  # a frame's grey, which tells which one it is


def _frame(level: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pixels = np.full((32, 48), level, dtype=np.uint8)
    pixels[:4] = 255
    return pixels


def _gif(path: Path, levels: list[int]) -> None:
    frames = [Image.fromarray(_frame(level)) for level in levels]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)


def _video(path: Path, levels: list[int], codec: str = "mpeg4") -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed (extra `clips`)")
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 48, 32, "yuv420p", 2_000_000
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.repeat(_frame(level)[..., None], 3, axis=-1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _level(clip: Clip, frame: int) -> int:
    return int(np.rint(np.median(clip.picture(frame).pixels) * 255))


@pytest.mark.parametrize("name", ["a.gif", "a.mp4", "a.AVI", "a.mpeg"])
def test_the_wanted_frames_come_in_any_order(tmp_path: Path, name: str) -> None:
    if name.endswith("gif"):
        _gif(tmp_path / name, LEVELS)
    else:
        _video(tmp_path / name, LEVELS, "mpeg2video" if name.endswith("mpeg") else "mpeg4")
    assert is_clip(tmp_path / name)
    clip = Clip(tmp_path / name, TASK.frames, 10**6)
    assert clip.wanted == TASK.frames(len(LEVELS)) == (1, 5, 8, 11, 15, 18)
    for frame in (18, 1, 11, 1):
        assert _level(clip, frame) == pytest.approx(LEVELS[frame], abs=4)


def test_a_clip_is_decoded_once_for_all_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _gif(tmp_path / "a.gif", LEVELS)
    decoded = []
    real = clips._gif_frames
    monkeypatch.setattr(clips, "_gif_frames", lambda path: decoded.append(path) or real(path))
    clip = Clip(tmp_path / "a.gif", TASK.frames, 10**6)
    for frame in clip.wanted:
        clip.picture(frame)
    assert len(decoded) == 1
    assert not clip._kept, "nothing of it stays in memory"


def test_what_is_broken_or_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gif").write_text("no clip")
    with pytest.raises(Unreadable, match="DECODE_FAILED"):
        Clip(tmp_path / "text.gif", TASK.frames, 10**6)
    with pytest.raises(Unreadable, match="DECODE_FAILED"):
        Clip(tmp_path / "absent.gif", TASK.frames, 10**6)
    _gif(tmp_path / "a.gif", LEVELS)
    with pytest.raises(Unreadable, match="TOO_LARGE"):
        Clip(tmp_path / "a.gif", TASK.frames, 1000)
    pytest.importorskip("av", reason="PyAV is not installed (extra `clips`)")
    (tmp_path / "text.mp4").write_text("no clip")
    with pytest.raises(Unreadable, match="DECODE_FAILED"):
        Clip(tmp_path / "text.mp4", TASK.frames, 10**6)


def test_a_clip_that_ends_early_loses_its_missing_frames_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _gif(tmp_path / "a.gif", LEVELS)
    monkeypatch.setattr(clips, "_gif_size", lambda path: (40, 48 * 32))
    clip = Clip(tmp_path / "a.gif", TASK.frames, 10**6)
    assert _level(clip, clip.wanted[0]) == LEVELS[clip.wanted[0]]
    with pytest.raises(Unreadable, match="ends before frame 36"):
        clip.picture(36)


def test_rows_of_a_manifest_may_be_clips(tmp_path: Path) -> None:
    Image.fromarray(_frame(7)).save(tmp_path / "still.png")
    _gif(tmp_path / "clip.gif", LEVELS)
    _gif(tmp_path / "short.gif", LEVELS[:1])
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    rows = ["still.png,P1,0", "clip.gif,P1,1", "short.gif,P2,1", "broken.gif,P3,1", "clip.gif,P1,1"]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,patient_id,label", *rows, ""]), "utf-8")
    source = ManifestSource(kind="manifest", task=TASK.name, issuer="set", path=tmp_path)
    listing = list_manifest(source, TASK, NOBODY)
    names = [record.image_id for record in listing.records]
    clip = [f"clip.gif frame {frame}" for frame in (1, 5, 8, 11, 15, 18)]
    assert names == ["still.png", *clip, "short.gif", "broken.gif"]
    assert {record.patient_id for record in listing.records[1:7]} == {"P1"}
    assert listing.left_out == {"DUPLICATE_LABEL_ROW": 1}
    assert np.median(listing.records[2].read().pixels) * 255 == pytest.approx(LEVELS[5])
    with pytest.raises(Unreadable, match="DECODE_FAILED"):
        listing.records[-1].read()
    both = list_manifest(source, replace(TASK, moments=("first", "last")), NOBODY)
    clip = next(record for record in both.records if record.image_id == "clip.gif").read()
    assert [np.median(plane) * 255 for plane in (clip.pixels, *clip.beside)] == pytest.approx([LEVELS[0], LEVELS[-1]])
    one = list_manifest(source, replace(TASK, frames_per_clip=1), NOBODY)
    assert [record.image_id for record in one.records] == ["still.png", "clip.gif", "short.gif", "broken.gif"]


def test_videos_without_pyav_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SiteMisconfigured, match=r"consilium-fl\[clips\]"):
        Clip(tmp_path / "a.mp4", TASK.frames, 10**6)
