"""Entropy and clustering of features trained at several temperatures of the softmax (Song et al. 2024, Figs. 2b to 2e).

  python -m infojax.main --config=configs/temperature.py                                  digits, minutes on a CPU
  python -m infojax.main --config=configs/temperature.py:tiny,data=fashion_mnist          10,000 pictures
  python -m infojax.main --config=configs/temperature.py:small,data=cifar10               one GPU
  python -m infojax.main --config=configs/temperature.py:paper,data=cifar100              the papers' recipe

Choices: data, model and seeds (3) as in interplay.py. The loss is that of logits / temperature; accuracy and loss on
test use the logits as they are. Figures: accuracy and H(features), silhouette and Davies-Bouldin, NC1 against the
temperature; t-SNE of test at the lowest and the highest one, first seed.

The papers name temperatures 1 and 10 and draw others; 2 and 5 are ours: --config.sweep.values=1 --config.sweep.values=4
Expected (Song et al. 2024): as the temperature grows the accuracy hardly changes, the entropy of the features and
Davies-Bouldin fall, the silhouette rises. paper and small were not run here; tiny: docs/results.md.
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
    config = torchssl("temperature", chosen, batch_size=64, weight_decay=5e-4, **presets[chosen.preset])
    config.task = "temperature"
    config.sweep = dict(name="temperature", values=(1.0, 2.0, 5.0, 10.0))
    config.tsne_seed = 0
    if chosen.preset == "tiny":
        config.evaluate.points = 6
        if chosen.model == "wide_resnet":
            config.model.options.width = 1  # a small network, since there are many
    return config
