"""Trains, measures and draws what a config says.

  python -m infojax.main --config=configs/quickstart.py
  python -m infojax.main --config=configs/interplay.py:small,data=cifar100,seeds=3 --workdir=runs/c100

After the colon a preset and the choices that other keys derive from; other keys are flags, --config.optimizer.lr=0.1.
--workdir is the run folder, by default runs/NAME/CHOICES; --dry_run prints the config, shapes and costs, and runs
nothing. The run folder is all there is: the same command continues a run that was stopped. With --distributed this is
one of several processes (`infojax.processes`), all started alike; all see the run folder. Exit codes: 0 done; 1 the
machine failed (memory, a full disk, a folder that is gone); 2 bad input; 3 training became NaN or Inf; 130 stopped by
Ctrl-C; 143 stopped by SIGTERM, after saving if a step was made. Each but 0 comes with one line.
"""

import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial

from infojax.commands import one_line, say, show

NAME = "infojax.main"


def main(argv=None):
    """The command; returns its exit code."""
    argv = sys.argv if argv is None else [NAME, *argv]
    if {"-h", "--help", "--helpfull"} & set(argv):
        show(__doc__)
        return 0
    with _quiet():
        return one_line(NAME, partial(_start, argv), ())


def _start(argv):
    from infojax import processes
    from infojax.tasks.faults import BAD_INPUT

    try:
        settings, rest = processes.split_flags(argv[1:])
        return processes.run(partial(_run, [argv[0], *rest]), settings, NAME, stops=True)
    except processes.ProcessError as error:
        say(NAME, error)
        return BAD_INPUT


def _run(argv):
    from infojax.processes import together
    from infojax.tasks import faults, load
    from infojax.tasks.flags import parse

    config = None
    try:
        with _terminated(faults.Terminated):
            with together():
                config, workdir, dry_run = parse(argv)
            load(config.task).run(config, workdir, dry_run)
    except BaseException as error:
        known = faults.explain(error, config)
        if known is None:
            raise
        code, line = known
        say(NAME, line)
        return code
    return 0


@contextmanager
def _terminated(error):
    """SIGTERM raises an error, except in a loop that trains, which saves first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise error

    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:  # else somebody else, as jax.distributed, listens
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if before == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


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


if __name__ == "__main__":
    code = main()
    if code == 1:  # threads of orbax may wait minutes for a checkpoint that failed, and then say so at length
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
