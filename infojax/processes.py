"""Several processes of one program: how they find each other, agree, and end together.

Every process runs the same command. On TPU pods, under SLURM, Open MPI and Kubernetes `--distributed` is enough;
anywhere else `--coordinator=HOST:PORT --num_processes=N --process_id=I` say where process 0 listens, how many there are
and which one this is. A collective that not every process enters never ends, so anything that may fail in one of them
alone (a file that is missing there) goes inside `together`: it then fails in all.
"""

import argparse
import ctypes
import itertools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
from jax._src.distributed import global_state  # its client has the only barrier with a time limit
from jax._src.lib import _jax, utils
from jax.experimental import multihost_utils

WAIT = 3600  # seconds at a barrier: others may still be reading data, or drawing
END = 5  # seconds for the others to arrive after this one has failed
SILENCE = 80  # seconds without a sign of life after which a process counts as gone, and the others end
LOOK = 2  # seconds between checks for a SIGTERM to any process
NOTICE = "RECEIVED_PREEMPTION_NOTICE"  # the key under which JAX's preemption service records one for all
FIREWALL = "a firewall in between is a usual cause (JAX_COORDINATOR_PORT=8476 sets another port)"


class ProcessError(RuntimeError):
    """Processes that cannot join, differ where they must not, or failed elsewhere; the message is one line."""


# Joining and ending


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that may run in several processes."""
    add = parser.add_argument
    add("--distributed", action="store_true", help="one of several processes, each started with the same command")
    add("--coordinator", metavar="HOST:PORT", help="where process 0 listens, if no cluster says so")
    add("--num_processes", type=int, metavar="N", help="how many there are, if no cluster says so")
    add("--process_id", type=int, metavar="I", help="which one this is, from 0 on, if no cluster says so")
    add("--timeout", type=int, metavar="S", default=300, help="seconds to wait for the others to come (300)")


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ProcessError(message)


def split_flags(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(settings, other arguments) of a command line whose other flags are parsed elsewhere.

    Raises:
      ProcessError: a flag without its value.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    add_flags(parser)
    return parser.parse_known_args(arguments)


def run(program: Callable[[], int], settings: argparse.Namespace, name: str, stops: float = 0) -> int:
    """program() -> exit code, as one of several processes where the settings say so; returns the exit code.

    Processes that end in the same way leave together. One that fails alone, or is killed, leaves the others in a
    collective that cannot end: they end with one line and code 1, after `SILENCE` if nothing notices earlier.

    Args:
      program: prints its own errors; what it does not catch is printed here, code 1.
      settings: from `add_flags`.
      name: of the command, put before its messages.
      stops: seconds for the program to check `asked_to_stop`; if it has not by then, as within a long compilation, a
        SIGTERM to any process ends all with code 143. 0: it does not check, and SIGTERM ends the process that gets it.
    Raises:
      ProcessError: the processes could not join.
    """
    if not settings.distributed:
        if (settings.coordinator, settings.num_processes, settings.process_id) != (None, None, None):
            raise ProcessError("--coordinator, --num_processes and --process_id need --distributed")
        return program()
    jax.config.update("jax_enable_preemption_service", bool(stops))
    _join(settings, name)
    _separate_output()
    if stops:
        threading.Thread(target=_watch, args=(name, stops), daemon=True).start()
    try:
        code = program()
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        _say_last(f"{name}: {reason}; if another process ended, the same command in all continues")
        code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        _meet_at_the_end(code)
        _over.set()
        jax.distributed.shutdown()
    except jax.errors.JaxRuntimeError:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 1)  # without the barrier of jax.distributed at exit
    return code


def ended_alike(code: int) -> bool:
    """Whether all processes end, with this exit code or another; False if some are still elsewhere after `END` seconds.

    For launchers that join the processes themselves, and must not wait for one that never arrives.
    """
    try:
        _meet_at_the_end(code)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _meet_at_the_end(code):
    if global_state.client is not None:
        global_state.client.wait_at_barrier("infojax/end", 1000 * (END if code else WAIT))


def _join(settings, name):
    number = settings.num_processes
    if (1 if number is None else number) < 1 or not 0 <= (settings.process_id or 0) < (number or sys.maxsize):
        raise ProcessError(f"--process_id {settings.process_id} must be from 0 to below --num_processes {number}")
    address = settings.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address and not address.rpartition(":")[2].isdigit():
        raise ProcessError(f"--coordinator must be HOST:PORT, got {address!r}")
    where = f"at {address}" if address else "of this cluster"
    others = f"{'' if settings.process_id else 'all '}the other processes {where} were not met"

    def late():  # jax would end the process with a core dump
        print(f"{name}: {others} within {settings.timeout} s: start all; {FIREWALL}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(settings.timeout, late)
    timer.daemon = True
    timer.start()
    try:
        with _told_of_the_end(partial(_alone, name)):
            jax.distributed.initialize(
                settings.coordinator, number, settings.process_id,
                initialization_timeout=settings.timeout + 60, shutdown_timeout_seconds=60,
                heartbeat_timeout_seconds=min(SILENCE, settings.timeout),
            )  # fmt: skip
    except ValueError as error:
        flags = "coordinator=HOST:PORT", "num_processes=N", "process_id=I"
        missing = [f"--{flag}" for flag in flags if getattr(settings, flag.split("=")[0]) is None]
        hint = f"give {' '.join(missing)}: there is no TPU pod, SLURM, Open MPI or Kubernetes around this process"
        raise ProcessError(f"--distributed: {hint if missing else error}") from None
    except RuntimeError as error:  # for instance, the port is taken
        raise ProcessError(f"--distributed: process 0 {where}: {error}") from None
    finally:
        timer.cancel()


# When another process is gone


def _alone(name, *_):
    """Ends this process, from the thread that finds another one gone: a collective would wait for it forever."""
    if _told.is_set():
        _stopped(name)
    gone = "another process ended (killed, or its machine is gone); start all again, the same command continues"
    _say_last(f"{name}: {gone}")
    os._exit(1)


def _watch(name, seconds):
    """Ends this process some seconds after a SIGTERM to any of them that the training loop did not hear.

    JAX's handler for it is not Python's: it leaves a note for all processes, which is read here.
    """
    while not _noticed():
        if _over.wait(LOOK):
            return
    _told.set()
    if not heard.wait(seconds) and not _over.is_set():
        _stopped(name)


def _noticed():
    """Whether JAX has noted that a process received SIGTERM."""
    try:
        return bool(global_state.client.key_value_try_get(NOTICE))  # type: ignore[union-attr]  # None once disconnected
    except (jax.errors.JaxRuntimeError, AttributeError):  # nothing is recorded, or there is no service
        return False


def _stopped(name):
    within = "stopped by SIGTERM within a long computation"
    _say_last(f"{name}: {within}; the same command continues from the last checkpoint")
    os._exit(143)


_told = threading.Event()  # set once a SIGTERM was reported
_over = threading.Event()  # the program has ended
_last_words = threading.Lock()


def _say_last(line):
    """One line, from the first thread to notice."""
    if _last_words.acquire(blocking=False):
        print(line, file=sys.stderr, flush=True)


@contextmanager
def _told_of_the_end(alone):
    """Makes the jax.distributed client created inside call alone() in place of a stack trace and a core dump.

    JAX has a callback for this, but its `initialize` does not expose it, and no version so far (0.10 to 0.12) can
    convert its argument, a C++ status: the exception, std::bad_cast, would end the process through std::terminate. So
    the terminate handler calls alone(). With another C++ library the process ends as JAX ends it.
    """
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        terminate, kind = library._ZSt13set_terminatePFvvE, library.__cxa_current_exception_type
    except (OSError, AttributeError):
        yield
        return
    handler = ctypes.CFUNCTYPE(None)
    terminate.restype, kind.restype = handler, ctypes.POINTER(ctypes.c_char_p)

    def ends():
        raised = kind()  # a std::type_info: its method table, then its name
        if raised and raised[1] == b"St8bad_cast":
            alone()
        before()

    _kept.append(handler(ends))
    before = terminate(_kept[-1])
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0":  # 0 asks for the C++ logs; jax sets 1
        utils.absl_set_min_log_level(3)
    make = _jax.get_distributed_runtime_client
    _jax.get_distributed_runtime_client = partial(make, missed_heartbeat_callback=alone)
    try:
        yield
    finally:
        _jax.get_distributed_runtime_client = make


_kept: list[Any] = []  # keeps alive what C++ may call


def _separate_output():
    """Sends what C++ prints on stdout, as CPU collectives do, to stderr; stdout is ours."""
    sys.stdout.flush()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout = open(os.dup(1), "w", encoding=sys.stdout.encoding, buffering=1)
        os.dup2(2, 1)


# Agreeing

_gates = itertools.count()


def share(value: Any) -> list[Any]:
    """The values of all processes, as a list by process; values must be JSON-serialisable. Every process calls it."""
    client = global_state.client
    if client is None:
        return [value]
    gate = f"infojax/gate/{next(_gates)}"
    client.key_value_set(f"{gate}/{global_state.process_id}", json.dumps(value))
    client.wait_at_barrier(gate, 1000 * WAIT)
    found = {int(key.rpartition("/")[2]): json.loads(text) for key, text in client.key_value_dir_get(f"{gate}/")}
    return [found[process] for process in sorted(found)]


def place() -> int:
    """Number of this process; unlike `jax.process_index` it starts no devices, which wait for the other processes'."""
    return global_state.process_id


