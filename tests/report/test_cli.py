"""The command: formats, notices, exit statuses."""

import csv
import io
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gga_lightning.report.formats import to_text
from gga_lightning.report.paper import PRINTED
from gga_lightning.report.tables import Note, Table
from tests.report.folders import Spec, leave_one_out_specs, search_summary, write_run

NUMBER = r"[-+]?\d+\.\d"


@pytest.fixture
def runs(tmp_path):
    """Two data sets, with a row that lacks a cell and a label that wants escaping."""
    for data in ("shapes", "pacs"):
        domains = ("a_1", "b%", "c&d", "Real World")
        for settings in (
            {},
            {"annealing": "gga", "search": search_summary(), "seconds": 30.0},
            {"annealing": "gga_scrambled", "settings": {"annealing.control": "scramble"}},
            {"algorithm": "coral", "settings": {"x.weight_decay": "5_{#}"}},
            {"algorithm": "coral", "settings": {"x.weight_decay": "6|*"}},
        ):
            specs = leave_one_out_specs(domains, pairs=False, data=data, **settings)
            for spec in specs[: 9 if "algorithm" in settings else None]:
                write_run(tmp_path / "runs", spec)
    return tmp_path / "runs"


def numbers_of(rows):
    return [number for row in rows for cell in row for number in re.findall(NUMBER, cell)]


def markdown_rows(output):
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in output.splitlines()
        if line.startswith("| ") and not line.startswith(("| method", "| ---"))
    ]


def latex_rows(output):
    return [
        [cell.strip().replace("$-$", "-") for cell in line.removesuffix(r"\\").split(" & ")]
        for line in output.splitlines()
        if line.endswith(r"\\") and not line.strip().startswith("method")
    ]


