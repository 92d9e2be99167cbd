"""Base of all algorithms: featurizer and classifier, domain loss, evaluation."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer

from gga_lightning.algorithms.needs import (
    MORE_DOMAINS,
    require_offers,
    require_source_domains,
)
from gga_lightning.algorithms.passes import PassMetrics
from gga_lightning.algorithms.prediction import predict
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = [
    "ADAM",
    "Batch",
    "DomainBatch",
    "DomainGeneralizer",
    "OptimizerFactory",
    "pool",
    "require_domains",
]

DomainBatch = tuple[Tensor, Tensor]
Batch = Mapping[str, DomainBatch]
OptimizerFactory = Callable[[Iterable[Any]], Optimizer]
ADAM: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3)


def pool(batch: Batch) -> DomainBatch:
    """Joins the domains' batches into one, in their order.

    Args:
        batch: Domain name to (inputs, targets).

    Returns:
        All inputs and all targets.

    Example:
        >>> pool({"a": (torch.ones(1), torch.ones(1)), "b": (torch.zeros(1), torch.zeros(1))})
        (tensor([1., 0.]), tensor([1., 0.]))
    """
    inputs, targets = zip(*batch.values(), strict=True)
    return torch.cat(inputs), torch.cat(targets)


def require_domains(batch: Batch, name: str, *, domains: int = 2, samples: int = 1) -> None:
    """Checks that a batch has as many domains and samples as an algorithm needs.

    Args:
        batch: Domain name to (inputs, targets).
        name: The algorithm's name, for the message.
        domains: Smallest number of domains.
        samples: Smallest number of samples of each domain.

    Raises:
        MisconfigurationException: If it has fewer.

    Example:
        >>> batch = {"photo": (torch.zeros(3, 2), torch.tensor([0, 1, 1]))}
        >>> require_domains(batch, "Fish")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lightning.fabric.utilities.exceptions.MisconfigurationException: Fish needs batches of ...
    """
    found = {domain: len(targets) for domain, (_, targets) in batch.items()}
    if len(found) < domains or min(found.values(), default=0) < samples:
        fix = MORE_DOMAINS if len(found) < domains else "Raise the batch size."
        raise MisconfigurationException(
            f"{name} needs batches of at least {domains} domains with at least {samples} samples "
            f"each, got {found} (samples by domain). {fix}"
        )


class DomainGeneralizer(LightningModule):
    """Trains a classifier on several domains at once, and evaluates it on each domain.

    A subclass overrides :meth:`objective`, the loss that the training minimizes; by default it is
    the plain risk. Training batches are ``{domain: (inputs, targets)}``. Evaluation dataloaders are
    named ``"<part>/<domain>"``, as :class:`gga_lightning.data.DomainDataModule` makes them. Each
    logs ``<part>/<domain>/acc`` and ``<part>/<domain>/loss``, and each part logs their means over
    its domains. The most important of these is ``val/acc`` (training-domain validation). With
    another ``task`` than classification, ``acc`` is the metric of the task, such as ``rmse``.

    Attributes:
        needs: What the algorithm needs of a task, of ``"classes"``, ``"logits"`` and
            ``"vectors"``, see :class:`gga_lightning.tasks.Task`. An algorithm that needs nothing
            but a loss works with every task.
        min_domains: The smallest number of source domains. Set it to 2 where an algorithm is
            undefined with a single one, or is plain training. Fewer are refused before a training.
        task: What the targets are, and by which loss and metric outputs are evaluated.
        featurizer: From inputs to features.
        classifier: From features to one logit a class, or to the task's outputs, a linear layer.
        classes: The classes' names, for predictions; ``"0"``, ``"1"`` and so on until they are
            set, as :func:`gga_lightning.experiments.evaluate.load_model` does. For other tasks,
            the names of the outputs.
        domains: The names of the domains of its data, if known.
        input_shape: Shape of one input, if known.
        preprocess: Makes an input of an image (a path, bytes, a PIL image, a uint8 tensor), of a
            row of a table or of a text; None if the model is for other data.

    Example:
        >>> from gga_lightning.backbones import MLP
        >>> class WorstDomain(DomainGeneralizer):
        ...     def objective(self, batch):
        ...         return self.domain_losses(batch).max()
        >>> WorstDomain(MLP((4,)), num_classes=2)(torch.ones(3, 4)).shape
        torch.Size([3, 2])
    """

    needs: ClassVar[Sequence[str]] = ()
    min_domains: ClassVar[int] = 1

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: A module with an attribute ``out_features``, such as those in
                :mod:`gga_lightning.backbones`.
            num_classes: How many classes there are, or how many labels or values with another
                task.
            optimizer: Makes the optimizer from the parameters, or from groups of them as
                dictionaries where the featurizer has an ``lr_factor`` other than 1.
            task: What to predict: a :class:`gga_lightning.tasks.Task`.

        Raises:
            ValueError: If the algorithm needs something that the task does not have, or the
                featurizer does not say how many features it gives, or gives no such features as
                the task needs.
        """
        super().__init__()
        require_offers(type(self), task)
        features = getattr(featurizer, "out_features", None)
        if not isinstance(features, int):
            raise ValueError(
                "`featurizer` must have an attribute `out_features`, the length of its feature "
                f"vector, as an integer; {type(featurizer).__name__} has {features!r}."
            )
        self.task = task
        self.featurizer = featurizer
        self.classifier = task.make_classifier(featurizer, features, num_classes)
        self.num_classes = num_classes
        self.make_optimizer = optimizer
        self.classes = [str(number) for number in range(num_classes)]
        self.domains: list[str] = []
        self.input_shape: tuple[int, ...] | None = None
        self.preprocess: Callable[[Any], Tensor] | None = None

    def setup(self, stage: str) -> None:
        """Checks that the data module, if there is one, has enough source domains."""
        data = getattr(self._trainer, "datamodule", None)
        known = getattr(data, "training_domains", None)
        if stage == "fit" and known:
            require_source_domains(type(self), known)

    @classmethod
    def featurizer_shape(cls, input_shape: Sequence[int]) -> tuple[int, ...]:
        """Gives the shape of the featurizer's inputs, which differs from the model's for ARM.

        Args:
            input_shape: Shape of one input.

        Returns:
            Shape of one input of the featurizer.
        """
        return tuple(input_shape)

    def objective(self, batch: Batch) -> Tensor:
        """Computes what the algorithm minimizes.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The mean loss over all samples, a scalar.
        """
        return self.domain_loss(pool(batch))

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes logits, or the task's outputs.

        Args:
            inputs: Shape ``(N, ...)``.

        Returns:
            Shape ``(N, num_classes)``; ``(N, num_classes, H, W)`` for segmentation.
        """
        return self.classifier(self.featurizer(inputs))

    def predict(self, images: Any, *, batch_size: int = 64) -> Any:
        """Predicts the class of one image, row or text, or of each in a collection.

        The model predicts in evaluation mode, without gradients, on its own device. The modes of
        all its modules are the same afterwards. Of a collection, only one batch of images is in
        memory at a time.

        Args:
            images: One image: a file's path, a file's content as bytes, a PIL image of any mode,
                or a uint8 tensor of shape ``(3, H, W)``. A tensor of floats is taken as an input
                of the model that is ready, and is the only kind that a model without
                ``preprocess`` takes. A collection: a folder, which stands for all images in it
                and below, in the order of their paths; a tensor with one dimension more than an
                image; or any iterable of images and collections, also a generator.
                A model for rows of a table takes a row as a mapping from column to number, or as
                a tensor of the numbers, neither of them scaled; a collection can be a CSV or
                Parquet file. A model for texts takes a text as a str; a collection can be a text
                file, as a :class:`pathlib.Path`, with a text in each line.
            batch_size: How many images go through the model at a time; at least 1. ARM and MTL
                predict from all images of a batch, which should be of one domain.

        Returns:
            A :class:`Prediction` for an image, a list of them for a collection; for other tasks a
            :class:`~gga_lightning.tasks.LabelsPrediction`,
            :class:`~gga_lightning.tasks.ValuesPrediction` or
            :class:`~gga_lightning.tasks.MaskPrediction`.

        Raises:
            ValueError: If ``batch_size`` is less than 1, an image is of another kind or cannot be
                decoded, a folder has no images, or the model's outputs are not finite.
            OSError: If a file cannot be read.

        Example:
            >>> from gga_lightning.algorithms import ERM
            >>> from gga_lightning.backbones import MLP
            >>> model = ERM(MLP((4,)), num_classes=2)
            >>> model.classes = ["cat", "dog"]
            >>> list(model.predict(torch.ones(4)).probabilities)
            ['cat', 'dog']
            >>> len(model.predict(torch.ones(4) for _ in range(100)))
            100
        """
        return predict(self, images, batch_size)

    def domain_loss(self, domain_batch: DomainBatch) -> Tensor:
        """Computes a domain's risk, what the gradient callbacks compare between domains.

        Args:
            domain_batch: Inputs and targets of one domain.

        Returns:
            The mean of the task's loss, which is the cross-entropy for classification, a scalar.
        """
        inputs, targets = domain_batch
        return self.task.loss(self(inputs), targets)

    def logits_by_domain(self, batch: Batch) -> list[Tensor]:
        """Computes each domain's logits, in one pass over the joined batch.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            D tensors of shape ``(N_e, num_classes)``, or of the task's outputs.
        """
        sizes = [len(targets) for _, targets in batch.values()]
        return list(self(pool(batch)[0]).split(sizes))

    def domain_losses(self, batch: Batch) -> Tensor:
        """Computes each domain's risk, in one pass over the joined batch.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The domains' mean losses, shape ``(D,)``.
        """
        pairs = zip(self.logits_by_domain(batch), batch.values(), strict=True)
        return torch.stack([self.task.loss(z, targets) for z, (_, targets) in pairs])

    def mean_over_processes(self, tensor: Tensor) -> Tensor:
        """Averages what each process found on its own samples.

        Args:
            tensor: This process's.

        Returns:
            The mean, without a graph; the tensor itself with a single process.
        """
        if self._trainer is None or self.trainer.world_size == 1:
            return tensor.detach()
        return self.trainer.strategy.reduce(tensor.detach().clone(), reduce_op="mean")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Computes and logs the objective."""
        loss = self.objective(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=1)
        return loss

    def configure_optimizers(self) -> Optimizer:
        """Makes the optimizer."""
        return self._optimizer([{"params": list(self.parameters())}])

    def _optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Makes the optimizer; the featurizer learns at ``lr_factor`` times the learning rate."""
        factor = getattr(self.featurizer, "lr_factor", 1.0)
        if factor == 1.0:
            return self.make_optimizer(groups[0]["params"] if len(groups) == 1 else groups)
        inside = {id(param) for param in self.featurizer.parameters()}
        parts = [
            {**group, "params": found, "pretrained": part}
            for group in groups
            for part in (True, False)
            if (found := [param for param in group["params"] if (id(param) in inside) is part])
        ]
        optimizer = self.make_optimizer(parts)
        for group in optimizer.param_groups:
            if group.pop("pretrained"):
                group["lr"] = factor * group["lr"]  # not in place: groups may share a tensor
        return optimizer

    def on_validation_epoch_start(self) -> None:
        """Prepares the metrics of the validation dataloaders."""
        self._evaluation = PassMetrics("val", self.trainer.val_dataloaders, self)

    def validation_step(self, batch: DomainBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Counts one batch of one validation dataloader."""
        self._evaluation.update(dataloader_idx, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs each dataloader's and each part's metrics."""
        self._evaluation.log()

    def on_test_epoch_start(self) -> None:
        """Prepares the metrics of the test dataloaders."""
        self._evaluation = PassMetrics("test", self.trainer.test_dataloaders, self)

    def test_step(self, batch: DomainBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Counts one batch of one test dataloader."""
        self._evaluation.update(dataloader_idx, batch)

    def on_test_epoch_end(self) -> None:
        """Logs each dataloader's and each part's metrics."""
        self._evaluation.log()
