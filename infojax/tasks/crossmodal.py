"""Few-shot learning of prompts on frozen CLIP towers: CoOp, CoCoOp, the cross-modal alignment loss, zero-shot CLIP."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from infojax.data import Arrays, Chosen, Dataset, Source, open_dataset, options_of, weak
from infojax.data.fewshot import few_shot, halves, of_classes
from infojax.data.views import Recipe, view
from infojax.evaluate import cross_modal, fixed_sample
from infojax.models import clip
from infojax.objectives import Context, Facts, Optimizer, flat_settings, with_settings
from infojax.objectives.crossmodal import (
    FORMS,
    POSITIONS,
    TEXTS,
    PromptLearning,
    Prompts,
    ZeroShot,
    fixed_texts,
    lay_out,
    prompt_net,
)
from infojax.tasks.build import (
    Study,
    arrays_of,
    check_choice,
    loaded,
    optimizer,
    optimizer_settings,
    placed,
    reading,
)
from infojax.tasks.config import ConfigError, buildable, training
from infojax.tasks.towers import Towers, note_size, published, small
from infojax.tasks.train import train
from infojax.train.loop import Evaluator
from infojax.train.networks import as_net

METHODS = ("coop", "coop_cma", "cocoop", "cocoop_cma", "zero_shot")
CLASSES = ("all", "base_to_novel")
VIEWS = ("plain", "weak", "crop")
# CoOp's hand-written templates of the eleven sets, for data.template=NAME; any other set has the first.
TEMPLATES = {
    "imagenet": "a photo of a {}.", "caltech101": "a photo of a {}.", "stanford_cars": "a photo of a {}.",
    "sun397": "a photo of a {}.", "oxford_pets": "a photo of a {}, a type of pet.",
    "oxford_flowers": "a photo of a {}, a type of flower.", "food101": "a photo of {}, a type of food.",
    "fgvc_aircraft": "a photo of a {}, a type of aircraft.", "dtd": "{} texture.",
    "eurosat": "a centered satellite photo of {}.", "ucf101": "a photo of a person doing {}.",
}  # fmt: skip
# The seven of OpenAI's eighty templates that do as well together, which CoOp's ensemble adds to the set's own.
ENSEMBLE = (
    "itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.", "a {} in a video game.",
    "art of the {}.", "a photo of the small {}.",
)  # fmt: skip
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def defaults(name: str, chosen: ConfigDict) -> ConfigDict:
    """CoOp's recipe, without what presets decide."""
    config, method, shots = training(name, chosen), chosen.get("method", "coop_cma"), chosen.get("shots", 16)
    config.task, config.method, config.shots, config.weights = "crossmodal", method, shots, ""
    config.data = dict(
        name=chosen.data, dir="", options=dict(),
        few_shot_seed=chosen.get("few_shot_seed", 1),  # which samples are the shots; 1, 2, 3 in CoOp's tables
        names="",  # a file of class names, one per line in the order of the labels
        template=TEMPLATES.get(chosen.data, TEMPLATES["imagenet"]),  # of zero_shot; or a key of TEMPLATES
        ensemble=False,  # zero_shot: the mean with seven further templates
        classes="all",  # or "base_to_novel": half of them to learn from, the others to be told apart with the prompt
        **reading(),  # of the shots as pictures, where views of them are drawn
    )  # fmt: skip
    config.model = dict(
        name="clip", dtype="float32", options=dict(), activation="quick_gelu"
    )  # "gelu" for most of open_clip's own
    # Small towers, where no weights are given.
    config.towers = dict(
        width=64, layers=3, head_width=32, patch=4, context=77, steps=300, batch_size=128, lr=1e-3, seed=0
    )
    conditional, aligned = method.startswith("cocoop"), method.endswith("cma")
    config.prompt = dict(
        tokens=4 if conditional else 16,
        words="a photo of a" if conditional else "",  # to begin with; their number is that of the tokens
        position="end",
        class_specific=False,
    )
    if method == "zero_shot":
        config.objective = flat_settings(ZeroShot())
    else:
        config.objective = flat_settings(
            PromptLearning(alignment="released" if aligned else "off", weight=0.5 * aligned)
        )
        for derived in ("conditional", "cached"):
            del config.objective[derived]
        config.objective.batch_size = 1 if conditional else 32
    config.optimizer = optimizer_settings("sgd", lr=0.002, weight_decay=5e-4, schedule="coop", nesterov=False)
    config.epochs = 10.0 if conditional else float(epochs_of(shots, chosen.data))
    return config


