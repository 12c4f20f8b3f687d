"""Configs: the grammar of the string after the file's name, and the keys that every training run has.

  --config=configs/interplay.py:small,data=cifar100,seeds=3 --config.optimizer.lr=0.1

The string names a preset and the choices that other keys derive from; any other key is a separate flag.
"""

import shlex
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict, config_dict

from infojax.data import DataError
from infojax.processes import ProcessError, together
from infojax.suggestions import suggest

PRESETS = ("tiny", "small", "paper")
BUNDLED, PAPER_DATA = ("digits", "synthetic"), "cifar10"  # a paper's recipe plans hours, for the paper's data
X_SCALES = ("symlog", "linear")
# The key that each choice of the string sets. A flag that contradicted a choice would leave the keys derived from it.
CHOSEN = {
    "preset": "preset",
    "data": "data.name",
    "model": "model.name",
    "term": "objective.term",
    "labels": "data.labels",
    "method": "method",
    "weights": "model.weights",
    "variant": "variant",
    "seeds": "seeds",
    "init": "path.init",
    "operation": "data.options.operation",
}


class ConfigError(Exception):
    """A config that cannot be carried out; the message is one line."""


class Listing(Exception):
    """What `choices` raises for the string `STRING`: the choices that a config file knows, instead of a config.

    Attributes:
      known: name -> default, or name -> tuple of the allowed values.
    """

    STRING = "?"

    def __init__(self, known: dict[str, Any]) -> None:
        super().__init__("the choices were asked for")
        self.known = known


def choices(string: str | None, **known: Any) -> ConfigDict:
    """The choices of a config string, "PRESET,key=value,...", as a ConfigDict.

    Args:
      string: what follows the colon, or None.
      known: name -> default, or name -> tuple of the allowed values, the default first; where the default is an int,
        so is the value.
    Raises:
      ConfigError: unknown preset, key or value; a key twice or without a value; the preset paper on bundled data.
    """
    known = {"preset": PRESETS} | known
    if string == Listing.STRING:
        raise Listing(known)
    chosen = {name: value[0] if isinstance(value, tuple) else value for name, value in known.items()}
    given = set()
    for place, part in enumerate((string or "").split(",") if string else ()):
        if not part.strip():
            raise ConfigError(f"config string {string!r} has an empty part; write PRESET,key=value,...")
        if not part.isprintable():
            raise ConfigError(f"config string {string!r} has characters that cannot be printed")
        name, equals, value = part.partition("=")
        if not equals:
            if place:
                raise ConfigError(f"config string: {part!r} is not key=value; only the first part names a preset")
            name, value = "preset", part
        if name in given:
            raise ConfigError(f"config string {string!r} gives {name} twice")
        given.add(name)
        if name not in known:
            raise ConfigError(f"config string: no choice {name!r}{suggest(name, known)}")
        if isinstance(known[name], tuple) and value not in known[name]:
            raise ConfigError(f"config string: {name} cannot be {value!r}{suggest(value, known[name])}")
        if isinstance(known[name], int):
            if not (value.isascii() and value.isdigit() and len(value) < 10) or int(value) < 1:
                raise ConfigError(f"config string: {name} must be a whole number from 1 on, got {value!r}")
            value = int(value)
        elif not value:
            raise ConfigError(f"config string: {name} has no value; write {name}=VALUE or leave it out")
        chosen[name] = value
    if chosen["preset"] == "paper" and chosen.get("data") in BUNDLED:
        if "data" in given:
            raise ConfigError(
                f"config string: the preset paper is for the papers' data, as data={PAPER_DATA}, not the bundled "
                f"{chosen['data']}; take the preset tiny"
            )
        chosen["data"] = PAPER_DATA
    return ConfigDict(chosen)


