"""From a config to a study, and the studies of several numbers of shots one after the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from infojax.data import Arrays, Chosen
from infojax.objectives import Facts, Seeds
from infojax.outputs import write
from infojax.tasks.build import Study, arrays_of, loaded, placed
from infojax.tasks.build.saved import TOWERS
from infojax.tasks.config import buildable
from infojax.tasks.crossmodal.features import save_features
from infojax.tasks.crossmodal.learning import Laid, prompt_learning, views, zero_shot
from infojax.tasks.crossmodal.measured import Encoded, evaluators_of
from infojax.tasks.crossmodal.posed import pose
from infojax.tasks.crossmodal.recipe import shots_of, templates_of, with_shots
from infojax.tasks.crossmodal.samples import Samples, by_class, in_one
from infojax.tasks.towers import Towers, small
from infojax.tasks.train import say_once, train


def run(config: ConfigDict, workdir: str | Path, dry_run: bool = False) -> Any:
    """Trains, measures and draws, each number of shots in its own folder; returns the last state.

    The method "features" trains nothing and writes what `save_features` says.
    """
    if config.method == "features":
        with buildable("the features"):
            return save_features(config, workdir, dry_run)
    known: dict[str, Any] = {}
    shots = shots_of(config.shots)
    several, state = len(shots) > 1, None
    folders = [Path(workdir) / f"shots_{count}" if several else Path(workdir) for count in shots]
    for count, folder in zip(shots, folders, strict=True):
        own = with_shots(config, count)
        if several:
            say_once(f"{count} shots, in {folder}")
        with buildable("data, model and objective"):
            if several and not dry_run:
                _same_towers(folders[0], folder)
            found = study(own, None if dry_run else folder, known)
        state = train(found, own, folder, dry_run)
    return state


def _same_towers(first, folder):
    """Small towers are trained once, for all numbers of shots."""
    if jax.process_index() == 0 and (first / TOWERS).is_file() and not (folder / TOWERS).exists():
        write(folder / TOWERS, (first / TOWERS).read_bytes())


def study(config: ConfigDict, workdir: str | Path | None = None, known: dict[str, Any] | None = None) -> Study:
    """Few shots as image features, the prompt, the frozen towers. Everything is checked before towers are trained.

    Args:
      workdir: where small towers are kept; None leaves them untrained.
      known: test features of an earlier study with the same towers and classes, which are left there.
    Raises:
      ConfigError, DataError: names the key.
    """
    posed = pose(config)
    objective: Any
    samples, laid, sizes, source = posed.samples, posed.laid, posed.sizes, posed.source
    dtype = jnp.dtype(config.model.dtype)
    towers = posed.given or small(config.towers, sizes, source, posed.seen, posed.names, workdir, dtype)
    encoded = encode(config, towers, samples, laid, {} if known is None else known)
    counts = np.bincount(samples.shots[0].labels, minlength=len(samples.base))
    facts = Facts(len(samples.base), posed.total, tuple(counts.tolist()))
    if laid is None:
        objective, ctx, constants = zero_shot(config, towers, encoded.templates["test"], facts)
    else:
        objective, ctx, constants = prompt_learning(config, towers, laid, facts, posed.per_epoch, posed.batch_size)
    drawn = sources(config, objective, samples, encoded)
    draws = len(encoded.shots)  # one for each seed; zero-shot CLIP draws once
    return Study(
        objective=objective,
        ctx=ctx,
        transforms=views(towers, posed.flip),
        data=drawn.data,
        streams=drawn.streams,
        splits=encoded.splits,
        evaluators=evaluators_of(encoded, config.evaluate.train_samples, posed.total, laid is not None),
        per_epoch=posed.per_epoch,
        members=lambda seed: [({"seed": seed}, Seeds(seed, seed, seed, part=(seed - config.seed) % draws))],
        constants=constants | parts_of(drawn, len(encoded.shots)),
        files={"few_shot.txt": shots_file(samples)},
        notes=(*posed.notes, *towers.notes, *posed.told, *drawn.notes),
    )


def encode(config: ConfigDict, towers: Towers, samples: Samples, laid: Laid | None, known: dict[str, Any]) -> Encoded:
    """Images and templates through the towers, each image once; those of the tests stay in `known`."""
    drawn, back = np.unique(np.concatenate([part.chosen for part in samples.shots]), return_inverse=True)
    features = towers.images(samples.shots[0].source, drawn)[back].reshape(
        len(samples.shots), -1, towers.sizes.features
    )
    shots = [Arrays(x, part.labels) for x, part in zip(features, samples.shots, strict=True)]

    for name, split in (("test", samples.test), ("novel", samples.unseen)):
        if split is not None and name not in known:
            known[name] = Arrays(towers.images(split.source, split.chosen), split.labels)
    names = {"test": samples.base, "novel": samples.novel}
    templates = {split: towers.texts(own, templates_of(config)) for split, own in names.items() if own}
    return Encoded(
        shots, known["test"], known.get("novel"), float(towers.logit_scale), config.evaluate.batch_size, names,
        templates, laid.novel if laid else templates.get("novel"),
    )  # fmt: skip


class Sources(NamedTuple):
    """What steps draw from: on the devices, read by the host (pictures that do not fit), and notes."""

    data: dict[str, Any]
    streams: dict[str, Any]
    notes: Sequence[str]


def sources(config: ConfigDict, objective: Any, samples: Samples, encoded: Encoded) -> Sources:
    """Features of the shots, with pictures or class by class where the objective asks for it."""
    features = in_one([arrays_of(part) for part in encoded.shots])
    if not getattr(objective, "cached", True):
        every = np.concatenate([part.chosen for part in samples.shots])
        labels = np.concatenate([part.labels for part in samples.shots])
        pictures, notes = loaded(config, Chosen(samples.shots[0].source, every, labels))
        where = placed({"train": pictures})
        return Sources({"features": features, **where["data"]}, where["streams"], notes)
    data = {"train": features}
    if getattr(objective, "per_class", 0):
        sizes = objective.per_class, objective.batch_size, len(samples.base)
        data["classes"] = in_one([by_class(part.x, part.labels, *sizes) for part in encoded.shots])
    return Sources(data, {}, ())


def parts_of(drawn: Sources, draws: int) -> dict[str, Any]:
    """The constant that gives each seed its own part of every source (`infojax.train.draw`); nothing for one draw."""
    if draws == 1:
        return {}
    sizes = {name: len(arrays["labels"]) for name, arrays in drawn.data.items()}
    sizes |= {name: len(source) for name, source in drawn.streams.items()}
    return {"parts": {name: jnp.arange(size).reshape(draws, -1) for name, size in sizes.items()}}


def shots_file(samples: Samples) -> str:
    """Indices of the shots in the training set, a line per shot and a column per seed."""
    columns = zip(*(part.chosen.tolist() for part in samples.shots), strict=True)
    return "".join(" ".join(map(str, row)) + "\n" for row in columns)