def epochs_of(shots: int, data: str = "") -> int:
    """CoOp's: 50 for one shot and for ImageNet, 100 for 2 and 4, 200 for more."""
    if "imagenet" in data or shots == 1:
        return 50
    return 100 if shots <= 4 else 200


class Split(NamedTuple):
    """Which samples of a source a run has, and their labels among its classes."""

    source: Source
    chosen: np.ndarray
    labels: np.ndarray


def study(config: ConfigDict, workdir: str | Path | None = None) -> Study:
    """Few shots as image features, the prompt, the frozen towers.

    Args:
      workdir: where small towers are kept; None leaves them untrained.
    Raises:
      ConfigError, DataError: names the key.
    """
    check(config)
    dtype = jnp.dtype(config.model.dtype)
    given = published(config.weights, config.model.activation, dtype) if config.weights else None
    dataset, names = opened(config, given)
    base, novel = halves(len(names)) if config.data.classes == "base_to_novel" else (np.arange(len(names)), None)
    towers, splits, notes = split(config, dataset, names, base, novel, given, workdir)
    notes += tuple(note_size(towers.sizes, dataset.split("train").shape))
    features = {name: Arrays(towers.images(part.source, part.chosen), part.labels) for name, part in splits.items()}
    few = features["train"]
    scale = float(towers.logit_scale)
    constants: dict[str, Any] = {"logit_scale": towers.logit_scale}
    batch_size = 1 if config.method == "zero_shot" else min(config.objective.batch_size, len(few))
    per_epoch = len(few) // batch_size  # CoOp drops the last, smaller batch
    total = 1 if config.method == "zero_shot" else config.steps or max(1, round(config.epochs * per_epoch))
    facts = Facts(len(base), total, tuple(np.bincount(few.labels, minlength=len(base)).tolist()))
    transforms: dict[str, Callable] = {"plain": lambda key, x: x}
    data, streams = {"train": arrays_of(few)}, {}
    base_names, template = [names[c] for c in base], template_of(config)
    novel_names = [] if novel is None else [names[c] for c in novel]
    if config.method == "zero_shot":
        templates = (*(ENSEMBLE if config.data.ensemble else ()), template)
        texts = towers.texts(base_names, templates)
        novel_part: Any = towers.texts(novel_names, templates) if novel_names else None
        objective: Any = with_settings(ZeroShot(), config.objective)
        ctx = Context({"prompt": fixed_texts(texts)}, {"main": Optimizer(optax.identity())}, facts)
        notes += (f"zero-shot with {len(templates)} template{'s' * (len(templates) > 1)}: {templates[-1]!r}",)
    else:
        if batch_size < config.objective.batch_size:
            notes += (
                f"config.objective.batch_size is {config.objective.batch_size}: all {batch_size} shots are a batch",
            )
        config = ConfigDict(config.to_dict())
        config.objective.batch_size = batch_size
        objective, ctx, more, novel_part, said = learning(
            config, towers, base_names, novel_names, facts, per_epoch, total
        )
        constants |= more
        notes += said
        if not objective.cached:
            part = splits["train"]
            pictures, reads = loaded(config, Chosen(part.source, part.chosen, part.labels))
            lie = placed({"train": pictures})
            data, streams, notes = {"features": data["train"], **lie["data"]}, lie["streams"], (*notes, *reads)
            transforms |= views(towers, dataset.flip)
        if objective.per_class:
            data |= by_class(few, objective.per_class, objective.batch_size, len(base))

    def evaluators(tools, due):
        accuracy: dict[int, float] = {}  # of the base classes, by the model that has it at this step

        def remember(model, found):
            accuracy[id(model)] = found["accuracy"]
            return ()

        for name in ("train", "test"):
            most = config.evaluate.train_samples if name == "train" else None  # of the others fewer were encoded
            sample = fixed_sample(name, features[name], most)
            also = remember if name == "test" else lambda *_: ()
            yield Evaluator("cross_modal", due, cross_modal(sample, scale, config.evaluate.batch_size, also))
        if novel_part is not None:
            sample = fixed_sample("novel", features["novel"])
            yield Evaluator(
                "cross_modal", due, of_novel(sample, scale, config.evaluate.batch_size, novel_part, accuracy)
            )

    return Study(
        objective=objective,
        ctx=ctx,
        transforms=transforms,
        data=data,
        streams=streams,
        splits=features,
        evaluators=evaluators,
        per_epoch=per_epoch,
        constants=constants,
        files={"few_shot.txt": "".join(f"{index}\n" for index in splits["train"].chosen)},
        notes=(*dataset.notes, *towers.notes, *notes),
    )


