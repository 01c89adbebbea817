"""Papers: no sentence without a source that is there, the same in both forms, and nobody's text is markup."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from tasks.machine.checklist import Claim, ClaimState
from tasks.machine.evidence import Basis, Pack, Paper, Section, Sentence, counted, missing, of_checks, said, write

CHECKS = of_checks({
    "Programs": [Claim("It runs", ClaimState.OK, "pid 7", see="ps")],
    "Secrets": [Claim("Nobody reads it", ClaimState.FAIL, "mode 0644", "chmod 600")],
})  # fmt: skip
EVIL = "<script>x</script> [a](b) `c` | *d* _e_ \x1b[31m & $f$ under_score"


def pack(*sentences: Sentence, sources: list[Basis] = CHECKS) -> Pack:
    return Pack("Hospital x", "It stays.", [Paper("one", "One", "For one.", [Section("A", sentences)])], sources)


@pytest.mark.parametrize(
    "wrong",
    [
        pack(said("It runs.")),
        pack(said("It runs.", "S9")),
        pack(Sentence("It is not known.", ("S1",), missing=True)),
        pack(said("It runs.", "S1"), sources=[*CHECKS, CHECKS[0]]),
        pack(said("It runs.", "S 1"), sources=[Basis("S 1", "x", "y")]),
    ],
    ids=["no source", "a source that is not there", "known and missing", "one key twice", "no key"],
)
def test_a_sentence_without_a_source_is_not_written(tmp_path: Path, wrong: Pack) -> None:
    with pytest.raises(ValueError, match=r"rests on|keys"):
        write(tmp_path / "out", wrong)
    assert not (tmp_path / "out").exists()


def test_both_forms_say_the_same_and_every_reference_leads_somewhere(tmp_path: Path) -> None:
    made = pack(said("It runs, and is read by nobody.", "S1", "S2", "S1"), missing("who looks after it."))
    files = {path.name: path.read_text("utf-8") for path in write(tmp_path / "out", made)}
    assert set(files) == {f"{name}.{form}" for name in ("index", "sources", "one") for form in ("html", "md")}
    page, text = files["one.html"], files["one.md"]
    for form in (unescape(re.sub(r"<[^>]+>", "", page)), text.replace("**", "")):
        assert "It runs, and is read by nobody." in form
        assert "Missing: who looks after it." in form
        assert "S2 FAILS." in form, "a check that failed is told beside what rests on it"
        assert "not legal advice" in form
    assert re.findall(r'href="sources.html#(\w+)"', page) == ["S1", "S2"]
    assert all(f"<dt id={key}>" in files["sources.html"] for key in ("S1", "S2"))
    assert all(f"### {key}\n" in files["sources.md"] for key in ("S1", "S2"))
    assert counted(made.papers[0]) == (1, 1)
    assert "See for yourself: ps" in files["sources.md"]


def test_text_of_others_is_text(tmp_path: Path) -> None:
    files = {
        p.name: p.read_text("utf-8") for p in write(tmp_path / "out", pack(said(EVIL, "S1"), missing("# " + EVIL)))
    }
    assert "<script" not in files["one.html"]
    assert "\x1b" not in files["one.md"]
    line = next(line for line in files["one.md"].splitlines() if "script" in line)
    assert line.startswith("- \\<script\\>x\\</script\\> \\[a\\](b) \\`c\\` \\| \\*d\\* \\_e\\_ ")
    assert "under_score" in line, "what means nothing stays readable"


def test_pages_load_nothing_and_are_their_owners_alone(tmp_path: Path) -> None:
    for path in write(tmp_path / "out", pack(said("It runs.", "S1"))):
        assert path.stat().st_mode & 0o777 == 0o600
        if path.suffix == ".html":
            assert "default-src 'none'" in path.read_text("utf-8")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileExistsError):
        write(tmp_path / "out", pack(said("It runs.", "S1")))
