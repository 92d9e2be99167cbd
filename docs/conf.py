"""Configuration of the documentation site: ``sphinx-build docs docs/_build/html``."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs" / "_extensions")]

project = "gga_lightning"
author = "the authors of gga_lightning"
release = version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    # ours, in _extensions/
    "code_pages",
    "references",
    "settings_pages",
]
exclude_patterns = ["_build", "_extensions"]
nitpicky = True
# Cells of notebooks that begin with %%bash are not Python.
suppress_warnings = ["misc.highlighting_failure"]
# There are no inventories of other libraries: the build needs no network.
nitpick_ignore_regex = [
    ("py:.*", rf"({name})(\..*)?")
    for name in (
        "Tensor",
        "MisconfigurationException",
        "collections",
        "contextlib",
        "lightning",
        "matplotlib",
        "numpy",
        "omegaconf",
        "os",
        "pathlib",
        "PIL",
        "torch",
        "torchmetrics",
        "torchvision",
        "typing",
    )
]

# Markdown. Notebooks are shown as they are stored; tests execute them.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"

# Docstrings
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autoclass_content = "both"
napoleon_use_ivar = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

# Looks
html_theme = "furo"
html_title = f"gga_lightning {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
highlight_language = "none"
pygments_style = "default"
pygments_dark_style = "github-dark"