def test_all_formats_hold_the_same_numbers(report, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    arguments = [runs, "--selection", "oracle", "last", "--paper"]
    markdown = numbers_of(markdown_rows(report(*arguments, "--format", "markdown")[1]))
    latex = numbers_of(latex_rows(report(*arguments, "--format", "latex")[1]))
    assert len(markdown) > 100
    assert markdown == latex
    _, table, _ = report(*arguments)
    in_table = re.sub(r"^(  |2 folders).*$", "", table, flags=re.MULTILINE)
    assert re.findall(NUMBER, in_table) == markdown


def test_csv_holds_the_numbers_of_the_table(report, lines, runs):
    numbers = lines(runs)
    rows = markdown_rows(report(runs, "--format", "markdown", "--data", "shapes")[1])
    for label, *cells in [row for row in rows if len(row) == 8][:4]:
        domains = ["a_1", "b%", "c&d", "Real World", "Avg"]
        plain = label.replace("\\", "")
        for domain, cell in zip(domains, cells, strict=False):
            line = numbers["shapes", "training_domain_validation", plain, domain]
            found = re.findall(NUMBER, cell)
            expected = [line["mean"], line["se"]]
            assert found == [f"{float(number):.1f}" for number in expected if number]


def test_latex_is_escaped(report, runs):
    _, output, _ = report(runs, "--format", "latex")
    assert r"a\_1 & b\% & c\&d & Real World" in output
    assert r"coral (weight\_decay=5\_\{\#\})" in output
    assert "±" not in output
    assert output.count(r"\begin{tabular}") == output.count(r"\bottomrule") == 6
    text = re.sub(r"^%.*$|%$", "", output, flags=re.MULTILINE)
    bare = re.sub(r"\\[a-z]+(\{(table|tabular)\})?|\\[_%&#{}]|\\\\", "", text)
    assert not re.search(r"[_%#]", bare)


@pytest.mark.parametrize("name", ["[a]", "[/b]", ":dog:", "c\\[d]"])
def test_the_terminal_shows_names_unchanged(name):
    """Rich would take them for its markup, or for an emoji."""
    parts = [Table(name, ["method", name], [[name, name]], name), Note(name)]
    assert to_text(parts, width=80).count(name) == 6


LATEX_NAMES = ["[a]", "*b", "c|d--e", 'f"g`h', "i~j^k<l>", "m\nn", "\\input{x}", "o$p$q"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX")
def test_latex_compiles_and_fits_the_page(report, runs, tmp_path, monkeypatch):
    texts = [report(runs, "--format", "latex", "--paper")[1]]
    for name in LATEX_NAMES:
        folder = tmp_path / str(len(texts))
        for seed, settings in itertools.product((0, 1), ({}, {"x.y": name})):
            write_run(folder, Spec(("a",), seed=seed, settings=settings))
        texts.append(report(folder, "--format", "latex")[1])
    monkeypatch.chdir(tmp_path)
    told = texts[0].partition("tables.tex:\n")[2].partition("\n\n")[0]
    Path("document.tex").write_text(told.replace("%", ""))
    for text in texts:
        Path("tables.tex").write_text(text)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert "Overfull" not in done.stdout


@pytest.mark.parametrize("name", LATEX_NAMES)
def test_latex_of_any_name_is_sound(report, tmp_path, name):
    """What would break LaTeX is looked for, where there is none."""
    for seed in (0, 1):
        write_run(tmp_path / "runs", Spec(("a",), seed=seed, settings={"x.y": name}))
        write_run(tmp_path / "runs", Spec(("a",), seed=seed))
    status, output, _ = report(tmp_path / "runs", "--format", "latex")
    assert status == 0
    body = re.sub(r"^%.*$", "", output, flags=re.MULTILINE)
    assert body.count("{") - body.count(r"\{") == body.count("}") - body.count(r"\}")
    assert not re.search(r"\\\\\s*[\[*]", body)  # an argument of the end of a line
    assert not re.search(r'--|"|`|\||(?<!\\)[#~^]', body)
    maths = body.count(r"$\pm$") + body.count("$-$")
    assert body.count("$") == 2 * maths + body.count(r"\$")
    assert r"\input" not in body


def test_latex_says_what_it_needs_and_marks_the_best(report, tmp_path):
    for algorithm, lift in (("erm", 0.0), ("coral", 1.0), ("sam", 0.0)):
        for domain in "ab":
            for data in ("x_y", "x y"):
                for seed in (0, 1):
                    spec = Spec((domain,), algorithm=algorithm, seed=seed, lift=lift, data=data)
                    write_run(tmp_path / "runs", spec)
    _, output, _ = report(tmp_path / "runs", "--format", "latex")
    assert "booktabs and graphicx" in output.splitlines()[0]
    assert all(line[:1] == "%" for line in output.split("\n\n")[0].splitlines())
    labels = re.findall(r"\\label\{(.*)\}", output)
    assert len(set(labels)) == len(labels) == output.count(r"\begin{table}") == 6
    assert all(re.fullmatch(r"tab:[a-z0-9-]+", label) for label in labels)
    [best, *_] = [line for line in output.splitlines() if r"\textbf" in line]
    assert best.strip().startswith(r"{}coral & \textbf{100.0 $\pm$ 0.0} & \textbf{100.0")
    assert output.count(r"\textbf") == 2 * 3 + 3


def test_markdown_is_escaped(report, runs):
    _, output, _ = report(runs, "--format", "markdown")
    assert r"coral (weight_decay=6\|\*)" in output
    for block in output.split("\n\n"):
        counts = {len(re.findall(r"(?<!\\)\|", li)) for li in block.splitlines() if li[:1] == "|"}
        assert len(counts) <= 1


@pytest.mark.parametrize("width", ["80", "60", "200"])
def test_tables_fit_the_width(report, runs, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    _, output, _ = report(runs, "--selection", "all", "--paper")
    tables = [line for line in output.splitlines() if not line.startswith("  ")]
    assert max(map(len, tables)) <= int(width)
    assert "…" not in output


@pytest.mark.parametrize("width", range(60, 90))
def test_labels_that_fit_are_not_wrapped(width):
    label = "erm (weight_decay=0)"  # as long as any may be at these widths
    numbers = ["62.5 ± 10.1"] * 5
    text = to_text([Table("title", ["method", *"abcde"], [[label, *numbers]])], width)
    assert text.count(label) == text.count("method") >= 1
    assert max(map(len, text.splitlines())) <= width


def test_a_wide_table_is_whole(report, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    _, output, _ = report(runs, "--data", "shapes")
    [head] = [line for line in output.splitlines() if "Real World" in line and "method" in line]
    assert head.split()[-3:] == ["Avg", "sd", "n"]


def test_notices_and_where_they_go(report, runs):
    folders = sorted(runs.iterdir())
    (folders[0] / "result.json").write_text("{")
    (folders[1] / "result.json").unlink()
    write_run(runs, Spec(("a_1",), seed=9, domains=("a_1", "b%"), versions={"torch": "2.9"}))
    for style, spoilt in (("table", 0), ("markdown", 0), ("latex", 1), ("csv", 1)):
        status, *streams = report(runs, "--format", style)
        assert status == 0
        told = streams[spoilt].replace("\\", "")
        for text in (
            "1 folder left out",
            "1 folder unfinished",
            str(folders[0].name),
            str(folders[1].name),
            "different versions of torch: 2.15.0 (",
            "Runs that are missing from pacs",
        ):
            assert text in told, (style, text)
        assert not spoilt or "folder" not in streams[0]


def test_cells_of_fewer_trials_say_so(report, tmp_path):
    for seed in range(3):
        for domain in "abc"[: 2 if seed == 2 else 3]:
            write_run(tmp_path / "runs", Spec((domain,), seed=seed))
    output = report(tmp_path / "runs", "--format", "markdown")[1]
    row = markdown_rows(output)[0]
    assert "over seeds 0-2; [1]: seeds 0-1." in output
    assert [cell.endswith("[1]") for cell in row[1:5]] == [False, False, True, True]
    assert row[-1] == "2"


def test_a_missing_cell_takes_the_average_with_it(report, tmp_path):
    write_run(tmp_path / "runs", Spec(("a",)))
    write_run(tmp_path / "runs", Spec(("a",), algorithm="coral"))
    write_run(tmp_path / "runs", Spec(("b",), algorithm="coral"))
    _, output, _ = report(tmp_path / "runs", "--format", "markdown")
    assert markdown_rows(output)[0][2:] == ["-", "-", "-", "0"]
    place = f"hydra.sweep.dir={tmp_path / 'runs'}"
    lacking = f"gga-train -m algorithm=erm annealing=none {place} data.test_domain=b seed=0\n"
    assert lacking in output


def test_all_data_sets(lines, report, runs):
    _, output, _ = report(runs, "--format", "markdown")
    whole = output[output.index("all data sets") : output.index("all data sets: paired")]
    rows = [row for row in markdown_rows(whole) if len(row) == 4]
    numbers = lines(runs)
    for label, *cells in rows:
        means = [
            numbers[data, "training_domain_validation", label.replace("\\", ""), "Avg"]["mean"]
            for data in ("pacs", "shapes")
        ]
        if all(means):
            assert cells[2].split()[0] == f"{sum(map(float, means)) / 2:.1f}"
        else:
            assert cells[2] == "-"
    start = output.index("all data sets: paired differences")
    differences = [row for row in markdown_rows(output[start:]) if len(row) == 4]
    assert len(differences) == 4
    for label, base, *cells in differences:
        for data, cell in zip(("pacs", "shapes"), cells, strict=True):
            line = numbers[data, "training_domain_validation", label.replace("\\", ""), "Avg"]
            assert base == line["base"]
            assert cell.startswith(f"{float(line['difference']):+.1f} [") or cell[:1] == "-"
            assert "*" not in cell


def test_cost_is_relative_to_the_baseline(lines, runs):
    key = "shapes", "training_domain_validation", "erm + gga", "Avg"
    assert float(lines(runs)[key]["cost"]) == 3.0


def test_each_row_is_compared_with_its_own_base(report, lines, tmp_path):
    for settings in (
        {},
        {"annealing": "gga"},
        {"algorithm": "coral"},
        {"algorithm": "coral", "annealing": "gga", "settings": {"annealing.control": None}},
        {"algorithm": "coral", "annealing": "gga", "settings": {"annealing.control": "scramble"}},
        {"algorithm": "sam", "annealing": "gga"},
    ):
        for seed in range(3):
            write_run(tmp_path / "runs", Spec(seed=seed, **settings))
    found = {key[2]: line for key, line in lines(tmp_path / "runs").items() if key[3] == "Avg"}
    bases = {row: line["base"] for row, line in found.items()}
    assert list(bases.items()) == [
        ("erm", ""),
        ("erm + gga", "erm"),
        ("coral", "erm"),
        ("coral + gga", "coral"),
        ("coral + gga (control=scramble)", "coral"),
        ("sam + gga", ""),
    ]
    gain = float(found["coral + gga"]["mean"]) - float(found["coral"]["mean"])
    assert float(found["coral + gga"]["difference"]) == pytest.approx(gain, abs=2e-6)
    found = {k[2]: v for k, v in lines(tmp_path / "runs", "--baseline", "coral").items()}
    assert found["sam + gga"]["base"] == found["erm"]["base"] == "coral"


def test_averages_over_other_seeds_are_marked(report, tmp_path):
    for algorithm, seeds in (("erm", (0, 1)), ("coral", (0, 1)), ("sam", (1, 2)), ("irm", (7,))):
        for seed in seeds:
            for domain in "ab":
                for data in ("x", "y"):
                    spec = Spec((domain,), algorithm=algorithm, seed=seed, data=data)
                    write_run(tmp_path / "runs", spec)
    _, output, _ = report(tmp_path / "runs", "--format", "markdown")
    rows = markdown_rows(output)
    accuracies = {row[0]: row for row in rows if len(row) == 6}
    assert not any("[" in cell for label in ("erm", "coral") for cell in accuracies[label])
    for label, mark in (("sam", "[2]"), ("irm", "[1]")):
        assert all(cell.endswith(mark) for cell in accuracies[label][1:4])
    assert "over seeds 0-1; [1]: seed 7; [2]: seeds 1-2." in output
    assert "±" not in "".join(accuracies["irm"])
    whole = output[output.index("all data sets") : output.index("all data sets: paired")]
    means = {row[0]: row[3] for row in markdown_rows(whole)}
    assert [means[row].endswith("]") for row in ("erm", "coral", "sam", "irm")] == [0, 0, 1, 1]


@pytest.mark.parametrize("pairs", [2, 4, 5, 6])
def test_nothing_is_better_below_five_pairs(report, tmp_path, pairs):
    for seed in range(pairs):
        write_run(tmp_path / "runs", Spec(seed=seed, levels=1))
        write_run(tmp_path / "runs", Spec(seed=seed, algorithm="coral", lift=0.99))
    for data in ("shapes", "other"):
        write_run(tmp_path / "more", Spec(data=data))
    _, output, _ = report(tmp_path / "runs", "--format", "markdown")
    [row] = [row for row in markdown_rows(output) if len(row) == 8]
    assert (row[6] == "-") == (pairs < 5)
    assert row[3][-1] != "*" or pairs >= 5
    assert "Fewer than 5 pairs" in output
    assert ("by paired t tests" in output) == (pairs >= 5)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/photos", "/x/photos/"], ["photos"]),
        (["/a/photos", "/b/photos"], ["photos (a/photos)", "photos (b/photos)"]),
        (
            ["/a/c/photos", "/b/c/photos", "/b/d/photos"],
            ["photos (a/c/photos)", "photos (b/c/photos)", "photos (d/photos)"],
        ),
        (["/photos", "/a/photos"], ["photos (/photos)", "photos (a/photos)"]),
        ([None, "/a/photos"], ["photos (path unknown)", "photos (photos)"]),
        (["absent", None], ["photos"]),
    ],
)
def test_data_sets_of_one_name_are_two(lines, report, tmp_path, paths, names):
    for index, path in enumerate(paths):
        for seed in (0, 1):
            spec = write_run(tmp_path / str(index), Spec(data="photos", seed=seed))
            result = json.loads((spec.folder / "result.json").read_text())
            if path != "absent":
                result["data_path"] = path
            if len(names) == 1:
                result["config_hash"] += str(index)
                result["settings"]["x"] = index
            (spec.folder / "result.json").write_text(json.dumps(result))
    found = {key[0] for key in lines(tmp_path)}
    assert found == set(names)
    assert {key[0] for key in lines(tmp_path, "--data", names[0])} == {names[0]}
    assert {key[0] for key in lines(tmp_path, "--data", "photos")} == found
    assert report(tmp_path, "--plots", tmp_path / "plots")[0] == 0
    assert len(list((tmp_path / "plots").glob("accuracies-*"))) == len(names)


def test_another_baseline(lines, runs):
    for name in ("erm/gga", "erm + gga"):
        found = lines(runs, "--baseline", name)
        kinds = {key[2]: line["kind"] for key, line in found.items()}
        assert kinds["erm + gga"] == "baseline"
        assert kinds["erm"] == "plain"


def test_no_baseline_is_said(report, tmp_path):
    write_run(tmp_path / "runs", Spec(algorithm="coral"))
    status, output, _ = report(tmp_path / "runs")
    assert status == 0
    assert "shapes: no differences, as no row has a base" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--selection", "orcale"], ["--selection", "orcale", "oracle_last"]),
        (["--baseline", "erm/sam"], ["--baseline", "erm/sam", "'erm + gga'", "'erm'"]),
        (["--baseline", "coral/none"], ["--baseline", "'coral (weight_decay=5_{#})'"]),
        (["--data", "vlcs"], ["--data", "vlcs", "pacs, shapes"]),
        (["nowhere"], ["RUNS", "nowhere"]),
    ],
)
def test_wrong_arguments(report, runs, arguments, words):
    status, output, error = report(runs, *arguments)
    assert (status, output, error.count("\n")) == (1, "", 1)
    assert error.startswith("gga-report: ")
    assert all(word in error for word in words)


