"""A twin of a module: a copy that shares the trainable parameters and owns everything else."""

import contextlib
import sys
from collections.abc import Collection, Generator, Mapping
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from gga_lightning.probing.copier import Copier
from gga_lightning.probing.memory import Sample
from gga_lightning.probing.state import Contents, Node, Opaque, Path, text
from gga_lightning.probing.trees import leaves
from gga_lightning.probing.values import (
    Array,
    SparseValue,
    TensorValue,
    count_changes,
    is_strided,
    same_numbers,
)

__all__ = ["Known", "Tripwire", "Twin"]

_LOGS = ("log", "log_dict", "print")
_WAY_OUT = "Give `domain_loss=`, a callable (module, domain_batch) -> loss that does not"


class Known:
    """Facts about a module's state that the first evaluations of a fit have shown.

    Attributes:
        constant: Large tensors and arrays that the step does not change, by their ids. Later
            twins share them with the module instead of copying them.
        averaged: Parameters that the step itself changes, by their ids, although they are
            trainable: averages of others that no optimizer moves.
    """

    def __init__(self) -> None:
        """Starts without any facts."""
        self.constant: dict[int, Any] = {}
        self.averaged: dict[int, nn.Parameter] = {}


class Tripwire:
    """Replaces a value that cannot be copied. It raises an error when it is used."""

    def __init__(self, path: str, kind: str) -> None:
        """Stores the names of the value and its class, for the message."""
        vars(self).update(_path=path, _kind=kind)

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise MisconfigurationException(
            f"The step uses `{vars(self)['_path']}` ({vars(self)['_kind']}), which cannot be "
            f"copied, so that an evaluation could not leave it unchanged. {_WAY_OUT} use it."
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):  # used to inspect objects
            raise AttributeError(name)
        return self._refuse()

    __call__ = __iter__ = __next__ = __enter__ = __exit__ = __len__ = __bool__ = _refuse
    __getitem__ = __setitem__ = __contains__ = __setattr__ = __delattr__ = _refuse
    __add__ = __sub__ = __mul__ = __truediv__ = __matmul__ = __pow__ = __neg__ = _refuse
    __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rmatmul__ = __rpow__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __int__ = __float__ = __index__ = _refuse


