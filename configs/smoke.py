"""The first command on a new machine or pod: is everything there that a run needs?

  python -m infojax.main --config=configs/smoke.py                                              one process
  python -m infojax.main --config=configs/smoke.py --distributed --workdir=SHARED/smoke         on every host of a pod
  python -m infojax.main --config=configs/smoke.py --distributed \
      --coordinator=localhost:1234 --num_processes=2 --process_id=0                             here; and 1 beside it

One sum over all devices, one decomposition a device and more, one step of a small network, one checkpoint written and
read again in a folder under --workdir, which is then removed. Each prints OK and its time, the last line is "all of it
works", the code 0; what fails is named in one line, code 1. Expect as many processes as hosts and all devices of the
pod. One that hangs is the last one named: not every host runs the command, or a firewall stands between them.
Two processes with two CPU devices each: 10 s on two cores.
"""

from infojax.tasks.build import classification_defaults
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, preset=("tiny",), data=("synthetic",), model="mlp")
    config = classification_defaults("smoke", chosen)
    config.task = "smoke"
    config.data.options = dict(size=8, channels=1, num_train=64, num_test=10)
    config.objective.transform = "plain"
    config.samples_per_device = 8
    config.matrices = 2  # per device
    config.size = 64  # rows of a matrix
    config.steps = 1
    return config
