"""Few labels and all pictures: the methods of Table 1 (Song et al. 2024; seventeen rows) and AdaMatch, with MI and HD.

  python -m infojax.main --config=configs/semisup.py                                        FixMatch, digits, a CPU
  python -m infojax.main --config=configs/semisup.py:tiny,method=freematch_mi,labels=40     any other row
  python -m infojax.main --config=configs/semisup.py:small,method=freematch,data=cifar10,labels=250
  python -m infojax.main --config=configs/semisup.py:paper,method=freematch_hd,data=cifar100,labels=400
  python -m infojax.report runs/semisup/*                                                   one comparison of all

Choices: method; data; labels, in all (40), a multiple of the classes; model; seeds. Each seed draws labelled samples of
its own, as TorchSSL does; --config.data.labelled_seed=1 takes one draw for all of them, --config.data.labelled=FILE a
list of one's own; the indices are in the run folder. CIFAR-10 with 10 labels takes TorchSSL's published index sets;
STL-10 its 105,000 unlabelled pictures.

Every method as TorchSSL runs it, which made the table; what its paper or Google's code does otherwise is a field of the
objective (`infojax.objectives.semisup`, one file each). paper: WRN-28-2 (WRN-28-8 for CIFAR-100, WRN-37-2 for STL-10),
2^20 steps of 64 labelled and 7 x 64 unlabelled pictures (64 for Pi-Model to ReMixMatch), SGD 0.03 cos(7 pi k / 16 K),
weight decay 5e-4 (the paper, for all sets; TorchSSL's files for CIFAR-100 say 1e-3, the default there), average 0.999.
small: 2^16 steps. tiny is ours: batches of 8, 400 steps, WRN-10-1.

Expected error, % (Song et al. 2024, Table 1, CIFAR-10 with 40 and 250 labels): FixMatch 7.47 and 5.07, FreeMatch 4.90
and 4.88, with MI 4.66 and 4.56, with HD 4.63 and 4.60. The paper does not state the strengths of the terms: 0.1 is
ours. MPL and OTMatch: no code of theirs is public or trains as described; what is assumed stands in their files. paper
and small were not run here.
"""

from infojax.objectives.semisup import METHODS
from infojax.tasks import semisup
from infojax.tasks.config import choices

MODELS = {"cifar100": "wrn_28_8", "stl10": "wrn_37_2"}


def get_config(string=""):
    methods = ("fixmatch", *(name for name in METHODS if name != "fixmatch"))
    chosen = choices(string, method=methods, data="digits", labels=40, model="", seeds=1)
    tiny, digits = chosen.preset == "tiny", chosen.data == "digits"
    chosen.model = chosen.model or ("wide_resnet" if tiny else MODELS.get(chosen.data, "wrn_28_2"))
    config = semisup.defaults("semisup", chosen)
    if chosen.method == "supervised" and "labels" not in string:
        chosen.labels = config.chosen.labels = config.data.labels = 0  # the fully supervised reference
    if tiny:
        config.objective.batch_size, config.steps = 8, 400
        config.optimizer.update(lr=0.03, schedule="cosine_7_16")
        config.data.pad = 1 if digits else 4
        if chosen.model == "wide_resnet":  # running statistics that follow a short run
            config.model.options = dict(depth=10, width=1, norm_decay=0.9)
        if chosen.method == "dash":
            config.objective.update(warmup=40, averaged=20, period=20)
        if chosen.method == "mpl":
            config.objective.uda_steps = 40
        config.objective.ema_decay = 0.99
        config.evaluate.update(points=6, train_samples=None if digits else 2000, test_samples=None if digits else 2000)
    else:
        config.objective.batch_size, config.steps = 64, 2**20 if chosen.preset == "paper" else 2**16
        config.evaluate.update(every=5000, late_every=1000, late_from=0.8, train_samples=10_000)  # TorchSSL's
        config.log.every, config.checkpoint.every = 500, 5000
    return config
