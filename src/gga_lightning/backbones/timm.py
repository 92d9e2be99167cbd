"""timm's networks as featurizers."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gga_lightning.backbones.pretrained import PretrainedFeaturizer, check_settings
from gga_lightning.backbones.small import image_channels
from gga_lightning.backbones.weights import (
    FoundWeights,
    LoadedWeights,
    find_file,
    find_weights,
    load_weights,
    mismatches,
)

__all__ = ["TimmFeaturizer"]


class TimmFeaturizer(PretrainedFeaturizer):
    """Makes a featurizer of a timm network, without its classifier.

    ``resnet50.ram_in1k`` is the ResNet-50 with AugMix weights that DomainBed has used since July
    2024.

    Attributes:
        out_features: Length of the feature vector.
        stages: Names of the submodules that end a stage; none for networks other than ResNets.
        normalization: Mean and deviation that timm gives for the weights; None for another
            number of channels than 3.
        freeze_batchnorm: Whether BatchNorm layers keep their running statistics and use them in
            training too; their weights and biases are trained all the same.
        lr_factor: The factor of the learning rate for the parameters of this network.
        loaded_weights: What was loaded from a weights file; None without one.

    Example:
        >>> featurizer = TimmFeaturizer("resnet18", (3, 64, 64))
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
            name: A model of timm, with its weights' tag or without.
            input_shape: Shape of one image, ``(channels, height, width)``. Pretrained first
                layers are adapted to other numbers of channels than 3 by timm.
            weights: ``"pretrained"`` for timm's own, a weights file as for
                :class:`TorchvisionFeaturizer`, or None for random weights. timm converts files in
                its older layouts and with position embeddings of another size.
            freeze_batchnorm: See the attribute.
            dropout: Probability of dropping a feature, in [0, 1).
            lr_factor: See the attribute.

        Raises:
            ImportError: If a ``.safetensors`` file is given without the package safetensors.
            ValueError: If timm has no such model or weights, these cannot be fetched, the file
                does not exist or does not fit, or ``dropout`` or ``lr_factor`` is out of range.
        """
        import timm  # here, since it takes a second, and only these networks need it

        check_settings(dropout, lr_factor)
        channels = image_channels(input_shape)
        if not timm.is_model(name):
            raise ValueError(f"`name` must be a model of timm (timm.list_models()), got {name!r}.")
        file = None if weights in (None, "pretrained") else find_file(weights, ["pretrained"])
        make = _pretrained if weights == "pretrained" else _network
        network = make(name, channels)
        loaded = None if file is None else _load(network, name, channels, file)
        with torch.no_grad():
            shape = (1, channels, *input_shape[1:])
            out_features = network.eval()(torch.zeros(shape)).shape[1]
        config = network.pretrained_cfg
        super().__init__(
            network.train(),
            out_features,
            channels,
            (config["mean"], config["std"]),
            freeze_batchnorm=freeze_batchnorm,
            dropout=dropout,
            lr_factor=lr_factor,
            loaded_weights=loaded,
        )


def _network(name: str, channels: int, **settings: Any) -> Any:
    """A network of timm without its classifier."""
    import timm

    return timm.create_model(name, in_chans=channels, num_classes=0, **settings)


def _pretrained(name: str, channels: int) -> Any:
    """A network with timm's weights, downloaded unless they are in a cache."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ValueError(f"`weights`: timm has none for {name!r}; see timm.list_pretrained().")
    hub_file = f"{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    address = f"https://huggingface.co/{hub_file}" if config.hf_hub_id else config.url
    try:
        return _network(name, channels, pretrained=True)
    except Exception as error:  # of urllib, requests, httpx or huggingface_hub, by their versions
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"`weights`: timm cannot load the weights of {name!r} ({reason}). Without internet, "
            f"download {address} on another machine, and give it with `backbone.weights=FILE`."
        ) from error


def _load(network: nn.Module, name: str, channels: int, file: Path) -> LoadedWeights:
    found = find_weights(file, network)
    if any(mismatches(network, found.tensors)):
        found = _converted(network, name, channels, found)
    return load_weights(network, name, found)


def _converted(network: nn.Module, name: str, channels: int, found: FoundWeights) -> FoundWeights:
    """The tensors as timm loads them: from older layouts, for other channels and sizes."""

    def load(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        overlay = {"state_dict": dict(tensors)}
        made = _network(name, channels, pretrained=True, pretrained_cfg_overlay=overlay)
        return made.state_dict()

    own, tensors, extra = network.state_dict(), found.tensors, dict[str, Tensor]()
    missing, _ = mismatches(network, tensors)
    if not missing:  # the names are the network's; timm is to convert nothing else
        extra = {key: tensor for key, tensor in tensors.items() if key not in own}
        tensors = {key: tensor for key, tensor in tensors.items() if key in own}
    log = logging.getLogger("timm")
    level = log.level
    log.setLevel(logging.ERROR)  # what it warns of is checked here
    try:
        # timm does not report what it loaded: those that a copy of the file with NaN makes NaN
        marked = load({key: _with_nan(tensor) for key, tensor in tensors.items()})
        loaded = load(tensors)
    except Exception:  # its conversions fail in many ways with files of other networks
        return found
    finally:
        log.setLevel(level)
    taken = {k: t for k, t in loaded.items() if _is_whole(t) or marked[k].isnan().any()}
    if any(mismatches(network, taken)):
        return found
    return replace(found, tensors={**taken, **extra})


def _with_nan(tensor: Tensor) -> Tensor:
    return tensor if _is_whole(tensor) else torch.full_like(tensor, math.nan)


def _is_whole(tensor: Tensor) -> bool:
    """Whether a tensor holds whole numbers, such as counters and indices."""
    return not tensor.is_floating_point()
