"""Layerwise compression while a network trains: tr(S_W S_B^+), sufficiency and minimality (Cheong 2025, chapter 3).

  python -m infojax.main --config=configs/compression.py                                    digits, a minute on a CPU
  python -m infojax.main --config=configs/compression.py:tiny,data=fashion_mnist            1,000 pictures
  python -m infojax.main --config=configs/compression.py:small,model=f_plus,data=cifar10    one scenario, one GPU
  python -m infojax.main --config=configs/compression.py:paper,variant=released             as the released code runs
  python -m infojax.main --config=configs/compression.py:tiny,labels=random                 Fig. 1.1
  python -m infojax.main --config=configs/compression.py:tiny,model=mlp_100x8               a network of constant width

Choices: data, model (f_minus, f_plus, or any other: mlp, mlp_100x8, vit_tiny, wide_resnet, ...), variant = text,
released; labels = true, random; seeds (1). Classes of unequal size: --config.data.imbalance=10. The four scenarios of
the thesis are {f_plus, f_minus} x {cifar10, fashion_mnist}; python -m infojax.report DIR DIR ... makes a page of them.

text: the first 1,000 pictures of each class, pixels in [0, 1], no augmentation, AdamW 2e-3 with decay 0.01, batches of
400, until the mean loss of an epoch is 0.02 or for 50 epochs, decoders alike; every number at fixed weights.
released: pixels 0 to 255, everything in bfloat16, 20 epochs (decoders of digits 50), class means of train summed while
training, V-information from the running loss of a decoder's last epoch, encoded anew in every batch.

paper: tr(S_W S_B^+), sufficiency and minimality after every epoch. small: minimality after every tenth. tiny: 34 digits
of each class (8 x 8: f- with pooling by 2), or 100 of each class of another set.
Expected (Cheong 2025): accuracy on test 75.3% (f+, CIFAR-10), 62.6% (f-, CIFAR-10), 91.0% (f+, Fashion-MNIST), 88.4%
(f-, Fashion-MNIST); deeper layers compress more, r near -1; minimality of l = 3 low and flat for f+, that of l = 1
(Fashion-MNIST) or 2 (CIFAR-10) rising for f-. What was run: docs/results.md.
"""

from infojax.tasks import compression
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, data="", model="f_minus", variant=("text", "released"), labels=("true", "random"), seeds=1)
    tiny = chosen.preset == "tiny"
    chosen.data = chosen.data or ("digits" if tiny else "cifar10")
    config = compression.defaults("compression", chosen)
    if tiny:
        config.data.per_class = config.data.test_per_class = 34 if chosen.data == "digits" else 100
        config.objective.batch_size = config.evaluate.batch_size = 68 if chosen.data == "digits" else 100
        if chosen.data == "digits" and chosen.model == "f_minus":
            config.model.options.pool = 2
    config.usable.sufficiency_every = 10 if tiny else 1  # epochs
    config.usable.minimality_every = 1 if chosen.preset == "paper" else 10
    return config
