"""Trained networks without their smallest weights: accuracy, and MIR and HDR between features before and after.

  python -m infojax.main --config=configs/pruning.py                           digits, minutes on a CPU
  python -m infojax.main --config=configs/pruning.py:tiny,data=fashion_mnist   10,000 pictures
  python -m infojax.main --config=configs/pruning.py:paper,data=cifar100       the papers' recipe

The pruning panel of Song et al. (ICML 2024, poster). Choices: data, model and seeds (3) as in interplay.py. Matrices
and kernels lose the weights of least magnitude, of all together and of each layer by itself (dashed); no fine-tuning.
The poster states neither method nor sparsities: ours. Joint entropies are exact for up to 4,096 test samples, and
estimated from more, with half of the width of their bounds in the rows. paper and small were not run here; tiny:
docs/results.md.
"""

from infojax.tasks.build import torchssl
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, data="digits", model="", seeds=3)
    digits = chosen.data == "digits"
    presets = {
        "tiny": dict(lr=0.1, schedule="cosine", epochs=30.0 if digits else 15.0),
        "small": dict(lr=0.03, schedule="cosine_7_16", epochs=100.0),
        "paper": dict(lr=0.03, schedule="cosine_7_16", steps=2**20),
    }
    config = torchssl("pruning", chosen, batch_size=64, weight_decay=5e-4, **presets[chosen.preset])
    config.task = "pruning"
    config.sparsities = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    if chosen.preset == "tiny":
        config.evaluate.points = 6
    return config
