"""Studies side by side, from folders as studies leave them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from conf import load
from server import commands
from server.pages import comparison
from server.study.baselines import Arms
from tests.drawn import undrawn
from tests.server.outcome import evaluated, outcome

BOTH = ("ash", "elm")


def ended(root: Path, name: str, *overrides: str, distance: float = 2.0, hospitals: tuple[str, ...] = BOTH) -> Path:
    """A study's folder, as far as it is read."""
    found, _ = outcome(
        {h: evaluated(n, distance) for n, h in enumerate(hospitals)},
        Arms(pooled={h: evaluated(n, 2.5) for n, h in enumerate(hospitals)}),
    )
    config = load.to_plain(load.load(["experiment=demo", *overrides]))
    (root / name).mkdir(parents=True)
    (root / name / "study.json").write_text(json.dumps({"study": name, "config": config}))
    (root / name / "results.json").write_text(json.dumps(asdict(found)))
    return root / name


def test_what_differs_is_found_and_the_frontier_is_drawn(tmp_path: Path) -> None:
    sweep = {"1": 0.8, "4": 1.6, "inf": 2.4}
    folders = [ended(tmp_path, f"s{e}", f"privacy.epsilon={e}", distance=d) for e, d in sweep.items()]
    studies = [comparison.read(folder) for folder in folders]
    assert comparison.differing(studies) == ["privacy.epsilon"]
    told = comparison.points(studies)
    assert [name for name, _ in told] == ["1", "4", "none"]
    values = [interval.value for _, interval in told]
    assert values == sorted(values)
    assert all(interval.low < interval.value < interval.high for _, interval in told)
    page = comparison.page(studies)
    assert "What privacy costs" in page
    assert "all patients pooled, no noise" in page
    assert page.count("<svg") == 1


def test_seeds_of_one_epsilon_are_one_point_as_wide_as_each(tmp_path: Path) -> None:
    folders = [ended(tmp_path, f"s{seed}", f"seed={seed}") for seed in (1, 2)]
    studies = [comparison.read(folder) for folder in folders]
    ((name, interval),) = comparison.points(studies)
    assert name == "8"
    single = comparison.points(studies[:1])[0][1]
    assert interval.high - interval.low == pytest.approx(single.high - single.low)
    assert "<svg" not in comparison.page(studies)


def test_only_hospitals_that_all_have_are_compared(tmp_path: Path) -> None:
    one = ended(tmp_path, "one", hospitals=("ash", "elm", "oak"))
    other = ended(tmp_path, "other", "seed=2", hospitals=("elm", "oak"))
    assert comparison.shared([comparison.read(one), comparison.read(other)]) == ["elm", "oak"]


def test_what_cannot_be_compared_is_refused_with_the_reason(tmp_path: Path) -> None:
    ash, elm = ended(tmp_path, "a", hospitals=("ash",)), ended(tmp_path, "b", hospitals=("elm",))
    with pytest.raises(comparison.NotComparable, match="no hospital has an AUC in all of these studies"):
        comparison.shared([comparison.read(ash), comparison.read(elm)])
    xray = ended(tmp_path, "c", "task=pneumonia_xray", hospitals=("ash",))
    with pytest.raises(comparison.NotComparable, match="different questions"):
        comparison.shared([comparison.read(ash), comparison.read(xray)])
    with pytest.raises(comparison.NotComparable, match="no study that has ended"):
        comparison.read(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(comparison.NotComparable, match="is a file and no folder; name another path"):
        comparison.read(tmp_path / "file")


def test_the_command_writes_the_page_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(ended(tmp_path, f"s{n}", f"seed={n}")) for n in (1, 2)]
    to = tmp_path / "new" / "page.html"
    assert commands.main(["compare", *folders, "--to", str(to)], undrawn) == 0
    assert "s1" in to.read_text()
    assert "page.html" in capsys.readouterr().out
    assert commands.main(["compare", str(tmp_path), "--to", str(to)], undrawn) == 2
    assert "NotComparable" in capsys.readouterr().out
    assert commands.main(["send", "--output-dir", str(tmp_path)], undrawn) == 0


def test_the_table_has_a_row_a_study(tmp_path: Path) -> None:
    studies = [comparison.read(ended(tmp_path, f"s{n}", f"seed={n}")) for n in (1, 2)]
    console = Console(width=200, record=True)
    console.print(comparison.table(studies, 200))
    shown = console.export_text()
    assert "seed" in shown
    assert shown.count("0.") >= 6


def test_the_table_fits_a_terminal_of_80_columns_and_no_study_is_cut(tmp_path: Path) -> None:
    more = ("privacy.epsilon=3", "privacy.epsilon=8", "privacy=none")
    studies = [
        comparison.read(ended(tmp_path, f"a-study-with-a-rather-long-name-{n}", f"seed={n}", epsilon))
        for n, epsilon in enumerate(more, start=1)
    ]
    console = Console(width=80, record=True)
    console.print(comparison.table(studies, 80))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert all(f"{n}: {study.name}" in shown for n, study in enumerate(studies, start=1))


def test_one_curve_is_drawn_only_through_studies_that_differ_in_nothing_else(tmp_path: Path) -> None:
    strict, lax = (comparison.read(ended(tmp_path, f"e{e}", f"privacy.epsilon={e}")) for e in (3, 8))
    other = comparison.read(ended(tmp_path, "other", "privacy.epsilon=8", "training.steps=7"))
    alike, told = comparison.page([strict, lax]), comparison.page([strict, other])
    assert "No curve" not in alike
    assert "differ in more than that (training.steps)" in told
    assert alike.count("<svg") == told.count("<svg") + 1
