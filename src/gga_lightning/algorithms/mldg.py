"""Meta-learning for domain generalization (MLDG)."""

from collections.abc import Iterable
from typing import Literal

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gga_lightning.algorithms.base import ADAM, Batch, OptimizerFactory, require_domains
from gga_lightning.algorithms.manual import ManualGeneralizer
from gga_lightning.tasks import CLASSIFICATION, Task

__all__ = ["MLDG"]


class MLDG(ManualGeneralizer):
    """Steps on some domains so that the loss of other domains falls too (meta-learning).

    At each step the domains are divided at random into meta-train and meta-test domains. Let F be
    the mean loss of the meta-train domains, and G that of the meta-test domains. The optimizer
    steps by the gradient

        grad F(theta) + beta * grad G(theta - inner_lr * grad F(theta)).

    Source: Li et al., AAAI 2018, arXiv 1710.03463, Algorithm 1, to first order, as in DomainBed and
    the code derived from it: the inner step's own derivative (a Hessian) is left out.
    ``split="pairs"`` is the form of that code, from which the published numbers come. It puts the
    domains in a circle at random. Each domain is meta-train once with the next one as meta-test,
    and the gradient is the mean over these pairs (DomainBed today forms fewer pairs, and none with
    two domains). The inner step there is ``inner="adam"``, and it decays the weights too. That code
    cuts the two domains of a pair to the size of the smaller one.

    Example:
        Both losses start at log(2). The inner step on one domain lowers the loss of the other:

        >>> from lightning.pytorch import Trainer
        >>> from torch.utils.data import DataLoader
        >>> from gga_lightning.backbones import MLP
        >>> x, y = torch.ones(1, 4), torch.tensor([0])
        >>> model = MLDG(MLP((4,)), num_classes=2, beta=1.0, inner_lr=0.1)
        >>> zeros = {"weight": torch.zeros(2, 32), "bias": torch.zeros(2)}
        >>> _ = model.classifier.load_state_dict(zeros)
        >>> train = DataLoader([{"a": (x, y), "b": (x, y)}], batch_size=None)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = Trainer(fast_dev_run=True, accelerator="cpu", **quiet)
        >>> trainer.fit(model, train, DataLoader([(x, y)], batch_size=None))
        >>> bool(trainer.callback_metrics["train/loss"] < 2 * torch.tensor(2.0).log())
        True
    """

    min_domains = 2

    def __init__(
        self,
        featurizer: nn.Module,
        num_classes: int,
        *,
        beta: float = 1.0,
        num_meta_test: int = 1,
        split: Literal["domains", "pairs"] = "domains",
        inner: Literal["sgd", "adam"] = "sgd",
        inner_lr: float | None = None,
        optimizer: OptimizerFactory = ADAM,
        task: Task = CLASSIFICATION,
    ) -> None:
        """Sets up the model.

        Args:
            featurizer: See :class:`DomainGeneralizer`.
            num_classes: How many classes there are.
            beta: The weight of the meta-test loss; not negative.
            num_meta_test: Number of meta-test domains; at least 1, and fewer than there are
                domains. Ignored with ``split="pairs"``.
            split: ``"domains"`` or ``"pairs"``, see above.
            inner: The inner step: ``"sgd"`` for gradient descent, ``"adam"`` for the first step of
                a new Adam, which is about the learning rate times the sign of the gradient.
            inner_lr: The inner step's learning rate; the optimizer's if None.
            optimizer: See :class:`DomainGeneralizer`.
            task: See :class:`DomainGeneralizer`.

        Raises:
            ValueError: If an argument is out of range.
        """
        super().__init__(featurizer, num_classes, optimizer=optimizer, task=task)
        if not beta >= 0:
            raise ValueError(f"`beta` must not be negative, got {beta}.")
        if num_meta_test < 1:
            raise ValueError(f"`num_meta_test` must be at least 1, got {num_meta_test}.")
        if split not in ("domains", "pairs"):
            raise ValueError(f"`split` must be 'domains' or 'pairs', got {split!r}.")
        if inner not in ("sgd", "adam"):
            raise ValueError(f"`inner` must be 'sgd' or 'adam', got {inner!r}.")
        self.beta = beta
        self.num_meta_test = num_meta_test
        self.split = split
        self.inner = inner
        self.inner_lr = inner_lr

    def update(self, batch: Batch) -> Tensor:
        """Makes a step.

        Args:
            batch: Domain name to (inputs, targets).

        Returns:
            The loss, to be logged.
        """
        require_domains(batch, "MLDG")
        splits = self._splits(list(batch))
        losses, total = [], [torch.zeros_like(param) for param in self.trained]
        for train, test in splits:
            loss = self._risk(batch, train)
            gradient = self.gradient(loss)
            with self.displaced(self._direction(gradient), -self._inner_lr()):
                test_loss = self._risk(batch, test)
                outer = self.gradient(test_loss)
            losses.append((loss + self.beta * test_loss).detach())
            for place, (own, other) in enumerate(zip(gradient, outer, strict=True)):
                total[place] += (own + self.beta * other) / len(splits)
        self.step(total)
        return torch.stack(losses).mean()

    def _splits(self, names: list[str]) -> list[tuple[list[str], list[str]]]:
        """Meta-train and meta-test domains, once or more often."""
        drawn = self.from_first_process(torch.randperm(len(names)))
        order = [names[index] for index in drawn.tolist()]
        if self.split == "pairs":
            following = order[1:] + order[:1]
            return [([one], [other]) for one, other in zip(order, following, strict=True)]
        if self.num_meta_test >= len(order):
            raise MisconfigurationException(
                f"`num_meta_test` must be less than the number of domains ({len(order)}), "
                f"got {self.num_meta_test}."
            )
        return [(order[self.num_meta_test :], order[: self.num_meta_test])]

    def _risk(self, batch: Batch, names: Iterable[str]) -> Tensor:
        return self.domain_losses({name: batch[name] for name in names}).mean()

    def _direction(self, gradient: list[Tensor]) -> list[Tensor]:
        if self.inner == "sgd":
            return gradient
        return [part / (part.abs() + 1e-8) for part in gradient]

    def _inner_lr(self) -> float:
        if self.inner_lr is not None:
            return self.inner_lr
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer.optimizer.param_groups[0]["lr"]
