"""The four sequences of BraTS: how they are acquired, and what hospitals call them in SeriesDescription.

The order matters: contrast first, since a contrast-enhanced T1 is a T1 as well; FLAIR before T2, since it is called
"T2 FLAIR". Other examinations of the same session (diffusion, perfusion, susceptibility, angiography, spectroscopy),
scouts, and what was computed from others (subtractions, projections, reformats) are none of the four.

Words are English, German, French, Spanish, Italian and Chinese; a hospital adds its own (``series_words`` in
``site.yaml``). The times that tell the weighting are those of conventional and fast sequences at 1.5 and 3 T (Bitar et
al., RadioGraphics 2006; 26:513); between the ranges, words decide.
"""

import re

from tasks.task import Sequence, Series

_OTHER = (
    r"dwi|diff|adc|trace|dti|tensor|fa\b|swi|swan|susc|t2[ _]?\*|t2[ _]?star|t2[ _]?fl2d|gre\b|hemo|"
    r"perf|dsc|dce|asl|cbf|cbv|mtt|tof|angio|mra\b|mrv\b|veno|spectro|espectro|csi|svs|bold|fmri|field|b0|b1|"
    r"loc\b|localizer|localiser|localizador|rep[eé]rage|scout|survey|3[ _-]?plane|calib|asset|shim|phantom|"
    r"\bsub\b|subtr|sustrac|soustr|\bmip\b|\bmpr\b|reformat|ref\b|spine|orbit|pituit|neck|ciss|fiesta|\bpd\b|"
    r"弥散|扩散|灌注|磁敏感|血管|静脉|动脉|波谱|定位|减影|重建|脊|颈|垂体|眼眶"
)
_T1 = r"(t1|mp-?rage|bravo|f?spgr|vibe|tfl|3d[ _]?tfe)"
_AGENT = (
    r"(t1[ _-]?(w[ _-]?)?(c|ce|gd|pc|km|\+c)(?![a-z])|post(?![ _-]?op|erior)|"
    r"(?<![a-z])(gd|gad|gado|ce|km|contrast|cm|mdc|civ)(?![a-z])|"
    r"gadol|gado|kontrast|contrast|\+ ?(c|gd|km)(?![a-z])|\bc ?\+|enhanced|gadavist|dotarem|"
    r"inject[eé]|injection|inyec|apr[eè]s inj|增强|强化|造影剂|注药)"
)
_BEFORE = r"(\b(pre|without|w/?o|non|ohne|nativ|native|sans|sin|senza|avant|antes)\b|平扫|增强前|注药前)"
_FLAIR = r"(flair|dark[ _-]?fluid|tirm|压水|水抑制|抑水|黑水)"

_SHORT_ECHO_MS, _LONG_ECHO_MS = 30.0, 60.0
"""T1 has no longer echo than the first, T2 and FLAIR no shorter one than the second."""
_SHORT_REPETITION_MS, _LONG_REPETITION_MS = 1000.0, 2000.0
"""A spin echo with a shorter repetition than the first is a T1, with a longer one than the second a T2."""
_FLUID_INVERSION_MS = 1500.0
"""Fluid is suppressed by an inversion of at least so long; T1 is weighted by shorter ones (MPRAGE, T1 FLAIR)."""
_MAY_BE_FLUID_MS = 6000.0
"""With a longer repetition and no inversion time written down, a T2 may be a FLAIR."""
_COMPUTED = {
    *("ADC", "TRACEW", "DIFFUSION", "FA", "MPR", "MIP", "MINIP", "PROJECTION IMAGE", "SUBTRACTION", "CSA MPR"),
    *("PERFUSION", "TTP", "CBF", "CBV", "MTT", "SWI", "PHASE", "PHASE MAP", "LOCALIZER", "TOF", "ANGIO", "SCREEN SAVE"),
}
"""Values of ImageType of what is none of the four."""
_NOTHING_GIVEN = {"NONE", "NO", "N", "0", "W/O", "WITHOUT", "NATIV", "OHNE", "SANS", "SIN", "无"}
"""What is written into ContrastBolusAgent where nothing was given."""


def _is_other(series: Series) -> bool:
    return bool(_COMPUTED & set(series.image_type) or re.search(_OTHER, series.description, re.IGNORECASE))


def _weighting(series: Series) -> str | None:
    """T1, T2, FLAIR or PD by its times; ``None`` where they do not tell."""
    echo, repetition, inversion = series.echo_time_ms, series.repetition_time_ms, series.inversion_time_ms
    if not echo or not repetition:
        return None
    if echo >= _LONG_ECHO_MS and repetition >= _LONG_REPETITION_MS:
        if inversion and inversion >= _FLUID_INVERSION_MS:
            return "FLAIR"
        return None if not inversion and repetition >= _MAY_BE_FLUID_MS else "T2"
    if echo > _SHORT_ECHO_MS:
        return None
    if inversion and inversion < _FLUID_INVERSION_MS:
        return "T1"
    if repetition <= _SHORT_REPETITION_MS:
        # A gradient echo of such times may be angiography or susceptibility, which its words exclude.
        return "T1"
    return "PD" if repetition >= _LONG_REPETITION_MS and not inversion else None


def _is(wanted: str, series: Series) -> bool | None:
    if _is_other(series):
        return False
    weighting = _weighting(series)
    return None if weighting is None else weighting == wanted


def _has_agent(series: Series) -> bool:
    """Whether it was acquired after contrast agent was given. Its own words go before the agent's, which many scanners
    write into all series of an examination."""
    if re.search(_BEFORE, series.description, re.IGNORECASE):
        return False
    if re.search(_AGENT, series.description, re.IGNORECASE):
        return True
    return bool(series.contrast_agent) and series.contrast_agent.upper() not in _NOTHING_GIVEN


def _is_t1ce(series: Series) -> bool | None:
    weighted = _is("T1", series)
    if weighted is not None:
        return weighted and _has_agent(series)
    is_called = re.search(_T1, series.description, re.IGNORECASE) and not re.search(
        "t2", series.description, re.IGNORECASE
    )
    return _has_agent(series) if is_called else None


def _is_flair(series: Series) -> bool | None:
    return _is("FLAIR", series)


def _is_t2(series: Series) -> bool | None:
    return _is("T2", series)


def _is_t1(series: Series) -> bool | None:
    return _is("T1", series)


SEQUENCES = (
    Sequence("T1ce", rf"^(?!.*({_OTHER}))(?!.*(t2|{_BEFORE}))(?=.*{_T1}).*{_AGENT}", _is_t1ce),
    Sequence("FLAIR", rf"^(?!.*({_OTHER}))(?!.*t1).*{_FLAIR}", _is_flair),
    Sequence("T2", rf"^(?!.*({_OTHER}))(?!.*t1).*t2", _is_t2),
    Sequence("T1", rf"^(?!.*({_OTHER})).*{_T1}", _is_t1),
)
"""T1ce first, without which an examination is refused: the grade rests on whether the tumour enhances."""
