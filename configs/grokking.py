"""Grokking of modular arithmetic, seen by MIR and HDR (Song et al. 2024, Fig. 3b).

  python -m infojax.main --config=configs/grokking.py                          3 seeds mod 43, two minutes on a CPU
  python -m infojax.main --config=configs/grokking.py:tiny,operation=divide    also subtract, multiply
  python -m infojax.main --config=configs/grokking.py:small                    mod 113, 20,000 steps, one GPU
  python -m infojax.main --config=configs/grokking.py:paper                    mod 113, 50,000 steps

Choices: operation = add, subtract, multiply, divide; seeds (3). Any prime: --config.data.options.p=97.

paper: Nanda et al. 2023, which Song et al. follow: a transformer of one layer without normalisation (226,816
parameters), 3,830 of the 12,769 pairs (a, b), full batches, AdamW with learning rate 1e-3 after 10 steps of warm-up,
betas 0.9 and 0.98, weight decay 1 on everything. Features: the residual stream at the last position; head: the
unembedding of the p numbers. Log-softmax as of float64, as the released code's comment asks for; the code itself
computes in float32: --config.objective.log_softmax=float32. tiny: p = 43, 0.4 of the pairs, dim 64, width 256, learning
rate 5e-3.

Marks: memorised, the first evaluation with 99% train accuracy; generalised, the first with 99% test accuracy.
Expected (Song et al. 2024): while train is learnt by heart MIR rises and HDR falls; then MIR falls and HDR rises, until
it generalises, when MIR is lowest and HDR falls from its peak. MIR of test at p = 113 (8,939 rows) is estimated,
with half of the width of its bounds in the rows. What was run: docs/results.md.
"""

from infojax.tasks import grokking
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, operation=("add", "subtract", "multiply", "divide"), seeds=3)
    config = grokking.defaults("grokking", chosen)
    config.evaluate.points = 40
    if chosen.preset == "tiny":
        config.data.options.update(p=43, train_fraction=0.4)
        config.model.options.update(dim=64, width=256)
        config.optimizer.lr = 5e-3
        config.steps, config.evaluate.points = 1800, 16
    else:
        config.steps = 50_000 if chosen.preset == "paper" else 20_000
        config.checkpoint.every = 5000
    return config
