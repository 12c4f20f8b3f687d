"""Probes of frozen features: linear by LARS, logistic regression by L-BFGS, nearest neighbours, and RankMe.

  python -m infojax.main --config=configs/probe.py --config.checkpoint=RUN               the newest checkpoint of a run
  python -m infojax.main --config=configs/probe.py --config.checkpoint=RUN --config.frozen.weights=ema
  python -m infojax.main --config=configs/probe.py:paper,data=folder,model=mae_base --config.data.dir=DIR \\
    --config.model.weights=mae_pretrain_vit_base.safetensors                              a published checkpoint
  python -m infojax.main --config=configs/probe.py:data=features --config.data.dir=DIR   features_train.npz, _test.npz
  python -m infojax.main --config=configs/probe.py                                       an untrained network, digits

RUN is the folder of a run of any task that trains a network; its data set, normalisation and network are taken from
there, and data=NAME probes the same network on another set of the same shape. Choices: data; model, where there is no
RUN; seeds, of the probe. --config.frozen.layer=group3 takes a layer before the last, averaged over positions,
--config.frozen.layer=projection the output of a self-supervised run's projector; a run that still trains is only read.
--config.frozen.run=2 the third of several runs that were trained together.

Features of both splits are computed once, of the pictures as they are: unlike MAE's probe, which crops and mirrors at
every step. The linear probe is MAE's otherwise (He et al. 2022, Table 11): batch normalisation without affine
parameters, no weight decay, cosine to 0 after a warm-up; paper: LARS with momentum 0.9, trust 1e-3, lr 0.1 batch / 256.
Logistic regression has C = 1 on standardised features, as scikit-learn's. Neighbours vote with exp(s / 0.07), k = 20
(DINO); --config.knn.rule=euclidean is solo-learn's. Rows are of the steps of the linear probe; the others stand at
step 0, as they need no steps.

tiny and small: SGD 0.1 with momentum 0.9, since LARS moves weights by lr trust of their norm a step and needs many
steps; batches of 256, 100 epochs. paper: batches of 16,384 (lr 6.4), 90 epochs, of which 10 warm up, for the
1,281,167 training pictures of ImageNet-1k. It was not run here.
"""

from infojax.tasks import probe
from infojax.tasks.build import optimizer_settings
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(string, data="", model="wide_resnet", seeds=1)
    config = probe.defaults("probe", chosen)
    if chosen.model == "wide_resnet":
        config.model.options = dict(depth=10, width=1, norm_decay=0.9)
    if chosen.preset == "paper":
        config.objective.batch_size, config.epochs = 16_384, 90.0
        config.optimizer.update(lr=6.4, warmup_steps=782)
        config.knn.k = (20, 200)
    else:
        config.objective.batch_size, config.epochs = 256, 100.0
        config.optimizer = optimizer_settings(
            "sgd", lr=0.1, weight_decay=0.0, schedule="cosine", warmup_steps=10, nesterov=False
        )
    return config
