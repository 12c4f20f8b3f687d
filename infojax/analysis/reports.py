"""What `analyze` returns: a `Report` for one array, `LayerReports` for several; numbers, and ways to display them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def _pandas():
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install 'infojax[frame]'") from error
    return pandas


class Interval(NamedTuple):
    """A 95% interval by stratified subsampling of m of the n samples without replacement.

    low, high: for the measure's expectation at n samples, centred on the value. at_m: mean over the subsamples.
    bias: at_m minus the value at n, i.e. the change of the measure from n samples to m. m: samples per subsample.
    """

    low: float
    high: float
    at_m: float
    bias: float
    m: int


@dataclass(frozen=True)
class Report:
    """The measures of one array, as returned by `analyze`.

    Attributes:
      name: of the array or layer; num_samples, dim, num_classes (None without labels).
      measures: name -> number; the names are those of the public functions and their fields. The reason of a nan is
        in `reasons`.
      limits: name -> value at exact neural collapse with these class counts and this mean energy, for some.
      conventions: name -> its definition. warnings: what a statistician would point out.
      per_class: name -> (C,) array. spectrum: eigenvalues of the density of the unit rows, descending.
      renyi: alpha -> entropy. intervals: name -> `Interval`, if requested.
      class_names: names of string labels, in numerical order of their classes.
    """

    name: str
    num_samples: int
    dim: int
    num_classes: int | None
    measures: dict[str, float]
    limits: dict[str, float]
    conventions: dict[str, str]
    warnings: tuple[str, ...]
    reasons: dict[str, str]
    per_class: dict[str, np.ndarray]
    spectrum: np.ndarray
    renyi: dict[float, float]
    intervals: dict[str, Interval] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> float:
        """A measure by its name: `report.mir` is `report.measures["mir"]`."""
        measures = self.__dict__.get("measures", {})  # missing during unpickling
        if name not in measures:
            raise AttributeError(f"a report has no {name!r}; its measures are {', '.join(measures)}")
        return measures[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self.measures if name.isidentifier())]

    def table(self, width: int = 100) -> str:
        """The report as fixed-width text."""
        from infojax.report.tables import render_table

        return render_table(self, width)

    __repr__ = __str__ = table

    def __rich__(self):
        from infojax.report.tables import rich_table

        return rich_table(self.table)

    def _repr_html_(self):
        from infojax.report.tables import html_table

        return html_table(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for json.dumps (nan included as float)."""
        return {
            "name": self.name,
            "num_samples": self.num_samples,
            "dim": self.dim,
            "num_classes": self.num_classes,
            "measures": dict(self.measures),
            "limits": dict(self.limits),
            "conventions": dict(self.conventions),
            "warnings": list(self.warnings),
            "reasons": dict(self.reasons),
            "per_class": {key: np.asarray(value).tolist() for key, value in self.per_class.items()},
            "renyi": {str(alpha): value for alpha, value in self.renyi.items()},
            "intervals": {key: value._asdict() for key, value in self.intervals.items()},
            "class_names": list(self.class_names),
        }

    def to_frame(self) -> "pd.DataFrame":
        """A pandas DataFrame, one row per measure: value, limit, low, high, bias, convention."""
        pd = _pandas()

        rows = {
            key: {
                "value": value,
                "limit": self.limits.get(key, float("nan")),
                **{k: getattr(self.intervals.get(key), k, float("nan")) for k in ("low", "high", "bias")},
                "convention": self.conventions.get(key, ""),
            }
            for key, value in self.measures.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")

    def plot(self) -> Any:
        """A matplotlib Figure: spectrum, Rényi entropies, per-class values."""
        from infojax.report.figures import plot

        return plot(self)

    def to_html(self, title: str | None = None) -> str:
        """One self-contained HTML page as a string."""
        from infojax.report.page import html_page

        return html_page({self.name: {self.name: self}}, title or self.name)


class LayerReports(Mapping[str, Report]):
    """Reports of several layers, in order of depth; a mapping layer -> `Report`."""

    def __init__(self, reports: Mapping[str, Report]) -> None:
        self._reports = dict(reports)

    def __getitem__(self, key: str) -> Report:
        return self._reports[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)

    def table(self, width: int = 100) -> str:
        """One row per layer, as fixed-width text."""
        from infojax.report.tables import render_layers

        return render_layers(self._reports, width)

    __repr__ = __str__ = table

    def __rich__(self):
        from infojax.report.tables import rich_table

        return rich_table(self.table)

    def to_dict(self) -> dict[str, Any]:
        """layer -> `Report.to_dict()`."""
        return {key: report.to_dict() for key, report in self.items()}

    def to_frame(self) -> "pd.DataFrame":
        """A pandas DataFrame, one row per layer, one column per measure."""
        pd = _pandas()

        return pd.DataFrame.from_dict({key: r.measures for key, r in self.items()}, orient="index").rename_axis("layer")

    def plot(self) -> Any:
        """A matplotlib Figure of the measures against depth."""
        from infojax.report.figures import plot

        return plot(self._reports)

    def to_html(self, title: str = "layers") -> str:
        """One self-contained HTML page as a string."""
        from infojax.report.page import html_page

        return html_page({title: self._reports}, title)
