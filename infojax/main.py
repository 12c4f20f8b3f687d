"""Trains, measures and draws what a config says.

  python -m infojax.main --config=configs/quickstart.py
  python -m infojax.main --config=configs/interplay.py:small,data=cifar100,seeds=3 --workdir=runs/c100

After the colon a preset and the choices that other keys derive from; other keys are flags, --config.optimizer.lr=0.1.
The run folder is all there is: the same command continues a run that was stopped. Exit codes: 0 done; 2 bad input, told
in one line; 3 training left the finite numbers; 143 stopped by SIGTERM after saving.
"""

import os
import sys
from pathlib import Path

BAD_INPUT, NON_FINITE, PREEMPTED = 2, 3, 143


def parse(argv):
    """(config, workdir, dry_run) of a command line.

    Raises:
      ConfigError: with one line.
    """
    from absl import flags
    from ml_collections import config_flags

    from infojax.tasks.config import ConfigError, check_choices, check_numbers, one_line

    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "Config file, FILE.py:PRESET,key=value", lock_config=True, flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string("workdir", "", "Run folder; by default runs/NAME/CHOICES", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Print shapes and costs, run nothing", flag_values=values)
    try:
        rest = values(argv)[1:]
        config = values.config
        if config is None or rest:
            raise ConfigError(f"cannot read {rest[0]!r}" if rest else "give --config=configs/NAME.py")
        check_choices(config)
        check_numbers(config)
    except ConfigError:
        raise
    except Exception as error:  # absl, ml_collections and the config file each have their own
        raise ConfigError(one_line(error, argv)) from None
    chosen = "-".join(str(value).replace("/", "_") for value in config.chosen.values())
    return config, values.workdir or str(Path("runs") / config.name / chosen), values.dry_run


def main(argv=None):
    """The command; returns its exit code."""
    argv = sys.argv if argv is None else ["infojax.main", *argv]
    if {"-h", "--help", "--helpfull"} & set(argv):
        print(__doc__)
        return 0
    _quiet()
    from infojax.data import DataError
    from infojax.tasks import load
    from infojax.tasks.config import ConfigError
    from infojax.train.checkpoint import CheckpointError
    from infojax.train.loop import NonFiniteError, Preempted
    from infojax.train.runlog import RunFolderError

    try:
        config, workdir, dry_run = parse(argv)
        load(config.task).run(config, workdir, dry_run)
    except (ConfigError, DataError, RunFolderError, CheckpointError, OSError) as error:
        return _say(error, BAD_INPUT)
    except NonFiniteError as error:
        return _say(error, NON_FINITE)
    except Preempted as error:
        return _say(error, PREEMPTED)
    return 0


def _quiet():
    """What libraries log of errors that reach us as exceptions, and TensorStore of callbacks that come too late."""
    from absl import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.FATAL)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: "Event loop is closed" in str(what.exc_value) or hook(what)


def _say(error, code):
    print(f"infojax.main: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
