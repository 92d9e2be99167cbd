"""The public names of the package, as users import them and as the pages document them."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import gga_lightning

# Names outside of their package's __all__ that pages and docstrings refer to.
ALSO = {
    "algorithms": ["base.require_domains", "prediction.image_files"],
    "data": [
        "pseudo.style_clusters",
        "pseudo.style_of",
        "transforms.EvalTransform",
        "transforms.TrainTransform",
    ],
    "experiments": [
        "models.load_model",
        "evaluate.evaluate",
        "evaluate.Accuracy",
        "preprocess.Preprocess",
    ],
}


class Public(NamedTuple):
    """A public name: what it stands for, its package, and the shortest path to import it from."""

    value: Any
    package: str
    path: str

    @property
    def name(self) -> str:
        """The name itself."""
        return self.path.rpartition(".")[2]

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, without links."""
        if not inspect.isclass(self.value) and not inspect.isfunction(self.value):
            plain = re.sub(r"\b[\w.]+\.(\w+)", r"\1", str(self.value))
            return f"``{plain}``"
        text = (inspect.getdoc(self.value) or "").partition("\n\n")[0].replace("\n", " ")
        return re.sub(r":\w+:`~?([^`]+)`", r"``\1``", text)


@cache
def public_names() -> tuple[Public, ...]:
    """Finds all public names, package by package, and the base classes that they have in common."""
    found = []
    for info in pkgutil.iter_modules(gga_lightning.__path__):
        if info.ispkg:
            package = importlib.import_module(f"gga_lightning.{info.name}")
            found += _names_of(package, info.name)
    known = {id(entry.value) for entry in found}
    for entry in tuple(found):
        for base in entry.value.__mro__[1:] if inspect.isclass(entry.value) else ():
            path = f"{base.__module__}.{base.__qualname__}"
            if path.startswith("gga_lightning.") and "._" not in path and id(base) not in known:
                known.add(id(base))
                found.append(Public(base, entry.package, path))
    return tuple(found)


def _names_of(package: Any, name: str) -> Iterator[Public]:
    for public in getattr(package, "__all__", []):
        home = "gga_lightning" if public in gga_lightning.__all__ else package.__name__
        yield Public(getattr(package, public), name, f"{home}.{public}")
    for place in ALSO.get(name, []):
        module, _, public = f"{package.__name__}.{place}".rpartition(".")
        yield Public(getattr(importlib.import_module(module), public), name, f"{module}.{public}")
