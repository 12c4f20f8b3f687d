"""Tables of reports: fixed-width text, a rich renderable, and HTML for a notebook.

All three show the same `sections(report)`; a NaN always comes with its reason. Only NumPy is loaded, and rich for
`rich_table`.
"""

from infojax.report.tables.content import (
    by_step,
    class_table,
    class_values,
    comparison,
    format_value,
    headline,
    one_line,
    sections,
    side_by_side,
    sparkline,
    subsampling,
    worst,
)
from infojax.report.tables.html import html_table
from infojax.report.tables.text import (
    render_layers,
    render_side_by_side,
    render_table,
    render_trajectory,
    rich_table,
)
from infojax.report.tables.words import in_words

__all__ = [
    "by_step",
    "class_table",
    "class_values",
    "comparison",
    "format_value",
    "headline",
    "html_table",
    "in_words",
    "one_line",
    "render_layers",
    "render_side_by_side",
    "render_table",
    "render_trajectory",
    "rich_table",
    "sections",
    "side_by_side",
    "sparkline",
    "subsampling",
    "worst",
]
