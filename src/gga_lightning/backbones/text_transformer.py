"""A small transformer for texts, which starts from random weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["TextTransformer"]


class TextTransformer(nn.Module):
    """Features of a text: the mean over its tokens after a few transformer layers.

    Tokens and their positions have learned embeddings; layers are
    :class:`torch.nn.TransformerEncoderLayer` with the normalization first. Zeros among the tokens
    are padding, and have no influence.

    Attributes:
        out_features: The ``width``.

    Example:
        >>> tokens = torch.tensor([[1, 7, 5, 0], [1, 2, 0, 0]])
        >>> TextTransformer((4,), size=10, width=32)(tokens).shape
        torch.Size([2, 32])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        size: int = 16384,
        *,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        """Builds the layers.

        Args:
            input_shape: Shape of one input, ``(length,)``.
            size: How many words tokens stand for, as in :class:`gga_lightning.data.Texts`: tokens
                are integers from 0 to ``size + 1``.
            width: Width of the embeddings; a multiple of ``heads``.
            layers: How many layers there are.
            heads: Attention heads of a layer.
            dropout: Share of activations that are dropped in training, in [0, 1).

        Raises:
            ValueError: If the shape is not ``(length,)``, a size is less than 1, ``width`` is not a
                multiple of ``heads``, or ``dropout`` is out of range.
        """
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(
                f"`input_shape` must be (length,), that of a list of tokens, got "
                f"{tuple(input_shape)}."
            )
        if min(size, width, layers, heads) < 1 or width % heads:
            raise ValueError(
                "`size`, `width`, `layers` and `heads` must be at least 1, and `width` a multiple "
                f"of `heads`, got {size}, {width}, {layers} and {heads}."
            )
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"`dropout` must be in [0, 1), got {dropout}.")
        self.out_features = width
        self.size = size
        self.words = nn.Embedding(size + 2, width, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(input_shape[0], width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, layers, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Computes the features.

        Args:
            tokens: Integers of shape ``(N, length)``; 0 is padding.

        Returns:
            Shape ``(N, width)``.

        Raises:
            ValueError: If there are other inputs than integers.
        """
        if tokens.is_floating_point():
            raise ValueError(
                "TextTransformer needs tokens, which are integers, got "
                f"{str(tokens.dtype).removeprefix('torch.')}: choose `data.dataset.inputs=tokens`. "
                "Algorithms that change or mix inputs, such as Mixup, need `inputs=tfidf` and "
                "another backbone, such as `backbone=mlp`."
            )
        present = tokens != 0
        hidden = self.words(tokens) + self.places
        # the other kernels cannot be differentiated twice, which IGA needs
        with sdpa_kernel(SDPBackend.MATH):
            hidden = self.layers(hidden, src_key_padding_mask=~present)
        weights = present.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
