"""The decodable information bottleneck, at several beta (Dubois et al. 2020; Cheong 2025, eq. 1.5).

  python -m infojax.main --config=configs/bottleneck.py                          digits, a minute on a CPU
  python -m infojax.main --config=configs/bottleneck.py:small                    Fashion-MNIST, f-, one GPU
  python -m infojax.main --config=configs/bottleneck.py:paper                    CIFAR-10, a perceptron, one GPU

Choices: data, model, seeds. The encoder minimises I_V(h -> Dec(x, y)) - beta I_V(h -> y). A plain classifier is a large
beta; Dubois et al. weight the other term, by 1 / beta. Training rows have sufficiency and minimality in bits, as the
decoders of the game measure them. These may be fooled: report what newly trained decoders find in the frozen encoder.

small: f- cut after its second block, 1,000 per class, three digits, AdamW and batch as in the thesis, which does
not train by eq. 1.5: the rest is ours. paper: released code of Dubois et al. (CIFAR-10, encoder of 3 x 2,048, 1,024
features, decoders with one hidden layer of 128, Adam at 5e-5 falling to a hundredth, decoders at 50 times that, batch
256, 100 epochs, 5 decoder steps on the same batch, no decay; betas 0.001 to 100; ours, as 1 / beta, 0.1 to 1000).
Our choices: a deterministic encoder with a ReLU, one numbering of digits instead of three, their mean instead of their
sum, normalisation as for other data, decoders that are never reset. tiny is our own.

Decoders learn on the batch that the encoder then answers: small batches (64) are memorised, and the encoder
answers that; and decoders that are never reset are fooled. Hence batch 250 and reset_every in tiny.
small and paper were not run here.
"""

from infojax.tasks import bottleneck
from infojax.tasks.config import choices

DATA = {"tiny": "digits", "small": "fashion_mnist", "paper": "cifar10"}


def get_config(string=""):
    chosen = choices(string, data="", model="", seeds=1)
    chosen.data = chosen.data or DATA[chosen.preset]
    chosen.model = chosen.model or ("f_minus" if chosen.preset == "small" else "mlp")
    config = bottleneck.defaults("bottleneck", chosen)
    config.sweep = dict(name="beta", values=(0.1, 1.0, 10.0, 1000.0))
    if chosen.preset == "paper":
        if chosen.model == "mlp":
            config.model.options.update(widths=(2048, 2048, 2048, 1024, 128))
            config.objective.layer = "layer4"
        config.objective.update(batch_size=256, inner=5)
        config.optimizer.update(lr=5e-5, weight_decay=0.0, final=0.01, decoders=50.0)
        config.epochs = 100.0
    elif chosen.preset == "small":
        config.data.train_samples = 10_000
        config.objective.update(batch_size=400, reset_every=250)
        config.epochs = 100.0
    else:
        if chosen.model == "mlp":
            config.model.options.update(widths=(128, 128, 128))
        config.data.train_samples = 1000 if chosen.data == "digits" else 10_000  # the same number of each class
        config.objective.update(batch_size=250, reset_every=120)
        config.epochs, config.evaluate.points, config.log.every = 120.0, 6, 20
    return config
