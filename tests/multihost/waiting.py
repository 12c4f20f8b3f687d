"""Waits, as a process does in a collective that another one never enters."""

import sys
import time

from infojax import processes


def program():
    processes.share("here")
    print("joined", flush=True)
    time.sleep(600)
    return 0


if __name__ == "__main__":
    sys.exit(processes.run(program, processes.split_flags(sys.argv[1:])[0], "waiting"))
