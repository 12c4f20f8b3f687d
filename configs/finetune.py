"""Fine-tuning of a network that was trained before, of MAE above all, by MAE's recipe (He et al. 2022, Table 9).

  python -m infojax.main --config=configs/finetune.py:tiny,weights=RUN                    a run, on its own data
  python -m infojax.main --config=configs/finetune.py:tiny,weights=RUN,data=fashion_mnist,seeds=3
  python -m infojax.main --config.data.dir=DIR \\
    --config=configs/finetune.py:paper,data=folder,model=vit_base,weights=mae_pretrain_vit_base.safetensors
  python -m infojax.main --config=configs/finetune.py                                     from scratch, digits

RUN is the folder of a run of any task that trains one network; this network, and without data=NAME the run's data, are
taken from there. A masked auto-encoder continues as the ViT of its encoder: mean of the patches, a new norm after
it, positions that are learned from now on, no decoder. Choices: weights, a RUN or a published file; data; model,
where there is no RUN; seeds.

Recipe: AdamW with betas of 0.9 and 0.999, weight decay 0.05, learning rate by depth (0.65 per block), warm-up and
cosine to 0, drop path 0.1, mixup 0.8 or CutMix 1 with probability 1/2 each, label smoothing 0.1. Differences: a batch
is mixed as one, labels of a mixed batch are smoothed alike, RandAugment is TorchSSL's (`strong`), there is no random
erasing, and the last learning rate is 0, not 1e-6. An average of the weights (decay 0.999) is evaluated too.

tiny and small: batches of 64 and 256, lr 1e-3 per 256 samples, 30 and 100 epochs, the weak view. paper: batches of
1,024, lr 5e-4 per 256, 100 epochs (base; for large --config.optimizer.layer_decay=0.75
--config.model.options.drop_path=0.2 --config.epochs=50). It was not run here.
"""

from pathlib import Path

from infojax.tasks.build import classification_defaults, optimizer_settings
from infojax.tasks.build.saved import encoder_of
from infojax.tasks.config import choices

OF_A_VIT = dict(pool="mean", drop_path=0.1, head_std=2e-5)


def get_config(string=""):
    chosen = choices(string, weights="", data="", model="", seeds=1)
    tiny, paper = chosen.preset == "tiny", chosen.preset == "paper"
    data, model = encoder_of(chosen.weights) if Path(chosen.weights).is_dir() and chosen.weights else ({}, {})
    chosen.data = chosen.data or data.get("name") or ("cifar10" if paper else "digits")
    chosen.model = chosen.model or model.get("name") or "vit_tiny"
    config = classification_defaults("finetune", chosen)
    if chosen.data == data.get("name"):
        config.data.update(dir=data.get("dir", ""), options=data.get("options", {}))
    if chosen.model == model.get("name"):
        config.model.update(dtype=model["dtype"], options=model["options"])
    if chosen.model.startswith("vit"):
        own = {} if model or not tiny else dict(size=(32, 2, 2), patch=2)
        config.model.options = {**config.model.options.to_dict(), **own, **OF_A_VIT}
    config.model.weights = chosen.weights
    batch = config.objective.batch_size = 64 if tiny else 1024 if paper else 256
    config.objective.update(mixing="both", label_smoothing=0.1, transform="strong" if paper else "weak")
    config.data.pad = 1 if chosen.data == "digits" else 4
    config.optimizer = optimizer_settings(
        "adamw",
        lr=(5e-4 if paper else 1e-3) * batch / 256,
        weight_decay=0.05,
        schedule="cosine",
        warmup_steps={"tiny": 30, "small": 1000, "paper": 6255}[chosen.preset],  # five epochs, except for tiny
        layer_decay=0.65,
    )
    config.epochs = 30.0 if tiny else 100.0
    if not tiny:
        config.evaluate.train_samples = 10_000
        config.log.every, config.checkpoint.every = 200, 5000
    return config