def opened(config: ConfigDict, given: Towers | None) -> tuple[Dataset, list[str]]:
    """The data set and the names of its classes.

    Raises:
      ConfigError: there are no names, or a file does not list as many as there are classes.
    """
    options = dict(config.data.options)
    if given and "size" in options_of(config.data.name) and not options.get("size") and config.data.name != "synthetic":
        options["size"] = given.sizes.image_size
    dataset = open_dataset(config.data.name, config.data.dir or None, **options)
    if config.data.names:
        try:
            text = Path(config.data.names).expanduser().read_text()
        except (OSError, ValueError) as error:
            raise ConfigError(f"data.names: {error}") from None
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if len(names) != dataset.num_classes:
            raise ConfigError(
                f"data.names: {config.data.names} lists {len(names)} names; {dataset.name} has {dataset.num_classes} "
                "classes, one name per line is expected"
            )
    else:
        names = list(DIGITS if dataset.name == "digits" else dataset.class_names)
    if not names:
        raise ConfigError(f"{dataset.name} has no class names; give a file of them, --config.data.names=FILE")
    return dataset, [name.replace("_", " ") for name in names]


def split(
    config: ConfigDict,
    dataset: Dataset,
    names: Sequence[str],
    base: np.ndarray,
    novel: np.ndarray | None,
    given: Towers | None,
    workdir: Any,
) -> tuple[Towers, dict[str, Split], tuple[str, ...]]:
    """(towers, "train" (the shots), "test" and "novel", notes).

    Small towers learn from every other training sample, and the shots are drawn from the rest.
    """
    train_set, test_set = dataset.split("train"), dataset.split("test")
    rest = np.arange(len(train_set))
    if given is None:
        seen, rest = rest[::2], rest[1::2]
        given = small(config.towers, train_set, seen, names, workdir, jnp.dtype(config.model.dtype))
    drawn = rest[few_shot(train_set.labels[rest], config.shots, config.data.few_shot_seed)[0]]
    found, notes = {}, []
    kept, labels = of_classes(train_set.labels[drawn], base)
    found["train"] = Split(train_set, drawn[kept], labels)
    fewest = np.bincount(labels, minlength=len(base))
    notes.append(
        f"{dataset.name}: {len(kept):,} few-shot samples, {config.shots} of each of {len(base)} classes, drawn with "
        f"data.few_shot_seed {config.data.few_shot_seed}, the same ones for all seeds of this command"
    )
    if fewest.min() < config.shots:
        notes.append(
            f"{dataset.name}: {np.sum(fewest < config.shots):,} classes have fewer than {config.shots} samples"
        )
    for name, classes in (("test", base), ("novel", novel)):
        if classes is not None:
            chosen, labels = of_classes(test_set.labels, classes)
            if not len(chosen):
                raise ConfigError(f"{dataset.name} has no test samples of the {name} classes")
            most = config.evaluate.test_samples
            if most and most < len(chosen):
                part = np.sort(np.random.default_rng(0).permutation(len(chosen))[:most])
                chosen, labels = chosen[part], labels[part]
            found[name] = Split(test_set, chosen, labels)
    return given, found, tuple(notes)


