"""Networks, in Flax. Every one is called as `net(x, train)` and returns `Output`."""

from infojax.models.output import Output
from infojax.models.wide_resnet import WideResNet

__all__ = ["Output", "WideResNet"]
