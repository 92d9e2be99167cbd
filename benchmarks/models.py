"""The models and batches that the benchmarks time."""

from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models import VisionTransformer

from gga_lightning.algorithms import ERM
from gga_lightning.backbones import MLP, MNISTCNN, TorchvisionFeaturizer

__all__ = ["MODELS", "Model"]


class TinyViT(VisionTransformer):
    """ViT-Ti/16 without its head."""

    out_features = 192

    def __init__(self) -> None:
        super().__init__(224, 16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)
        self.heads = nn.Identity()


@dataclass(frozen=True)
class Model:
    """A model and its batch: ``domains`` domains of ``samples`` inputs of shape ``shape``."""

    make: object
    shape: tuple[int, ...]
    classes: int
    samples: int
    candidates: int
    domains: int = 3

    def module(self) -> ERM:
        return ERM(self.make(), self.classes)

    def batch(self, device: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return {
            f"domain {index}": (
                torch.randn(self.samples, *self.shape, device=device),
                torch.randint(self.classes, (self.samples,), device=device),
            )
            for index in range(self.domains)
        }


MODELS = {
    "mlp": Model(lambda: MLP((64,)), (64,), 10, 32, 250),
    "mnist_cnn": Model(lambda: MNISTCNN((1, 28, 28)), (1, 28, 28), 10, 32, 10),
    "resnet18": Model(
        lambda: TorchvisionFeaturizer("resnet18", freeze_batchnorm=True), (3, 224, 224), 7, 4, 4
    ),
    "resnet50": Model(
        lambda: TorchvisionFeaturizer("resnet50", freeze_batchnorm=True), (3, 224, 224), 7, 4, 4
    ),
    "vit_tiny": Model(TinyViT, (3, 224, 224), 7, 4, 4),
}
