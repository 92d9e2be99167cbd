"""Writes a report as tables for the terminal, Markdown, LaTeX or CSV."""

import csv
import io
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable

from gga_lightning.report.tables import Note, Table
from gga_lightning.report.tidy import COLUMNS

__all__ = ["to_csv", "to_latex", "to_markdown", "to_text"]

_GAP = 2  # characters between columns, one of which is the blank divider
_LABELS = 3  # in a table that is too wide, labels take at most this fraction of the width,
_NARROW = 20  # or this many characters
_LATEX_HEAD = r"""
% Needs booktabs and graphicx; for names in other alphabets also XeLaTeX or LuaLaTeX.
% A whole document, with this text saved as tables.tex:
%   \documentclass{article}
%   \usepackage[T1]{fontenc}
%   \usepackage{booktabs,graphicx}
%   \begin{document}
%   \input{tables}
%   \end{document}
"""
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
}


def to_text(parts: Iterable[Table | Note], width: int | None = None) -> str:
    """Writes for a terminal of this width, its own if None; continues wide tables below."""
    width = width or shutil.get_terminal_size().columns
    output = io.StringIO()
    console = Console(
        file=output, width=width, color_system=None, markup=False, emoji=False, highlight=False
    )
    for part in parts:
        if isinstance(part, Note):
            indent = "  " if part.lines else ""
            console.print(part.text)
            output.writelines(f"{indent}{line}\n" for line in part.lines)
        else:
            for block in (part.title, *_blocks(part, width), part.caption):
                console.print(block)
        output.write("\n")
    lines = output.getvalue().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def to_markdown(parts: Iterable[Table | Note]) -> str:
    """Writes GitHub's Markdown."""
    texts: list[str] = []
    for part in parts:
        if isinstance(part, Table):
            rule = "|".join([" --- ", *(" ---: " for _ in part.columns[1:])])
            lines = [_markdown_line(part.columns), f"|{rule}|", *map(_markdown_line, part.rows)]
            texts += [f"**{_markdown(part.title)}**", "\n".join(lines), _markdown(part.caption)]
        elif part.code:
            texts += [_markdown(part.text), "\n".join(["```", *part.lines, "```"])]
        else:
            items = "".join(f"\n- {_markdown(line)}" for line in part.lines)
            texts.append(_markdown(part.text) + ("\n" if items else "") + items)
    return "".join(f"{text}\n\n" for text in texts if text)


def to_latex(tables: Iterable[Table]) -> str:
    """Writes LaTeX tables with labels and bold best values, after a comment on how to use them."""
    texts = [_LATEX_HEAD.lstrip()]
    labels: Counter[str] = Counter()
    for table in tables:
        label = re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-")
        labels[label] += 1
        label += f"-{labels[label]}" if labels[label] > 1 else ""
        rows = [
            [
                rf"\textbf{{{_latex(x)}}}" if (r, c) in table.best else _latex(x)
                for c, x in enumerate(row)
            ]
            for r, row in enumerate(table.rows)
        ]
        # the braces keep [ or * from being read as an argument of the \\ before
        head, *lines = (
            "    {}" + " & ".join(row) + r" \\" for row in (list(map(_latex, table.columns)), *rows)
        )
        texts += [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_latex(table.title)}. {_latex(table.caption)}}}",
            rf"  \label{{tab:{label}}}",
            r"  \medskip",
            r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",  # if too wide
            rf"  \begin{{tabular}}{{l{'c' * (len(table.columns) - 1)}}}",
            r"    \toprule",
            head,
            r"    \midrule",
            *lines,
            r"    \bottomrule",
            r"  \end{tabular}}",
            r"\end{table}",
            "",
        ]
    return "\n".join(texts)


def to_csv(lines: Iterable[Mapping[str, object]]) -> str:
    """Writes comma-separated values: numbers with six decimals, missing ones as empty fields."""
    output = io.StringIO()
    lines = list(lines)
    other = ["metric"] if any("metric" in line for line in lines) else []  # than the accuracy
    writer = csv.DictWriter(output, [*COLUMNS, *other], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        texts = {name: f"{v:.6f}" if isinstance(v, float) else v for name, v in line.items()}
        writer.writerow(texts)
    return output.getvalue()


def _blocks(table: Table, width: int) -> Iterable[RichTable]:
    """Divides a table into as few tables as the width allows, to print below one another."""
    columns = list(zip(table.columns, *table.rows, strict=True))
    widths = [max(map(cell_len, texts)) for texts in columns]
    labels = widths[0]
    if labels + sum(w + _GAP for w in widths[1:]) > width:
        labels = min(labels, max(_NARROW, width // _LABELS))
    room = width - labels
    apart = len(columns) - table.together
    left: list[int] = []
    for more in [*([index] for index in range(1, apart)), [*range(apart, len(columns))]]:
        if left and sum(widths[index] + _GAP for index in left + more) > room:
            yield _block(columns, left, labels)
            left = []
        left += more
    yield _block(columns, left, labels)


def _block(columns: Sequence[Sequence[str]], chosen: Sequence[int], labels: int) -> RichTable:
    padding = (0, _GAP - 1, 0, 0)
    block = RichTable(box=box.HORIZONTALS, padding=padding, pad_edge=False, show_edge=False)
    block.add_column(columns[0][0], max_width=labels, overflow="fold")
    for index in chosen:
        block.add_column(columns[index][0], justify="right", overflow="fold")
    for texts in list(zip(*(columns[index] for index in (0, *chosen)), strict=True))[1:]:
        block.add_row(*texts)
    return block


def _markdown_line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown, texts))} |"


def _markdown(text: str) -> str:
    return re.sub(r"[\\|*<`]", r"\\\g<0>", text)


def _latex(text: str) -> str:
    """Escapes special characters, writes minus signs, and keeps hyphens from becoming dashes."""
    escaped = " ".join(text.split()).translate(str.maketrans(_LATEX))
    signed = re.sub(r"(?<![\w.-])-(?=\d)", "$-$", escaped)
    return signed.replace("--", "-{}-").replace("--", "-{}-")
