"""The benchmark's networks as a PyTorch user writes them. Loaded only where torch is installed."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class WideResNet28x2(nn.Module):
    """TorchSSL's variant: the first block of a group that widens feeds its raw input to both branches."""

    def __init__(self, classes: int) -> None:
        super().__init__()

        def norm(channels):
            return nn.BatchNorm2d(channels, eps=1e-3, momentum=1e-3)

        self.stem, before, self.blocks = nn.Conv2d(3, 16, 3, padding=1), 16, nn.ModuleList()
        for group, channels in enumerate((32, 64, 128)):
            for i in range(4):
                stride = 2 if group and not i else 1
                block = nn.ModuleDict(
                    {
                        "bn1": norm(before),
                        "conv1": nn.Conv2d(before, channels, 3, stride, 1),
                        "bn2": norm(channels),
                        "conv2": nn.Conv2d(channels, channels, 3, 1, 1),
                    }
                )
                if before != channels:
                    block["shortcut"] = nn.Conv2d(before, channels, 1, stride)
                self.blocks.append(block)
                before = channels
        self.bn, self.head = norm(before), nn.Linear(before, classes)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            y = functional.leaky_relu(block["bn1"](x), 0.1)
            if i == 0:
                x = y
            elif "shortcut" in block:
                y = x
            y = block["conv2"](functional.leaky_relu(block["bn2"](block["conv1"](y)), 0.1))
            x = y + (block["shortcut"](x) if "shortcut" in block else x)
        return self.head(functional.leaky_relu(self.bn(x), 0.1).mean((2, 3)))


class ResNet18(nn.Module):
    """With the CIFAR stem."""

    def __init__(self, classes: int) -> None:
        super().__init__()

        def conv(before, channels, size, stride):
            return nn.Sequential(
                nn.Conv2d(before, channels, size, stride, size // 2, bias=False), nn.BatchNorm2d(channels)
            )

        self.stem, before, self.blocks = conv(3, 64, 3, 1), 64, nn.ModuleList()
        for group in range(4):
            for i in range(2):
                channels, stride = 64 * 2**group, 2 if group and not i else 1
                shortcut = conv(before, channels, 1, stride) if stride > 1 else nn.Identity()
                parts = [conv(before, channels, 3, stride), conv(channels, channels, 3, 1), shortcut]
                self.blocks.append(nn.ModuleList(parts))
                before = channels
        self.head = nn.Linear(512, classes)

    def forward(self, x: Any) -> Any:
        x = functional.relu(self.stem(x))
        for first, second, shortcut in self.blocks:
            x = functional.relu(second(functional.relu(first(x))) + shortcut(x))
        return self.head(x.mean((2, 3)))


class ViTTiny(nn.Module):
    """Patches of 4 on 32 x 32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 192, 4, 4), nn.Parameter(torch.zeros(1, 1, 192))
        self.position = nn.Parameter(0.02 * torch.randn(1, 65, 192))
        layer = nn.TransformerEncoderLayer(192, 3, 768, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 12, nn.LayerNorm(192, 1e-6), enable_nested_tensor=False)
        self.head = nn.Linear(192, classes)

    def forward(self, x: Any) -> Any:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.blocks(x)[:, 0])


MODELS: dict[str, Any] = {"wrn_28_2": WideResNet28x2, "resnet18": ResNet18, "vit_tiny": ViTTiny}


def build(name: str, classes: int) -> tuple[Any, Any, str]:
    """A network in the memory layout that is fastest on both CPU and GPU, and its SGD."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = MODELS[name](classes).to(device, memory_format=torch.channels_last)
    return net, torch.optim.SGD(net.parameters(), 0.03, 0.9, weight_decay=5e-4, nesterov=True), device
