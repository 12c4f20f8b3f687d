"""A network's way to neural collapse on the bundled digits, in two minutes on a laptop.

python -m infojax.main --config=configs/quickstart.py
"""

from infojax.tasks.build import classification_defaults
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, preset=("tiny",), data=("digits",), model="wide_resnet", seeds=1)
    config = classification_defaults("quickstart", chosen)
    config.model.options = dict(depth=10, width=1, norm_decay=0.9)
    config.objective.transform = "plain"
    config.optimizer.update(lr=0.05, weight_decay=2e-3, schedule="cosine")
    config.epochs = 150.0
    return config
