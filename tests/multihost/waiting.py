"""Waits, as a process does in a collective that another one never enters; with "deaf" it never looks for SIGTERM."""

import sys
import time

from infojax import processes


def program():
    processes.share("here")
    print("joined", flush=True)
    time.sleep(600)
    return 0


if __name__ == "__main__":
    settings, rest = processes.split_flags(sys.argv[1:])
    sys.exit(processes.run(program, settings, "waiting", stops=3.0 * ("deaf" in rest)))
