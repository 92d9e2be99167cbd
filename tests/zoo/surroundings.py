"""What modules touch around them: batches, loggers, the trainer, precision, files."""

import os
import queue
import time

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.zoo import Small, case, labelled, loss_of, numbers, opened


class Net(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch)


@case("inputs normalized in place")
class NormalizesInPlace(Net):
    def training_step(self, batch, batch_idx):
        for inputs, _ in batch.values():
            inputs.div_(255).sub_(0.5)
        return loss_of(self.net, batch)


@case("inputs normalized in place through `.data`")
class NormalizesData(Net):
    def training_step(self, batch, batch_idx):
        for inputs, _ in batch.values():
            inputs.data.mul_(0.5)
        return loss_of(self.net, batch)


@case("a batch that the step fills and empties")
class ChangesBatch(Net):
    def training_step(self, batch, batch_idx):
        batch["extra"] = batch.pop(next(iter(batch)))
        return loss_of(self.net, batch)


@case("loaders of different lengths, the shorter yielding None")
class MaxSize(Net):
    def training_step(self, batch, batch_idx):
        return loss_of(self.net, {name: part for name, part in batch.items() if part is not None})


def uneven():
    loaders = {
        name: DataLoader(TensorDataset(numbers(size, 8), torch.arange(size) % 3), batch_size=8)
        for name, size in {"a": 24, "b": 24, "c": 8}.items()
    }
    return CombinedLoader(loaders, "max_size")


@case("three domains at first and two later", uneven)
class Uneven(MaxSize):
    pass


def weighted_samples(rows):
    return {
        "x": torch.stack([row[0] for row in rows]),
        "y": torch.tensor([row[1] for row in rows]),
        "temperature": torch.tensor(2.0),
        "class_weights": torch.tensor([1.0, 2.0, 3.0]),
        "domain": [row[2] for row in rows],
    }


@case(
    "a temperature and class weights beside the samples",
    lambda: labelled(lambda i: (numbers(1, 8, seed=i)[0], i % 3, "ab"[i % 2]), 8, weighted_samples),
)
class BesideSamples(Net):
    def training_step(self, batch, batch_idx):
        logits = self.net(batch["x"]) / batch["temperature"]
        return functional.cross_entropy(logits, batch["y"], weight=batch["class_weights"])


@case("writes to loggers and log directories")
class Writes(Net):
    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        self.logger.experiment.log_metrics({"direct": loss.item()}, step=self.global_step)
        self.logger.log_metrics({"again": loss.item()}, step=self.global_step)
        self.logger.experiment.add_histogram("w", self.net.weight) if hasattr(
            self.logger.experiment, "add_histogram"
        ) else None
        assert os.fspath(self.trainer.log_dir) == os.fspath(self.logger.log_dir)
        self.log_dict({"loss": loss, "twice": 2 * loss}, on_epoch=True, batch_size=16)
        self.print("a line")
        return loss


@case("an attribute called `log`")
class OwnLog(Net):
    def __init__(self):
        super().__init__()
        self.log = []

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        self.log.append(loss.item())
        return loss * len(self.log)


@case("opens autocast itself")
class Autocasts(Net):
    def training_step(self, batch, batch_idx):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return loss_of(self.net, batch)


@case("asks PyTorch for its TF32 settings, old and new")
class AsksForTF32(Net):
    def training_step(self, batch, batch_idx):
        allowed = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
        return loss_of(self.net, batch) * (1.0 if allowed in (True, False) else 2.0)


@case("bfloat16 mixed precision", trainer={"precision": "bf16-mixed"})
class Mixed(Net):
    pass


@case("sets the learning rate in the step")
class SetsRate(Net):
    def training_step(self, batch, batch_idx):
        for group in self.optimizers().param_groups:
            group["lr"] = 0.1 / (1 + self.global_step)
        return loss_of(self.net, batch)


@case("asks the trainer to stop, and leaves notes on it", trainer={"max_steps": 3})
class TouchesTrainer(Net):
    def training_step(self, batch, batch_idx):
        self.trainer.notes = getattr(self.trainer, "notes", 0) + 1
        self.trainer.should_stop = self.trainer.notes >= 3
        return loss_of(self.net, batch)


@case("steps a schedule in the step", refused="changed `self.lr_schedulers()[0].last_epoch`")
class StepsSchedule(Net):
    def training_step(self, batch, batch_idx):
        self.lr_schedulers().step()
        return loss_of(self.net, batch)

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