def test_nothing_usable(report, tmp_path):
    assert report(tmp_path)[0] == 1
    write_run(tmp_path / "runs", Spec(("a", "b")))
    (tmp_path / "runs" / "x").mkdir()
    (tmp_path / "runs" / "x" / "job.json").write_text("{}")
    status, output, error = report(tmp_path)
    assert (status, output, error.count("\n")) == (1, "", 1)
    assert "1 unfinished, 1 with more than one domain held out" in error


def test_all_leaves_out_rules_without_runs(lines, runs, tmp_path):
    rules = {key[1] for key in lines(runs, "--selection", "all")}
    assert rules == {"training_domain_validation", "oracle", "oracle_last", "last"}


@pytest.mark.parametrize(
    ("data", "algorithm", "annealing", "mean", "error", "change"),
    [
        ("pacs", "erm", "none", 85.5, 0.2, None),
        ("terra_incognita", "erm", "gga_l", 49.8, 1.8, None),
        ("domain_net", "erm", "gga", 44.5, 0.2, None),
        ("vlcs", "coral", "none", 78.8, 0.6, None),
        ("vlcs", "coral", "gga", None, None, -0.4),
        ("office_home", "sagm", "gga", None, None, -0.6),
        ("terra_incognita", "group_dro", "gga", None, None, 5.2),
        ("domain_net", "mmd", "none", 23.4, 9.5, None),
        ("vlcs", "gsam", "gga", None, None, 0.0),
    ],
)
def test_the_papers_numbers(data, algorithm, annealing, mean, error, change):
    [found] = [
        p for p in PRINTED if (p.data, p.algorithm, p.annealing) == (data, algorithm, annealing)
    ]
    assert (found.mean, found.error, found.change) == (mean, error, change)


