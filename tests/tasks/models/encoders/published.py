"""Networks as their publishers build them, small and with values drawn at random: the names and the arithmetic that a
file has which somebody downloads. Written from the publishers' documentation; none of their packages is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unsettled(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, with statistics and shifts that are not the neutral ones of a new network."""
    draw = torch.Generator().manual_seed(seed)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=draw) * 0.1)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
    for name, p in network.named_parameters():
        if p.dim() == 1 or "layer_scale" in name:
            p.data.add_(torch.randn(p.shape, generator=draw) * 0.1)
    return network.eval()


class Normed(nn.Sequential):
    """torchvision's ``Conv2dNormActivation``."""

    def __init__(self, into: int, out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> None:
        layers = [
            nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out),
            *([nn.SiLU()] if act else []),
        ]
        super().__init__(*layers)


class Excite(nn.Module):
    """torchvision's ``SqueezeExcitation``."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        gate: Tensor = self.fc2(torch.nn.functional.silu(self.fc1(maps.mean(dim=(2, 3), keepdim=True))))
        return torch.sigmoid(gate) * maps


class MBConv(nn.Module):
    def __init__(self, into: int, out: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = into * expand
        self.block = nn.Sequential(
            *([Normed(into, inner, 1)] if expand > 1 else []),
            Normed(inner, inner, kernel, stride, groups=inner),
            Excite(inner, max(1, into // 4)),
            Normed(inner, out, 1, act=False),
        )
        self.residual = stride == 1 and into == out

    def forward(self, maps: Tensor) -> Tensor:
        made: Tensor = self.block(maps)
        return made + maps if self.residual else made


class VisionEfficientNet(nn.Module):
    """torchvision's, with narrower stages of the same strides and kernels."""

    def __init__(self) -> None:
        super().__init__()
        stages = [(4, 3, 1, 1, 1), (6, 3, 2, 2, 6), (8, 5, 2, 2, 6), (10, 3, 2, 2, 6), (12, 5, 1, 2, 6)]
        stages += [(14, 5, 2, 2, 6), (16, 3, 1, 1, 6)]
        layers: list[nn.Module] = [Normed(3, 8, 3, 2)]
        into = 8
        for out, kernel, stride, number, expand in stages:
            blocks = [
                MBConv(into if n == 0 else out, out, kernel, stride if n == 0 else 1, expand) for n in range(number)
            ]
            layers.append(nn.Sequential(*blocks))
            into = out
        self.features = nn.Sequential(*layers, Normed(into, 32, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(images)
        return maps.mean(dim=(2, 3))


class VisionBlock(nn.Module):
    """torchvision's ``EncoderBlock``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.0), nn.Linear(4 * width, width), nn.Dropout(0.0)
        )

    def forward(self, rows: Tensor) -> Tensor:
        normed = self.ln_1(rows)
        rows = rows + self.self_attention(normed, normed, normed, need_weights=False)[0]
        made: Tensor = rows + self.mlp(self.ln_2(rows))
        return made


class VisionEncoder(nn.Module):
    def __init__(self, places: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, places, width) * 0.02)
        self.layers = nn.Sequential()
        for n in range(depth):
            self.layers.add_module(f"encoder_layer_{n}", VisionBlock(width, heads))
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, rows: Tensor) -> Tensor:
        made: Tensor = self.ln(self.layers(rows + self.pos_embedding))
        return made


class VisionViT(nn.Module):
    """torchvision's ``VisionTransformer``."""

    def __init__(self, side: int = 32, patch: int = 8, width: int = 128, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.encoder = VisionEncoder((side // patch) ** 2 + 1, width, heads, depth)
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(width, 10))

    def forward(self, images: Tensor) -> Tensor:
        rows = self.conv_proj(images).flatten(2).transpose(1, 2)
        made: Tensor = self.encoder(torch.cat([self.class_token.expand(len(rows), -1, -1), rows], dim=1))
        return made[:, 0]


class Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(*self.order)


class ChannelNorm(nn.LayerNorm):
    """torchvision's ``LayerNorm2d``."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class CNBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 7, padding=3, groups=width), Permute(0, 2, 3, 1), nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), Permute(0, 3, 1, 2),
        )  # fmt: skip
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 0.3))

    def forward(self, maps: Tensor) -> Tensor:
        made: Tensor = maps + self.layer_scale * self.block(maps)
        return made


class VisionConvNeXt(nn.Module):
    """torchvision's."""

    def __init__(self, widths: tuple[int, ...] = (8, 16, 24, 32)) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6))
        layers: list[nn.Module] = [stem]
        for n, width in enumerate(widths):
            layers.append(nn.Sequential(CNBlock(width), CNBlock(width)))
            if n + 1 < len(widths):
                layers.append(nn.Sequential(ChannelNorm(width, eps=1e-6), nn.Conv2d(width, widths[n + 1], 2, 2)))
        self.features = nn.Sequential(*layers)
        last = widths[-1]
        self.classifier = nn.Sequential(ChannelNorm(last, eps=1e-6), nn.Flatten(1), nn.Linear(last, 10))

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.features(images).mean(dim=(2, 3), keepdim=True)
        made: Tensor = self.classifier[0](pooled).flatten(1)
        return made
