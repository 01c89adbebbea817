"""Files that are almost right, for property tests: bytes flipped, cut, doubled, and JSON with one value replaced."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

MANY = settings(
    max_examples=120 if settings.get_current_profile_name() == "steady" else 5000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

VALUES = st.sampled_from(
    [None, True, 0, -1, 10**400, 1e308, -1e308, 5e-324, "", "x", "../x", "[/red]", "\ud800", [], {}, [[]], {"x": 1}]
) | st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def bytes_of(draw: st.DrawFn, content: bytes) -> bytes:
    """A content with some bytes changed, and perhaps cut or doubled."""
    spoilt = bytearray(content)
    for at, value in draw(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8)):
        if spoilt:
            spoilt[at % len(spoilt)] = value
    how = draw(st.sampled_from(["whole", "cut", "doubled"]))
    if how == "cut":
        return bytes(spoilt[: draw(st.integers(0, len(spoilt)))])
    return bytes(spoilt * 2) if how == "doubled" else bytes(spoilt)


@st.composite
def json_of(draw: st.DrawFn, value: Any) -> str:
    """A JSON text in which up to three values have become another, are gone, or are new."""
    whole = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(0, 3))):
        whole = _changed(draw, whole)
    return json.dumps(whole)


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        what = draw(st.sampled_from(["below", "below", "gone", "more"]))
        if what == "gone":
            return {name: one for name, one in value.items() if name != key}
        if what == "more":
            return value | {"more": draw(VALUES)}
        return value | {key: _changed(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _changed(draw, value[at]), *value[at + 1 :]]
    return draw(VALUES)
