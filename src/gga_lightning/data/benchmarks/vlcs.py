"""VLCS: five kinds of things in the photos of four older data sets."""

from gga_lightning.data.benchmarks.benchmark import Archive, Benchmark, BenchmarkFolders

__all__ = ["VLCS"]


class VLCS(BenchmarkFolders):
    """VLCS (Fang et al., Unbiased Metric Learning, ICCV 2013).

    Its classes are very uneven: SUN09 has 20 birds, and most images of Caltech101 show persons.
    Settings and attributes are those of
    :class:`~gga_lightning.data.benchmarks.benchmark.BenchmarkFolders`.
    """

    facts = Benchmark(
        key="vlcs",
        title="VLCS",
        folder="VLCS",
        domains={"Caltech101": 1415, "LabelMe": 2656, "SUN09": 3282, "VOC2007": 3376},
        num_classes=5,
        licence="none of its own; those of its four parts (VOC2007: Flickr's terms)",
        homepage="https://openaccess.thecvf.com/content_iccv_2013/html/"
        "Fang_Unbiased_Metric_Learning_2013_ICCV_paper.html",
        download_size=3_600_000_000,
        archives=(
            Archive(
                "VLCS.tar.gz",
                (
                    "https://drive.google.com/uc?id=1skwblH1_okBwxWxmRsp9_qi15hyPpxg8",
                    "https://drive.google.com/uc?id=1yDuLrJdPSvMbTmpq-7XmwG0HnJengD-T",
                ),
            ),
        ),
    )
