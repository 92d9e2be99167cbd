"""Turns texts into inputs, by hashed words."""

import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

__all__ = ["TextEncoding", "words"]

_WORDS = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


def words(text: str) -> list[str]:
    """Splits a text into words in lower case and single other characters.

    Args:
        text: The text.

    Returns:
        The words and characters, in order.

    Example:
        >>> words("It's GOOD :)")
        ["it's", 'good', ':', ')']
    """
    return _WORDS.findall(text.lower())


@dataclass(frozen=True)
class TextEncoding:
    """Turns texts into inputs, by hashed words.

    Each word is one of ``size`` numbers by the CRC-32 of its letters; two words can have the same
    number, and there is no list of words to keep. Inputs are either

    - tokens: the numbers of the first ``length`` words, from 2 on, int64 of shape ``(length,)``.
      It begins with a 1 and ends with zeros where there are fewer words;
    - or TF-IDF: how often each number occurs in the text, times its ``weights``, scaled to
      length 1, float32 of shape ``(size,)``.

    Attributes:
        size: How many numbers there are.
        length: How many tokens an input has; None for TF-IDF.
        weights: The weight of each number; None for tokens. Those of
            :class:`gga_lightning.data.Texts` are the inverse document frequencies over the training
            parts of the source domains, smoothed as in scikit-learn:
            ``ln((1 + n) / (1 + n_w)) + 1`` for a word in n_w of n texts.

    Example:
        >>> TextEncoding(size=100, length=5)("No, thanks!")
        tensor([ 1, 41, 80, 60, 73])
    """

    takes_texts: ClassVar[bool] = True  # a str is a text, not a path

    size: int
    length: int | None = None
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Makes a tuple of the weights."""
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(self.weights))

    def __call__(self, text: str | Tensor) -> Tensor:
        """Makes an input.

        Args:
            text: A text, or the numbers of its words, as :meth:`numbers` gives them.

        Returns:
            See above; on the CPU.

        Raises:
            ValueError: If it is neither, or has no words.
        """
        if isinstance(text, str):
            text = self.numbers(text)
        elif not isinstance(text, Tensor):
            raise ValueError(f"a text must be a str, got {type(text).__name__}.")
        if self.length is not None:
            kept = text[: self.length - 1]
            tokens = torch.zeros(self.length, dtype=torch.int64)
            tokens[0] = 1
            tokens[1 : len(kept) + 1] = kept + 2
            return tokens
        weighted = text.bincount(minlength=self.size) * self._weights
        return weighted / weighted.norm()

    def numbers(self, text: str) -> Tensor:
        """Finds the numbers of the words.

        Args:
            text: The text.

        Returns:
            For each word a number from 0 to ``size - 1``, int64 of shape ``(words,)``.

        Raises:
            ValueError: If the text has no words.
        """
        hashed = [zlib.crc32(word.encode(errors="replace")) % self.size for word in words(text)]
        if not hashed:
            raise ValueError(f"a text must have at least one word, got {text!r}.")
        return torch.tensor(hashed)

    def items(self, file: str | Path) -> list[tuple[str, str]]:
        """Reads the texts of a file, for predictions.

        Args:
            file: A text file in UTF-8, with a text in each line.

        Returns:
            For each line that is not empty its place, such as ``"new.txt:2"``, and its text.
        """
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
        return [(f"{file}:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]

    def settings(self) -> dict[str, Any]:
        """Describes it for ``result.json``.

        Returns:
            The attributes, and ``kind``.
        """
        weights = None if self.weights is None else list(self.weights)
        return {"kind": "text", "size": self.size, "length": self.length, "weights": weights}

    def dataset_settings(self) -> dict[str, Any]:
        """Says with which settings another data set makes the same inputs.

        Returns:
            Those of :class:`gga_lightning.data.Texts`.
        """
        given = {"inputs": "tokens" if self.length else "tfidf", "size": self.size}
        given |= {"length": self.length} if self.length else {}
        return given | ({} if self.weights is None else {"weights": list(self.weights)})

    @cached_property
    def _weights(self) -> Tensor:
        return torch.tensor(self.weights, dtype=torch.float32)
