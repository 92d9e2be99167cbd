"""Human ratings of the sentiment of four kinds of text, by which VADER was tested."""

import csv
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from gga_lightning.data.benchmarks.benchmark import (
    Archive,
    Benchmark,
    DatasetError,
    Survey,
    find_folder,
)
from gga_lightning.data.texts import TextInputs, Texts, words

__all__ = ["Sentiment"]

_FILES = {
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
    "editorials": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}


def arrange(unpacked: Path, contents: tuple[str, ...]) -> Path:
    """Unpacks the archive of the ratings, which is in the package's archive.

    Args:
        unpacked: Holds the package.
        contents: Files that the data set's folder must have.

    Returns:
        The data set's folder.

    Raises:
        DatasetError: If the package does not hold them.
    """
    inner = next(iter(sorted(unpacked.rglob("hutto_ICWSM_2014.tar.gz"))), None)
    if inner is None:
        raise DatasetError("The package has no file hutto_ICWSM_2014.tar.gz: it is another one.")
    folder = unpacked / "ratings"
    folder.mkdir()
    with tarfile.open(inner) as archive:
        for member in archive.getmembers():
            name = PurePosixPath(member.name).name
            content = archive.extractfile(member) if name in contents else None
            if content is not None:  # a file, whose own name alone is used
                (folder / name).write_bytes(content.read())
    return find_folder(folder, contents)


class Sentiment(Texts):
    """Whether a sentence is positive or negative, in four kinds of text.

    The domains are sentences of product reviews (``products``), of film reviews (``films``) and of
    newspaper editorials (``editorials``), and ``tweets``. Twenty people rated each sentence from
    -4 to 4, and the data have the means. Classes are their signs; sentences with a mean of 0 are
    left out. For regression the targets are the means, and no sentence is left out. Splits are by
    document (review or article), of which each but a tweet has several sentences.

    The texts come with the source package of vaderSentiment 3.3.2 (MIT; the texts are third
    parties'). Source: Hutto & Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment
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
        download_size=2_466_783,
        archives=(
            Archive(
                "vaderSentiment-3.3.2.tar.gz",
                (
                    "https://files.pythonhosted.org/packages/77/8c/4a48c10a50f750ae565e341e697d74"
                    "a38075a3e43ff0df6f1ab72e186902/vaderSentiment-3.3.2.tar.gz",
                ),
                2_466_783,
                "a04f43dfcc57119bcabaa12f356c8c40",
            ),
        ),
        files=tuple(_FILES.values()),
        arrange=arrange,
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
        label = "class" if task == "classification" else "rating"
        with tempfile.TemporaryDirectory() as scratch:
            file = os.path.join(scratch, "sentiment.csv")
            with open(file, "w", encoding="utf-8", newline="") as opened:
                writer = csv.writer(opened)
                writer.writerow(("domain", "document", "rating", "class", "text"))
                writer.writerows(
                    row for row in _read(folder) if label == "rating" or row[3] is not None
                )
            super().__init__(
                file,
                label=label,
                group="document",
                task=task,
                inputs=inputs,
                size=size,
                length=length,
                weights=weights,
                name=self.facts.key,
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
        for domain, _, _, label, _ in _read(cls.facts.require(root)):
            if label is not None:
                counts[domain][label] += 1
        survey = Survey(counts, [])
        survey.faults += cls.facts.differences(survey.totals, len(survey.classes))
        return survey


def _read(folder: Path) -> Iterator[tuple[str, str, float, str | None, str]]:
    """Domain, document, rating, class and text of each sentence."""
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
            yield domain, f"{domain}-{place.partition('_')[0]}", rating, label, text
