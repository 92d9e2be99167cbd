"""Featurizers: modules from inputs to a feature vector, with ``out_features`` saying its length.

Each is made from the shape of one input, so that a configuration names the backbone only.
"""

import os
from collections.abc import Sequence
from typing import Any, Self

import torch
import torchvision
from torch import Tensor, nn

__all__ = ["MLP", "MNISTCNN", "TimmFeaturizer", "TorchvisionFeaturizer"]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


class MLP(nn.Sequential):
    """A multilayer perceptron on flattened inputs, ReLU after every layer.

    Attributes:
        out_features: Length of the feature vector, the last entry of ``widths``.
        stages: Names of the submodules after which features may be changed: the layers' ReLUs.
    """

    def __init__(self, input_shape: Sequence[int], widths: Sequence[int] = (32,)) -> None:
        """Builds the layers.

        Args:
            input_shape: Shape of one input, of any number of dimensions.
            widths: Width of each layer; at least one.

        Raises:
            ValueError: If ``widths`` is empty.
        """
        if not widths:
            raise ValueError("`widths` must hold at least one layer's width, got none.")
        layers: list[nn.Module] = [nn.Flatten()]
        size = int(torch.Size(input_shape).numel())
        for width in widths:
            layers += [nn.Linear(size, width), nn.ReLU()]
            size = width
        super().__init__(*layers)
        self.out_features = size
        self.stages = tuple(str(2 * place) for place in range(1, len(widths) + 1))


class MNISTCNN(nn.Sequential):
    """The reference suite's small convolutional network for MNIST-sized images.

    Four 3x3 convolutions (64, 128 with stride 2, 128, 128), each with ReLU and then GroupNorm
    of 8 groups, and the mean over positions. The architecture is DomainBed's ``MNIST_CNN``.

    Attributes:
        out_features: 128.
        stages: Names of the submodules that end a block.
    """

    out_features = 128
    stages = ("2", "5", "8", "11")

    def __init__(self, input_shape: Sequence[int]) -> None:
        """Builds the layers.

        Args:
            input_shape: Shape of one image, ``(channels, height, width)``.
        """
        channels = _channels(input_shape)
        layers: list[nn.Module] = []
        for width, stride in ((64, 1), (128, 2), (128, 1), (128, 1)):
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1),
                nn.ReLU(),
                nn.GroupNorm(8, width),
            ]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _PretrainedFeaturizer(nn.Module):
    """A network of a library, without its last linear layer.

    Attributes:
        out_features: Length of the feature vector.
        stages: Names of the submodules that end a stage; none for networks other than ResNets.
        normalization: Mean and deviation of each channel that the weights were trained with, for
            images in [0, 1]; None for another number of channels than 3.
        freeze_batchnorm: Whether BatchNorm layers keep their running statistics and use them in
            training too; their weights and biases are trained all the same.
    """

    def __init__(
        self,
        network: nn.Module,
        out_features: int,
        channels: int,
        normalization: tuple[Sequence[float], Sequence[float]],
        *,
        freeze_batchnorm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.out_features = out_features
        self.normalization = normalization if channels == 3 else None
        self.dropout = nn.Dropout(dropout)
        self.freeze_batchnorm = freeze_batchnorm
        layers = [f"layer{number}" for number in range(1, 5)]
        found = all(hasattr(network, name) for name in layers)
        self.stages = tuple(f"network.{name}" for name in layers) if found else ()

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes features.

        Args:
            inputs: Images, shape ``(N, channels, height, width)``.

        Returns:
            Features, shape ``(N, out_features)``.
        """
        return self.dropout(self.network(inputs))

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode, leaving frozen BatchNorm layers in evaluation mode.

        Args:
            mode: Whether to train.

        Returns:
            Itself.
        """
        super().train(mode)
        if self.freeze_batchnorm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
                    module.eval()
        return self


class TorchvisionFeaturizer(_PretrainedFeaturizer):
    """A torchvision classification network without its last linear layer.

    Attributes:
        out_features: Length of the feature vector.
        stages: Names of the submodules that end a stage; none for networks other than ResNets.
        normalization: ImageNet's mean and deviation, with which all its weights were trained;
            None for another number of channels than 3.
        freeze_batchnorm: Whether BatchNorm layers keep their running statistics and use them in
            training too; their weights and biases are trained all the same.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int] = (3, 224, 224),
        *,
        weights: str | None = None,
        freeze_batchnorm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Builds the network.

        Args:
            name: A classification model of torchvision, such as ``"resnet50"``.
            input_shape: Shape of one image, ``(channels, height, width)``. For another number of
                channels than 3 the first convolution is replaced; pretrained filters are then
                repeated over the channels.
            weights: A name of torchvision's (``"IMAGENET1K_V1"``), a file with a state dict of
                the whole network, or None for random weights.
            freeze_batchnorm: See the attribute.
            dropout: Probability of dropping a feature, in [0, 1).

        Raises:
            ValueError: If torchvision has no such model or weights, it does not end with a linear
                layer (SqueezeNet), or ``dropout`` is out of range.
        """
        _check_dropout(dropout)
        channels = _channels(input_shape)
        network = _build(name, weights)
        _simplify(network, name, channels)
        _adapt_channels(network, channels)
        super().__init__(
            network,
            _behead(network),
            channels,
            _IMAGENET,
            freeze_batchnorm=freeze_batchnorm,
            dropout=dropout,
        )


class TimmFeaturizer(_PretrainedFeaturizer):
    """A timm network without its classifier. Needs the extra ``timm``.

    ``resnet50.ram_in1k`` is the ResNet-50 with AugMix weights that DomainBed has taken since July
    2024.

    Attributes:
        out_features: Length of the feature vector.
        stages: Names of the submodules that end a stage; none for networks other than ResNets.
        normalization: Mean and deviation that timm gives for the weights; None for another
            number of channels than 3.
        freeze_batchnorm: Whether BatchNorm layers keep their running statistics and use them in
            training too; their weights and biases are trained all the same.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int] = (3, 224, 224),
        *,
        weights: str | None = None,
        freeze_batchnorm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Builds the network.

        Args:
            name: A model of timm, with its weights' tag or without.
            input_shape: Shape of one image, ``(channels, height, width)``. Pretrained first
                layers are adapted to other numbers of channels than 3 by timm.
            weights: ``"pretrained"`` for timm's own, a file with a state dict, or None for random
                weights.
            freeze_batchnorm: See the attribute.
            dropout: Probability of dropping a feature, in [0, 1).

        Raises:
            ImportError: If timm is not installed.
            ValueError: If timm has no such model, the weights are neither of those, or
                ``dropout`` is out of range.
        """
        try:
            import timm
        except ImportError as error:
            raise ImportError(
                "TimmFeaturizer needs timm: pip install 'gga-lightning[timm]'."
            ) from error
        _check_dropout(dropout)
        channels = _channels(input_shape)
        if not timm.is_model(name):
            raise ValueError(f"`name` must be a model of timm (timm.list_models()), got {name!r}.")
        file = weights if weights is not None and os.path.isfile(weights) else None
        if weights not in (None, "pretrained") and file is None:
            raise ValueError(
                f"`weights` must be 'pretrained', an existing file or None, got {weights!r}."
            )
        network: Any = timm.create_model(
            name,
            pretrained=weights is not None,
            pretrained_cfg_overlay=None if file is None else {"file": file},
            in_chans=channels,
            num_classes=0,
        )
        shape = (1, channels, *input_shape[1:])
        with torch.no_grad():
            out_features = network.eval()(torch.zeros(shape)).shape[1]
        config = network.pretrained_cfg
        super().__init__(
            network.train(),
            out_features,
            channels,
            (config["mean"], config["std"]),
            freeze_batchnorm=freeze_batchnorm,
            dropout=dropout,
        )


def _check_dropout(dropout: float) -> None:
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"`dropout` must be in [0, 1), got {dropout}.")


