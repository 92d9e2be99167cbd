"""Records the evaluation of each domain, and replays it for every candidate.

A search evaluates the same few domains hundreds of times, at other values of the parameters. A GPU
then waits for Python most of the time. A recording is made of what one evaluation asks of the GPU.
Its replay reads the parameters where they are in memory, and runs no Python.
"""

import contextlib
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gga_lightning.alignment.gradients import from_rows, in_rows, row_products
from gga_lightning.alignment.place import uniform_noise

if TYPE_CHECKING:
    from gga_lightning.alignment.evaluator import DomainEvaluator

__all__ = ["CudaRecorder", "NotRecordable", "Recorder", "Recordings"]

_MOVE = 0.02  # of each parameter's root mean square, for the comparison
_AGREES = 0.05  # the largest error of a replay, as a share of what the move changes


class NotRecordable(Exception):
    """An evaluation cannot be replayed. The message says why."""


class Recorder(ABC):
    """Records operations, to run them again. Subclasses say how.

    One recorder serves a whole fit, so that evaluations are compared with replays only once, and
    are not recorded again after a refusal.

    Attributes:
        compared: Whether replays have been compared with evaluations.
        refusal: Why evaluations cannot be recorded; None as long as they can.
    """

    def __init__(self) -> None:
        """Begins without recordings."""
        self.compared = False
        self.refusal: str | None = None

    @abstractmethod
    def watched(self) -> contextlib.AbstractContextManager[object]:
        """Surrounds a first run of what will be recorded.

        Returns:
            A context manager. It raises an exception where the run does what cannot be recorded.
        """

    @abstractmethod
    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Records a function. This does not compute anything.

        Args:
            body: Reads tensors and writes its results into tensors that exist already.

        Returns:
            Does again what the operations of ``body`` do, on the same tensors.
        """

    def drawing(self) -> contextlib.AbstractContextManager[object]:
        """Surrounds replays, and whatever sets the random state that they begin with.

        Returns:
            A context manager.
        """
        return contextlib.nullcontext()

    def release(self) -> None:  # noqa: B027, there may be nothing to free
        """Frees what recordings have held, after they are gone."""


class CudaRecorder(Recorder):
    """Records CUDA graphs.

    The graphs of one recorder share their memory, so only one of them may run at a time. They draw
    random numbers from a copy of the device's generator: if a recording fails, PyTorch leaves the
    generator that it used unusable.
    """

    def __init__(self, device: torch.device) -> None:
        """Prepares a stream of its own, on which PyTorch wants graphs to be recorded.

        Args:
            device: The GPU.
        """
        super().__init__()
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._generator: torch.Generator = torch.cuda.default_generators[self._stream.device_index]
        self._copy: torch.Generator | None = None
        self._pool: Any = None

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Raises an exception where the body waits for the GPU."""
        mode = torch.cuda.get_sync_debug_mode()
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                with warnings.catch_warnings():  # PyTorch calls this mode a prototype, once
                    warnings.simplefilter("ignore")
                    torch.cuda.set_sync_debug_mode("error")
                yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            current.wait_stream(self._stream)

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Records a function as a graph; see :meth:`Recorder.record`."""
        if self._copy is None:
            self._copy = self._generator.clone_state()
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with (
            self.drawing(),
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            body()
        return graph.replay

    @contextlib.contextmanager
    def drawing(self) -> Generator[None]:
        """Lets the device's generator draw from the copy."""
        if self._copy is None:
            yield
            return
        kept = self._generator.graphsafe_get_state()
        self._generator.graphsafe_set_state(self._copy)
        try:
            yield
        finally:
            self._generator.graphsafe_set_state(kept)

    def release(self) -> None:
        """Gives the graphs' memory back to PyTorch, which would keep it for graphs to come."""
        if self._copy is not None:
            self._copy = self._pool = None
            torch.cuda.empty_cache()


