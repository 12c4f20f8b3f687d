"""Self-supervised learning: a method of `infojax.objectives.selfsup`, measured by matrix information."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from infojax.data import RECIPES, Recipe, Source, open_dataset, view_transforms
from infojax.evaluate import (
    fixed_sample,
    interplay,
    neural_collapse,
    on_sample,
    online,
    reconstructions,
    spectrum,
    view_information,
    view_lidar,
)
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.models import Linear, Projector, options_of
from infojax.objectives import Context, Facts, Net, Optimizer, flat_settings, with_settings
from infojax.objectives.selfsup import METHODS, SelfSupervised
from infojax.objectives.selfsup.mmae import FORMS as RATES
from infojax.objectives.selfsup.spectral import FORMS as SPECTRAL
from infojax.objectives.selfsup.vicreg import SHARE
from infojax.tasks.build import (
    Study,
    Tools,
    check_batch,
    check_choice,
    labelled_part,
    loaded,
    network,
    normalisation,
    note_fewer,
    optimizer,
    optimizer_settings,
    placed,
    reading,
    total_steps,
    with_unlabelled,
)
from infojax.tasks.config import ConfigError, training
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator, at
from infojax.train.networks import as_net

MASKED = tuple(name for name in METHODS if "mae" in name)  # these take one view and have no projector
FORMS = {"spectral": SPECTRAL, "vicreg": tuple(SHARE), "mmae": RATES, "mmae_released": RATES}
# The branches that a method compares: weights and feature for the first view, and for the second.
BRANCHES = {"byol": (("raw", "prediction"), ("target", "projection"))}
DERIVED = ("target_steps", "patch")  # fields of methods that follow from the run and the network


def defaults(name: str, chosen: ConfigDict) -> ConfigDict:
    """The keys of a self-supervised run, except those that presets set."""
    config = training(name, chosen)
    method = chosen.get("method", "simclr")
    config.task, config.method = "selfsup", method
    config.data = dict(
        name=chosen.data, dir="", options=dict(),
        views="mae" if method in MASKED else "simclr_small",  # a recipe of infojax.data.views
        least_area=0.0,  # least area of a crop; 0: that of the recipe
        **reading(),
    )  # fmt: skip
    config.model = dict(name=chosen.model, dtype="float32", options=dict())
    # Widths of the layers of the heads, for methods that have them; norm: whether layers have batch normalisation.
    config.projector = dict(widths=(2048, 256), norm=method != "simclr")
    config.predictor = dict(widths=(4096, 256))
    config.online = dict(lr=0.1)  # learning rate of the linear classifier trained alongside; 0: none
    settings = flat_settings(METHODS[method])
    config.objective = {key: value for key, value in settings.items() if key not in DERIVED}
    config.optimizer = optimizer_settings("larc", lr=0.4, weight_decay=1e-4, schedule="cosine_linspace")
    config.evaluate.views = 512  # held-out samples whose two views are compared; 0: none
    config.evaluate.lidar_views = 10  # views of each of these samples, for LiDAR; below 2: none
    if method in MASKED:
        config.evaluate.pictures = 6  # held-out samples whose reconstructions are drawn at the end; 0: none
    return config


def study(config: ConfigDict) -> Study:
    """The pictures without their labels, the method, its networks and optimisers.

    Raises:
      ConfigError, DataError: names the key.
    """
    dataset = open_dataset(config.data.name, config.data.dir or None, **config.data.options)
    source, test, classes = dataset.split("train"), dataset.split("test"), dataset.num_classes
    every, reads = loaded(config, with_unlabelled(dataset, source))
    source = labelled_part(every, source)
    check(config)
    check_batch(config.objective.batch_size, len(every))
    per_epoch = len(every) / config.objective.batch_size
    total = total_steps(config, per_epoch)
    mean, std, notes = normalisation(dataset, source)
    method = method_of(config, total)
    nets = networks(config, classes, source.shape)
    views = view_transforms(mean, std, recipes(config.data), flip=dataset.flip)
    moments = (mean, std)
    return Study(
        objective=method,
        ctx=Context(nets, {"main": Optimizer(optimizers(config, total, nets))}, Facts(classes, total)),
        transforms=views,
        **placed({"train": every}),
        splits={"train": source, "test": test},
        evaluators=lambda tools, due: (
            *evaluators(config, tools, due, test, views),
            *pictures(config, nets["net"], at(total), test, views["plain"], moments),
        ),
        per_epoch=per_epoch,
        notes=(*notes, *reads, *note_fewer(config, train=source, test=test), *note_views(config, len(test))),
    )


def method_of(config: ConfigDict, total: int) -> SelfSupervised:
    """The method of a config, with the fields that follow from the run and the network."""
    settings = config.objective.to_dict()
    if config.method == "byol":
        settings["target_steps"] = total
    if config.method in MASKED:
        settings["patch"] = patch_of(config.model)
    return with_settings(METHODS[config.method], settings)


def patch_of(model: ConfigDict) -> int:
    """The side of a patch of the network, in pixels."""
    return model.options.get("patch", options_of(model.name).get("patch", 16))


def recipes(data: ConfigDict) -> tuple[Recipe, Recipe]:
    """The recipes of the two views of a config."""
    one, two = (
        recipe._replace(area=(data.least_area, recipe.area[1])) if data.least_area else recipe
        for recipe in RECIPES[data.views]
    )
    return one, two


def networks(config: ConfigDict, classes: int, shape: tuple[int, ...]) -> dict[str, Net]:
    """The nets by name: "net", and "projector", "predictor" and "online" if the method and the config have them."""
    like, masked = jax.ShapeDtypeStruct((2, *shape), jnp.float32), config.method in MASKED
    inputs = [like]
    if masked:
        patches = math.prod(side // patch_of(config.model) for side in shape[:2])
        inputs.append(jax.ShapeDtypeStruct((2, patches), jnp.float32))  # noise
    nets = {"net": network(config.model, classes, *inputs)}
    embedding = jax.eval_shape(
        lambda x: nets["net"].apply(*nets["net"].init(jax.random.key(0)), x, train=False)[0].embedding, like
    )
    dtype = jnp.dtype(config.model.dtype)
    if not masked:
        decay = config.model.options.get("norm_decay", 0.9)
        own = config.projector
        nets["projector"] = as_net(Projector(tuple(own.widths), own.norm, decay, dtype), embedding)
        if config.method == "byol":
            projection = jax.ShapeDtypeStruct((2, own.widths[-1]), jnp.float32)
            nets["predictor"] = as_net(Projector(tuple(config.predictor.widths), True, decay, dtype), projection)
    if config.online.lr:
        nets["online"] = as_net(Linear(classes), embedding)
    return nets


def optimizers(config: ConfigDict, total: int, nets: dict[str, Net]) -> optax.GradientTransformation:
    """The optimiser of a config, and for "online" the same with its own learning rate and no weight decay."""
    own = ConfigDict(config.optimizer.to_dict() | {"lr": config.online.lr, "weight_decay": 0.0})
    parts = {"main": optimizer(config.optimizer, total)}
    if "online" in nets:
        parts["online"] = optimizer(own, total)
    return optax.multi_transform(parts, {name: "online" if name == "online" else "main" for name in nets})


def evaluators(
    config: ConfigDict, tools: Tools, due: Any, test: Source, views: Mapping[str, Callable]
) -> Iterator[Evaluator]:
    """Evaluators of the features of both splits, the online classifier, and the views of one held-out batch."""
    measures = (online, interplay, partial(neural_collapse, convention=config.evaluate.convention), spectrum)
    for split in ("train", "test"):
        run = on_sample(tools.through, tools.sample(split), measures)
        yield Evaluator("features", due, lambda models, run=run: run({"raw": models["raw"]}))
    if not config.evaluate.views:
        return
    sample = fixed_sample("test", test, config.evaluate.views, seed=1)
    if config.evaluate.lidar_views > 1:
        yield Evaluator("lidar", due, view_lidar(views["view1"], sample, config.evaluate.lidar_views))
    if config.method not in MASKED:
        branches = BRANCHES.get(config.method, (("raw", "projection"),) * 2)
        yield Evaluator("views", due, view_information((views["view1"], views["view2"]), sample, branches))


def pictures(
    config: ConfigDict, net: Net, due: Any, test: Source, plain: Callable, moments: Any
) -> Iterator[Evaluator]:
    """The evaluator that draws what a masked auto-encoder reconstructs of a few held-out samples."""
    if config.evaluate.get("pictures"):
        sample, patch = fixed_sample("test", test, config.evaluate.pictures, seed=1), patch_of(config.model)
        ddof = config.objective.norm_ddof if config.objective.norm_pix else None
        found = reconstructions(net, plain, sample, patch, ddof, moments)
        yield Evaluator("pictures", due, found)


def note_views(config: ConfigDict, count: int) -> Iterator[str]:
    """A line if fewer samples are compared than the config asks for."""
    if config.evaluate.views > count:
        yield f"config.evaluate.views is {config.evaluate.views:,}, more than the {count:,} test samples: all are used"


def check(config: ConfigDict) -> None:
    """Raises ConfigError for values that do not fit the method."""
    check_choice(config, "method", METHODS)
    check_choice(config, "data.views", RECIPES)
    check_choice(config, "evaluate.convention", NC1_CONVENTIONS)
    if "form" in config.objective:
        check_choice(config, "objective.form", FORMS[config.method])
    masked = config.model.name.startswith("mae")
    if masked != (config.method in MASKED):
        kind = "a network that is not a masked auto-encoder" if masked else "a masked auto-encoder, such as mae_tiny"
        raise ConfigError(f"model.name is {config.model.name}, but the method {config.method} needs {kind}")
    if masked and config.model.options.get("pool", "cls") != "cls":
        raise ConfigError("model.options.pool must be cls: the online classifier takes the class token")
    if masked and config.model.options.get("mask_ratio", 0.75) == 0:
        raise ConfigError("model.options.mask_ratio is 0, which leaves no patch to reconstruct")
    if not masked and config.objective.batch_size < 2:
        raise ConfigError(f"objective.batch_size must be at least 2: {config.method} compares samples; got 1")
    if config.evaluate.views == 1:
        raise ConfigError("evaluate.views must be 0 (none) or at least 2: one sample alone cannot be measured; got 1")
    for name in ("projector", "predictor") if config.method == "byol" else ():
        if not config[name].widths:
            raise ConfigError(f"{name}.widths is empty; expected at least one width")
    if config.method == "byol" and config.projector.widths[-1] != config.predictor.widths[-1]:
        last = config.projector.widths[-1], config.predictor.widths[-1]
        raise ConfigError(
            f"the last of projector.widths and of predictor.widths must be equal; got {last[0]} and {last[1]}"
        )


run = run_of(study)
