"""A report in words: collapsed or not and by which measures, what is rank-limited, what is estimated."""

from collections.abc import Mapping

from infojax.measures.catalogue import CATALOGUE
from infojax.report.tables.content import Report, format_value

# Measures that vanish at collapse, and their names in sentences. NC1, a trace, is averaged over its C - 1 directions.
SIGNS = {
    "nc1": "NC1 per direction",
    "nc2_equinorm": "NC2 norms",
    "nc2_equiangularity": "NC2 angles",
    "nc3": "NC3",
    "nc4": "NC4",
}
SMALL = 0.1  # a tenth of the value without collapse, where spreads equal distances and norms vary by their own size


def signs_of_collapse(report: Report) -> dict[str, float]:
    """Name -> value of the measures in this report that vanish at collapse."""
    found = {}
    for key, name in SIGNS.items():
        value = report.measures.get(key)
        if value is not None and value == value:
            found[name] = value / max((report.num_classes or 2) - 1, 1) if key == "nc1" else value
    return found


def sign_value(value: float) -> str:
    """Two digits, or three where two would hide on which side of SMALL it is."""
    text = format_value(value, 2)
    return format_value(value, 3) if float(text) == SMALL else text


def in_words(report: Report) -> list[str]:
    """One sentence each on collapse, on the rank, and on what was estimated or measured on only some rows.

    None on a weight matrix, whose rows are not samples.
    """
    if "spectral_norm" in report.measures:
        return []
    return [line for line in (_collapse(report), _rank(report), _estimated(report)) if line]


def _collapse(report):
    found = signs_of_collapse(report)
    if not found:
        return "" if report.num_classes else "No labels: nothing can be said about collapse."
    low = [f"{name} {sign_value(value)}" for name, value in found.items() if value < SMALL]
    high = [f"{name} {sign_value(value)}" for name, value in found.items() if not value < SMALL]
    if not high:
        return f"Collapsed: {', '.join(low)}, all below {SMALL}."
    if not low:
        return f"Not collapsed: {', '.join(high)}, none below {SMALL}."
    return f"Partly collapsed: {', '.join(low)} below {SMALL}; {', '.join(high)} not."


def _rank(report):
    n, dim = report.num_samples, report.dim
    if n > dim:
        return ""
    return f"Rank-limited: {n:,} samples span at most {n:,} of {dim:,} dimensions, which bounds entropies and ranks."


def _estimated(report):
    estimated = [k for k, text in report.conventions.items() if "; estimated" in text and k in CATALOGUE]
    partial = [k for k, text in report.conventions.items() if "drawn at random" in text and k in CATALOGUE]
    parts = [f"estimated: {', '.join(estimated)}"] if estimated else []
    parts += [f"on some of the rows: {', '.join(partial)}"] if partial else []
    return f"{'; '.join(parts)[:1].upper()}{'; '.join(parts)[1:]}." if parts else ""


def lettered(names: Mapping[str, object] | list[str]) -> dict[str, str]:
    """Letter -> name, for columns whose names are too long for a heading: A, B, ..., Z, AA, ..."""
    letters = [chr(65 + i) for i in range(26)]
    letters += [a + b for a in letters for b in letters]
    return dict(zip(letters, names, strict=False))
