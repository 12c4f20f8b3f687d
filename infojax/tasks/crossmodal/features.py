"""Features of a data set in files: images of both splits, with the texts of the classes as a head."""

import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from infojax import outputs
from infojax.processes import together
from infojax.tasks.crossmodal.posed import pose
from infojax.tasks.crossmodal.recipe import templates_of
from infojax.tasks.towers import note_size, small
from infojax.tasks.train import say_once


def save_features(config: ConfigDict, workdir: str | Path, dry_run: bool = False) -> None:
    """Writes features_train.npz and features_test.npz into a folder, with the arrays

    features (N, E) float32, unit image features; labels (N,); head (C, E), unit features of the classes' texts (the
    mean over the templates of zero-shot CLIP); class_names (C,); logit_scale, the log of the factor of the cosines.
    `python -m infojax.measure` and configs/probe.py:data=features read them.

    Raises:
      ConfigError, DataError: names the key.
    """
    posed = pose(config)
    train, test, sizes = posed.source, posed.samples.test.source, posed.sizes
    folder, dtype = (None if dry_run else workdir), jnp.dtype(config.model.dtype)
    towers = posed.given or small(config.towers, sizes, train, posed.seen, posed.names, folder, dtype)
    chosen = {"train": np.setdiff1d(np.arange(len(train)), posed.seen), "test": np.arange(len(test))}
    left = f"train: the {len(chosen['train']):,} samples that the small towers were not trained on"
    say_once("\n".join([*posed.notes, *towers.notes, *note_size(sizes, train.shape), *[left] * (posed.given is None)]))
    paths = {split: Path(workdir) / f"features_{split}.npz" for split in chosen}
    if dry_run:
        for split, path in paths.items():
            say_once(f"{path}: {len(chosen[split]):,} x {sizes.features} would be written")
        return
    head = towers.texts(posed.names, templates_of(config))
    names = np.array(posed.names)
    shared = {"head": np.asarray(head), "class_names": names, "logit_scale": np.asarray(towers.logit_scale)}
    with together():
        if jax.process_index() == 0:
            for (split, path), source in zip(paths.items(), (train, test), strict=True):
                rows = chosen[split]
                write(path, {"features": towers.images(source, rows), "labels": source.labels[rows], **shared})
                say_once(f"{path}: {len(rows):,} x {sizes.features}")


def write(path: Path, arrays: dict[str, Any]) -> None:
    """An .npz file, whole or not at all."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    outputs.write(path, file.getvalue())
