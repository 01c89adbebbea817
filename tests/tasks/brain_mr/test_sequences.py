"""Which sequence a series is, by the descriptions that scanners of several makers and languages write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.brain_mr.sequences import SEQUENCES
from tasks.task import series_of

DESCRIPTIONS = {
    "T1ce": [
        "t1_mprage_sag_p2_iso_KM",
        "AX T1 POST",
        "Ax T1 +C",
        "AXIAL T1 POST GAD",
        "T1 SE TRA KM",
        "3D T1 MPRAGE POST",
        "SAG 3D BRAVO +C",
        "Ax T1 FLAIR +C",
        "T1ce",
        "T1Gd",
        "t1_fl2d_tra_gd",
        "MPRAGE post contrast",
        "T1W_3D_TFE_GADO",
        "T1 3D GADO",
        "WBrain T1 CE",
        "Ax T1 C+",
        "t1_tse_tra_fs_contrast",
        "T1C",
        "T1w_post",
        "AX 3D T1 SPGR POST",
        "ax t1 w contrast",
        "AXIAL T1 WITH CONTRAST",
        "T1 post-Gd",
        "ce-gadolinium_T1w",
        "COR T1 POST",
        "t1_vibe_tra_fs_KM",
        "3D TFE GD",
        "Ax T1 post op +C",
        "轴位T1增强",
        "T1WI 增强 矢状",
        "T1 tra nach Kontrastmittel",
        "AX T1 APRES INJECTION",
        "T1 injecté",
        "T1 SAG CON CONTRASTE",
        "T1 CIV",
        "t1 con mdc",
    ],
    "FLAIR": [
        "AX FLAIR",
        "Ax T2 FLAIR",
        "t2_flair_tra",
        "T2_TIRM_TRA_DARK-FLUID",
        "t2_space_dark-fluid_sag_p2_iso",
        "3D FLAIR",
        "FLAIR POST CONTRAST",
        "Sag CUBE FLAIR",
        "FLAIR_longTR",
        "ax flair fs",
        "轴位T2压水",
        "T2 水抑制",
    ],
    "T2": [
        "AX T2",
        "t2_tse_tra",
        "T2W_TSE",
        "Ax T2 FRFSE",
        "T2 TSE TRA 512",
        "Ax T2 PROPELLER",
        "T2 SPACE",
        "t2 post",
        "T2w",
        "AX T2 FSE +C",
        "轴位 T2WI",
        "T2 transversal",
    ],
    "T1": [
        "AX T1",
        "t1_se_tra",
        "T1 MPRAGE",
        "t1_mprage_sag_p2_iso",
        "SAG T1 FLAIR",
        "Ax T1 FLAIR",
        "3D BRAVO",
        "T1W_3D_TFE",
        "AX T1 PRE",
        "AX T1 PRE CONTRAST",
        "T1 pre Gd",
        "T1 nativ",
        "T1w",
        "AX T1 W/O",
        "AXIAL T1 WITHOUT CONTRAST",
        "FSPGR 3D",
        "t1_fl2d_tra",
        "T1 non contrast",
        "T1 Post Op",
        "Ax T1 postop",
        "轴位T1平扫",
        "T1 SANS INJECTION",
        "T1 SIN CONTRASTE",
        "T1 tra ohne KM",
    ],
    None: [
        "ep2d_diff_3scan_trace_p2",
        "ep2d_diff_ADC",
        "AX DWI",
        "Ax SWAN",
        "t2_fl2d_tra_hemo",
        "AX T2* GRE",
        "T2_STAR",
        "SWI_Images",
        "localizer",
        "3 Plane Loc",
        "Loc",
        "AAHead_Scout",
        "ep2d_perf",
        "DSC perfusion",
        "TOF_3D",
        "MIP T1 post",
        "T1 SUB",
        "SUBTRACTION",
        "PERFUSION T1 DCE",
        "Ax ASL",
        "MRA neck",
        "t2_tse_sag spine",
        "CISS 3D",
        "Phoenix",
        "",
        "Survey",
        "t1_fl3d_dyn DCE",
        "MPR T1 cor post",
        "Ax PD",
        "DTI 30 dir",
        "Average DC",
        "isoADC",
        "CBV",
        "弥散加权",
        "T1 灌注",
        "颅脑血管成像",
        "定位像 T1",
        "REPERAGE",
        "LOCALIZADOR T1",
    ],
}


def _found(description: str) -> str | None:
    return next((sequence.name for sequence in SEQUENCES if sequence.finds(description)), None)


@pytest.mark.parametrize(("name", "description"), [(name, one) for name, some in DESCRIPTIONS.items() for one in some])
def test_a_series_is_what_it_is_called(name: str | None, description: str) -> None:
    assert _found(description) == name
    assert _found(description.upper()) == name
    assert _found(description.lower()) == name


def test_contrast_comes_first() -> None:
    assert [sequence.name for sequence in SEQUENCES] == ["T1ce", "FLAIR", "T2", "T1"]


T1_TIMES = {"EchoTime": "9", "RepetitionTime": "550"}
MPRAGE = {"EchoTime": "2.9", "RepetitionTime": "2300", "InversionTime": "900"}
T2_TIMES = {"EchoTime": "100", "RepetitionTime": "4500"}
FLAIR_TIMES = {"EchoTime": "120", "RepetitionTime": "9000", "InversionTime": "2500"}


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("T1", T1_TIMES | {"SeriesDescription": "Serie 4"}),
        ("T1ce", T1_TIMES | {"SeriesDescription": "Serie 9", "ContrastBolusAgent": "Gadovist"}),
        ("T1ce", MPRAGE | {"SeriesDescription": "Serie 9 KM"}),
        ("T1", MPRAGE | {"SeriesDescription": "T1 nativ", "ContrastBolusAgent": "Gadovist"}),
        ("T1", MPRAGE | {"SeriesDescription": "x", "ContrastBolusAgent": "None"}),
        ("T2", T2_TIMES | {"SeriesDescription": "Serie 2", "ContrastBolusAgent": "Gadovist"}),
        ("FLAIR", FLAIR_TIMES | {"SeriesDescription": "Serie 3"}),
        ("FLAIR", FLAIR_TIMES | {"SeriesDescription": "t2 mislabelled t1"}),
        ("FLAIR", {"EchoTime": "120", "RepetitionTime": "9000", "SeriesDescription": "T2 FLAIR"}),
        ("T2", {"EchoTime": "120", "RepetitionTime": "9000", "SeriesDescription": "T2 tse"}),
        (
            "T1",
            {"EchoTime": "9", "RepetitionTime": "2000", "InversionTime": "860", "SeriesDescription": "Sag T1 FLAIR"},
        ),
        ("T1ce", {"ContrastBolusAgent": "Dotarem", "SeriesDescription": "AX T1"}),
        ("T1", {"EchoTime": "x", "RepetitionTime": "", "SeriesDescription": "AX T1"}),
        (None, {"EchoTime": "12", "RepetitionTime": "3000", "SeriesDescription": "Serie 1"}),
        (None, {"EchoTime": "3.4", "RepetitionTime": "22", "SeriesDescription": "TOF 3D"}),
        (None, T1_TIMES | {"ImageType": r"DERIVED\SECONDARY\MPR", "SeriesDescription": "T1 KM"}),
        (None, {"EchoTime": "90", "RepetitionTime": "5000", "ImageType": r"DERIVED\PRIMARY\DIFFUSION\ADC"}),
        (None, {"SeriesDescription": "Serie 5", "ContrastBolusAgent": "Gadovist"}),
    ],
)
def test_attributes_tell_before_words_do(name: str | None, texts: dict[str, str]) -> None:
    series = series_of(texts)
    assert next((sequence.name for sequence in SEQUENCES if sequence.matches(series)), None) == name


@given(
    st.dictionaries(st.sampled_from(["SeriesDescription", "EchoTime", "RepetitionTime", "InversionTime"]), st.text())
)
def test_a_series_is_at_most_one_of_them_by_its_times(texts: dict[str, str]) -> None:
    series = series_of(texts)
    told = [sequence.name for sequence in SEQUENCES if sequence.name != "T1ce" and sequence.acquired(series)]
    assert len(told) <= 1
