"""Self-supervised learning by matrix information (Tan et al. 2024, Information Flow in Self-Supervised Learning).

  python -m infojax.main --config=configs/selfsup.py                                    SimCLR, digits, a CPU
  python -m infojax.main --config=configs/selfsup.py:tiny,method=mmae,seeds=3           any other method
  python -m infojax.main --config=configs/selfsup.py:small,method=barlow,data=cifar10   one GPU
  python -m infojax.main --config=configs/selfsup.py:small,method=simclr,data=cifar10 \\
    --config.sweep.name=temperature --config.sweep.values="(0.07,0.1,0.2,0.5,1.0)"      Fig. 3
  python -m infojax.report runs/selfsup/*                                               Figs. 1, 2, 4, 5 of several
  python -m infojax.main --config=configs/probe.py --config.checkpoint=RUN              a probe of a run
  python -m infojax.main --config=configs/finetune.py:tiny,weights=RUN                  fine-tuning of a run

Choices: method (spectral, barlow, simclr, byol, vicreg, mae, umae, mmae; umae_released and mmae_released: with the
gradient, mu and centring of the authors' scripts as they ran); data; model; seeds. Pages show the mutual information
and joint entropy of two views of one held-out batch (Figs. 1 and 2), effective ranks (Fig. 4) with RankMe and LiDAR,
divergences of the branches (Fig. 5), and a masked auto-encoder's reconstructions. Accuracies are those of a linear
classifier trained alongside the method: online, as in solo-learn's tables.

small: ResNet-18 with the CIFAR stem, one projector of 2048-256 for all methods, batches of 256, 200 epochs; for MAE a
ViT-Tiny of patches of 4 and a decoder of 192 x 4, where mu B / D = 1.33 is that of the paper's ViT-Base at mu = 1.
paper: solo-learn's recipes for CIFAR-10 (optimizer larc, schedule cosine_linspace; Barlow Twins' own code has lars and
cosine), 1000 epochs with each method's own projector and views; online accuracy there, in its README: 90.74 (SimCLR),
92.58 (BYOL), 92.10 (Barlow Twins), 92.07 (VICReg). small has SimCLR's views without blur and with half the strength.
The network and the temperatures of the paper's figures are not known to us; these are ours. Linear accuracy after 1, 10
and 30 epochs in EMP-SSL's README: SimCLR 28.2, 56.5, 66.3; BYOL 24.9, 48.9, 68.4; VICReg 40.6, 69.7, 78.1. MAE on
ImageNet (Tables 1 and 2) is not among the presets; sets of that size are read from disk step by step:
--config.data.stream. tiny is ours: 300 steps of 64. paper was not run here, small for one epoch: docs/results.md.
"""

from infojax.objectives.selfsup import METHODS
from infojax.tasks import selfsup
from infojax.tasks.config import choices

# lr, weight decay and the widths of the projector in solo-learn's recipes for CIFAR; spectral is HaoChen's own.
RECIPES = {
    "simclr": (0.4, 1e-4, (2048, 256)),
    "byol": (1.0, 1e-5, (4096, 256)),
    "barlow": (0.3, 1e-4, (2048, 2048, 2048)),
    "vicreg": (0.3, 1e-4, (2048, 2048, 2048)),
    "spectral": (0.06, 5e-4, (2048, 1000, 1000)),
}
VIEWS = {"simclr": "simclr_small", "spectral": "spectral_small", "vicreg": "vicreg_small"}


def get_config(string=""):
    methods = ("simclr", *(name for name in METHODS if name != "simclr"))
    chosen = choices(string, method=methods, data="digits", model="", seeds=1)
    tiny, masked = chosen.preset == "tiny", chosen.method in selfsup.MASKED
    chosen.model = chosen.model or ("mae_tiny" if masked else "wide_resnet" if tiny else "resnet18")
    config = selfsup.defaults("selfsup", chosen)
    config.data.views = "mae" if masked else VIEWS.get(chosen.method, "byol_small")
    if chosen.preset == "paper" and chosen.method == "simclr":
        config.data.views = "simclr"  # with blur and the full strength, as in solo-learn
    config.objective.batch_size = 64 if tiny else 256
    if masked:
        masked_auto_encoder(config, tiny)
    else:
        joint_embedding(config, tiny)
    if tiny:
        config.steps, config.log.every = 300, 20
        config.data.least_area = 0.5 if chosen.data == "digits" else 0.0
        samples = None if chosen.data == "digits" else 2000
        config.evaluate.update(points=6, views=256, lidar_views=4, train_samples=samples, test_samples=samples)
    else:
        config.epochs = 1000.0 if chosen.preset == "paper" else 200.0
        config.evaluate.update(points=24, train_samples=10_000)
        config.log.every, config.checkpoint.every = 200, 5000
    return config


def joint_embedding(config, tiny):
    """Two views, a projector, LARS; tiny: a small network, SGD."""
    if tiny:
        if config.model.name == "wide_resnet":  # running statistics that follow a short run
            config.model.options = dict(depth=10, width=1, norm_decay=0.9)
        config.projector.widths, config.predictor.widths = (128, 64), (128, 64)
        config.optimizer = selfsup.optimizer_settings("sgd", lr=0.05, weight_decay=1e-4, schedule="cosine")
        config.online.lr = 0.1
    else:
        lr, decay, widths = RECIPES[config.method]
        config.optimizer.update(lr=lr, weight_decay=decay, warmup_steps=1950)  # ten epochs of 50,000 samples
        if config.method == "spectral":
            config.optimizer = selfsup.optimizer_settings(
                "sgd", lr=lr / 2, weight_decay=decay, schedule="cosine_linspace", warmup_steps=1950, nesterov=False
            )
        config.projector.widths = widths if config.preset == "paper" else (2048, 256)
        config.predictor.widths = (4096, 256)
    if config.method == "simclr":
        config.objective.temperature = 0.2
    if config.method in ("barlow", "vicreg"):
        config.objective.scale = 0.1


def masked_auto_encoder(config, tiny):
    """One view, AdamW with betas of 0.9 and 0.95, lr 1.5e-4 per 256 samples; tiny: 32 wide, 2 deep, a larger rate."""
    if tiny:
        if config.model.name == "mae_tiny":
            config.model.options = dict(size=(32, 2, 2), patch=2, decoder=(32, 1, 2))
        config.optimizer = adamw(3e-3, 30)
        if "mu" in config.objective:
            config.objective.mu = 2 / 3  # mu B / D = 1.33
        config.online.lr = 3e-3
    else:
        if config.model.name == "mae_tiny":
            config.model.options = dict(patch=4, decoder=(192, 4, 3))
        config.optimizer = adamw(1.5e-4, 3900)  # twenty epochs of 50,000 samples
        config.online.lr = 1.5e-4


def adamw(lr, warmup):
    return selfsup.optimizer_settings(
        "adamw", lr=lr, weight_decay=0.05, b2=0.95, schedule="cosine", warmup_steps=warmup
    )
