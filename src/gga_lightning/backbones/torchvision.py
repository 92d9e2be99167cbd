"""torchvision's classification networks as featurizers."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from gga_lightning.backbones.pretrained import PretrainedFeaturizer, check_settings
from gga_lightning.backbones.small import image_channels
from gga_lightning.backbones.weights import (
    LoadedWeights,
    find_file,
    find_weights,
    load_weights,
)

__all__ = ["TorchvisionFeaturizer"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
# DenseNet's names in torchvision's own files, from before their second dot was removed.
_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


class TorchvisionFeaturizer(PretrainedFeaturizer):
    """Makes a featurizer of a torchvision network, without its last linear layer.

    Attributes:
        out_features: Length of the feature vector.
        stages: Names of the submodules that end a stage; none for networks other than ResNets.
        normalization: ImageNet's mean and deviation, with which all its weights were trained;
            None for another number of channels than 3.
        freeze_batchnorm: Whether BatchNorm layers keep their running statistics and use them in
            training too; their weights and biases are trained all the same.
        lr_factor: The factor of the learning rate for the parameters of this network.
        loaded_weights: What was loaded from a weights file; None without one.

    Example:
        >>> featurizer = TorchvisionFeaturizer("resnet18", (3, 64, 64))
        >>> featurizer(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int] = (3, 224, 224),
        *,
        weights: str | os.PathLike[str] | None = None,
        freeze_batchnorm: bool = False,
        dropout: float = 0.0,
        lr_factor: float = 1.0,
    ) -> None:
        """Builds the network.

        Args:
            name: A classification model of torchvision, such as ``"resnet50"``.
            input_shape: Shape of one image, ``(channels, height, width)``. For another number of
                channels than 3 the first convolution is replaced; pretrained filters are then
                repeated over the channels.
            weights: A name of torchvision's (``"IMAGENET1K_V1"``), a weights file, or None for
                random weights. A file may hold the network or anything that contains it, such as a
                checkpoint of a training. All of the network's tensors but the classifier's must be
                in it, under any common prefix.
            freeze_batchnorm: See the attribute.
            dropout: Probability of dropping a feature, in [0, 1).
            lr_factor: See the attribute.

        Raises:
            ImportError: If a ``.safetensors`` file is given without the package safetensors.
            ValueError: If torchvision has no such model or weights, these cannot be fetched, the
                file does not exist or does not fit, the network does not end with a linear layer
                (SqueezeNet), or ``dropout`` or ``lr_factor`` is out of range.
        """
        check_settings(dropout, lr_factor)
        channels = image_channels(input_shape)
        network, file = _build(name, weights)
        _simplify(network, name, channels)
        out_features = _behead(network)
        first = _adapt_channels(network, channels)
        super().__init__(
            network,
            out_features,
            channels,
            _IMAGENET,
            freeze_batchnorm=freeze_batchnorm,
            dropout=dropout,
            lr_factor=lr_factor,
            loaded_weights=None if file is None else _load(network, name, file, first),
        )


def _build(name: str, weights: object) -> tuple[nn.Module, Path | None]:
    """The network, with torchvision's weights if they are named, and the file if one is given."""
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ValueError(f"`name` must be one of torchvision's {known}, got {name!r}.")
    kind = torchvision.models.get_model_weights(name)
    names = list(kind.__members__)
    if isinstance(weights, str) and weights.removeprefix(f"{kind.__name__}.") in names:
        return _fetched(name, kind[weights.removeprefix(f"{kind.__name__}.")]), None
    file = None if weights is None else find_file(weights, names)
    own = {"init_weights": True} if name in _AUXILIARY else {}  # or it warns
    return torchvision.models.get_model(name, weights=None, **own), file


def _fetched(name: str, entry: Any) -> nn.Module:
    """A network with torchvision's weights, downloaded unless they are in its cache."""
    cached = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(entry.url))
    try:
        return torchvision.models.get_model(name, weights=entry)
    except (OSError, HTTPException, RuntimeError, EOFError, UnpicklingError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if cached.exists():
            raise ValueError(
                f"`weights`: the file '{cached}' is damaged ({reason}). Delete it, and the next "
                "run downloads it again."
            ) from error
        raise ValueError(
            f"`weights`: {entry.url} cannot be downloaded ({reason}). Download it on another "
            f"machine and save it as '{cached}', or elsewhere with `backbone.weights=FILE`."
        ) from error


def _load(network: nn.Module, name: str, file: Path, first: str) -> LoadedWeights:
    """Loads a weights file; ``first`` names the weight that may need more or fewer channels."""
    found = find_weights(file, network)
    tensors = {_DENSE_LAYER.sub(r"\1", key): tensor for key, tensor in found.tensors.items()}
    channels = network.get_parameter(first).shape[1]
    if first in tensors and tensors[first].dim() == 4 and tensors[first].shape[1] == 3:
        tensors[first] = _repeated(tensors[first], channels)
    return load_weights(network, name, replace(found, tensors=tensors))


def _simplify(network: Any, name: str, channels: int) -> None:
    """Makes the older networks, which depend on whether there are weights, like the others."""
    if name not in _AUXILIARY:
        return
    for classifier in _AUXILIARY[name]:
        setattr(network, classifier, None)
    network.aux_logits = False
    network.transform_input = channels == 3  # from ImageNet's normalization to theirs


def _adapt_channels(network: nn.Module, channels: int) -> str:
    """Makes the first convolution take that many channels, and returns its weight's name."""
    name, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if channels != 3:
        new = nn.Conv2d(
            channels,
            old.out_channels,
            kernel_size=old.kernel_size,  # type: ignore[arg-type]
            stride=old.stride,  # type: ignore[arg-type]
            padding=old.padding,  # type: ignore[arg-type]
            bias=old.bias is not None,
        )
        with torch.no_grad():
            new.weight.copy_(_repeated(old.weight, channels))
            if old.bias is not None and new.bias is not None:
                new.bias.copy_(old.bias)
        _replace(network, name, new)
    return f"{name}.weight"


def _repeated(filters: Tensor, channels: int) -> Tensor:
    """Filters for three channels, repeated over any number of channels."""
    return filters[:, [channel % 3 for channel in range(channels)]]


def _behead(network: nn.Module) -> int:
    """Takes off the last linear layer and returns how many features it took."""
    linear = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ValueError(
            "`name` must be of a network that ends with a linear layer, got a "
            f"{type(network).__name__}."
        )
    name, head = linear[-1]
    _replace(network, name, nn.Identity())
    return head.in_features


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)
