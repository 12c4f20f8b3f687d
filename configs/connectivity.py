"""Linear mode connectivity: networks interpolated between two trained ones (Song et al. 2024, Fig. 3c).

  python -m infojax.main --config=configs/connectivity.py                                  digits, minutes on a CPU
  python -m infojax.main --config=configs/connectivity.py:tiny,data=cifar10_jpeg,init=different
  python -m infojax.main --config=configs/connectivity.py:paper,data=cifar10               the papers' recipe
  python -m infojax.main --config=configs/connectivity.py:paper,data=cifar100 --config.sweep.values=0.03
  python -m infojax.report runs/connectivity/*                                             several in one comparison

Choices: init = same (the text of the paper: the same parameters, another order of the data and other augmentation) or
different (the caption of Fig. 3c: other parameters too); data, model and seeds as in interplay.py, one seed per pair.
--config.path.fork=K lets the two part after K steps, as Frankle et al. 2020 do.

21 networks (1 - w) h1 + w h2: accuracy, loss, MIR and HDR on test, each with batch statistics interpolated like weights
(those of no network) and recomputed from 10,000 training samples; height of the barrier in loss and error. Number of
points, statistics, and whether raw or averaged weights (path.weights = raw or ema) were interpolated are not stated in
the papers: ours. Expected (Song et al. 2024): CIFAR-100 at 0.03 is connected; CIFAR-10 at 0.03 falls to chance between
w = 0.4 and 0.6 while MIR rises; the fall is less at 0.003 and gone at 0.0003. paper and small were not run here; tiny:
docs/results.md.
"""

from infojax.tasks.build import torchssl
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, init=("same", "different"), data="digits", model="", seeds=1)
    digits = chosen.data == "digits"
    presets = {
        "tiny": dict(lr=0.03, schedule="cosine_7_16", epochs=60.0 if digits else 15.0),
        "small": dict(lr=0.03, schedule="cosine_7_16", epochs=100.0),
        "paper": dict(lr=0.03, schedule="cosine_7_16", steps=2**20),
    }
    config = torchssl("connectivity", chosen, batch_size=64, weight_decay=5e-4, **presets[chosen.preset])
    config.task = "connectivity"
    config.sweep = dict(name="lr", values=(3e-2, 3e-3, 3e-4))
    config.path = dict(init=chosen.init, fork=0, points=21, weights="raw", recompute_samples=10_000)
    if chosen.preset == "tiny":
        config.evaluate.points = 6
        if chosen.model == "wide_resnet":
            config.model.options.width = 1
    return config
