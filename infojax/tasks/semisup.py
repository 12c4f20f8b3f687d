"""Semi-supervised classification: few labels, all pictures, one of the methods of `infojax.objectives.semisup`."""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, config_dict

from infojax.data import Arrays, Chosen, DataError, Dataset, Source, in_memory, labelled, open_dataset, transforms
from infojax.evaluate import selection
from infojax.measures.variability import NC1_CONVENTIONS
from infojax.models import Linear
from infojax.objectives import Context, Facts, Net, Optimizer, Seeds, flat_settings, with_settings
from infojax.objectives.regularizers import GRADIENTS, KINDS
from infojax.objectives.semisup import METHODS, SemiSupervised
from infojax.tasks.build import (
    Study,
    Tools,
    check_choice,
    check_shares,
    classifier,
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
from infojax.tasks.files import read_text
from infojax.tasks.train import run_of
from infojax.train.loop import Evaluator
from infojax.train.networks import as_net

UNLABELLED = "unlabelled"  # the source that methods draw from, and the split that is looked at
PROTOCOLS = ("torchssl", "fold")
# Fields of the methods that are words, and what they may be.
WORDS = {"mix": ("batch", "sample"), "tsa": ("none", "linear", "exp", "log"), "sign": ("theory", "released")}


def defaults(name: str, chosen: ConfigDict) -> ConfigDict:
    """TorchSSL's recipe, which the table was made with, without what presets decide."""
    config = training(name, chosen)
    method = chosen.get("method", "fixmatch")
    config.task, config.method = "semisup", method
    config.data = dict(
        name=chosen.data, dir="", options=dict(),
        labels=chosen.get("labels", 40),  # in all; 0: all that there are
        labelled_seed=config_dict.placeholder(int),  # one draw for all runs; without it each run's is that of its seed
        labelled="",  # a file of their indices instead, one per line
        protocol="torchssl",  # or "fold", the official folds of STL-10
        pad=4,
        **reading(),
    )  # fmt: skip
    config.model = dict(
        name=chosen.model, dtype="float32", options=dict(), weights=""
    )  # a checkpoint: a file, or a run
    config.objective = flat_settings(METHODS[method])
    config.evaluate.unlabelled_samples = 2000  # those that are looked at for what the method selects
    # The paper says 5e-4 for all sets; TorchSSL's own files, which made its CIFAR-100 columns, 1e-3 there.
    decay = 1e-3 if chosen.data == "cifar100" else 5e-4
    config.optimizer = optimizer_settings("sgd", lr=0.03, weight_decay=decay, schedule="cosine_7_16")
    return config


def study(config: ConfigDict) -> Study:
    """Labelled and unlabelled samples, the method, its networks and optimisers.

    Raises:
      ConfigError, DataError: names the key.
    """
    dataset = open_dataset(config.data.name, config.data.dir or None, **config.data.options)
    every, reads = loaded(config, with_unlabelled(dataset, dataset.split("train")))
    source, test, classes = labelled_part(every, dataset.split("train")), dataset.split("test"), dataset.num_classes
    draws, how = labelled_samples(config.data, range(config.seed, config.seed + config.seeds), dataset, source)
    few, parts = united(source, draws)
    check(config, parts.shape[1])
    method = with_settings(METHODS[config.method], config.objective)
    batch = method.batch_size
    total = total_steps(config, len(every) / (batch * method.ratio))
    mean, std, notes = normalisation(dataset, source)
    views = transforms(mean, std, pad=config.data.pad, flip=dataset.flip)
    counts = label_counts(few.labels[parts], classes)
    nets, optimizers = networks(config, method, classes, source.shape, total)
    sources: dict[str, Source] = {"labelled": few}
    if any(view.source == UNLABELLED for view in method.views):
        sources[UNLABELLED] = every
    return Study(
        objective=method,
        ctx=Context(nets, optimizers, Facts(classes, total, counts, num_unlabelled=len(every))),
        transforms=views,
        **placed(sources),
        splits={"train": source, "test": test} | ({UNLABELLED: every} if UNLABELLED in sources else {}),
        evaluators=lambda tools, due: evaluators(tools, due, config),
        per_epoch=len(every) / (batch * method.ratio),
        members=lambda seed: [member(seed, list(draws))],
        constants={"parts": {"labelled": parts}} if len(draws) > 1 else {},
        files={file_of(seed, draws): "".join(f"{index}\n" for index in chosen) for seed, chosen in draws.items()},
        notes=(*notes, *reads, how, *note_missing(counts), *note_fewer(config, train=source, test=test)),
    )


# Labelled samples: one draw for all runs, or one for each


def labelled_samples(
    settings: ConfigDict, seeds: Sequence[int], dataset: Dataset, source: Source
) -> tuple[dict[int, np.ndarray], str]:
    """({seed of the draw: indices of the labelled samples of train}, a note on where they come from).

    A single draw is that of all runs; otherwise there is one for each of `seeds`, which are those of the runs.

    Raises:
      ConfigError: the file is not one of indices, or the numbers do not fit.
    """
    if settings.labelled:
        chosen = indices_of(settings.labelled, len(source))
        return {0: chosen}, f"{dataset.name}: {len(chosen):,} labelled samples, as listed in {settings.labelled}"
    if not settings.labels:
        return {0: np.arange(len(source))}, f"{dataset.name}: all {len(source):,} training samples are labelled"
    own = settings.labelled_seed is None
    try:
        draws = {
            seed: np.asarray(labelled(dataset, settings.labels, seed, protocol=settings.protocol))
            for seed in (seeds if own else [settings.labelled_seed])
        }
    except DataError as error:
        raise ConfigError(f"data.labels: {str(error).removeprefix('num_labels ')}") from None
    first, last = min(draws), max(draws)
    how = f"for each of the seeds {first} to {last} its own draw" if len(draws) > 1 else f"drawn with seed {first}"
    how += ", the same ones for all runs" * (not own and len(seeds) > 1)
    return draws, f"{dataset.name}: {settings.labels:,} labelled samples, {how}"


def united(source: Source, draws: dict[int, np.ndarray]) -> tuple[Arrays, np.ndarray]:
    """(the samples of all draws, each once; (P, n) the rows of each draw among them, in its own order)."""
    if len(draws) == 1:
        (chosen,) = draws.values()
        return in_memory(Chosen(source, chosen)), np.arange(len(chosen))[None]
    chosen, rows = np.unique(np.stack(list(draws.values())), return_inverse=True)
    return in_memory(Chosen(source, chosen)), rows.reshape(len(draws), -1).astype(np.int32)


def label_counts(labels: np.ndarray, classes: int) -> tuple[int, ...]:
    """How many labelled samples each class has, of the labels (P, n) of all draws.

    Raises:
      ConfigError: not equally many in every draw; methods that align with them compile one program for all runs.
    """
    found = {tuple(np.bincount(of_draw, minlength=classes).tolist()) for of_draw in labels}
    if len(found) > 1:
        raise ConfigError("seeds: the draws differ in how many samples of a class they have; run them one by one")
    return found.pop()


def note_missing(counts: Sequence[int]) -> list[str]:
    """A note where classes have no labelled sample, as a list of one's own may: they cannot be learnt."""
    missing = [str(label) for label, count in enumerate(counts) if not count]
    if not missing:
        return []
    return [f"{len(missing)} of {len(counts)} classes have no labelled sample: {', '.join(missing[:10])}"]


def member(seed: int, draws: list[int]) -> tuple[dict[str, int], Seeds]:
    """(facts, seeds) of the run of a seed: where each run has its own draw, its rows name it."""
    if len(draws) == 1:
        return {"seed": seed}, Seeds(seed, seed, seed)
    return {"seed": seed, "labelled_seed": seed}, Seeds(seed, seed, seed, part=draws.index(seed))


def file_of(seed: int, draws: dict[int, np.ndarray]) -> str:
    """The file of the run folder with the indices of a draw."""
    return f"labelled_{seed}.txt" if len(draws) > 1 else "labelled.txt"


def indices_of(file: str, count: int) -> np.ndarray:
    """The indices that a file lists, one per line.

    Raises:
      ConfigError: it cannot be read, or lists something else.
    """
    words = read_text(file, "data.labelled").split()
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and int(word) < count)]
    if wrong or not words or len(set(map(int, words))) < len(words):
        what = f"{wrong[0]!r} is none" if wrong else "one comes twice" if words else "there are none"
        raise ConfigError(
            f"data.labelled: {file} must list different numbers from 0 to {count - 1}, one per line; {what}"
        )
    return np.array(sorted(map(int, words)))


