"""Texts with a label and a domain, from a CSV or Parquet file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from gga_lightning.data.csv_rows import column_places
from gga_lightning.data.faulty import Faulty, check_faulty, report_problems
from gga_lightning.data.records import by_domain, read_records
from gga_lightning.data.text_encoding import TextEncoding, words

__all__ = ["ListedTexts", "TextInputs", "TextSamples", "Texts"]

TextInputs = Literal["tokens", "tfidf"]


class TextSamples(Dataset[tuple[Tensor, Tensor]]):
    """The texts of a domain, as numbers of words.

    Attributes:
        texts: The texts themselves.
        numbers: The numbers of the words of each text, by
            :meth:`~gga_lightning.data.text_encoding.TextEncoding.numbers`.
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


class ListedTexts:
    """Domains of texts: the part that all data sets of texts share.

    Example:
        >>> from gga_lightning.data import Texts
        >>> issubclass(Texts, ListedTexts)
        True
    """

    def __init__(
        self,
        texts: Sequence[str],
        domains: Sequence[str],
        targets: Tensor,
        *,
        name: str,
        classes: list[str],
        groups: Sequence[str] | None,
        inputs: str,
        size: int,
        length: int,
        weights: Sequence[float] | None,
    ) -> None:
        """Takes the samples that a subclass has read.

        Args:
            texts: The texts, each with at least one word.
            domains: The domain of each.
            targets: The target of each.
            name: See :class:`Texts`.
            classes: The names of classes or outputs.
            groups: The group of each text; None without groups.
            inputs: See :class:`Texts`.
            size: See :class:`Texts`.
            length: See :class:`Texts`.
            weights: See :class:`Texts`.

        Raises:
            ValueError: If an argument is out of range.
        """
        self._encoding = _encoding(inputs, size, length, weights)
        known = inputs == "tokens" or weights is not None
        self.eval_transform = self._encoding if known else None
        self.input_shape = (length if inputs == "tokens" else size,)
        self.name = name
        self.classes = classes
        self.num_classes = len(classes)
        self.domains = {
            title: TextSamples(
                [texts[place] for place in chosen],
                [self._encoding.numbers(texts[place]) for place in chosen],
                targets[chosen],
                None if groups is None else [groups[place] for place in chosen],
            )
            for title, chosen in by_domain(domains).items()
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


class Texts(ListedTexts):
    """Texts with a label and a domain, such as reviews of several kinds of products.

    The file has a row for each text, with columns for the text, its label and its domain. Domains
    come in the order in which the file first names them, classes in alphabetical order, and
    texts in the file's order. :class:`~gga_lightning.data.text_encoding.TextEncoding` describes
    the inputs.

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
        records.keep(
            [None if words(row.cells[place]) else f"no words in {text}" for row in records.rows]
        )
        records.require(file, faulty)
        report_problems(file, records.problems, faulty, stacklevel=3)
        classes, targets = records.targets()
        super().__init__(
            [row.cells[place] for row in records.rows],
            [row.domain for row in records.rows],
            targets,
            name=Path(file).stem if name is None else name,
            classes=classes,
            groups=None if group is None else [row.group for row in records.rows],
            inputs=inputs,
            size=size,
            length=length,
            weights=weights,
        )


def _encoding(inputs: str, size: int, length: int, weights: Sequence[float] | None) -> TextEncoding:
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
    return TextEncoding(
        size, length if tokens else None, None if weights is None else tuple(weights)
    )
