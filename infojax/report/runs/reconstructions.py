"""What a masked autoencoder saw of a few pictures, and how it filled in the rest."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infojax.report.figures.canvas import Drawn, new_figure, plain, styled
from infojax.report.runs.curves import Method

RECONSTRUCTIONS = (
    "He et al. 2022, Fig. 2, measured: held-out pictures at the last evaluation of one seed, with masks drawn once. "
    "“pasted”: the prediction where the patch was hidden, the picture elsewhere. A network that predicts normalised "
    "patches (norm_pix) does not predict their mean and contrast: those of the picture's own patches are used, so that "
    "only the texture within a patch is predicted. The loss does not cover visible patches."
)
ROWS = ("picture", "visible", "prediction", "pasted")
GREY = 127  # of hidden patches


@styled
def draw_reconstructions(methods: Sequence[Method], title: str) -> Drawn | None:
    """(figure, rows) of the pictures of each method's first run that has some; None without any."""
    shown = [(method, row) for method in methods if (row := _row(method)) is not None]
    if not shown:
        return None
    columns = max(row["pictures_shape"][0] for _, row in shown)
    height = len(shown) * len(ROWS)
    figure = new_figure(title, max(0.95 * columns + 0.9, 5.2), 0.9 * height + 0.7)
    axes = figure.subplots(height, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.set_frame_on(False)
    rows: list[dict[str, Any]] = []
    for i, (method, row) in enumerate(shown):
        for j, parts in enumerate(pictured(row)):
            for axis, pixels in zip(axes[i * len(ROWS) :, j], parts.values(), strict=False):
                axis.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=255)
            rows.append({"run": row.get("run", 0), "step": row["step"], "picture": j} | _numbers(row, j))
        for axis, name in zip(axes[i * len(ROWS) :, 0], ROWS, strict=False):
            axis.set_ylabel(name, fontsize=7)
        axes[i * len(ROWS), 0].set_title(_named(method, row), fontsize=8)
    return figure, rows


def _row(method: Method) -> Mapping[str, Any] | None:
    found = method.history.pictures
    return next((found[run] for run in method.runs if run in found), None)


def _named(method: Method, row: Mapping[str, Any]) -> str:
    seed = method.history.seeds.get(row.get("run", 0))
    parts = [method.label, "" if seed is None else f"seed {seed}", f"step {row['step']:,}", row.get("split", "")]
    return plain(", ".join(filter(None, parts)))


def unpacked(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pictures (n, H, W, c), predictions, hidden (n, H, W, 1)) of a row, uint8."""
    shape = row["pictures_shape"]
    pixels = np.frombuffer(base64.b64decode(row["pictures"]), np.uint8).reshape(shape)
    channels = shape[3] // 2
    return pixels[..., :channels], pixels[..., channels:-1], pixels[..., -1:]


def pictured(row: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
    """For each picture, the images drawn of it, by the names in ROWS."""
    pictures, predictions, hidden = unpacked(row)
    shown = np.where(hidden, GREY, pictures), predictions, np.where(hidden, predictions, pictures)
    return [dict(zip(ROWS, parts, strict=True)) for parts in zip(pictures, *shown, strict=True)]


def _numbers(row: Mapping[str, Any], i: int) -> dict[str, float]:
    """Share of pixels that were hidden, and the root mean squared error there, in levels of 255."""
    pictures, predictions, hidden = (part[i].astype(float) for part in unpacked(row))
    error = ((pictures - predictions) ** 2 * hidden).sum() / max(hidden.sum() * pictures.shape[-1], 1)
    return {"hidden": float(hidden.mean()), "rmse_hidden": float(np.sqrt(error))}