class Twin(Copier):
    """A copy of a module, to be run in its place.

    The copy shares the module's trainable parameters, which a search moves, and large values that
    are known to be constant. It owns everything else: frozen parameters, buffers, attributes of
    any kind and depth, the variables of closures. Running it does not change the module.

    :meth:`rewind` takes the copy back to the state in which it was made, so that each run of a
    twin can begin alike.

    Attributes:
        module: The copy.
        changes_sparse: Whether a first run of a kind has changed a tensor that is sparse or of
            another class.
    """

    def __init__(
        self,
        module: nn.Module,
        known: Known,
        *,
        optimized: Collection[int] = (),
        trial: bool = False,
        instead: Mapping[int, Any] | None = None,
    ) -> None:
        """Copies a module.

        Args:
            module: The module.
            known: Facts that earlier twins of the fit have shown.
            optimized: The ids of the parameters that optimizers move.
            trial: Whether this is the first twin of a fit, which teaches ``known`` by
                :meth:`learn`. It shares all large tensors, and keeps a backup of them in the main
                memory. It owns the trainable parameters that no optimizer moves.
            instead: Objects to put in the place of others, by the others' ids.

        Raises:
            MisconfigurationException: If a trainable parameter cannot be shared.
        """
        shared = {
            id(param): name
            for name, param in module.named_parameters()
            if param.requires_grad
            and id(param) not in known.averaged
            and id(param) not in (instead or {})
            and (id(param) in optimized or not trial)
        }
        super().__init__(instead or {}, [p for p in module.parameters() if id(p) in shared])
        self._known = known
        self._trial = trial
        self._watched = Contents()
        self._unwatched: list[Node] = []
        self._arrays: list[Array] = []
        self._of_tensor: dict[int, TensorValue] = {}
        self._numbers: dict[int, list[TensorValue]] = {}  # by the ids of what was adopted
        self.changes_sparse = False
        self._written: dict[int, list[TensorValue]] = {}  # of them, what a run has changed
        self._lent: list[tuple[Path, Tensor, int]] = []  # with their counts of changes
        self._backups: list[tuple[Tensor, Tensor, int]] = []
        self._large: list[Any] = []  # arrays of a trial
        self._changing: set[int] = set()  # the ids of large tensors and arrays
        self.module: Any = self.adopt(module, "self")
        self._own_numbers = self._numbers[id(self.module)]
        self._owned: list[tuple[nn.Parameter, Tensor, int]] = [  # trainable, of a trial
            (param, self.memo[id(param)], 0)
            for param in module.parameters()
            if trial and param.requires_grad and id(param) not in shared
        ]
        self._trial = False
        self._sample = Sample(tensor for _, tensor, _ in self._lent if is_strided(tensor))
        for missing in shared.keys() - set(map(id, self.module.parameters())):
            raise MisconfigurationException(
                f"The trainable parameter `{shared[missing]}` cannot be shared with a copy of the "
                "module, because its class, or that of its module, makes copies in a way of its "
                "own. Freeze it, or remove `__deepcopy__` and `__setstate__` from that class."
            )

    def adopt(self, value: Any, name: str) -> Any:
        """Copies a value for the twin to use, and from then on restores it with the rest.

        Args:
            value: The module, or a batch.
            name: Its name in messages.

        Returns:
            The copy.
        """
        before = len(self.nodes)
        with _deep_recursion():
            new = self.copy(value, (None, "", name))
        numbers: dict[int, TensorValue] = {}
        for node in self.nodes[before:]:
            if isinstance(node, TensorValue):
                numbers[id(node.live)] = self._of_tensor[id(node.live)] = node
            elif isinstance(node, Array):
                self._arrays.append(node)
            elif isinstance(node, Opaque) or id(node.live) in self.internal:
                self._unwatched.append(node)
            else:
                self._watched.add(node)
        # parts of a batch may share tensors, such as class weights
        shared = (id(leaf) for leaf in leaves(new) if id(leaf) in self._of_tensor)
        numbers |= {address: self._of_tensor[address] for address in shared}
        self._numbers[id(new)] = list(numbers.values())
        return new

    def lends(self, value: Any, path: Path) -> bool:
        """Shares what is known to be constant, and in a trial all large tensors."""
        if self._known.constant.get(id(value)) is value:
            if isinstance(value, Tensor):
                self._lent.append((path, value, count_changes(value)))
            return True
        if self._trial and isinstance(value, Tensor):
            backup = value.detach().to("cpu", copy=True)
            self._backups.append((value, backup, count_changes(value)))
            return True
        if self._trial:
            self._large.append(value)
        return False

    def read_only_names(self) -> str:
        """Names the arrays that are shared and cannot be written to."""
        return ", ".join(f"`{text(path)}`" for path in self.read_only)

    @property
    def has_large(self) -> bool:
        """Whether a trial has found large tensors or arrays, beside the parameters."""
        return bool(self._backups or self._large)

    def stand_in(self, value: Any, path: Path) -> Any:
        """Replaces a value that cannot be copied by a :class:`Tripwire`."""
        return Tripwire(text(path), type(value).__name__)

    def prepare(self, module: nn.Module) -> None:
        """Silences the logs and prints of a LightningModule, unless it has replaced them."""
        if hasattr(type(module), "log_dict"):
            vars(module).update({name: _ignore for name in _LOGS if name not in vars(module)})

    def rewind(self, part: Any = None) -> None:
        """Takes back what runs have changed.

        Args:
            part: The adopted batch that the next run takes, if any.
        """
        self._watched.restore()
        for array in self._arrays:
            array.restore()
        numbers = [node for node in self._numbers.get(id(part), ()) if node.may_have_changed()]
        TensorValue.restore_all([*self._own_numbers, *numbers])
        self._owned = [(param, own, own._version) for param, own, _ in self._owned]

    def rewind_tensors(self, part: Any) -> None:
        """Undoes what runs have changed in tensors, by the same operations each time.

        Args:
            part: The adopted batch that the runs take; :meth:`observe` has seen one.
        """
        TensorValue.restore_all([*self._own_numbers, *self._written[id(part)]])

    def observe(self, part: Any = None) -> None:
        """Checks for rare kinds of changes. Call it after the first run of a kind.

        Args:
            part: The adopted batch that the run took, if any.

        Raises:
            MisconfigurationException: If a change cannot be undone.
        """
        for node in [node for node in self._unwatched if node.changed()]:
            if isinstance(node, Opaque):
                raise MisconfigurationException(
                    f"The step changes `{text(node.path)}` ({type(node.live).__name__}), whose "
                    "state cannot be restored. Keep that state in a tensor, a number, a list or "
                    f"a dict. Or: {_WAY_OUT} change it."
                )
            self._unwatched.remove(node)
            self._watched.add(node)
        sparse = [node for node in self.nodes if isinstance(node, SparseValue)]
        self.changes_sparse |= any(node.changed() for node in sparse)
        numbers = self._numbers.get(id(part), ())
        for node in numbers:
            if not node.may_have_changed():
                node.uncounted = node.changed()
        self._written[id(part)] = [node for node in numbers if node.may_have_changed()]
        for path, tensor, version in self._lent:
            if count_changes(tensor) != version:
                _refuse_late_change(f"`{text(path)}`")

    def check_sample(self) -> None:
        """Checks the large tensors that are shared. Call it after the last run.

        Raises:
            MisconfigurationException: If one has changed, although PyTorch counted no change.
        """
        if self._sample.changed():
            names = ", ".join(f"`{text(path)}`" for path, _, _ in self._lent)
            _refuse_late_change(f"one of {names}, through `.data`,")

    def learn(self) -> None:
        """Notes what a run of a trial has shown, and restores the shared tensors it changed."""
        for tensor, backup, version in self._backups:
            uncounted = id(tensor) not in self._changing and count_changes(tensor) == version
            if uncounted and same_numbers(tensor.detach().cpu(), backup):
                self._known.constant[id(tensor)] = tensor
            else:
                self._changing.add(id(tensor))
                self._known.constant.pop(id(tensor), None)
                tensor.data.copy_(backup)
        changed = {id(array.live) for array in self._arrays if array.changed()}
        for value in self._large:
            if id(self.memo[id(value)]) in changed:
                self._changing.add(id(value))
                self._known.constant.pop(id(value), None)
            elif id(value) not in self._changing:
                self._known.constant[id(value)] = value
        for param, own, version in self._owned:
            if own._version != version or not same_numbers(own, param):
                self._known.averaged[id(param)] = param

    def discard(self) -> None:
        """Ends the use of the copy, which may refer to itself, and frees its memory at once."""
        for space in self.spaces:
            space.clear()
        self.nodes.clear()
        self.memo.clear()


def _refuse_late_change(what: str) -> None:
    raise MisconfigurationException(
        f"The step changed {what} in place. It did not do so on the first batch of the fit, so "
        "that this large tensor was shared instead of copied, and now has the value after an "
        f"evaluation. {_WAY_OUT} change it."
    )


@contextlib.contextmanager
def _deep_recursion() -> Generator[None, None, None]:
    """Raises the recursion limit, for lists and chains that are thousands of levels deep."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 50_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _ignore(*args: Any, **kwargs: Any) -> None:
    return None
