"""Images a second through the training transforms, ours against DomainBed's way.

    python benchmarks/loading.py
    python benchmarks/loading.py --quick
    python benchmarks/loading.py --workers 1 4 --rounds 9

The images are made here: four domains of JPEGs as large as those of PACS, of which three train,
32 images of each a step. The suite's way is one loader a domain, each with workers of its own,
PIL transforms in the worker and floats to the consumer. Ours is one loader for all domains with
as many workers in all, bytes to the consumer, which normalizes them, a domain at a time; then the
same from the cache of decoded images, and with the colours changed in the consumer, as on a
device.

In a round each way starts its workers, is drained of what they prepared ahead and is then timed;
the ways take turns. The table has medians over the rounds, and of the rounds' ratios to the
suite's way with as many processes, with the lowest and the highest. Processor time is that of the
workers and the consumer together, and says most on a machine that others use too.

The second table has five source domains of 586,575 paths in all (DomainNet's number, to a few
real files): the processes and the memory that they share or have to themselves (PSS), after some
steps, each way started in a process of its own. Workers go through their lists of paths once at
the start, as they do in a long run: what only looks shared then is not any more. Linux only.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torchvision import transforms

from gga_lightning.data.folders import DomainImages, ImageFolders
from gga_lightning.data.module import DomainDataModule
from gga_lightning.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ColourTransform,
    CropTransform,
    TrainTransform,
    to_float,
)

DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
CLASSES = 7
BATCH = 32
DOMAIN_NET = {"clipart": 48833, "infograph": 53201, "painting": 75759, "quickdraw": 172500}
DOMAIN_NET["rest"] = 586575 - sum(DOMAIN_NET.values())
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class SuitesImages(Dataset):
    """As the suite has a domain: a list of pairs, PIL, a transform to floats."""

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224, scale=(0.7, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.3, 0.3, 0.3, 0.3),
            transforms.RandomGrayscale(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, target = self.samples[index]
        with open(path, "rb") as file:
            image = Image.open(file).convert("RGB")
        return self.transform(image), target

    def read_list(self, worker):
        for path, _ in self.samples:
            len(path)


def suites_batches(domains, workers, *, read_lists=False):
    """A loader a domain without end, drawing with replacement; a step takes of all."""

    def endless(domain):
        draws = RandomSampler(domain, replacement=True, num_samples=2**20)
        batches = BatchSampler(draws, BATCH, drop_last=True)
        loader = DataLoader(domain, batch_sampler=batches, num_workers=workers)
        loader.worker_init_fn = domain.read_list if read_lists else None
        return iter(loader)

    loaders = [endless(SuitesImages(samples)) for samples in domains]
    while True:
        yield [next(loader) for loader in loaders]


def our_batches(data, workers, then=to_float, *, read_lists=False):
    """One loader for all domains; ``then`` is what the consumer does to a domain's images."""
    module = DomainDataModule(data, batch_size=BATCH, num_workers=workers, steps_per_epoch=3000)
    loader = module.train_dataloader()

    def read(worker):
        for part in module._large.values():
            for index in part.indices:
                part.dataset.path(index)

    loader.worker_init_fn = read if read_lists else None
    for batch in loader:
        yield [(then(images.to(DEVICE)), targets) for images, targets in batch.values()]


def colours_then_float(images):
    return to_float(ColourTransform()(images))


# Images


def photo(random, side=227):
    """Something like a photograph: smooth shapes, finer ones, a little grain."""
    image = torch.zeros(3, side, side)
    for cells in (3, 7, 19, 57):
        coarse = torch.from_numpy(random.random((1, 3, cells, cells), np.float32))
        image += functional.interpolate(coarse, (side, side), mode="bicubic")[0] / cells**0.5
    image += 0.02 * torch.from_numpy(random.standard_normal((3, side, side), np.float32))
    low, high = image.min(), image.max()
    return Image.fromarray((255 * (image - low) / (high - low)).byte().permute(1, 2, 0).numpy())


def make_images(root, count):
    random = np.random.default_rng(0)
    for domain, index in itertools.product(DOMAINS, range(count)):
        folder = root / domain / f"class{index % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        photo(random).save(folder / f"{index:05}.jpg", quality=90)


def suites_samples(root, domain):
    folders = sorted((root / domain).iterdir())
    return [
        (str(path), target)
        for target, folder in enumerate(folders)
        for path in sorted(folder.iterdir())
    ]


# Speed


def speed(batches, ahead, seconds):
    """Images a second, and milliseconds of processor time an image in all processes.

    Counted once the ``ahead`` steps that are prepared before the first are used up.
    """
    for _ in range(ahead + 3):
        next(batches)
    processes = [os.getpid(), *children()]
    used = sum(map(processor_time, processes))
    images, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds:
        images += sum(len(targets) for _, targets in next(batches))
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        taken = time.perf_counter() - began
    used = sum(map(processor_time, processes)) - used
    batches.close()
    return images / taken, 1000 * used / images


