"""What people train: vision, text, tables, self-supervision, adversaries."""

import collections
import copy

import torch
import torchmetrics
from lightning.pytorch.demos.boring_classes import (
    BoringModel,
    DemoModel,
    ManualOptimBoringModel,
    RandomDataset,
)
from lightning.pytorch.demos.transformer import LightningTransformer
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

from tests.helpers import Classifier, combined_loader
from tests.zoo import Small, case, labelled, loss_of, native, numbers, pooled


def halves(batch):
    return {"even": batch[::2], "odd": batch[1::2]}


def boring_data():
    return DataLoader(RandomDataset(32, 24), batch_size=8)


case("Lightning's demo module", boring_data, callback={"split": halves})(BoringModel)
case(
    "Lightning's demo module with outputs as loss",
    boring_data,
    callback={"split": halves, "domain_loss": lambda module, part: module(part).pow(2).mean()},
)(DemoModel)
case(
    "Lightning's demo module with manual optimization",
    boring_data,
    callback={"split": halves, "domain_loss": lambda module, part: module.step(part)},
)(ManualOptimBoringModel)
case("BatchNorm, dropout, a metric, logs, prints, counters", combined_loader)(Classifier)


def tokens():
    rows = torch.randint(20, (24, 7), generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(rows[:, :-1], rows[:, 1:]), batch_size=8)


@case(
    "Lightning's demo transformer",
    tokens,
    callback={"split": lambda batch: {"a": [t[:4] for t in batch], "b": [t[4:] for t in batch]}},
)
def transformer():
    module = LightningTransformer(vocab_size=20)
    module.prepare_data = lambda: None  # it would download a corpus
    return module


def critic_loss(module, part):
    return module.critic(part[0]).mean() - module.critic(module.generator(part[0])).mean()


@case(
    "a GAN with two optimizers, stepped by hand",
    callback={"domain_loss": critic_loss},
    trainer={"max_steps": 6},
)
class Gan(Small):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = nn.Linear(8, 8), nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        inputs, _ = pooled(batch)
        critics, generators = self.optimizers()
        critics.zero_grad()
        self.manual_backward(self.critic(self.generator(inputs).detach() - inputs).mean())
        critics.step()
        generators.zero_grad()
        self.manual_backward(-self.critic(self.generator(inputs)).mean())
        generators.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters()) for net in (self.critic, self.generator)]


