"""The command line of `infojax.main`."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_dict, config_flags

from infojax import data, models
from infojax.commands import say
from infojax.suggestions import suggest
from infojax.tasks import TASKS
from infojax.tasks.build.optimizers import OWN
from infojax.tasks.config import ConfigError, one_line
from infojax.tasks.files import read_config
from infojax.tasks.ranges import check_ranges, leaves

EXAMPLE = "--config=configs/quickstart.py"
FLAGS = ("config", "workdir", "dry_run", "nodry_run")


def parse(argv: Sequence[str]) -> tuple[FrozenConfigDict, str, bool]:
    """(config, workdir, dry_run) of a command line; the config is frozen.

    Raises:
      ConfigError: with one line.
    """
    values = flags.FlagValues()
    try:
        argv = values.read_flags_from_files(list(argv))
    except Exception as error:
        raise ConfigError(one_line(error).removeprefix("ERROR:: ")) from None
    given, rest = _taken("config", argv)
    names = [word.lstrip("-").partition("=")[0] for word in argv[1:] if word.startswith("-")]
    if given is None:
        stray = [word for word in rest[1:] if not word.startswith("-")]
        unknown = [word.partition("=")[0] for word in rest[1:] if word.partition("=")[0].lstrip("-") not in FLAGS]
        wrong = f"cannot read {stray[0]!r}; " if stray else f"unknown flag {unknown[0]}; " if unknown else ""
        raise ConfigError(f"{wrong}give {EXAMPLE}")
    config = read_config(given)
    if chosen := next((name for name in names if name.partition("=")[0].startswith("config.chosen")), None):
        raise ConfigError(
            f"--{chosen}: is what the config string chose; write it there, --config=FILE.py:PRESET,key=value"
        )
    several = {path for path in names if path.startswith("config.") and isinstance(_known_key(config, path), tuple)}
    rest = [_of_run(config, word) for word in rest]
    try:
        config_flags.DEFINE_config_dict("config", config, "", flag_values=values, lock_config=True, sys_argv=rest)
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        flags.DEFINE_bool("dry_run", False, "", flag_values=values)
        stray = values(rest)[1:]
        config = values.config
    except flags.IllegalFlagValueError as error:
        raise ConfigError(_wrong_type(config, one_line(error))) from None
    except Exception as error:  # absl and ml_collections each have their own
        raise ConfigError(one_line(error)) from None
    if stray:
        raise ConfigError(f"cannot read {stray[0]!r}; flags are --NAME=VALUE")
    try:
        if config.get("task") not in TASKS:
            raise ConfigError(f"no task {config.get('task')!r}{suggest(config.get('task'), TASKS)}")
        _one_of_two(config, names)
        _own_optimizer(config, names)
        check_ranges(config, given)
    except (AttributeError, KeyError, TypeError) as error:  # the user's config file
        text = f"{given}: a key is missing or of another type than in the defaults of the task: {one_line(error)}"
        raise ConfigError(text) from None
    for name in dict.fromkeys(name for name in names if names.count(name) > 1 and name not in several):
        _say(f"--{name} is given {names.count(name)} times; the last one counts")
    if (best := config.get("checkpoint", {}).get("best", "")).partition(" ")[2].startswith("loss"):
        _say(f"checkpoint.best keeps the checkpoint of the largest {best}, which is the worst")
    chosen = "-".join(str(value).replace("/", "_") for value in config.chosen.values())
    workdir = _workdir(values.workdir, Path("runs") / config.name / chosen)
    return FrozenConfigDict(config), workdir, values.dry_run


def _say(text):
    if jax.process_index() == 0:
        say("infojax.main", text)


def _taken(name, argv):
    """(value of --NAME=VALUE or --NAME VALUE, the other words); of several, the last one counts."""
    value, rest, words = None, argv[:1], iter(argv[1:])
    for word in words:
        flag, equals, after = word.partition("=")
        if flag in (f"-{name}", f"--{name}"):
            value = after if equals else next(words, "")
        else:
            rest.append(word)
    return value, rest


def _of_run(config, word):
    """--config.checkpoint=RUN as --config.checkpoint.run=RUN where a config takes the checkpoint of a run."""
    name, equals, value = word.partition("=")
    takes = equals and name.lstrip("-") == "config.checkpoint" and "run" in config.get("checkpoint", {})
    return f"{name}.run={value}" if takes else word


def _known_key(config, path):
    """The value of a key; unset options of the data set and the model get their defaults.

    Raises:
      ConfigError: names the path and the near ones.
    """
    found, parts = config, path.split(".")
    for place, part in enumerate(parts[1:], 1):
        if not isinstance(found, ConfigDict):
            raise ConfigError(f"no key {path}; {'.'.join(parts[:place])} is a value, not a section")
        section = ".".join(parts[1:place])
        if part not in found:
            options = _options(config, section)
            if part not in options:
                raise ConfigError(f"no key {path}{_near(config, parts, place, dict.fromkeys((*found, *options)))}")
            default = options[part]
            with found.unlocked():
                found[part] = config_dict.placeholder(int) if default is None else default
        found = found[part] if found.get(part) is not None else None
    return found


def _wrong_type(config, text):
    """The message for a value that cannot be read as its key's type."""
    path, _, rest = text.removeprefix("flag --").partition("=")
    try:
        found = config
        *sections, last = path.split(".")[1:]
        for section in sections:
            found = found[section]
        kind, value = found.get_type(last), rest.partition(": ")[0]
    except (AttributeError, KeyError, TypeError, ValueError):
        boolean = "Non-boolean argument" in text
        return f"--{path} must be true or false, got {rest.partition(': ')[0]!r}" if boolean else text
    words = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a tuple, as (1, 2)"}.get(kind)
    if isinstance(found.get(last), ConfigDict):
        keys = list(found[last])
        words = f"a section; set its keys, as --{path}.{keys[0]}=VALUE" if keys else "a dict, as {'key': 1}"
    return f"{path} must be {words}, got {value!r}" if words else text


