"""Loggers that can be read like the real ones and write nothing."""

import functools
from typing import Any

__all__ = ["silent_logger"]

_WRITES = (
    *("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint"),
    *("log_image", "log_table", "log_audio", "log_video", "log_text", "watch", "unwatch"),
)


def silent_logger(logger: Any) -> Any:
    """Makes a logger that writes nothing.

    Args:
        logger: A logger of Lightning's, of any class.

    Returns:
        A logger of a subclass with the same attributes (name, version, directories). Its methods
        that write do nothing, and neither does anything that is called on its ``experiment``.
    """
    kind: Any = _silent_class(type(logger))
    silent = kind.__new__(kind)
    vars(silent).update(vars(logger))
    return silent


class Silence:
    """An experiment (a writer, a run) whose methods can all be called and do nothing."""

    def __init__(self, real: Any = None) -> None:
        """Takes the place of an object.

        Args:
            real: The object, whose plain values can be read.
        """
        vars(self)["_real"] = real

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        found = getattr(vars(self)["_real"], name, None)
        return found if isinstance(found, str | int | float | bytes) else Silence(found)

    def __setattr__(self, name: str, value: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Silence":
        return Silence()

    def __getitem__(self, key: Any) -> "Silence":
        return Silence()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True


@functools.cache
def _silent_class(kind: type) -> type:
    def ignore(self: Any, *args: Any, **kwargs: Any) -> None:
        return None

    def experiment(self: Any) -> Silence:
        return Silence(vars(self).get("_experiment"))

    body: dict[str, Any] = {name: ignore for name in _WRITES if hasattr(kind, name)}
    body["experiment"] = property(experiment)
    return type(f"Silent{kind.__name__}", (kind,), body)
