"""What each key of a config may be: one table, and the check that holds a resolved config against it.

Options of data sets and models have their ranges where they are declared: `infojax.data.options`, `infojax.models`.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from infojax.data import DATASETS, DataError, options_of
from infojax.data.options import check_options
from infojax.evaluate.evaluators import Limits
from infojax.evaluate.knn import RULES
from infojax.measures.catalogue import LABELLED
from infojax.measures.collapse import NeuralCollapse
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.models import build
from infojax.objectives.mixing import MIXINGS
from infojax.objectives.regularizers import GRADIENTS, KINDS
from infojax.objectives.supervised import LOG_SOFTMAX
from infojax.suggestions import suggest
from infojax.tasks import load
from infojax.tasks.build import OPTIMIZERS, SCHEDULES, classification_defaults
from infojax.tasks.build.data import STREAM
from infojax.tasks.build.optimizers import DECAYED, OWN
from infojax.tasks.config import X_SCALES, ConfigError, check_choices
from infojax.train.step import HOW


class Range(NamedTuple):
    """Finite numbers between two ends.

    Attributes:
      least, most: the ends; above, below: whether they are left out.
      whole: whole numbers only; also: words that are allowed instead.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    also: tuple = ()

    def holds(self, value: Any) -> bool:
        """Whether a value from a config is in the range; booleans are not numbers."""
        if isinstance(value, str):
            return value in self.also
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        # A float that is NaN or infinite, or a whole number that no float holds.
        if isinstance(value, float) and not math.isfinite(value) or abs(value) > 1.7e308:
            return False
        return (value > self.least if self.above else value >= self.least) and (
            value < self.most if self.below else value <= self.most
        )

    def __str__(self):
        ends = []
        if self == POSITIVE:
            return "a positive number"
        if self.least > -math.inf:
            ends.append(f"{'above' if self.above else 'of at least'} {self.least:,}")
        if self.most < math.inf:
            ends.append(f"{'below' if self.below else 'at most'} {self.most:,}")
        words = ["a whole number" if self.whole else "a number" if ends else "a finite number", " and ".join(ends)]
        return " ".join(filter(None, words)) + "".join(f", or {word!r}" for word in self.also)


def whole(least: float, most: float = 2**31 - 1, also: tuple = ()) -> Range:
    """The `Range` of whole numbers from `least` to `most`, both included."""
    return Range(least, most, whole=True, also=also)


FINITE, POSITIVE, NOT_NEGATIVE = Range(), Range(0, above=True), Range(0)
SHARE = Range(0, 1, below=True)  # at least 0 and below 1
STEPS, COUNT = whole(0), whole(1)

