"""Three classes in a three-dimensional penultimate layer, on their way to neural collapse (Cheong 2025, Fig. 1.3).

  python -m infojax.main --config=configs/simplex.py        half a minute on a CPU

The figure of the thesis is fictitious; this one comes from a run, and its recipe is ours: pictures of `synthetic`, a
perceptron with batch normalisation whose last hidden layer has three units after their ReLU, SGD with decay 0.01. Rows
of the evaluator "cloud" have the training samples, class means and head rows. Features are not negative, so that
classes end on three axes: their means less the global mean are the regular triangle of the figure.

Measured on train, seed 0: NC1 (thesis) 1e-4, NC2 0.014 (norms) and 0.015 (angles), from 94 and 0.18 at the start. Of
seeds 0 to 5 three end so; in the others NC1 is as small, but classes share an axis and the triangle is not regular.
"""

from infojax.tasks.build import classification_defaults
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, preset=("tiny",), data=("synthetic",), model=("mlp",), seeds=1)
    config = classification_defaults("simplex", chosen)
    config.task = "simplex"
    config.data.options = dict(num_classes=3, size=12, channels=1, num_train=300, num_test=300, noise=0.1)
    config.model.options = dict(widths=(256, 256, 3), norm=True)
    config.objective.transform = "plain"
    config.optimizer.update(lr=0.1, weight_decay=1e-2, schedule="cosine")
    config.epochs = 500.0
    config.log.every = 100
    return config
