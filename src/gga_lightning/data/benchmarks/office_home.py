"""OfficeHome: art, clip art, product pictures and photos of things in offices and homes."""

from gga_lightning.data.benchmarks.benchmark import Archive, Benchmark, BenchmarkFolders

__all__ = ["OfficeHome"]


class OfficeHome(BenchmarkFolders):
    """OfficeHome (Venkateswara et al., Deep Hashing Network, CVPR 2017).

    Settings and attributes are those of
    :class:`~gga_lightning.data.benchmarks.benchmark.BenchmarkFolders`.
    """

    facts = Benchmark(
        key="office_home",
        title="OfficeHome",
        folder="office_home",
        domains={"Art": 2427, "Clipart": 4365, "Product": 4439, "Real World": 4357},
        num_classes=65,
        licence="non-commercial research only (fair-use notice)",
        homepage="https://www.hemanthdv.org/officeHomeDataset.html",
        download_size=1_100_000_000,
        archives=(
            Archive(
                "office_home.zip",
                (
                    "https://drive.google.com/uc?id=1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC",
                    "https://drive.google.com/uc?id=1o2ieb-WCn-d4UBpJ_Fg5n1uIil60nJz2",
                    "https://drive.google.com/uc?id=1USXqK4nCvOAR5Ty4iwKcuCOrRJoRuDyU",
                ),
                md5="b1c14819770c4448fd5b6d931031c91c",
            ),
        ),
    )