RANGES = {
    "seed": STEPS, "seeds": whole(1, 100_000), "steps": COUNT, "epochs": POSITIVE,
    "steps_per_call": whole(0, 100_000), "devices": whole(0, 1_000_000), "log.every": STEPS,
    "evaluate.points": whole(0, 100_000), "evaluate.every": STEPS, "evaluate.late_every": STEPS,
    "evaluate.late_from": Range(0, 1), "evaluate.accuracy_every": STEPS,
    "evaluate.train_samples": COUNT, "evaluate.unlabelled_samples": COUNT,
    "evaluate.test_samples": COUNT, "evaluate.batch_size": COUNT,
    "checkpoint.every": STEPS, "checkpoint.keep": COUNT,
    "data.labels": whole(0, also=("true", "random")), "data.labelled_seed": STEPS,
    "data.train_samples": STEPS, "data.subset_seed": STEPS, "data.pad": whole(0, 4096), "data.per_class": STEPS,
    "data.test_per_class": STEPS, "data.workers": whole(-1, 1024), "data.imbalance": Range(1), "data.scale": POSITIVE,
    "objective.batch_size": whole(1, also=("all",)), "objective.strength": FINITE, "objective.temperature": POSITIVE,
    "objective.mixup_alpha": POSITIVE, "objective.cutmix_alpha": POSITIVE,
    "optimizer.layer_decay": Range(0, 1, above=True),
    "objective.label_smoothing": SHARE, "objective.ema_decay": SHARE, "objective.lr_scale": POSITIVE,
    "objective.beta": NOT_NEGATIVE, "objective.inner": COUNT, "objective.reset_every": STEPS,
    "objective.rest_loss": NOT_NEGATIVE,
    "objective.ratio": COUNT, "objective.weight": NOT_NEGATIVE, "objective.ramp_fraction": POSITIVE,
    "objective.threshold": NOT_NEGATIVE, "objective.entropy_weight": NOT_NEGATIVE, "objective.radius": POSITIVE,
    "objective.alpha": POSITIVE, "objective.mixed_weight": NOT_NEGATIVE, "objective.view_weight": NOT_NEGATIVE,
    "objective.rotation_weight": NOT_NEGATIVE, "objective.epsilon": NOT_NEGATIVE, "objective.model_decay": SHARE,
    "objective.growth": Range(1),
    "objective.least": NOT_NEGATIVE, "objective.most": NOT_NEGATIVE, "objective.warmup": STEPS,
    "objective.averaged": COUNT, "objective.period": COUNT, "objective.baseline_rate": Range(0, 1),
    "objective.wait": STEPS, "objective.uda_weight": NOT_NEGATIVE, "objective.uda_steps": STEPS,
    "objective.fairness": NOT_NEGATIVE, "objective.decay": SHARE, "objective.transport": NOT_NEGATIVE,
    "objective.cost_decay": SHARE, "objective.sigmas": POSITIVE,
    "objective.scale": POSITIVE, "objective.target_decay": SHARE, "objective.invariance": NOT_NEGATIVE,
    "objective.variance": NOT_NEGATIVE, "objective.covariance": NOT_NEGATIVE, "objective.mu": POSITIVE,
    "objective.norm_ddof": whole(0, 1), "objective.gradient_scale": NOT_NEGATIVE, "online.lr": NOT_NEGATIVE,
    "evaluate.views": STEPS, "evaluate.lidar_views": STEPS, "evaluate.pictures": STEPS, "data.least_area": SHARE,
    "optimizer.lr": POSITIVE, "optimizer.momentum": SHARE, "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.clip": NOT_NEGATIVE, "optimizer.warmup_steps": STEPS, "optimizer.b1": SHARE, "optimizer.b2": SHARE,
    "optimizer.eps": POSITIVE, "optimizer.trust": POSITIVE, "optimizer.final": POSITIVE, "optimizer.decoders": POSITIVE,
    "fresh.epochs": COUNT, "fresh.batch_size": COUNT, "fresh.rest_loss": NOT_NEGATIVE,
    "usable.sufficiency_every": STEPS, "usable.minimality_every": STEPS, "usable.sufficiency_epochs": COUNT,
    "usable.minimality_epochs": COUNT, "usable.rest_loss": NOT_NEGATIVE, "usable.budget_gib": NOT_NEGATIVE,
    "path.fork": STEPS, "path.points": whole(2, 100_000), "path.recompute_samples": STEPS,
    "sparsities": SHARE, "knn.k": COUNT, "projector.widths": COUNT, "predictor.widths": COUNT,  # each of them
    "frozen.run": STEPS, "frozen.batch_size": COUNT, "logistic.c": POSITIVE, "logistic.tolerance": POSITIVE,
    "logistic.steps": STEPS, "knn.temperature": POSITIVE, "spectrum.samples": STEPS,
    "data.few_shot_seed": STEPS, "prompt.tokens": COUNT, "objective.chunk": STEPS,
    "objective.per_class": STEPS, "towers.width": COUNT, "towers.layers": COUNT, "towers.head_width": COUNT,
    "towers.patch": COUNT, "towers.context": COUNT, "towers.steps": COUNT, "towers.batch_size": COUNT,
    "towers.lr": POSITIVE, "towers.seed": STEPS,
    "tsne_seed": whole(0, 2**32 - 1), "samples_per_device": COUNT, "matrices": COUNT, "size": whole(1, 100_000),
}  # fmt: skip
DTYPES = ("float32", "bfloat16")
WORDS = {
    "report.x_scale": X_SCALES, "how": ("auto", *HOW), "model.dtype": DTYPES, "model.param_dtype": DTYPES,
    "evaluate.convention": tuple(NC1_CONVENTIONS), "objective.term": tuple(KINDS), "objective.to": tuple(GRADIENTS),
    "objective.log_softmax": tuple(LOG_SOFTMAX), "optimizer.schedule": tuple(SCHEDULES),
    "optimizer.name": tuple(OPTIMIZERS), "optimizer.decayed": tuple(DECAYED), "knn.rule": RULES,
    "objective.mixing": MIXINGS, "data.stream": STREAM,
}  # fmt: skip
# Tuples of numbers, each of which must be in the range; values of a sweep have the range of the key they sweep.
LISTS = ("sparsities", "knn.k", "projector.widths", "predictor.widths")
# These may be None.
OPTIONAL = ("steps", "epochs", "evaluate.train_samples", "evaluate.test_samples", "data.labelled_seed")
OPTIONS = ("data.options", "model.options")
TEXTS = (
    "name", "data.name", "data.dir", "data.labelled", "data.names", "data.template", "data.views", "model.name",
    "model.weights", "prompt.words", "sweep.name", "checkpoint.best", "checkpoint.run", "frozen.weights",
    "frozen.layer", "weights", "shots",
)  # fmt: skip


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every key that is not a section."""
    for name, value in config.items():
        path = prefix + name
        if isinstance(value, ConfigDict | dict) and path not in OPTIONS:
            yield from leaves(value, f"{path}.")
        elif path not in OPTIONS:
            yield path, value


def check_ranges(config: Any, given: str | None = None) -> None:
    """Refuses missing keys, values out of range, and flags that contradict the config string.

    Args:
      given: the value of --config, for messages.
    Raises:
      ConfigError: names the key, its value and what it may be.
    """
    check_present(config)
    check_values(config)
    check_choices(config, given)
    check_sweep(config)
    check_data_options(config)
    if config.task != "crossmodal":  # whose towers are described by their weights
        check_model(config.model)
    check_best(config.checkpoint.best)


def check_present(config: Any) -> None:
    """Refuses a config without the keys that its task needs, or with values where sections belong."""
    found = dict(leaves(config))
    others = {f"optimizer.{name}" for own in OWN.values() for name in own} - found.keys()
    for path in expected(config.task, config.get("method", "")):
        if path not in found and path not in others:
            raise ConfigError(f"config.{path} is missing; the task {config.task} needs it")
    for path in OPTIONS:
        section, _, name = path.partition(".")
        if not isinstance(config[section].get(name), ConfigDict):
            raise ConfigError(f"config.{path} must be a dict of the options that differ from the defaults")
    if not isinstance(config.get("chosen"), ConfigDict):
        raise ConfigError("config.chosen is missing; it is what infojax.tasks.config.choices returns")


def check_values(config: Any) -> None:
    """Refuses values of the wrong kind or outside the range of their key."""
    for path, value in leaves(config):
        if path in WORDS and value not in WORDS[path]:
            raise ConfigError(f"config.{path} cannot be {shown(value)}{suggest(value, WORDS[path])}")
        if path in (*LISTS, "sweep.values") and not isinstance(value, tuple | list):
            raise ConfigError(f"config.{path} must be a tuple of numbers, got {shown(value)}")
        if path in TEXTS and not isinstance(value, str):
            raise ConfigError(f"config.{path} must be text, got {shown(value)}")
        if path in RANGES and not (value is None and path in OPTIONAL):
            for one in value if path in LISTS else (value,):
                check_value(f"config.{path}", one, RANGES[path])
    if config.seed + config.seeds > 2**31:
        raise ConfigError(f"config.seed must be below 2^31 with all seeds, got {config.seed} and {config.seeds} seeds")
    if config.name.strip() in ("", ".", "..") or "/" in config.name or not config.name.isprintable():
        raise ConfigError(f"config.name must be a word, for the run folder and titles; got {config.name!r}")


def check_sweep(config: Any) -> None:
    """Refuses a sweep of an unknown key, or of values that the key may not have."""
    name, values = config.sweep.name, config.sweep["values"]
    allowed = RANGES.get("optimizer.lr" if name == "lr" else f"objective.{name}", FINITE)
    for value in values:
        check_value(f"config.sweep.values, of {name or 'nothing'},", value, allowed)
    known = [key for key, value in config.get("objective", {}).items() if isinstance(value, float)]
    if name and name not in (*known, "lr"):
        raise ConfigError(f"config.sweep.name cannot be {name!r}{suggest(name, (*known, 'lr'))}")


def check_value(what: str, value: Any, allowed: Any) -> None:
    """Raises ConfigError that names the key `what`, the range `allowed` and the value, if it is outside."""
    if not allowed.holds(value):
        raise ConfigError(f"{what} must be {allowed}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def expected(task: str, method: str = "") -> list[str]:
    """Paths of the keys that a task and its method need: all keys of the defaults, so that config.json is complete."""
    module = load(task)
    defaults = getattr(module, "defaults", classification_defaults)
    chosen = ConfigDict(dict(preset="tiny", data="digits", model="mlp", operation="add"))
    chosen.update(dict(method=method) if method else {})
    needed = [path for path, _ in leaves(defaults("", chosen)) if not path.startswith("chosen.")]
    return [*needed, *getattr(module, "NEEDS", ())]


def check_data_options(config: Any) -> None:
    """Refuses unknown options of a known data set, and values out of range."""
    if config.data.name not in DATASETS and not config.data.name.startswith("tfds:"):
        return  # refused by name when it is opened
    defaults = options_of(config.data.name)
    try:
        check_options(config.data.name, config.data.options.to_dict(), defaults)
    except DataError as error:
        raise ConfigError(f"config.data.options: {error}") from None


def check_model(settings: Any) -> None:
    """Refuses unknown models, unknown options of a model, and values out of range."""
    try:
        build(settings.name, 2, dtype=settings.dtype, **settings.options)  # a description: nothing is allocated
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.model: {error}") from None


def check_best(best: Any) -> None:
    """Refuses anything but the name of a measurement, a split and a quantity, as "test accuracy"."""
    split, _, quantity = best.partition(" ")
    if best and (split not in ("train", "test") or not quantity.strip()):
        raise ConfigError(
            f"config.checkpoint.best must be a split and a quantity, as 'test accuracy', or '' for none; got {best!r}"
        )
    # As `infojax.evaluate` and the tasks name them.
    limited = [f"{name}{suffix}" for name in Limits._fields for suffix in ("", "_centered")]
    names = dict.fromkeys((*LABELLED, *limited, *(name for name in NeuralCollapse._fields if name != "per_class")))
    names |= dict.fromkeys(f"limit_{name}" for name in limited)
    names |= dict.fromkeys(("mir_error", "mir_centered_error", "loss_ema", "accuracy_ema"))
    if best and quantity not in names:
        raise ConfigError(f"config.checkpoint.best: no quantity {quantity!r} is measured{suggest(quantity, names)}")
