"""PACS: photos, art paintings, cartoons and sketches of seven kinds of things."""

from gga_lightning.data.benchmarks.benchmark import Archive, Benchmark, BenchmarkFolders

__all__ = ["PACS"]


class PACS(BenchmarkFolders):
    """PACS (Li et al., Deeper, Broader and Artier Domain Generalization, ICCV 2017).

    Settings and attributes are those of
    :class:`~gga_lightning.data.benchmarks.benchmark.BenchmarkFolders`.
    """

    facts = Benchmark(
        key="pacs",
        title="PACS",
        folder="PACS",
        domains={"art_painting": 2048, "cartoon": 2344, "photo": 1670, "sketch": 3929},
        num_classes=7,
        licence="none stated by its authors",
        homepage="https://arxiv.org/abs/1710.03077",
        download_size=174_000_000,
        archives=(
            Archive(
                "PACS.zip",
                (
                    "https://drive.google.com/uc?id=1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd",
                    "https://drive.google.com/uc?id=1WWi9tuUNFmUiw7Eirq_JT_hxYZv3J-Vv",
                ),
            ),
        ),
    )
