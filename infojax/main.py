"""Trains, measures and draws what a config describes.

  python -m infojax.main --config=configs/quickstart.py
  python -m infojax.main --config=configs/interplay.py:small,data=cifar100,seeds=3 --workdir=runs/c100

After the colon a preset and the choices that other keys derive from; other keys are flags, --config.optimizer.lr=0.1.
--list shows the configs with their choices, and the models, data sets, optimisers and schedules that they choose from;
configs/NAME.py is the one that came with infojax if the folder has none. --version shows what is installed.
--workdir is the run folder, by default runs/NAME/CHOICES; --dry_run prints the config, shapes and costs, and runs
nothing. The run folder is all there is: the same command continues a run that was stopped. Compiled programs are kept
for the next run in the user's cache folder, up to 512 MiB; --no-cache keeps none. With --distributed this is one of
several processes (`infojax.processes`), all started alike; all see the run folder. Exit codes: 0 done; 1 the
machine failed (memory, a full disk, a folder that is gone, another process that was killed); 2 bad input; 3 training
became NaN or Inf; 130 stopped by Ctrl-C; 143 stopped by SIGTERM, after saving the step; while decoders train, or where
one computation takes over 15 s, without. Each but 0 comes with one line.
"""

import inspect
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from functools import partial

from infojax.commands import keep_programs, one_line, say, show, versions

NAME = "infojax.main"
GRACE = 15  # seconds for SIGTERM to be heard


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    argv = sys.argv if argv is None else [NAME, *argv]
    if {"-h", "--help", "--helpfull"} & set(argv):
        show(_help())
        return 0
    if "--version" in argv:
        show(versions())
        return 0
    with _quiet():
        return one_line(NAME, _list if "--list" in argv else partial(_start, argv), ())


def _help():
    """What this does, and every config with its presets and choices; the keys of one are shown by --dry_run."""
    from infojax.tasks.listing import configs

    lines = [*configs(), "", "The keys of a config, which are flags: --config=FILE.py --dry_run prints all of them."]
    return "\n".join([__doc__ or "", *lines])


def _list():
    from infojax.tasks.listing import everything

    show("\n".join(everything()))
    return 0


def _start(argv):
    from infojax import processes
    from infojax.tasks.faults import BAD_INPUT

    try:
        settings, rest = processes.split_flags(keep_programs(NAME, argv[1:]))
        return processes.run(partial(_run, [argv[0], *rest]), settings, NAME, stops=GRACE)
    except processes.ProcessError as error:
        say(NAME, error)
        return BAD_INPUT


def _run(argv):
    from infojax.processes import together
    from infojax.tasks import faults, load
    from infojax.tasks.flags import parse
    from infojax.train.runlog import refuse_in_use

    config = None
    try:
        with together():
            config, workdir, dry_run = parse(argv)
            if not dry_run:
                refuse_in_use(workdir)  # before the data is read
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
def _quiet():
    """Warnings in one line; no library logs about errors that reach us as exceptions, or about callbacks."""
    from absl import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    verbosity, hook, shown = logging.get_verbosity(), sys.unraisablehook, warnings.showwarning
    logging.set_verbosity(logging.FATAL)
    # Coroutines that orbax left behind: what failed in them was raised elsewhere.
    sys.unraisablehook = lambda what: (
        inspect.iscoroutine(what.object) or "Event loop is closed" in str(what.exc_value) or hook(what)
    )
    lost = False  # whether the warning that programs cannot be kept was shown: JAX repeats it for each

    def tell(message, *_, **__):
        nonlocal lost
        text = str(message)
        if "persistent compilation cache" in text:
            told, lost = lost, True
            text = "" if told else f"compiled programs cannot be kept for the next command: {text.rpartition('] ')[2]}"
        if text:
            say(NAME, text)  # one line, without the source line

    warnings.showwarning = tell
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        sys.unraisablehook, warnings.showwarning = hook, shown


def _stop(*_):
    """SIGTERM outside of the training loop, which saves first: nothing is lost.

    The process ends here: an exception could be swallowed by whatever code the signal interrupts.
    """
    say(NAME, "stopped by SIGTERM before the first step or after the last; the same command continues")
    os._exit(143)


def _watch():
    """Ends the process `GRACE` seconds after a SIGTERM that nothing heard, as in a long compilation.

    Python calls handlers between two of its own instructions, but writes the number of a signal to a file at once; a
    thread reads it. With several processes JAX handles SIGTERM, no number is written, and `processes.run` watches.
    """
    numbers, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)

    def wait():
        while os.read(numbers, 1) != bytes([signal.SIGTERM]):
            pass
        from infojax.processes import heard

        if not heard.wait(GRACE):
            say(
                NAME,
                "stopped by SIGTERM within a long computation; the same command continues from the last checkpoint",
            )
            os._exit(143)

    threading.Thread(target=wait, daemon=True).start()


def _interrupt(*_):
    """Ctrl-C outside of the training loop, which gets it as KeyboardInterrupt: a library could swallow that."""
    say(NAME, "interrupted; the same command continues")
    os._exit(130)


def _leave(code):
    """Ends the process; after a failure, without waiting for what libraries left behind.

    Threads of orbax wait minutes for a failed checkpoint, and an interrupted compilation may crash.
    """
    if code:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    _watch()
    _leave(main())
