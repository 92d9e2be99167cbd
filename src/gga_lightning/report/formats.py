"""Writing a report as a table for the terminal, Markdown, LaTeX or CSV."""

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

_GAP = 2  # between columns, with the divider, which is blank
_LABELS = 3  # a share of the width that labels may take before they are wrapped
_NARROW = 20
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
    """Writes for a terminal of this width, its own if None; a table too wide is continued below."""
    width = width or shutil.get_terminal_size().columns
    output = io.StringIO()
    console = Console(file=output, width=width, color_system=None)
    for part in parts:
        if isinstance(part, Note):
            indent = "  " if part.lines else ""
            console.print(part.text, markup=False, highlight=False)
            output.writelines(f"{indent}{line}\n" for line in part.lines)
        else:
            console.print(part.title, style="bold", markup=False, highlight=False)
            for block in _blocks(part, width):
                console.print(block)
            console.print(part.caption, markup=False, highlight=False)
        output.write("\n")
    lines = output.getvalue().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def to_markdown(parts: Iterable[Table | Note]) -> str:
    """Writes Markdown as GitHub reads it."""
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
    """Writes LaTeX tables with labels and the best in bold, after a comment on what they need."""
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
        # braces, since [ or * after a line's end would be an argument of it
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
    """Writes comma-separated values: numbers with six decimals, nothing for what is missing."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        values = [line.get(name) for name in COLUMNS]
        writer.writerow([f"{v:.6f}" if isinstance(v, float) else v for v in values])
    return output.getvalue()


def _blocks(table: Table, width: int) -> Iterable[RichTable]:
    """The table, in as many parts below one another as the width asks for."""
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
    block = RichTable(box=box.HORIZONTALS, padding=(0, _GAP - 1, 0, 0), pad_edge=False)
    block.show_edge = False
    block.add_column(columns[0][0], max_width=labels, overflow="fold")
    for index in chosen:
        block.add_column(columns[index][0], justify="right", overflow="fold")
    for texts in list(zip(*(columns[index] for index in (0, *chosen)), strict=True))[1:]:
        block.add_row(*map(_literal, texts))
    return block


def _literal(text: str) -> str:
    """Brackets as they are, not as rich's markup."""
    return text.replace("[", "\\[")


def _markdown_line(texts: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown, texts))} |"


def _markdown(text: str) -> str:
    for sign in "\\|*<`":
        text = text.replace(sign, f"\\{sign}")
    return text


def _latex(text: str) -> str:
    """Special characters escaped, minus signs, and two hyphens kept from becoming a dash."""
    escaped = "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))
    signed = re.sub(r"(?<![\w.-])-(?=\d)", "$-$", escaped)
    return signed.replace("--", "-{}-").replace("--", "-{}-")
