"""Trains, measures and draws what a config says.

  python -m infojax.main --config=configs/quickstart.py
  python -m infojax.main --config=configs/interplay.py:small,data=cifar100,seeds=3 --workdir=runs/c100

After the colon a preset and the choices that other keys derive from; other keys are flags, --config.optimizer.lr=0.1.
--workdir is the run folder, by default runs/NAME/CHOICES; --dry_run prints the config, shapes and costs, and runs
nothing. The run folder is all there is: the same command continues a run that was stopped. With --distributed this is
one of several processes (`infojax.processes`), all started alike; all see the run folder. Exit codes: 0 done; 1 the
machine failed; 2 bad input, told in one line; 3 training left the finite numbers; 143 stopped by SIGTERM after saving.
"""

import os
import sys
from contextlib import contextmanager
from functools import partial

FAILED, BAD_INPUT, NON_FINITE, PREEMPTED = 1, 2, 3, 143


def main(argv=None):
    """The command; returns its exit code."""
    argv = sys.argv if argv is None else ["infojax.main", *argv]
    if {"-h", "--help", "--helpfull"} & set(argv):
        print(__doc__)
        return 0
    from infojax import processes

    try:
        settings, rest = processes.split_flags(argv[1:])
        with _quiet():
            return processes.run(partial(_run, [argv[0], *rest]), settings, "infojax.main", stops=True)
    except processes.ProcessError as error:
        return _say(error, BAD_INPUT)


def _run(argv):
    from infojax.data import DataError
    from infojax.processes import ProcessError, together
    from infojax.tasks import load
    from infojax.tasks.config import ConfigError
    from infojax.tasks.flags import parse
    from infojax.tasks.smoke import SmokeError
    from infojax.train.checkpoint import CheckpointError
    from infojax.train.loop import NonFiniteError, Preempted
    from infojax.train.runlog import RunFolderError

    codes = {SmokeError: FAILED, NonFiniteError: NON_FINITE, Preempted: PREEMPTED}
    try:
        with together():
            config, workdir, dry_run = parse(argv)
        load(config.task).run(config, workdir, dry_run)
    except (ConfigError, DataError, RunFolderError, CheckpointError, ProcessError, OSError, *codes) as error:
        return _say(error, codes.get(type(error), BAD_INPUT))
    return 0


@contextmanager
def _quiet():
    """Without what libraries log of errors that reach us as exceptions, or of TensorStore's late callbacks."""
    from absl import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    verbosity, hook = logging.get_verbosity(), sys.unraisablehook
    logging.set_verbosity(logging.FATAL)
    sys.unraisablehook = lambda what: "Event loop is closed" in str(what.exc_value) or hook(what)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        sys.unraisablehook = hook


def _say(error, code):
    print(f"infojax.main: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