@case("counts on the module that the trainer has", refused="changed `self.calls`")
class CountsOnTrainersModule(Net):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def training_step(self, batch, batch_idx):
        self.trainer.lightning_module.calls += 1
        return loss_of(self.net, batch)


@case("writes to a file", refused="uses `self.file` (TextIOWrapper)")
class WritesFile(Net):
    def __init__(self):
        super().__init__()
        self.file = opened(os.devnull, "w")

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        self.file.write(f"{loss.item()}\n")
        return loss


@case("draws from a second loader", refused="uses `self.more` (_SingleProcessDataLoaderIter)")
class SecondLoader(Net):
    def __init__(self):
        super().__init__()
        self.more = iter(DataLoader(numbers(1000, 8), batch_size=8))

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch) + self.net(next(self.more)).square().mean()


@case("a loss that depends on the time", refused="depends on something that could not be restored")
class Clock(Net):
    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch) * (1 + time.perf_counter_ns() % 1_000_003)


def captured(make):
    """The module captured by the loss that its users give, instead of the one that they get."""
    made = []

    def loss(module, part):
        return functional.cross_entropy(made[-1](part[0]), part[1])

    def remember():
        made.append(make())
        return made[-1]

    return loss, remember


class WithBatchNorm(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, inputs):
        return self.net(self.norm(inputs))


LOSS, MAKE = captured(WithBatchNorm)


@case(
    "a `domain_loss=` that captured the module",
    callback={"domain_loss": LOSS},
    refused="changed `self.norm.running_mean`",
)
def captured_module():
    return MAKE()


def semi_supervised_data():
    parts = {"labelled": (numbers(24, 8), torch.arange(24) % 3), "unlabelled": (numbers(24, 8),)}
    loaders = {n: DataLoader(TensorDataset(*part), batch_size=8) for n, part in parts.items()}
    return CombinedLoader(loaders, "min_size")


@case(
    "labelled and unlabelled data in one loader",
    semi_supervised_data,
    refused="The batch's keys were taken for domains",
)
class SemiSupervised(Net):
    def training_step(self, batch, batch_idx):
        inputs, targets = batch["labelled"]
        certain = self.net(batch["unlabelled"][0]).softmax(1).amax(1).mean()
        return functional.cross_entropy(self.net(inputs), targets) - certain


@case(
    "a `split=` that empties the batch",
    callback={"split": lambda batch: {"a": batch.pop("a"), "b": batch.pop("b")}},
)
class SplitPops(Net):
    def training_step(self, batch, batch_idx):
        if isinstance(batch, dict):
            return loss_of(self.net, batch)
        return functional.cross_entropy(self.net(batch[0]), batch[1])


class Counting(TensorDataset):
    def __getitem__(self, index):
        self.asked = getattr(self, "asked", 0) + 1
        return super().__getitem__(index)


@case("a data set that counts", refused="changed `self.memory.asked`")
class Rehearses(Net):
    def __init__(self):
        super().__init__()
        self.memory = Counting(numbers(8, 8), torch.arange(8) % 3)

    def training_step(self, batch, batch_idx):
        inputs, target = self.memory[batch_idx]
        return loss_of(self.net, batch) + functional.cross_entropy(self.net(inputs), target)


@case("freezes its own weights", refused="changed `self.net.bias`")
class FreezesItself(Net):
    def training_step(self, batch, batch_idx):
        self.net.bias.requires_grad_(False)
        return loss_of(self.net, batch)


@case("puts a hook on its weights at every step", refused="changed `self.net.weight`")
class HooksItself(Net):
    def training_step(self, batch, batch_idx):
        self.net.weight.register_hook(lambda gradient: gradient)
        return loss_of(self.net, batch)


class Notes(Callback):
    def __init__(self):
        self.count = 0


@case("a callback inside the module")
class HasCallback(Net):
    def __init__(self):
        super().__init__()
        self.notes = Notes()

    def training_step(self, batch, batch_idx):
        self.notes.count += 1
        return loss_of(self.net, batch) * self.notes.count


@case("a writer of its own, with a thread", refused="uses `self.queue.not_full` (Condition)")
class WritesByThread(Net):
    def __init__(self):
        super().__init__()
        self.queue = queue.Queue()

    def training_step(self, batch, batch_idx):
        loss = loss_of(self.net, batch)
        self.queue.put(loss.item())
        return loss
