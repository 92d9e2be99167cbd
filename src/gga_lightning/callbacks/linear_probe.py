"""Linear probing before fine-tuning, as a callback."""

import re
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from gga_lightning.callbacks._clock import StepClock
from gga_lightning.callbacks._setup import ParameterChoice, check_integer, check_parameters

__all__ = ["LinearProbe"]


class LinearProbe(Callback):
    """Trains only the classifier in the first steps, and then the whole network (LP-FT).

    A new classifier has random weights. Its gradients would change the good features of a
    pretrained network. Therefore the network's gradients are dropped before each optimizer step
    until ``end_step``. Its weights stay the same to the last bit, also under weight decay. In these
    training steps the network is in evaluation mode: BatchNorm statistics do not change, and
    dropout does not disturb the features. At ``end_step`` the optimizers' state (such as Adam's
    moments) is cleared.

    The backward pass still covers the whole network, so that a step costs as much as any other.
    This also works under DDP, and other callbacks see all gradients. The callback holds back every
    step of the trainer's optimizers. Under manual optimization these include steps that the trainer
    does not count (as SagNet and Transfer make). It does not hold back what a module's own code
    writes into the weights, nor the moves of a search. Begin a search at ``end_step``.

    Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR 2022. There the classifier is trained to the end before fine-tuning
    begins; here for as many steps as you give (ERM++ uses 501).

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from gga_lightning import GradientGuidedAnnealing
        >>> callbacks = [LinearProbe(end_step=100), GradientGuidedAnnealing(100, 201)]
        >>> trainer = Trainer(max_steps=5000, callbacks=callbacks, logger=False)
    """

    def __init__(self, end_step: int, *, parameters: ParameterChoice = r"featurizer\.") -> None:
        """Configures how long the network is frozen.

        Args:
            end_step: The first optimizer step with all gradients, counted from 0; at least 1.
            parameters: Which parameters keep their values until then: a regular expression for
                the start of their names, or a callable ``(name, parameter) -> bool``. By default
                the featurizer of this package's algorithms.

        Raises:
            ValueError: If an argument is out of range.
        """
        check_integer("end_step", end_step, 1)
        check_parameters(parameters)
        self.end_step = end_step
        self.parameters = parameters
        self._clock = StepClock()
        self._step = 0
        self._modes: dict[nn.Module, bool] = {}  # whether a module trains; those in evaluation mode
        self._hooks: list[RemovableHandle] = []

    @property
    def state_key(self) -> str:
        """Tells two of these apart in a checkpoint."""
        return self._generate_state_key(end_step=self.end_step)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called when fit begins: checks that there are parameters to hold."""
        if stage == "fit":
            self._clock.restart(trainer)
            names = [name for name, _ in pl_module.named_parameters()]
            if not self._held(pl_module):
                raise MisconfigurationException(
                    f"LinearProbe(parameters={self.parameters!r}) selects none of the module's "
                    f"{len(names)} parameters{', such as ' + repr(names[0]) if names else ''}."
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training begins: watches the steps that the module makes by itself."""
        if pl_module.automatic_optimization:
            return

        def drop(optimizer: Optimizer, *_: Any) -> None:
            self._drop(pl_module)

        for optimizer in trainer.optimizers:
            self._hooks.append(optimizer.register_step_pre_hook(drop))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch begins: notes the step, and sets modes."""
        self._step = self._clock.now(trainer)
        if self._step < self.end_step:
            held = {id(param) for param in self._held(pl_module)}
            for module in pl_module.modules():
                params = list(module.parameters())
                if params and all(id(param) in held for param in params):
                    self._modes = {m: m.training for m in module.modules()} | self._modes
                    module.eval()
        elif self._step == self.end_step:
            for optimizer in trainer.optimizers:
                optimizer.state.clear()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Called when a training batch ends: counts the step, and puts modes back."""
        self._clock.now(trainer)
        self._put_back()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Called before an optimizer steps: drops the gradients, which it then passes over."""
        self._drop(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when training ends, perhaps within a batch that was skipped: puts modes back."""
        self._put_back()
        self._remove_hooks()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Called when training breaks off: puts modes back."""
        self._put_back()
        self._remove_hooks()

    def state_dict(self) -> dict[str, Any]:
        """Called when a checkpoint is saved."""
        return self._clock.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called when a checkpoint is loaded."""
        self._clock.load_state_dict(state_dict)

    def _drop(self, module: LightningModule) -> None:
        if self._step < self.end_step:
            for param in self._held(module):
                param.grad = None

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _put_back(self) -> None:
        for module, training in self._modes.items():
            module.training = training
        self._modes = {}

    def _held(self, module: LightningModule) -> list[nn.Parameter]:
        choice = self.parameters
        return [
            param
            for name, param in module.named_parameters()
            if (choice(name, param) if callable(choice) else re.match(choice, name))
        ]
