"""The command line of `infojax.main`."""

import ast
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from infojax.data import near, options_of
from infojax.models import options_of as options_of_model
from infojax.tasks import TASKS, load
from infojax.tasks.config import ConfigError, check_choices, check_numbers, one_line

OPTIONS = {"data.options": ("data.name", options_of), "model.options": ("model.name", options_of_model)}


def parse(argv):
    """(config, workdir, dry_run) of a command line.

    Raises:
      ConfigError: with one line.
    """
    words = _joined(argv)
    file = next((word for word in words[1:] if _key(word) == "config"), None)
    if file is None:
        raise ConfigError("give --config=configs/NAME.py")
    _check_file(file.partition("=")[2])
    config, _ = _parsed([words[0], file])
    if not isinstance(config, ConfigDict) or config.get("task") not in TASKS:
        found = config.get("task") if isinstance(config, ConfigDict) else config
        raise ConfigError(f"{_file(argv)}: no task {found!r}{near(found, TASKS)}")
    options = {}
    for word in words[1:]:
        if _key(word).startswith("config."):
            _check_key(config, _key(word).removeprefix("config."), word, options)
    plain = [word for word in words if _key(word).removeprefix("config.") not in options]
    config, values = _parsed(plain)
    _set_options(config, options)
    _one_length(config, argv)
    check_choices(config)
    check_numbers(config, getattr(load(config.task), "RANGES", {}))
    chosen = "-".join(str(value).replace("/", "_") for value in config.chosen.values())
    if values["workdir"].present and not values.workdir:
        raise ConfigError("--workdir is empty; give a folder")
    return config, values.workdir or str(Path("runs") / config.name / chosen), values.dry_run


def _joined(argv):
    """The words with "--flag value" as "--flag=value"."""
    words, given = [argv[0]], iter(argv[1:])
    for word in given:
        name = word.lstrip("-")
        if word.startswith("-") and "=" not in word and (name in ("config", "workdir") or name.startswith("config.")):
            value = next(given, None)
            if value is None:
                raise ConfigError(f"{word} has no value; write {word}=VALUE")
            word = f"{word}={value}"
        words.append(word)
    return words


def _key(word):
    return word.lstrip("-").partition("=")[0] if word.startswith("-") else ""


def _check_file(value):
    """Refuses what cannot be a config file, before it is opened."""
    path = Path(value.partition(":")[0])
    if not value:
        raise ConfigError("--config is empty; give --config=configs/NAME.py")
    if not path.exists():
        beside = [str(found) for found in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        raise ConfigError(f"no config file {path}{near(path, beside)}")
    if not path.is_file():
        raise ConfigError(f"{path} is no file; give --config=configs/NAME.py")
    if path.suffix != ".py":
        raise ConfigError(f"{path}: a config is a Python file, NAME.py")


def _parsed(words):
    """(config, all flags) of words."""
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_file("config", None, "", lock_config=True, flag_values=values, sys_argv=words)
        flags.DEFINE_string("workdir", "", "", flag_values=values)
        flags.DEFINE_bool("dry_run", False, "", flag_values=values)
        rest = values(words)[1:]
        if rest:
            raise ConfigError(f"cannot read {rest[0]!r}")
        return values.config, values
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # absl, ml_collections and the config file each have their own
        raise ConfigError(one_line(error, _file(words))) from None


def _check_key(config, path, word, options):
    """Refuses a key that the config does not have; those of options are collected."""
    for prefix, (name, known) in OPTIONS.items():
        option = path.removeprefix(f"{prefix}.")
        if option != path and prefix.partition(".")[0] in config:
            owner = config[name.partition(".")[0]].get("name")
            if option not in known(owner) and option not in config[prefix.partition(".")[0]].options:
                there = {**known(owner), **config[prefix.partition(".")[0]].options}
                raise ConfigError(f"no key config.{path}: {owner} has no option {option!r}{near(option, there)}")
            options[path] = _literal(word.partition("=")[2], known(owner).get(option))
            return
    found, parts = config, path.split(".")
    for i, part in enumerate(parts):
        if not isinstance(found, ConfigDict):
            raise ConfigError(f"config.{'.'.join(parts[:i])} has no parts, so no key config.{path}")
        if part not in found:
            raise ConfigError(f"no key config.{'.'.join(parts[: i + 1])}{near(part, list(found))}")
        found = found[part]
    if isinstance(found, ConfigDict) and path not in OPTIONS:
        raise ConfigError(f"config.{path} has parts: give one of config.{path}.{{{','.join(found)}}}")


def _literal(text, default):
    """A value as Python would read it, else the text."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return float(value) if isinstance(default, float) and type(value) is int else value


def _set_options(config, options):
    for path, value in options.items():
        part, _, option = path.split(".", 2)
        settings = config[part].options
        with settings.unlocked():
            if option in settings:
                del settings[option]
            settings[option] = value


def _file(argv):
    """Name of the config file."""
    named = [word.split("=", 1)[1] for word in argv if word.lstrip("-").startswith("config=")]
    return Path(named[0].split(":")[0]).name if named else None


def _one_length(config, argv):
    """A flag for steps takes the place of a preset's epochs, and the other way round."""
    given = {name for name in ("steps", "epochs") for word in argv if word.lstrip("-").startswith(f"config.{name}")}
    if len(given) == 1:
        config[({"steps", "epochs"} - given).pop()] = None
