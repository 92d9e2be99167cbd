"""What both generators of pages share: paths, headings, and files that change only if they must."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"


def heading(text: str, mark: str = "=") -> str:
    """Underlines a heading."""
    return f"{text}\n{mark * len(text)}\n"


def block(directive: str, argument: str = "", content: str = "", **options: str) -> str:
    """Writes a directive with its options and its content."""
    lines = [f".. {directive}:: {argument}".rstrip()]
    lines += [f"   :{name.replace('_', '-')}: {value}".rstrip() for name, value in options.items()]
    lines += ["", *(f"   {line}".rstrip() for line in content.splitlines()), ""]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], widths: str = "auto") -> str:
    """Writes a table."""
    listed = [
        f"{'*' if column == 0 else ' '} - {cell}"
        for row in (header, *rows)
        for column, cell in enumerate(row)
    ]
    return block("list-table", content="\n".join(listed), header_rows="1", widths=widths)


def toctree(names: Sequence[str], *, hidden: bool = True) -> str:
    """Lists pages below this one, for the navigation, and on the page unless hidden."""
    content = "\n".join(names)
    return block("toctree", content=content, hidden="") if hidden else block("toctree", "", content)


def save(folder: Path, pages: Mapping[str, str]) -> None:
    """Makes a folder hold these pages and nothing else; equal ones keep their time."""
    for path in [found for found in folder.rglob("*.rst") if found.is_file()]:
        if str(path.relative_to(folder)) not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def copy(files: Sequence[Path], folder: Path) -> None:
    """Copies files into a folder that is made for them."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if (
            not (folder / file.name).exists()
            or (folder / file.name).read_bytes() != file.read_bytes()
        ):
            shutil.copy(file, folder)