class Recordings:
    """The evaluations of all domains, as recordings.

    Gradients, losses and inner products are written to memory that stays the same, so those of a
    domain are valid until the domain is replayed again.
    """

    def __init__(self, evaluator: "DomainEvaluator", recorder: Recorder) -> None:
        """Evaluates each domain, and then records it.

        Args:
            evaluator: The domains.
            recorder: Records them.

        Raises:
            NotRecordable: If a domain has no loss, or a replay differs from an evaluation.
            Exception: Whatever the recorder or the module's code raises.
        """
        self._evaluator, self._recorder = evaluator, recorder
        domains = range(len(evaluator))
        losses, self._rows = zip(*(self._first(index) for index in domains), strict=True)
        if reason := evaluator.not_recordable():
            raise NotRecordable(reason)
        self._losses = torch.stack(losses)
        size = (len(evaluator), len(evaluator))
        self._products = torch.zeros(size, dtype=torch.float64, device=self._losses.device)
        self._gradients = [from_rows(rows, evaluator.params) for rows in self._rows]
        self._replays = [self._record(index) for index in domains]
        if not recorder.compared and evaluator.repeatable:
            for index in domains:
                self._compare(index)
            recorder.compared = True

    def replay(self, index: int) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Evaluates a domain at the parameters' present values.

        Args:
            index: The domain.

        Returns:
            Its loss, its gradient, and the gradient's inner products with the latest gradients of
            all domains, shape ``(D,)``, float64.
        """
        with self._recorder.drawing():
            self._evaluator.redraw(index)
            self._replays[index]()
        return self._losses[index], self._gradients[index], self._products[index]

    def _first(self, index: int) -> tuple[Tensor, Tensor]:
        """A domain's loss, and its gradient in rows, by the first evaluation."""
        with self._evaluator.around(index), self._recorder.watched():
            loss, gradient = _given(self._evaluator.differentiated(index))
        return loss, in_rows(gradient)

    def _record(self, index: int) -> Callable[[], None]:
        def body() -> None:
            self._evaluator.rewind(index)
            loss, gradient = _given(self._evaluator.differentiated(index))
            self._losses[index].copy_(loss)
            in_rows(gradient, out=self._rows[index])
            for other, rows in enumerate(self._rows):
                self._products[index, other].copy_(row_products(self._rows[index], rows))

        with self._evaluator.around(index):
            return self._recorder.record(body)

    @torch.no_grad()
    def _compare(self, index: int) -> None:
        """Compares replays with an evaluation, at other values of the parameters.

        A recording that has kept what it should compute anew, such as a derived weight, would be
        right at the present values only.

        Raises:
            NotRecordable: If a replay differs.
        """
        params = self._evaluator.params
        here = [param.detach().clone() for param in params]
        present = self._evaluated(index)
        try:
            for number, param in enumerate(params):
                real = torch.view_as_real(param) if param.is_complex() else param
                size = float(torch.linalg.vector_norm(real)) / math.sqrt(max(real.numel(), 1))
                generator = torch.Generator(real.device).manual_seed(number)
                real.add_(uniform_noise(real, _MOVE * size, generator))
            moved = self._evaluated(index)
            for _ in range(2):  # the second would show what the first has left behind
                loss, _, _ = self.replay(index)
                replayed = torch.cat([loss.view(1), self._rows[index].view(-1)])
                error, change = ((other - moved).norm().item() for other in (replayed, present))
                if moved.isfinite().all() and not error <= _AGREES * change:
                    raise NotRecordable(
                        f"a replay differs from an evaluation, by {error:.1e} where {change:.1e} "
                        "is the difference between two points"
                    )
        finally:
            for param, value in zip(params, here, strict=True):
                param.copy_(value)

    def _evaluated(self, index: int) -> Tensor:
        """A domain's loss and gradient, in one vector."""
        with torch.enable_grad():
            loss, gradient = _given(self._evaluator.local(index))
        rows = in_rows(gradient)
        return torch.cat([loss.to(rows.dtype).view(1), rows.view(-1)])


def _given(
    found: tuple[Tensor, tuple[Tensor, ...]] | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    if found is None:
        raise NotRecordable("a domain has no loss")
    return found
