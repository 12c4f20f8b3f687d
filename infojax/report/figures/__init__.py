"""Figures of reports, and the style, canvas and panels they share with the figures of runs. Loads matplotlib."""

from infojax.report.figures.reports import (
    depth_figure,
    layer_figures,
    per_class_figure,
    plot,
    renyi_figure,
    save_figures,
    save_trajectory,
    spectrum_figure,
    trajectory_figure,
)

__all__ = [
    "depth_figure",
    "layer_figures",
    "per_class_figure",
    "plot",
    "renyi_figure",
    "save_figures",
    "save_trajectory",
    "spectrum_figure",
    "trajectory_figure",
]