def training(name: str, chosen: Any) -> ConfigDict:
    """The keys that every training run has; placeholders have no value until one is given.

    Args:
      name: of the config, for the run folder and the titles of figures.
      chosen: of `choices`.
    """
    optional = config_dict.placeholder
    return ConfigDict(
        dict(
            name=name,
            chosen=chosen,
            preset=chosen.preset,
            seed=0,  # of the first run; parameters, order and noise alike
            seeds=chosen.get("seeds", 1),  # runs in one program, with seeds from `seed` on
            sweep=dict(
                name="", values=()
            ),  # one float of the objective, or "lr", takes several values, each with all seeds
            steps=optional(int),  # either steps or epochs
            epochs=optional(float),
            log=dict(every=50),  # steps; rows of kind "train"
            evaluate=dict(
                points=16,  # number of evaluations at log-spaced epochs, besides the first and the last step
                every=0,  # steps between evaluations instead, if positive
                late_every=0,  # steps between them towards the end, if positive; it goes with `every`
                late_from=0.8,  # the share of the run after which `late_every` holds
                train_samples=optional(int),  # the whole split by default
                test_samples=optional(int),
                convention="thesis",  # of NC1
                batch_size=512,
            ),
            # In steps; the last `keep` are kept, and the best of those taken at an evaluation, by e.g. "test accuracy".
            checkpoint=dict(every=1000, keep=2, best=""),
            report=dict(draw=True, x_scale="symlog"),  # figures and page at the end
            how="auto",  # of several runs: vmap, unroll, loop, dispatch; auto: dispatch on a CPU, vmap elsewhere
            steps_per_call=0,  # updates per call of the device; 0: 1 on a CPU, 10 elsewhere
            devices=0,  # number of devices that share a batch; 0: all
        )
    )


def check_choices(config: Any, given: str | None = None) -> None:
    """Refuses flags that contradict the config string.

    Args:
      given: the value of --config, for the message.
    Raises:
      ConfigError: names both.
    """
    for name, value in config.chosen.items():
        path = CHOSEN.get(name, name)
        found = config
        for part in path.split("."):
            found = found.get(part)
        if found != value:
            raise ConfigError(
                f"{path} is {found!r}, but the config string chose {value!r}, which other keys derive from; "
                f"write it there: {_chosen_instead(given or f'FILE.py:{config.chosen.preset}', name, found)}"
            )


def _chosen_instead(given, name, value):
    """The flag --config with another value of one choice and the other choices as they were given."""
    file, _, string = given.partition(":")
    parts = [f"preset={part}" if "=" not in part else part for part in string.split(",") if part]
    parts = dict(part.split("=", 1) for part in parts) | {name: str(value)}
    preset = [parts.pop("preset")] if "preset" in parts else []
    return shlex.quote(f"--config={file}:{','.join([*preset, *(f'{key}={one}' for key, one in parts.items())])}")


def plain(config: Any) -> dict[str, Any]:
    """A config as a nested dict, for config.json."""
    return FrozenConfigDict(config).to_dict()


@contextmanager
def buildable(what: str) -> Iterator[None]:
    """Turns whatever the parts of a run raise about their arguments into one line, in all processes.

    Raises:
      ConfigError: says what was being built.
    """
    try:
        with together():
            yield
    except (ConfigError, DataError, ProcessError, OSError, MemoryError):
        raise
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # memory of a device, which says so in this way
            raise
        text = one_line(error)
        if isinstance(error, KeyError | AttributeError) and " " not in text:  # of a config that lacks a key
            text = f"the key {text.strip(chr(39) + chr(34))} is not there"
        raise ConfigError(f"{what} of this config cannot be built: {text}") from error


def one_line(error: BaseException, file: str | None = None) -> str:
    """The message of an error of absl, ml_collections or a config file, with the line of the file, in one line."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = (lines[-1] if lines and lines[0].startswith("Error whilst parsing") else " ".join(lines)) or repr(error)
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if file and Path(frame.filename).name == file
    ]
    return f"{file}, line {frames[-1].lineno}: {text}" if frames else text
