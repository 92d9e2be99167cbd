import os
import unicodedata

import pytest
from PIL import Image

from gga_lightning.data import ImageTable

FILES = ("left/cat/0.png", "left/cat/1.png", "right/dog/0.png", "right/dog/1.png")


@pytest.fixture
def root(tmp_path):
    for shade, name in enumerate(FILES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 3), shade).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def write(root):
    def write(*rows, header="path,label,domain", encoding="utf-8"):
        file = root / "list.csv"
        file.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
        return file

    return write


ROWS = ("right/dog/1.png,hund,b", "left/cat/0.png,katze,a", "right/dog/0.png,hund,b")


def contents(data):
    return {
        domain: [(path.name, data.classes[target]) for path, target in zip(*both, strict=True)]
        for domain, images in data.domains.items()
        for both in [(images.paths, images.targets)]
    }


EXPECTED = {"b": [("1.png", "hund"), ("0.png", "hund")], "a": [("0.png", "katze")]}


class TestReading:
    def test_domains_classes_and_order(self, write):
        data = ImageTable(write(*ROWS))
        assert data.name == "list"
        assert list(data.domains) == ["b", "a"]
        assert data.classes == ["hund", "katze"]
        assert contents(data) == EXPECTED

    def test_paths_relative_to_a_root(self, root, tmp_path, write):
        file = write("cat/0.png,cat,left")
        data = ImageTable(file, root=root / "left")
        assert data.domains["left"].paths == [root / "left/cat/0.png"]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_encodings_and_separators(self, write, encoding, separator):
        rows = [row.replace(",", separator).replace("hund", "h\u00fcnd") for row in ROWS]
        rows[0] = f'"{rows[0]}"'.replace(separator, f'"{separator} "')
        mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
        header = mark + separator.join(('"Path"', '" label "', '"DOMAIN"'))
        data = ImageTable(write(*rows, header=header, encoding=encoding))
        assert data.classes == ["h\u00fcnd", "katze"]
        assert list(data.domains) == ["b", "a"]

    def test_other_columns_and_blank_lines(self, write):
        rows = [f"{i},{row.split(',')[2]},note,{row}" for i, row in enumerate(ROWS)]
        rows.insert(1, "")
        assert contents(ImageTable(write(*rows, header="id,x,note,path,label,domain"))) == EXPECTED

    @pytest.mark.parametrize("other", [" katze", "katze\u200b", "ka\u0074ze "])
    def test_names_that_look_the_same(self, write, other):
        data = ImageTable(write(*ROWS, f"left/cat/1.png,{other},a\u00a0"))
        assert data.classes == ["hund", "katze"]
        assert len(data.domains["a"]) == 2

    def test_unicode_forms(self, write):
        names = ["caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")]
        data = ImageTable(write(*(f"{f},{n},{n}" for f, n in zip(FILES[:2], names, strict=True))))
        assert (data.classes, list(data.domains)) == ([names[0]], [names[0]])

    def test_old_line_ends(self, root, write):
        file = write(*ROWS, "left/cat/9.png,katze,a")
        content = file.read_bytes()
        for end in (b"\r\n", b"\r"):
            file.write_bytes(content.replace(b"\n", end))
            with pytest.warns(UserWarning, match="line 5: left/cat/9.png: no such file"):
                assert contents(ImageTable(file, faulty="leave_out")) == EXPECTED


def same_file(root):
    os.symlink(root / "left/cat/0.png", root / "link.png")
    os.symlink("left", root / "folder")
    os.link(root / "left/cat/0.png", root / "hard.png")


PROBLEMS = {
    "left/cat/9.png,katze,a": "left/cat/9.png: no such file",
    "left/cat,katze,a": "left/cat: a folder, not a file",
    "pipe.png,katze,a": "pipe.png: neither a file nor a folder",
    "x/" * 3000 + ",katze,a": r"x/.*: cannot be read \(File name too long\)",
    "left/cat/1.png,,a": "no label",
    "left/cat/1.png, ,a": "no label",
    "left/cat/1.png,katze,\u200b": "no domain",
    "left/cat/1.png,katze": "no domain",
    ",katze,a": "no path",
    "left/cat/1.png,katze,a,": "4 cells, and the header has 3",
    "left/cat/0.png,katze,a": "left/cat/0.png is the file of line 3",
    "left/cat/0.png,katze,b": "is the file of line 3, which has label 'katze' and domain 'a', here",
    "left/cat/0.png,hund,a": "line 3, which has label 'katze' and domain 'a', here 'hund' and 'a'",
    "left/../left/cat/0.png,katze,a": "left/../left/cat/0.png is the file of line 3",
    "link.png,katze,a": "link.png is the file of line 3",
    "folder/cat/0.png,katze,b": "folder/cat/0.png is the file of line 3, which has label",
    "hard.png,hund,a": "hard.png is the file of line 3, which has label 'katze'",
}


