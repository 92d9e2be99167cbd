from gga_lightning.data.benchmarks.domain_net import DUPLICATES, DomainNet, arrange


def test_duplicates_go(tmp_path):
    outside = tmp_path / "outside.jpg"
    outside.write_text("stays")
    unpacked = tmp_path / "unpacked"
    for domain in DomainNet.facts.contents:
        for name in ("a", "b"):
            path = unpacked / domain / "zebra" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(domain)
    listed = ["clipart/zebra/a.jpg", "real/zebra/b.jpg", "real/zebra/gone.jpg", "../outside.jpg"]
    (unpacked / DUPLICATES).write_text("\n".join(listed) + "\n")
    folder = arrange(unpacked, DomainNet.facts.contents)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")}
    assert len(left) == 10
    assert left.isdisjoint(listed)
    assert outside.exists()


def test_the_list_is_pinned():
    archive = DomainNet.facts.archives[-1]
    assert archive.file == DUPLICATES
    assert "/b93c22a1cfc3b2428398272c1a116c8de1f4139e/" in archive.sources[0]