def template_of(config: ConfigDict) -> str:
    """data.template, or the one that it names.

    Raises:
      ConfigError: no place for the name of the class.
    """
    template = TEMPLATES.get(config.data.template, config.data.template)
    if template.count("{}") != 1 or "{" in template.replace("{}", ""):
        raise ConfigError(
            f"data.template must have one {{}} for the class, or be one of {', '.join(TEMPLATES)}; got {template!r}"
        )
    return template


def learning(
    config: ConfigDict,
    towers: Towers,
    base: Sequence[str],
    novel: Sequence[str],
    facts: Facts,
    per_epoch: int,
    total: int,
) -> tuple[PromptLearning, Context, dict[str, Any], Any, tuple[str, ...]]:
    """(objective, context, constants, `Prompts` of the novel classes or None, notes) where prompts are learnt."""
    conditional, notes = config.method.startswith("cocoop"), []
    tokenize, table = clip.Tokenizer(towers.sizes.context), towers.of("text")[0]["token_embedding"]
    count, initial = config.prompt.tokens, None
    if config.prompt.words:
        words = tokenize.encode(config.prompt.words)
        initial, count = clip.embed(table, jnp.asarray(words)), len(words)
        if count != config.prompt.tokens:
            notes.append(f"config.prompt.tokens is {count}: that many are in {config.prompt.words!r}")

    def prompts_of(names):
        ids = [tokenize.encode(f"{name}.") for name in names]
        lengths = [len(tokenize.encode(name)) for name in names]
        return lay_out(
            [row[:n] for row, n in zip(ids, lengths, strict=True)],
            [row[n:] for row, n in zip(ids, lengths, strict=True)],
            count, start=tokenize.start, end=tokenize.end, position=config.prompt.position,
            context=towers.sizes.context,
        )  # fmt: skip

    with buildable("the prompts"):
        prompts = prompts_of(base)
        of_novel = prompts_of(novel) if novel else None
    notes.append(
        f"prompts: {count} learnt tokens, {prompts.tokens.shape[1]} tokens with the longest name, of a context of "
        f"{towers.sizes.context}"
    )
    width = towers.sizes.text_width
    shape = (len(base), count, width) if config.prompt.class_specific else (count, width)
    method = with_settings(
        PromptLearning(),
        dict(config.objective) | {"conditional": conditional, "cached": config.objective.transform == "plain"},
    )
    nets = {
        "prompt": prompt_net(shape, initial=initial, condition=towers.sizes.features if conditional else 0),
        "text": as_net(clip.text_tower(towers.sizes, towers.dtype)),
    }
    frozen = {"text": towers.of("text")}
    if not method.cached:
        nets["image"], frozen["image"] = as_net(clip.image_tower(towers.sizes, towers.dtype)), towers.of("image")
    epochs = max(1, round(total / per_epoch))
    tx = optimizer(ConfigDict(config.optimizer.to_dict() | {"epochs": epochs}), total)
    ctx = Context(nets, {"main": Optimizer(tx)}, facts, frozen=tuple(frozen))
    return method, ctx, {"frozen": frozen, "prompts": prompts}, of_novel, tuple(notes)