def test_how_much_the_paper_prints():
    assert len(PRINTED) == 3 * 5 + 17 * (5 + 4)


def test_the_paper_beside(report, lines, runs):
    _, output, _ = report(runs, "--paper", "--format", "markdown", "--data", "pacs")
    found = {row[0]: row[1:] for row in markdown_rows(output) if len(row) == 5}
    line = lines(runs)["pacs", "training_domain_validation", "erm + gga", "Avg"]
    here = f"{float(line['mean']):.1f} ± {float(line['se']):.1f}"
    assert found["erm + gga"] == ["86.4 ± 0.5", "-", here, f"{float(line['difference']):+.1f}"]
    assert found["fish + gga"] == ["-", "+0.1", "-", "-"]
    assert "Ballas & Diou, CVPR 2025" in output
    _, output, _ = report(runs, "--paper", "--format", "csv", "--data", "pacs")
    printed = [x for x in csv.DictReader(io.StringIO(output)) if x["selection"] == "paper"]
    assert len(printed) == len(PRINTED) / 5 + 17 * 0.2


def test_the_paper_has_other_data(report, runs):
    assert "The paper has none" in report(runs, "--paper", "--data", "shapes")[1]


def test_conflicts_are_said(report, runs):
    first = sorted(runs.iterdir())[0]
    copy = runs / "zz"
    copy.mkdir()
    result = json.loads((first / "result.json").read_text())
    for chosen in result["selections"].values():
        chosen["test_acc"] = 0.123
    (copy / "result.json").write_text(json.dumps({**result, "evaluations": []}))
    assert "1 folder in conflict" in report(runs)[1]


def test_no_mean_over_a_part_of_the_data_sets(report, tmp_path):
    for data, algorithm in (("x", "erm"), ("y", "erm"), ("y", "sam")):
        write_run(tmp_path / "runs", Spec(data=data, algorithm=algorithm))
    output = report(tmp_path / "runs", "--format", "markdown")[1]
    whole = output[output.index("all data sets") : output.index("all data sets: paired")]
    found = {row[0]: row[1:] for row in markdown_rows(whole) if len(row) == 4}
    assert "-" not in found["erm"]
    assert found["sam"][0] == found["sam"][2] == "-" != found["sam"][1]
