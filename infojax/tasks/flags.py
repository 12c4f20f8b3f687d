"""The command line of `infojax.main`."""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from infojax.data import near
from infojax.tasks import TASKS
from infojax.tasks.config import ConfigError, check_choices, check_numbers, one_line


def parse(argv):
    """(config, workdir, dry_run) of a command line.

    Raises:
      ConfigError: with one line.
    """
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_file("config", None, "", lock_config=True, flag_values=values, sys_argv=argv)
        flags.DEFINE_string("workdir", "", "", flag_values=values)
        flags.DEFINE_bool("dry_run", False, "", flag_values=values)
        rest = values(argv)[1:]
        config = values.config
        if config is None or rest:
            raise ConfigError(f"cannot read {rest[0]!r}" if rest else "give --config=configs/NAME.py")
        if config.task not in TASKS:
            raise ConfigError(f"no task {config.task!r}{near(config.task, TASKS)}")
    except ConfigError:
        raise
    except Exception as error:  # absl, ml_collections and the config file each have their own
        raise ConfigError(one_line(error, _file(argv))) from None
    _one_length(config, argv)
    check_choices(config)
    check_numbers(config)
    chosen = "-".join(str(value).replace("/", "_") for value in config.chosen.values())
    return config, values.workdir or str(Path("runs") / config.name / chosen), values.dry_run


def _file(argv):
    """Name of the config file."""
    named = [word.split("=", 1)[1] for word in argv if word.lstrip("-").startswith("config=")]
    return Path(named[0].split(":")[0]).name if named else None


def _one_length(config, argv):
    """A flag for steps takes the place of a preset's epochs, and the other way round."""
    given = {name for name in ("steps", "epochs") for word in argv if word.lstrip("-").startswith(f"config.{name}")}
    if len(given) == 1:
        config[({"steps", "epochs"} - given).pop()] = None