def views(towers: Towers, flip: bool) -> dict[str, Callable]:
    """Transforms of stored training pictures; "plain" is that of features, "crop" is CoOp's random resized crop."""
    recipe = Recipe(flip=0.5 if flip else 0.0)
    return {
        "weak": lambda key, x: towers.view(weak(key, x, pad=max(1, x.shape[1] // 8), flip=flip)),
        "crop": lambda key, x: towers.view(view(key, x, recipe, towers.sizes.image_size)),
    }


def by_class(few: Arrays, per_class: int, batch_size: int, num_classes: int) -> dict[str, Any]:
    """The source "classes": the shots of each class, (C, K, E).

    Raises:
      ConfigError: a class has another number of shots, or too few; there are too few classes for a batch.
    """
    if not per_class <= batch_size <= per_class * num_classes:
        raise ConfigError(
            f"objective.per_class is {per_class}: a batch must then have from {per_class} to {per_class * num_classes} "
            f"samples, of {num_classes} classes; objective.batch_size is {batch_size}"
        )
    counts = np.bincount(few.labels, minlength=num_classes)
    if counts.min() != counts.max() or per_class > counts.min():
        raise ConfigError(
            f"objective.per_class is {per_class}, but classes have {counts.min()} to {counts.max()} shots; expected at "
            "most as many, and the same number in each class"
        )
    order = np.argsort(few.labels, kind="stable")
    rows = few.x[order].reshape(num_classes, counts[0], -1)
    return {"classes": {"x": jnp.asarray(rows), "labels": jnp.arange(num_classes)}}


def of_novel(sample: Any, scale: float, batch_size: int, part: Any, accuracy: dict[int, float]) -> Callable:
    """The evaluator's `run` on novel classes: the same prompt with their names; their harmonic mean with the base's."""

    def run(models):
        model, mine = models["raw"], accuracy.pop(id(models["raw"]), math.nan)
        if isinstance(part, Prompts):
            own, text, _, logit_scale = model.params
            params: Any = (own, text, part, logit_scale)
        else:
            params = (part, model.params[1])

        def harmonic(_, found):
            both = mine + found["accuracy"]
            yield "harmonic_mean", 2 * mine * found["accuracy"] / both if both else 0.0

        yield from cross_modal(sample, scale, batch_size, harmonic)({"raw": dataclasses.replace(model, params=params)})

    return run


def check(config: ConfigDict) -> None:
    """Refuses values that are not known or do not go together."""
    for path, values in {
        "method": METHODS, "data.classes": CLASSES, "prompt.position": POSITIONS,
        "model.activation": ("quick_gelu", "gelu"),
    }.items():  # fmt: skip
        check_choice(config, path, values)
    if config.method != "zero_shot":
        own = {"alignment": ("off", *FORMS), "count": TEXTS, "transform": VIEWS}
        for name, values in own.items():
            check_choice(config, f"objective.{name}", values)
        swept = config.sweep["values"] if config.sweep.name == "weight" else ()
        if config.objective.alignment == "off" and any((config.objective.weight, *swept)):
            raise ConfigError("objective.weight is that of the alignment, which is off; choose coop_cma or cocoop_cma")
        for weight in (config.objective.weight, *swept):
            if not 0 <= weight <= 1:
                raise ConfigError(f"objective.weight must be from 0 to 1, got {weight}")
        if config.objective.per_class and config.objective.transform != "plain":
            raise ConfigError(
                "objective.per_class takes the transform plain; augmented views are drawn sample by sample"
            )
        if (config.steps is None) == (config.epochs is None):
            raise ConfigError(f"give either steps or epochs; steps is {config.steps}, epochs is {config.epochs}")
    template_of(config)
    if config.prompt.tokens < 1:
        raise ConfigError(f"prompt.tokens must be at least 1, got {config.prompt.tokens}")
    if config.prompt.class_specific:
        for other, wrong in (("the classes base_to_novel", config.data.classes == "base_to_novel"),
                             (f"the method {config.method}", config.method.startswith("cocoop"))):  # fmt: skip
            if wrong:
                raise ConfigError(f"prompt.class_specific has tokens of each class's own, which {other} cannot use")
    if config.data.few_shot_seed < 0:
        raise ConfigError(f"data.few_shot_seed must be at least 0, got {config.data.few_shot_seed}")


def run(config: ConfigDict, workdir: str | Path, dry_run: bool = False) -> Any:
    """Trains, measures and draws; returns the last state."""
    with buildable("data, model and objective"):
        found = study(config, None if dry_run else workdir)
    return train(found, config, workdir, dry_run)
