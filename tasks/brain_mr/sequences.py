"""The four sequences of BraTS, and what hospitals call them in SeriesDescription.

The order matters: contrast first, since a contrast-enhanced T1 is a T1 as well; FLAIR before T2, since it is called
"T2 FLAIR". Other examinations of the same session (diffusion, perfusion, susceptibility, angiography, spectroscopy),
scouts, and what was computed from others (subtractions, projections, reformats) are none of the four.
"""

from tasks.task import Sequence

_OTHER = (
    r"dwi|diff|adc|trace|dti|tensor|fa\b|swi|swan|susc|t2[ _]?\*|t2[ _]?star|t2[ _]?fl2d|gre\b|hemo|"
    r"perf|dsc|dce|asl|cbf|cbv|mtt|tof|angio|mra\b|mrv\b|veno|spectro|csi|svs|bold|fmri|field|b0|b1|"
    r"loc\b|localizer|localiser|scout|survey|3[ _-]?plane|calib|asset|shim|phantom|"
    r"\bsub\b|subtr|\bmip\b|\bmpr\b|reformat|ref\b|spine|orbit|pituit|neck|ciss|fiesta|\bpd\b"
)
_T1 = r"(t1|mp-?rage|bravo|f?spgr|vibe|tfl|3d[ _]?tfe)"
_AGENT = (
    r"(t1[ _-]?(w[ _-]?)?(c|ce|gd|pc|km|\+c)(?![a-z])|post(?![ _-]?op|erior)|"
    r"(?<![a-z])(gd|gad|gado|ce|km|contrast|cm|mdc)(?![a-z])|"
    r"gadol|gado|kontrast|contrast|\+ ?(c|gd|km)(?![a-z])|\bc ?\+|enhanced|gadavist|dotarem)"
)
_BEFORE = r"\b(pre|without|w/?o|non|ohne|nativ|sans)\b"

SEQUENCES = (
    Sequence("T1ce", rf"^(?!.*({_OTHER}))(?!.*(t2|{_BEFORE}))(?=.*{_T1}).*{_AGENT}"),
    Sequence("FLAIR", rf"^(?!.*({_OTHER}))(?!.*t1).*(flair|dark[ _-]?fluid|tirm)"),
    Sequence("T2", rf"^(?!.*({_OTHER}))(?!.*t1).*t2"),
    Sequence("T1", rf"^(?!.*({_OTHER})).*{_T1}"),
)
"""T1ce first, without which an examination is refused: the grade rests on whether the tumour enhances."""
