"""A config of a run that two processes finish in seconds."""

from infojax.tasks.build import classification_defaults
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, preset=("tiny",), data=("digits",), model="mlp", seeds=1)
    config = classification_defaults("tiny", chosen)
    config.model.options = dict(widths=(16, 12))
    config.objective.transform = "plain"
    config.optimizer.update(lr=0.02, schedule="constant")
    config.evaluate.update(points=2, train_samples=200, test_samples=101)
    config.steps, config.log.every, config.checkpoint.every = 200, 20, 50
    config.report.draw = False
    return config