def _channels(input_shape: Sequence[int]) -> int:
    if len(input_shape) != 3:
        raise ValueError(
            "`input_shape` must be that of an image, (channels, height, width), got "
            f"{tuple(input_shape)}. For other inputs take MLP."
        )
    return input_shape[0]


def _build(name: str, weights: str | None) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ValueError(f"`name` must be one of torchvision's {known}, got {name!r}.")
    file = weights if weights is not None and os.path.isfile(weights) else None
    weights = None if file else weights
    own = {"init_weights": True} if name in _AUXILIARY and weights is None else {}  # or it warns
    try:
        network = torchvision.models.get_model(name, weights=weights, **own)
    except KeyError as error:
        names = [entry.name for entry in torchvision.models.get_model_weights(name)]
        raise ValueError(
            f"`weights` must be one of {names}, an existing file or None, got {weights!r}."
        ) from error
    if file:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network


def _simplify(network: Any, name: str, channels: int) -> None:
    """Makes the older networks, which depend on whether there are weights, like the others."""
    if name not in _AUXILIARY:
        return
    for classifier in _AUXILIARY[name]:
        setattr(network, classifier, None)
    network.aux_logits = False
    network.transform_input = channels == 3  # from ImageNet's normalization to theirs


def _adapt_channels(network: nn.Module, channels: int) -> None:
    """Makes the first convolution take another number of channels than 3."""
    if channels == 3:
        return
    name, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        kernel_size=old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(old.weight[:, [channel % 3 for channel in range(channels)]])
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    _replace(network, name, new)


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