@contextmanager
def together() -> Iterator[None]:
    """At the end of the block every process has finished it, or all fail with the one that could not.

    Raises:
      ProcessError: another process failed; the message is what it raised, in one line.
    """
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    said = error and (" ".join(str(error).split())[:1000] or type(error).__name__)
    failed = [(process, text) for process, text in enumerate(share(said)) if text is not None]
    if error is not None:
        raise error
    if failed:
        raise ProcessError(f"process {failed[0][0]}: {failed[0][1]}")


def same(**values: Any) -> None:
    """Refuses named values that differ between processes; they must be JSON-serialisable.

    Raises:
      ProcessError: in every process; shows the first two that differ.
    """
    first, *others = share(values)
    for process, other in enumerate(others, 1):
        for name in {**first, **other}:
            if first.get(name) != other.get(name):
                mine, theirs = first.get(name), other.get(name)
                raise ProcessError(f"{name} is {mine!r} in process 0, {theirs!r} in process {process}")


heard = threading.Event()  # SIGTERM, by the training loop, which saves first, however long that takes
_calls = itertools.count()


def asked_to_stop() -> bool:
    """Whether any process received SIGTERM; all learn of it at the same call. Every process calls it equally often."""
    if global_state.preemption_sync_manager is None:
        return False
    return multihost_utils.reached_preemption_sync_point(next(_calls))
