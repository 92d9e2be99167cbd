"""Human ratings of the sentiment of four kinds of text, by which VADER was tested."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from gga_lightning.data.benchmarks.benchmark import Archive, Benchmark, DatasetError, Survey
from gga_lightning.data.text_encoding import words
from gga_lightning.data.texts import ListedTexts, TextInputs

__all__ = ["Sentiment"]

_FILES = {
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}


class _Rated(NamedTuple):
    text: str
    domain: str
    document: str  # the review or article
    rating: float
    label: str | None  # its sign; None for 0


class Sentiment(ListedTexts):
    """Whether a sentence is positive or negative, in four kinds of text.

    The domains are sentences of product reviews (``products``), of film reviews (``films``) and of
    newspaper editorials (``editorials``), and ``tweets``. Twenty people rated each sentence from
    -4 to 4, and the data have the means. Classes are their signs; sentences with a mean of 0 are
    left out. For regression the targets are the means, and no sentence is left out. Splits are by
    document: a product review or an article has several sentences, and each sentence of the other
    two domains counts as a document.

    The texts come with vaderSentiment, in its repository (MIT; the texts themselves are
    third parties'). Source: Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
    Analysis of Social Media Text", ICWSM 2014.

    Attributes:
        facts: What is known of it.
        name: ``"sentiment"``.
        domains: Domain name to its :class:`~gga_lightning.data.texts.TextSamples`.
        classes: ``negative`` and ``positive``; ``rating`` for regression.
        num_classes: How many there are.
        input_shape: See :class:`~gga_lightning.data.Texts`.
    """

    facts = Benchmark(
        key="sentiment",
        title="VADER's rated sentences",
        folder="sentiment",
        domains={"products": 3_610, "films": 10_568, "editorials": 4_946, "tweets": 4_196},
        num_classes=2,
        licence="MIT for the package; the texts are third parties'",
        homepage="https://github.com/cjhutto/vaderSentiment",
        download_size=2_338_514,
        archives=(
            Archive(
                "hutto_ICWSM_2014.tar.gz",
                (
                    "https://raw.githubusercontent.com/cjhutto/vaderSentiment/"
                    "44fc044cd877310ee8278a0eadf34bcd50d41d06/additional_resources/"
                    "hutto_ICWSM_2014.tar.gz",
                ),
                2_338_514,
                "6a09f8796e24b65b8614d2ccd878aa4a",
            ),
        ),
        files=tuple(_FILES.values()),
        unit="sentences",
    )

    def __init__(
        self,
        root: str | Path,
        *,
        task: str = "classification",
        inputs: TextInputs = "tokens",
        size: int = 16384,
        length: int = 40,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Reads the ratings.

        Args:
            root: The folder of all data sets, which holds ``sentiment``.
            task: ``"classification"`` or ``"regression"``.
            inputs: See :class:`~gga_lightning.data.Texts`.
            size: See :class:`~gga_lightning.data.Texts`.
            length: See :class:`~gga_lightning.data.Texts`.
            weights: See :class:`~gga_lightning.data.Texts`.

        Raises:
            ValueError: If the data are missing, or an argument is out of range.
        """
        if task not in ("classification", "regression"):
            raise ValueError(f"`task` must be 'classification' or 'regression', got {task!r}.")
        folder = self.facts.require(root)
        rated = task == "regression"
        rows = [row for row in _read(folder) if rated or row.label is not None]
        classes = ["rating"] if rated else ["negative", "positive"]
        ratings = torch.tensor([row.rating for row in rows])
        super().__init__(
            [row.text for row in rows],
            [row.domain for row in rows],
            ratings if rated else (ratings > 0).long(),
            name=self.facts.key,
            classes=classes,
            groups=[row.document for row in rows],
            inputs=inputs,
            size=size,
            length=length,
            weights=weights,
        )

    @classmethod
    def survey(cls, root: str | Path) -> Survey:
        """Reads and counts the sentences.

        Args:
            root: The folder of all data sets.

        Returns:
            What was found.
        """
        counts: dict[str, Counter[str]] = {name: Counter() for name in cls.facts.domains}
        for row in _read(cls.facts.require(root)):
            if row.label is not None:
                counts[row.domain][row.label] += 1
        return cls.facts.survey(counts)


def _read(folder: Path) -> Iterator[_Rated]:
    """The sentences that have words."""
    for domain, name in _FILES.items():
        for number, line in enumerate((folder / name).read_text("utf-8").splitlines(), 1):
            cells = line.split("\t")
            try:
                place, rating, text = cells[0], float(cells[1]), cells[2]
            except (IndexError, ValueError):
                raise DatasetError(
                    f"{folder / name}, line {number} must have a number of the sentence, a rating "
                    f"and a text, got {line!r}."
                ) from None
            if not words(text):
                continue
            label = None if rating == 0 else "positive" if rating > 0 else "negative"
            yield _Rated(text, domain, f"{domain}-{place.partition('_')[0]}", rating, label)
