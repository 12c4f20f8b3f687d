"""Supervised classification, measured while it trains."""

from infojax.tasks.build import classification as study
from infojax.tasks.build import classification_defaults as defaults
from infojax.tasks.train import run_of

__all__ = ["defaults", "run", "study"]

run = run_of(study)