class TestGroups:
    ROWS = (
        "left/cat/0.png,katze,a,g 1",
        "left/cat/1.png,katze,a,g\u00a01 ",
        "right/dog/0.png,hund,b,x",
        "right/dog/1.png,hund,b,1",
    )

    def test_are_a_column(self, write):
        data = ImageTable(write(*self.ROWS, header="path,label,domain,Group"))
        assert data.domains["a"].groups.tolist() == ["g 1", "g 1"]
        assert data.domains["b"].groups.tolist() == ["x", "1"]

    def test_that_can_be_left_out(self, write):
        assert ImageTable(write(*ROWS)).domains["a"].groups is None

    def test_each_row_has_one(self, write):
        rows = ["left/cat/0.png,katze,a,", "left/cat/1.png,katze,a"]
        file = write(*self.ROWS[1:3], *rows, header="path,label,domain,group")
        with pytest.raises(ValueError, match="2 problems in .*line 4: no group; line 5: no group"):
            ImageTable(file)

    def test_there_is_one_such_column(self, write):
        with pytest.raises(ValueError, match="`file` must have one column group"):
            ImageTable(write(*self.ROWS, header="path,label,group,domain,group"))


class TestProblems:
    @pytest.mark.parametrize("row", PROBLEMS)
    def test_are_named_with_their_line_and_left_out(self, root, write, row):
        same_file(root)
        os.mkfifo(root / "pipe.png")
        file = write(*ROWS, row)
        match = f"1 problem in .*list.csv.*line 5: .*{PROBLEMS[row]}"
        with pytest.raises(ValueError, match=match):
            ImageTable(file)
        with pytest.warns(UserWarning, match=match):
            assert contents(ImageTable(file, faulty="leave_out")) == EXPECTED

    def test_all_of_them_at_once(self, root, write):
        same_file(root)
        os.mkfifo(root / "pipe.png")
        with pytest.raises(ValueError, match=f"^{len(PROBLEMS)} problems in .* and 5 more"):
            ImageTable(write(*ROWS, *PROBLEMS))

    def test_lines_of_cells_with_line_breaks(self, write):
        rows = [f'{ROWS[0]},"two\nlines"', f'{ROWS[1]},"a\n\n\nlot"', "left/cat/9.png,x,y,z"]
        with pytest.raises(ValueError, match="line 8: left/cat/9.png"):
            ImageTable(write(*rows, header="path,label,domain,note"))

    def test_a_held_out_image_under_another_name(self, root, write):
        same_file(root)
        file = write("left/cat/0.png,katze,a", "hard.png,katze,b", "right/dog/0.png,hund,b")
        with pytest.warns(UserWarning, match="line 3: hard.png is the file of line 2"):
            data = ImageTable(file, faulty="leave_out")
        assert contents(data) == {"a": [("0.png", "katze")], "b": [("0.png", "hund")]}

    @pytest.mark.parametrize("change", [("katze", "Katze"), (",a", ",A")])
    def test_case(self, write, change):
        row = "left/cat/1.png,katze,a".replace(*change)
        match = "differs only in upper and lower case from"
        with pytest.raises(ValueError, match=match):
            ImageTable(write(*ROWS, row))
        with pytest.warns(UserWarning, match=match):
            data = ImageTable(write(*ROWS, row), faulty="leave_out")
        assert contents(data) == EXPECTED


class TestFiles:
    def test_that_are_none(self, root):
        with pytest.raises(ValueError, match="`file` must be a CSV file, got"):
            ImageTable(root / "none.csv")
        with pytest.raises(ValueError, match="`file` must be a CSV file, got"):
            ImageTable(root)

    @pytest.mark.parametrize(
        "header", ["path,label", "path label domain", "path;label,domain", "left/cat/0.png,cat,a"]
    )
    def test_without_the_columns(self, write, header):
        with pytest.raises(ValueError, match=f"columns path, label and domain .* got '{header}'"):
            ImageTable(write("x,y,z", header=header))

    def test_with_a_column_twice(self, write):
        with pytest.raises(ValueError, match="one column label, got .* in '.*list.csv'"):
            ImageTable(write(header="path,label,domain,Label"))

    def test_empty(self, root, write):
        with pytest.raises(ValueError, match="at least one existing image, got '.*list.csv'"):
            ImageTable(write())
        with pytest.raises(ValueError, match="which has none; line 2: x: no such file"):
            ImageTable(write("x,y,z"), faulty="leave_out")
        for content in (b"", b"\n", b"\xef\xbb\xbf"):
            (root / "empty.csv").write_bytes(content)
            with pytest.raises(ValueError, match="must name the columns .*empty.csv"):
                ImageTable(root / "empty.csv")

    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac-roman"])
    def test_in_another_encoding(self, write, encoding):
        file = write(*ROWS, "left/cat/1.png,h\u00fcnd,a", encoding=encoding)
        byte = "\u00fc".encode(encoding)[0]
        match = rf"list.csv', line 5: byte \d+ of the file \(0x{byte:02x}\) is not UTF-8\. .*iconv"
        with pytest.raises(ValueError, match=match) as caught:
            ImageTable(file)
        place = int(str(caught.value).split("byte ")[1].split()[0])
        assert file.read_bytes()[place - 1] == byte

    @pytest.mark.parametrize(
        ("rows", "match"),
        [
            ((*ROWS, "left/cat/1.png,ka\0tze,a"), "line 5: there is a NUL character"),
            ((*ROWS, 'left/cat/1.png,"katze,a', "more"), "line 5: unexpected end of data"),
            ((*ROWS, 'left/cat/1.png,"kat"ze,a'), "line 5: ',' expected after '\"'"),
        ],
    )
    def test_that_are_no_csv(self, write, rows, match):
        with pytest.raises(ValueError, match=f"list.csv', {match}"):
            ImageTable(write(*rows))

    def test_utf_16_without_its_mark(self, write):
        with pytest.raises(ValueError, match="line 1: there is a NUL character"):
            ImageTable(write(*ROWS, encoding="utf-16-le"))