class Contrast(Small):
    """A momentum encoder and a queue of keys, as in MoCo."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
        self.momentum_encoder = copy.deepcopy(self.encoder)
        for param in self.momentum_encoder.parameters():
            param.requires_grad = False
        self.register_buffer("queue", functional.normalize(numbers(32, 4), dim=1))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def training_step(self, batch, batch_idx):
        inputs, _ = pooled(batch)
        self.update_momentum_encoder()
        with torch.no_grad():
            keys = functional.normalize(self.momentum_encoder(inputs), dim=1)
        queries = functional.normalize(self.encoder(inputs), dim=1)
        positives = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat([positives, queries @ self.queue.clone().T], dim=1) / 0.1
        start = int(self.queue_ptr)
        rows = torch.arange(start, start + len(keys)) % len(self.queue)
        self.queue[rows] = keys
        self.queue_ptr[0] = (start + len(keys)) % len(self.queue)
        return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


@case("MoCo: a momentum encoder whose `.data` is replaced, a queue in a buffer")
class Moco(Contrast):
    @torch.no_grad()
    def update_momentum_encoder(self):
        pairs = zip(self.encoder.parameters(), self.momentum_encoder.parameters(), strict=True)
        for query, key in pairs:
            key.data = key.data * 0.9 + query.data * 0.1


@case("MoCo with the momentum encoder updated in place through `.data`")
class MocoInPlace(Contrast):
    def update_momentum_encoder(self):
        pairs = zip(self.encoder.parameters(), self.momentum_encoder.parameters(), strict=True)
        for query, key in pairs:
            key.data.mul_(0.9).add_(query.data, alpha=0.1)


@case("BYOL: a target network behind a list, so that it is no submodule")
class Byol(Small):
    def __init__(self):
        super().__init__()
        self.online = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        self.predictor = nn.Linear(4, 4)
        self.target = [copy.deepcopy(self.online)]

    def training_step(self, batch, batch_idx):
        inputs, _ = pooled(batch)
        views = inputs + 0.1 * torch.randn_like(inputs), inputs + 0.1 * torch.randn_like(inputs)
        with torch.no_grad():
            wanted = self.target[0](views[1])
            pairs = zip(self.target[0].parameters(), self.online.parameters(), strict=True)
            for old, new in pairs:
                old.lerp_(new, 0.1)
        return functional.mse_loss(self.predictor(self.online(views[0])), wanted)


@case("a mean teacher with a ramp-up")
class MeanTeacher(Small):
    def __init__(self):
        super().__init__()
        self.student = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        inputs, targets = pooled(batch)
        self.steps += 1
        alpha = min(1 - 1 / (self.steps + 1), 0.99)
        for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            old.data.mul_(alpha).add_(new.data, alpha=1 - alpha)
        logits = self.student(inputs)
        consistency = functional.mse_loss(logits.softmax(1), self.teacher(inputs).softmax(1))
        return functional.cross_entropy(logits, targets) + min(1.0, self.steps / 5) * consistency


def two_views(index):
    image = numbers(1, 8, seed=index)[0]
    return [image, image + 0.1], index % 3, index % 2


@case(
    "SimCLR: two views in a list",
    lambda: labelled(two_views),
    callback={"split": 2},
)
class Simclr(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 4)

    def training_step(self, batch, batch_idx):
        (first, second), _, _ = batch
        features = functional.normalize(self.net(torch.cat([first, second])), dim=1)
        similarity = features @ features.T - 10 * torch.eye(len(features))
        return functional.cross_entropy(
            similarity / 0.1, torch.arange(len(features)).roll(len(first))
        )


@case("a contrastive loss with a queue of features in a deque")
class FeatureQueue(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 4)
        self.features = collections.deque([numbers(1, 4)[0]], maxlen=20)

    def training_step(self, batch, batch_idx):
        features = functional.normalize(self.net(pooled(batch)[0]), dim=1)
        loss = (features @ torch.stack(list(self.features)).T).square().mean()
        self.features.extend(features.detach())
        return loss


def sentence(index):
    length = 3 + index % 4
    ids = torch.zeros(6, dtype=torch.long)
    ids[:length] = torch.arange(1, length + 1) + index % 5
    return {
        "input_ids": ids,
        "attention_mask": (ids > 0).long(),
        "labels": index % 3,
        "domain": ("news", "tweets")[index % 2],
    }


@case(
    "Hugging Face style: pops from the batch, returns a dict of outputs", lambda: labelled(sentence)
)
class HuggingFace(Small):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask, labels):
        mask = attention_mask[:, :, None]
        pooled_states = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)
        logits = self.head(pooled_states)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}

    def training_step(self, batch, batch_idx):
        batch.pop("domain")
        labels = batch.pop("labels")
        outputs = self(**batch, labels=labels)
        self.log("loss", outputs["loss"])
        return outputs["loss"]


def encoded(rows):
    return collections.UserDict(
        {name: [row[name] for row in rows] for name in ("domain",)}
        | {
            name: torch.stack([row[name] for row in rows])
            for name in ("input_ids", "attention_mask")
        }
        | {"labels": torch.tensor([row["labels"] for row in rows])}
    )


@case(
    "Hugging Face style on a batch of a class of its own (`BatchEncoding`)",
    lambda: labelled(sentence, collate=encoded),
)
class BatchEncoding(HuggingFace):
    pass


@case(
    "text with lengths, packed for an LSTM",
    lambda: labelled(lambda i: (sentence(i)["input_ids"], 3 + i % 4, i % 3, "ab"[i % 2])),
    callback={"split": 3},
)
class Packed(Small):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        ids, lengths, labels, _ = batch
        packed = pack_padded_sequence(
            self.embedding(ids), lengths, batch_first=True, enforce_sorted=False
        )
        return functional.cross_entropy(self.head(self.lstm(packed)[1][0][-1]), labels)


@case("segmentation with an IoU metric", lambda: native(3, 8, 8))
class Segmentation(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)
        )
        self.iou = torchmetrics.JaccardIndex("multiclass", num_classes=3)

    def training_step(self, batch, batch_idx):
        images, labels = pooled(batch)
        masks = labels[:, None, None].expand(-1, 8, 8)
        logits = self.net(images)
        self.iou(logits, masks)
        self.log("iou", self.iou, on_epoch=True, on_step=True, batch_size=len(images))
        return functional.cross_entropy(logits, masks)


def scene(index):
    image = numbers(1, 3, 6 + index % 3, 6, seed=index)[0]
    boxes = numbers(1 + index % 2, 4, seed=index)
    return image, {"boxes": boxes, "labels": torch.tensor([index % 3] * len(boxes))}, index % 2


def columns(rows):
    return tuple(zip(*rows, strict=True))


@case("detection: images of different sizes, targets as dicts", lambda: labelled(scene, 8, columns))
class Detection(Small):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 3)
        self.boxes, self.classes = nn.Linear(4, 4), nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        images, targets, _ = batch
        losses = []
        for image, target in zip(images, targets, strict=True):
            features = self.backbone(image[None]).mean((2, 3))
            box = (self.boxes(features) - target["boxes"]).abs().mean()
            logits = self.classes(features).expand(len(target["labels"]), -1)
            losses.append(box + functional.cross_entropy(logits, target["labels"]))
        return torch.stack(losses).mean()


def table(index):
    return numbers(1, 5, seed=index)[0], float(index % 5), ("lab", "field")[index % 2]


@case("regression on tables, the domain's name in a string", lambda: labelled(table))
class Regression(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
        self.error = torchmetrics.MeanSquaredError()

    def training_step(self, batch):
        inputs, targets, _ = batch
        predicted = self.net(inputs).squeeze(1)
        self.error.update(predicted, targets.float())
        return {"loss": functional.mse_loss(predicted, targets.float()), "predicted": predicted}

    def on_train_epoch_end(self):
        self.log("error", self.error.compute())
        self.error.reset()


@case("DomainBed's layout: parts registered twice")
class SharedSubmodules(Small):
    def __init__(self):
        super().__init__()
        self.featurizer, self.classifier = nn.Linear(8, 8), nn.Linear(8, 3)
        self.network = nn.Sequential(self.featurizer, self.classifier)

    def training_step(self, batch, batch_idx):
        return loss_of(self.network, batch)


@case("tied weights")
class Tied(Small):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.decoder.weight = self.encoder.weight

    def training_step(self, batch, batch_idx):
        inputs, _ = pooled(batch)
        return functional.mse_loss(self.decoder(self.encoder(inputs).relu()), inputs)


@case("low-rank adapters on a frozen network of more than a megabyte")
class LowRank(Small):
    def __init__(self):
        super().__init__()
        self.base = nn.Linear(8, 40_000).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 3, bias=False)

    def training_step(self, batch, batch_idx):
        inputs, targets = pooled(batch)
        logits = self.base(inputs)[:, :3] + self.up(self.down(inputs))
        return functional.cross_entropy(logits, targets)


@case("an embedding with sparse gradients")
class SparseEmbedding(Small):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(3, 8, sparse=True), nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        _, targets = pooled(batch)
        return functional.cross_entropy(self.head(self.embedding(targets)), targets.flip(0))


@case("a LightningModule inside another")
class Nested(Small):
    def __init__(self):
        super().__init__()
        self.inner = Classifier()
        self.deep = nn.ModuleList([nn.ModuleDict({"again": Classifier()})])

    def training_step(self, batch, batch_idx):
        inputs, targets = pooled(batch)
        logits = self.inner(inputs) + self.deep[0]["again"](inputs)
        self.inner.accuracy(logits, targets)
        self.log("accuracy", self.inner.accuracy, batch_size=len(targets))
        return functional.cross_entropy(logits, targets)


@case("an average of the weights in an `AveragedModel`, trainable but in no optimizer")
class Averages(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        self.average = torch.optim.swa_utils.AveragedModel(
            self.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )

    def training_step(self, batch, batch_idx):
        self.average.update_parameters(self.net)
        inputs, targets = pooled(batch)
        with torch.no_grad():
            wanted = self.average(inputs).softmax(1)
        logits = self.net(inputs)
        distance = functional.mse_loss(logits.softmax(1), wanted)
        return functional.cross_entropy(logits, targets) + distance

    def configure_optimizers(self):
        return torch.optim.Adam(self.net.parameters())


class Graphs:
    """A batch of graphs, of a class that copies itself."""

    def __init__(self, x, y, domain):
        self.x, self.y, self.domain = x, y, domain

    def __deepcopy__(self, memo):
        new = type(self).__new__(type(self))
        vars(new).update(copy.deepcopy(vars(self), memo))
        return new

    def __getitem__(self, rows):
        return Graphs(self.x[rows], self.y[rows], self.domain[rows])


def graphs(rows):
    x, y, domain = (torch.stack(column) for column in zip(*rows, strict=True))
    return Graphs(x, y, domain)


@case(
    "graphs in a batch of a class of its own, normalized in place",
    lambda: labelled(
        lambda i: (numbers(1, 8, seed=i)[0], torch.tensor(i % 3), torch.tensor(i % 2)), 8, graphs
    ),
    callback={"split": lambda batch: {str(d): batch[batch.domain == d] for d in (0, 1)}},
)
class GraphNetwork(Small):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(8, 3)

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def training_step(self, batch, batch_idx):
        batch.x.sub_(batch.x.mean()).div_(3)
        return functional.cross_entropy(self.net(batch.x), batch.y)


@case("a layer compiled by TorchScript")
class Scripted(Small):
    def __init__(self):
        super().__init__()
        self.net = torch.jit.script(nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        return loss_of(self.net, batch)


@case("BatchNorm compiled by TorchScript", refused="changed `self.norm.running_mean`")
class ScriptedBatchNorm(Small):
    def __init__(self):
        super().__init__()
        self.net, self.norm = nn.Linear(8, 3), torch.jit.script(nn.BatchNorm1d(8))

    def training_step(self, batch, batch_idx):
        return loss_of(lambda inputs: self.net(self.norm(inputs)), batch)