def speeds(root, cache, workers, seconds):
    """One round with this number of workers a domain: way to what :func:`speed` tells."""
    sources = DOMAINS[:-1]
    total = workers * len(sources)
    plain = ImageFolders(root, as_uint8=True)
    cached = ImageFolders(root, as_uint8=True, cache=cache)
    cropped = ImageFolders(root, as_uint8=True, cache=cache)
    cropped.train_transform = CropTransform()
    samples = [suites_samples(root, domain) for domain in sources]
    return {
        "suite": speed(suites_batches(samples, workers), 2 * workers, seconds),
        "ours": speed(our_batches(plain, total), 2 * total, seconds),
        "ours, cache": speed(our_batches(cached, total), 2 * total, seconds),
        f"ours, cache, colours in the consumer ({DEVICE})": speed(
            our_batches(cropped, total, colours_then_float), 2 * total, seconds
        ),
    }


def speed_table(root, cache, every_workers, rounds, seconds):
    print("| way | workers | images/s | times the suite (low-high) | processor ms an image |")
    print("|---|---|---|---|---|")
    found = {workers: [] for workers in every_workers}
    for _, workers in itertools.product(range(rounds), every_workers):
        found[workers].append(speeds(root, cache, workers, seconds))
    for workers, each in found.items():
        for way in each[0]:
            ratios = [one[way][0] / one["suite"][0] for one in each]
            median, used = (statistics.median(one[way][i] for one in each) for i in range(2))
            shown = f"{3} x {workers}" if way == "suite" else f"{3 * workers}"
            ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            print(f"| {way} | {shown} | {median:.0f} | {ratio} | {used:.2f} |", flush=True)


# Memory


class DomainNetShape:
    """Ours at DomainNet's shape."""

    name, num_classes, input_shape = "domain_net", 345, (3, 224, 224)
    train_transform = TrainTransform()

    def __init__(self, samples):
        self.domains = {
            name: DomainImages(*zip(*pairs, strict=True)) for name, pairs in samples.items()
        }
        # held out, and so in no batch
        self.domains["target"] = DomainImages(*zip(*samples["clipart"][:100], strict=True))


def memory(way, root, workers, steps):
    """Processes and MiB after some steps, of this process and its workers."""
    files = sorted(root.glob("*/*/*.jpg"))
    samples = {
        name: [(f"{files[index % len(files)]}", index % 345) for index in range(count)]
        for name, count in DOMAIN_NET.items()
    }
    if way == "suite":
        batches = suites_batches(list(samples.values()), workers, read_lists=True)
    else:
        batches = our_batches(DomainNetShape(samples), workers, read_lists=True)
        del samples
    for _ in range(steps):
        next(batches)
    processes = [os.getpid(), *children()]
    shares = [resident(process) for process in processes]
    return {"processes": len(processes), "total": sum(shares), "own": shares[0]}


def children():
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(process) for process in path.read_text().split()]


def processor_time(process):
    """Seconds of a processor that a process has used, in the system's calls too."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process):
    """MiB in memory, what several processes share being divided between them."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def memory_table(root, steps):
    print("\n| way | workers | processes | memory MiB | of it the main process |")
    print("|---|---|---|---|---|")
    for way, workers in (("suite", 8), ("ours", 8), ("ours", 4)):
        command = [sys.executable, __file__, "--one", way, str(root), str(workers), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        shown = f"5 x {workers}" if way == "suite" else workers
        total, own = f"{found['total']:.0f}", f"{found['own']:.0f}"
        print(f"| {way} | {shown} | {found['processes']} | {total} | {own} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8], help="a source domain")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="timed, of each way and round")
    parser.add_argument("--quick", action="store_true", help="one short round, one worker a domain")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # more workers than cores
    if arguments.one:
        way, root, workers, steps = arguments.one
        print(json.dumps(memory(way, Path(root), int(workers), int(steps))))
        return
    workers, rounds, seconds, steps = arguments.workers, arguments.rounds, arguments.seconds, 40
    if arguments.quick:
        workers, rounds, seconds, steps = [1], 1, 1.0, 5
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "images"), Path(folder, "cache")
        make_images(root, 60 if arguments.quick else 300)
        size = statistics.mean(path.stat().st_size for path in root.glob("*/*/*.jpg"))
        print(
            f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
            f"Pillow {PIL.__version__}; {os.cpu_count()} cores, {torch.get_num_threads()} threads "
            f"in the consumer and 1 in a worker; {rounds} rounds; JPEGs of 227 x 227 pixels and "
            f"{size / 1000:.1f} kB\n"
        )
        speed_table(root, cache, workers, rounds, seconds)
        memory_table(root, steps)


if __name__ == "__main__":
    main()
