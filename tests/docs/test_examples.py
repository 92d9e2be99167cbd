"""Every public class and function has an example; pytest runs them as doctests."""

import doctest
import importlib.util
import inspect
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
# These need the folder of a finished run. A page that is run by test_pages.py shows them instead.
ON_A_PAGE = {
    "gga_lightning.experiments.models.load_model": "how-to/use-a-model.md",
    "gga_lightning.experiments.evaluate.evaluate": "how-to/use-a-model.md",
}


def public_names():
    """The public names as the site finds them."""
    spec = importlib.util.spec_from_file_location("public", DOCS / "_extensions" / "public.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        return module.public_names()
    finally:
        del sys.modules[spec.name]


PUBLIC = public_names()  # here, because scikit-learn sets environment variables when imported


def has_example(value):
    """Whether there is a doctest in its own docstring, or in that of its constructor."""
    found = [value.__doc__]
    if inspect.isclass(value) and "__init__" in vars(value):
        found.append(value.__init__.__doc__)
    return any(doctest.DocTestParser().get_examples(text or "") for text in found)


def test_every_public_name_has_an_example():
    documented = [
        entry for entry in PUBLIC if inspect.isclass(entry.value) or inspect.isfunction(entry.value)
    ]
    assert len(documented) > 100
    without = {entry.path for entry in documented if not has_example(entry.value)}
    assert sorted(without - ON_A_PAGE.keys()) == []
    for path, page in ON_A_PAGE.items():
        assert f"{path.rpartition('.')[2]}(" in (DOCS / page).read_text()
