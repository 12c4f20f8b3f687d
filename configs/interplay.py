"""Entropies, MIR and HDR while a classifier trains (Song et al. 2024, Figs. 2a and 3a).

  python -m infojax.main --config=configs/interplay.py                                  digits, minutes on a CPU
  python -m infojax.main --config=configs/interplay.py:tiny,data=fashion_mnist,seeds=3  10,000 pictures
  python -m infojax.main --config=configs/interplay.py:small,data=cifar10               one GPU
  python -m infojax.main --config=configs/interplay.py:paper,data=cifar100              the papers' recipe

Choices: data = digits, fashion_mnist, cifar10, cifar100, cifar10_jpeg, stl10, tfds:NAME, or any other set by name;
model; seeds.

paper: TorchSSL's recipe, which the papers train with: WRN-28-2 (WRN-28-8 for CIFAR-100), SGD with Nesterov momentum
0.9, learning rate 0.03 * cos(7 pi k / 16 K), K = 2^20 steps of 64, weight decay 5e-4 (TorchSSL's own CIFAR-100 files
say 1e-3), average of the weights with decay 0.999, evaluated every 5,000 steps. Expected (Song et al. 2024): MIR rises
and HDR falls while the accuracy rises; limits at collapse 0.9524 and 0 for 10 classes, 0.9978 and 0 for 100.
Not run at this scale here, nor was small.
tiny: see docs/results.md for what was run.
"""

from infojax.tasks.build import torchssl
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, data="digits", model="", seeds=1)
    digits = chosen.data == "digits"
    presets = {
        "tiny": dict(lr=0.1, schedule="cosine", epochs=30.0 if digits else 15.0),
        "small": dict(lr=0.03, schedule="cosine_7_16", epochs=100.0),
        "paper": dict(lr=0.03, schedule="cosine_7_16", steps=2**20),
    }
    return torchssl("interplay", chosen, batch_size=64, weight_decay=5e-4, **presets[chosen.preset])