def evaluators(tools: Tools, due: Callable[[int], bool], config: ConfigDict) -> Iterator[Evaluator]:
    """Those of a classifier, and what the method selects of the unlabelled samples."""
    yield from classifier(tools, due, config)
    if config.method != "supervised":
        yield Evaluator("selection", due, selection(tools.through, tools.sample(UNLABELLED)))


def networks(
    config: ConfigDict, method: SemiSupervised, classes: int, shape: tuple[int, ...], total: int
) -> tuple[dict[str, Net], dict[str, Optimizer]]:
    """(nets, optimisers) of a method: "net", and "teacher" or "rotation" where it has one."""
    like = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    net, tx = network(config.model, classes, like), optimizer(config.optimizer, total)
    if config.method == "mpl":
        nets = {"net": net, "teacher": net}
        return nets, {name: Optimizer(tx, (own,)) for name, own in (("main", "net"), ("teacher", "teacher"))}
    nets = {"net": net}
    if "rotation" in method.averages["ema"].nets:
        found = jax.eval_shape(lambda x: net.apply(*net.init(jax.random.key(0)), x, train=False)[0].embedding, like)
        nets["rotation"] = as_net(Linear(4), found)
    return nets, {"main": Optimizer(tx)}


def check(config: ConfigDict, num_labelled: int) -> None:
    """Refuses what the method does not know, or what cannot be drawn."""
    check_choice(config, "method", METHODS)
    check_choice(config, "evaluate.convention", NC1_CONVENTIONS)
    check_choice(config, "data.protocol", PROTOCOLS)
    labels = {"mpl": ("argmax", "sampled"), "fixmatch": ("hard", "soft")}.get(config.method)
    known = WORDS | {"term": KINDS, "to": GRADIENTS} | ({"labels": labels} if labels else {})
    for name in config.objective.keys() & known.keys():
        check_choice(config, f"objective.{name}", known[name])
    check_shares(config.objective, "ema_decay")
    size = config.objective.batch_size
    if not config.objective.replacement and size > num_labelled:
        raise ConfigError(
            f"objective.batch_size is {size}, but there are {num_labelled} labelled samples and objective.replacement "
            "is False; take a smaller batch, or draw with replacement as TorchSSL does"
        )


run = run_of(study)
