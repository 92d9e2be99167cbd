"""DomainNet: 345 kinds of things in six styles, without DomainBed's duplicates."""

from pathlib import Path

from gga_lightning.data.benchmarks.benchmark import (
    Archive,
    Benchmark,
    BenchmarkFolders,
    find_folder,
)

__all__ = ["DomainNet"]

HOST = "http://csr.bu.edu/ftp/visda/2019/multi-source"
DUPLICATES = "domain_net_duplicates.txt"
SUITE = (
    "https://raw.githubusercontent.com/facebookresearch/DomainBed/"
    "b93c22a1cfc3b2428398272c1a116c8de1f4139e/domainbed/misc"
)


def arrange(unpacked: Path, contents: tuple[str, ...]) -> Path:
    """Removes the images that DomainBed lists as duplicates.

    Args:
        unpacked: Holds the domains and the list, of paths such as ``clipart/class/image.jpg``.
        contents: The domains.

    Returns:
        The folder of the domains.
    """
    folder = find_folder(unpacked, contents)
    duplicates = set((unpacked / DUPLICATES).read_text(encoding="utf-8").split("\n"))
    for domain in contents:
        for path in (folder / domain).rglob("*"):
            if path.relative_to(folder).as_posix() in duplicates:
                path.unlink()
    return folder


class DomainNet(BenchmarkFolders):
    """DomainNet (Peng et al., Moment Matching for Multi-Source Domain Adaptation, ICCV 2019).

    This is the cleaned release without the 9,431 duplicates that DomainBed removes.
    Settings and attributes are those of
    :class:`~gga_lightning.data.benchmarks.benchmark.BenchmarkFolders`.
    """

    facts = Benchmark(
        key="domain_net",
        title="DomainNet",
        folder="domain_net",
        domains={
            "clipart": 48_129,
            "infograph": 51_605,
            "painting": 72_266,
            "quickdraw": 172_500,
            "real": 172_947,
            "sketch": 69_128,
        },
        num_classes=345,
        steps=15_001,
        checkpoint_interval=1000,
        licence="non-commercial research only (fair-use notice)",
        homepage="https://ai.bu.edu/M3SDA/",
        download_size=17_100_000_000,
        archives=(
            Archive(
                "clipart.zip",
                (f"{HOST}/groundtruth/clipart.zip",),
                md5="cd0d8f2d77a4e181449b78ed62bccf1e",
            ),
            Archive(
                "infograph.zip",
                (f"{HOST}/infograph.zip",),
                md5="720380b86f9e6ab4805bb38b6bd135f8",
            ),
            Archive(
                "painting.zip",
                (f"{HOST}/groundtruth/painting.zip",),
                md5="1ae32cdb4f98fe7ab5eb0a351768abfd",
            ),
            Archive(
                "quickdraw.zip",
                (f"{HOST}/quickdraw.zip",),
                md5="bdc1b6f09f277da1a263389efe0c7a66",
            ),
            Archive("real.zip", (f"{HOST}/real.zip",)),
            Archive("sketch.zip", (f"{HOST}/sketch.zip",)),
            Archive(
                DUPLICATES,
                (f"{SUITE}/{DUPLICATES}",),
                size=365_663,
                md5="adc7b54410f8d1c5c201ae1605e553b5",
            ),
        ),
        arrange=arrange,
    )