def _own_optimizer(config, names):
    """Gives the optimiser that a flag names its own keys, with defaults where no flag sets them.

    Raises:
      ConfigError: a flag sets a key of another optimiser, which would be ignored.
    """
    found = config.get("optimizer", {})
    own = OWN.get(found.get("name"), {})
    if not own:
        return  # none, or one that is refused by name
    for name in (name for others in OWN.values() for name in others if name not in own):
        if f"config.optimizer.{name}" in names:
            raise ConfigError(f"config.optimizer.{name} is no key of {found.name}, which has {', '.join(own)}")
    with found.unlocked():
        for name, value in own.items():
            if name not in found:
                found[name] = value
        for name in {name for others in OWN.values() for name in others} - own.keys():
            if name in found:
                del found[name]


def _options(config, section):
    """name -> default of what a section of options may hold."""
    if section == "optimizer":
        return {name: value for own in OWN.values() for name, value in own.items()}
    of = {"data.options": ("data", data.options_of), "model.options": ("model", models.options_of)}.get(section)
    return of[1](config[of[0]].name) if of else {}


def _near(config, parts, place, known):
    """The end of a message: similar keys of the section, or another place that has a key of this name."""
    section, part = ".".join(parts[1:place]), parts[place]
    named = [path for path, _ in leaves(config) if path.split(".")[-1] == parts[-1] and not path.startswith("chosen.")]
    if elsewhere := sorted(named, key=lambda path: not path.startswith(f"{section}.")):
        return f"; did you mean config.{elsewhere[0]}?"
    initials = "".join(word[0] for word in part.split("_") if word)
    if initials in known:
        return f"; did you mean {initials}?"
    if not known:
        name = config[section.split(".")[0]].get("name", "")
        kinds = {"data": ("data set", data.DATASETS), "model": ("model", models.MODELS)}
        kind, names = kinds[section.split(".")[0]]
        there = name in names or name.startswith("tfds:")
        return f"; {name} has no options" if there else f"; there is no {kind} {name!r}{suggest(name, names)}"
    return suggest(part, known)


def _workdir(given, default):
    """The run folder.

    Raises:
      ConfigError: it is empty, a file, or nothing can be written there.
    """
    if given is not None and not given.strip():
        raise ConfigError("--workdir is empty; give a folder, or leave the flag out")
    if given is not None and "\0" in given:
        raise ConfigError(f"--workdir={given[:200]!r}: holds a NUL character, which no name can")
    folder = Path(default if given is None else given)
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if folder.is_symlink() and not folder.exists():
            raise ConfigError(f"--workdir={folder} is a link to {os.readlink(folder)}, which does not exist")
        if not there.is_dir():
            raise ConfigError(f"--workdir={folder}: {there} is a file, not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError(f"--workdir={folder}: {there} is not writable")
    except (OSError, ValueError) as error:  # a name that is too long, a null byte
        raise ConfigError(f"--workdir={str(folder)[:200]!r}: {error}") from None
    return str(folder)


def _one_of_two(config, names):
    """A flag for steps replaces a preset's epochs, and the other way round; likewise for points and every of evaluate.

    Raises:
      ConfigError: flags for both of evaluate, of which one would be ignored.
    """
    given = {name for name in ("steps", "epochs") if f"config.{name}" in names}
    if len(given) == 1:
        config[({"steps", "epochs"} - given).pop()] = None
    evaluate = config.get("evaluate", {})
    if given := [name for name in ("every", "points") if f"config.evaluate.{name}" in names and evaluate[name]]:
        if len(given) == 2:
            raise ConfigError(
                f"config.evaluate.every ({evaluate.every}) and config.evaluate.points ({evaluate.points}) both say "
                "when to evaluate; give one of them"
            )
        evaluate["points" if given == ["every"] else "every"] = 0
    if evaluate.get("late_every") and not evaluate.every:
        if "config.evaluate.late_every" in names:
            raise ConfigError(
                f"config.evaluate.late_every is {evaluate.late_every}, but config.evaluate.every is 0 and evaluations "
                "are spaced by points; give config.evaluate.every too"
            )
        evaluate.late_every = 0
