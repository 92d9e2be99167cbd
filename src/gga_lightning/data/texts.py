"""Texts with a label and a domain, from a CSV or Parquet file."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from gga_lightning.data.csv_rows import column_places
from gga_lightning.data.faulty import Faulty, check_faulty, report_problems
from gga_lightning.data.records import Record, read_records

__all__ = ["TextEncoding", "TextInputs", "TextSamples", "Texts", "words"]

TextInputs = Literal["tokens", "tfidf"]
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
        weights: The weight of each number; None for tokens. Those of :class:`Texts` are the
            inverse document frequencies over the training parts of the source domains, smoothed
            as in scikit-learn: ``ln((1 + n) / (1 + n_w)) + 1`` for a word in n_w of n texts.

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
            Those of :class:`Texts`.
        """
        given = {"inputs": "tokens" if self.length else "tfidf", "size": self.size}
        given |= {"length": self.length} if self.length else {}
        return given | ({} if self.weights is None else {"weights": list(self.weights)})

    @cached_property
    def _weights(self) -> Tensor:
        return torch.tensor(self.weights, dtype=torch.float32)


class TextSamples(Dataset[tuple[Tensor, Tensor]]):
    """The texts of a domain, as numbers of words.

    Attributes:
        texts: The texts themselves.
        numbers: What :meth:`TextEncoding.numbers` gives for each text.
        targets: Their targets.
        groups: Each text's group; None without groups.
    """

    def __init__(
        self,
        texts: list[str],
        numbers: list[Tensor],
        targets: Tensor,
        groups: list[str] | None,
    ) -> None:
        """Takes the samples: see the attributes."""
        self.texts = texts
        self.numbers = numbers
        self.targets = targets
        self.groups = groups

    def __len__(self) -> int:
        """The number of texts."""
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Gets the numbers of the words of a text, and its target.

        Args:
            index: Its place.

        Returns:
            int64 of shape ``(words,)``, and the target.
        """
        return self.numbers[index], self.targets[index]


class Texts:
    """Texts with a label and a domain, such as reviews of several kinds of products.

    The file has a row for each text, with columns for the text, its label and its domain. Domains
    come in the order in which the file first names them, classes in alphabetical order, and
    texts in the file's order. :class:`~gga_lightning.data.texts.TextEncoding` describes the inputs.

    Attributes:
        name: The data set's name in results.
        domains: Domain name to its :class:`~gga_lightning.data.texts.TextSamples`.
        classes: The names of the classes; for other tasks those of the label columns.
        num_classes: How many there are.
        input_shape: ``(length,)`` for tokens, ``(size,)`` for TF-IDF.
        eval_transform: What turns numbers of words into inputs, if it is known without training
            data; None if the data module is to find the weights.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> rows = ["text,label,domain", "Great phone!,good,phones", "A dull film,bad,films", ""]
        >>> with TemporaryDirectory() as root:
        ...     _ = (Path(root) / "reviews.csv").write_text(chr(10).join(rows))
        ...     reviews = Texts(Path(root) / "reviews.csv", length=8)
        >>> reviews.classes, reviews.domains["films"].texts, reviews.input_shape
        (['bad', 'good'], ['A dull film'], (8,))
    """

    def __init__(
        self,
        file: str | Path,
        *,
        text: str = "text",
        label: str | Sequence[str] = "label",
        domain: str = "domain",
        group: str | None = None,
        task: str = "classification",
        inputs: TextInputs = "tokens",
        size: int = 16384,
        length: int = 64,
        faulty: Faulty = "stop",
        weights: Sequence[float] | None = None,
        name: str | None = None,
    ) -> None:
        """Reads the file.

        Args:
            file: See :class:`gga_lightning.data.Features`.
            text: The column of the text.
            label: See :class:`gga_lightning.data.Features`.
            domain: The column of the domain.
            group: The column of the group (author, document), by which
                :class:`DomainDataModule` splits; None to split by text.
            task: ``"classification"``, ``"regression"`` or ``"multi_label"``.
            inputs: ``"tokens"``, for :class:`gga_lightning.backbones.TextTransformer`, or
                ``"tfidf"``, for :class:`gga_lightning.backbones.MLP` and linear models.
            size: How many numbers of words there are; at least 2.
            length: How many tokens an input has; at least 2. Further words are cut off.
            faulty: What to do with rows that lack a value or have a text without words:
                ``"stop"`` with an error, or ``"leave_out"`` with a warning.
            weights: The weight of each number for TF-IDF, in place of those of the training
                parts; for the evaluation of a trained model.
            name: What the data are called; the file's name if None.

        Raises:
            ValueError: If an argument is out of range, the file is no such file, no row can be
                used, or with ``faulty="stop"`` a row is wrong.
            ModuleNotFoundError: If ``file`` is a Parquet file and pyarrow is not installed.
        """
        check_faulty(faulty)
        records = read_records(
            file, label=label, domain=domain, group=group, task=task, columns=[text]
        )
        place = column_places(records.header, [text], Path(file))[text]
        usable: list[Record] = []
        for row in records.rows:
            if words(row.cells[place]):
                usable.append(row)
            else:
                records.problems.append(f"{row.where}: no words in {text}")
        records.rows = usable
        records.require(file, faulty)
        report_problems(file, records.problems, faulty, stacklevel=3)
        self.name = Path(file).stem if name is None else name
        self.classes, targets = records.targets()
        self.num_classes = len(self.classes)
        self._encode(inputs, size, length, weights)
        self.domains = {
            title: TextSamples(
                [usable[i].cells[place] for i in chosen],
                [self._encoding.numbers(usable[i].cells[place]) for i in chosen],
                targets[chosen],
                None if group is None else [usable[i].group for i in chosen],
            )
            for title, chosen in records.by_domain().items()
        }

    def fit(self, training: Mapping[str, Subset[Any]]) -> TextEncoding:
        """Finds the weights of words for TF-IDF.

        Args:
            training: Source domain to its training part.

        Returns:
            What makes inputs of numbers of words.
        """
        if self.eval_transform is not None:
            return self.eval_transform
        texts, found = 0, torch.zeros(self._encoding.size)
        for part in training.values():
            samples: Dataset[Any] = part.dataset
            assert isinstance(samples, TextSamples)
            texts += len(part)
            for index in part.indices:
                found[samples.numbers[index].unique()] += 1
        weights = ((1 + texts) / (1 + found)).log() + 1
        return TextEncoding(self._encoding.size, None, tuple(weights.tolist()))

    def _encode(self, inputs: str, size: int, length: int, weights: Sequence[float] | None) -> None:
        """Sets how texts become inputs."""
        if inputs not in ("tokens", "tfidf"):
            raise ValueError(f"`inputs` must be 'tokens' or 'tfidf', got {inputs!r}.")
        if size < 2 or length < 2:
            raise ValueError(f"`size` and `length` must be at least 2, got {size} and {length}.")
        if weights is not None and (inputs != "tfidf" or len(weights) != size):
            raise ValueError(
                f"`weights` must be {size} numbers, with `inputs='tfidf'`, got {len(weights)} with "
                f"{inputs!r}."
            )
        tokens = inputs == "tokens"
        self._encoding = TextEncoding(
            size, length if tokens else None, None if weights is None else tuple(weights)
        )
        self.eval_transform = self._encoding if tokens or weights is not None else None
        self.input_shape = (length if tokens else size,)
