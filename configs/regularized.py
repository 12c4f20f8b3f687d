"""Cross-entropy with a term of matrix information (Song et al. 2024, section 5; Table 2 of the ICML version).

  python -m infojax.main --config=configs/regularized.py:tiny,term=mi,data=fashion_mnist,seeds=3
  python -m infojax.main --config=configs/regularized.py:paper,term=hd,data=cifar10
  python -m infojax.report runs/regularized/*          all of them in one comparison

Choices: term = off, mi, hd, mir, hdr (`infojax.objectives.regularizers`); data, model and seeds as in interplay.py.
The strength is a flag, --config.objective.strength=0.1; several at once, in one program:
--config.sweep.name=strength --config.sweep.values=0.01 --config.sweep.values=0.1

Neither paper states the strengths, nor whether the term sees the batch as here: `strength` is ours. Table 2, accuracy
on CIFAR-10 / CIFAR-100: cross-entropy 95.35 / 80.77, with MI 95.52 / 80.81, with the entropy difference 95.57 / 80.96.
paper and small were not run here; tiny: docs/results.md.
"""

from infojax.objectives.regularizers import KINDS
from infojax.tasks.build import torchssl
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, term=("mi", *(kind for kind in KINDS if kind != "mi")), data="digits", model="", seeds=1)
    digits = chosen.data == "digits"
    presets = {
        "tiny": dict(lr=0.1, schedule="cosine", epochs=30.0 if digits else 15.0),
        "small": dict(lr=0.03, schedule="cosine_7_16", epochs=100.0),
        "paper": dict(lr=0.03, schedule="cosine_7_16", steps=2**20),
    }
    config = torchssl("regularized", chosen, batch_size=64, weight_decay=5e-4, **presets[chosen.preset])
    config.objective.strength = 0.0 if chosen.term == "off" else 0.1
    return config
