"""Reports: one page, nothing loaded, everything escaped."""

from __future__ import annotations

import base64
import math
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medshared.configuration import parse_yaml
from medshared.report import IndexEntry, Report, format_duration, format_value, write_index

EVIL = "<script>alert('x')</script>\"&<img src=x onerror=alert(1)>"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + "\n"

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


def assert_self_contained(html: str) -> Page:
    page = Page(html)
    assert not {"script", "iframe", "object", "embed", "form"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for address in page.values("src"):
        assert address.startswith("data:image/")
    assert not re.search(r"https?://|@import|url\(", html)
    return page


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a_b.png"
    path.write_bytes(PNG)
    return path


def full_report(text: str, picture: Path) -> Report:
    report = Report(text, text)
    report.warning(text).section(text).text(f"{text}\n\nsecond").cards({text: text, "n": (0.5, text)})
    report.table(pd.DataFrame({text: [text, 1]}), text)
    report.table([{text: text}], text).table([[text]], text, headers=[text])
    report.figure(picture, text).section("b").section("c")
    report.config({text: {"x": text}}, text)
    return report.provenance({text: text, "packages": {f"p{i}{text}": text for i in range(20)}}, text)


def test_everything_is_escaped_and_shown(picture: Path) -> None:
    html = full_report(EVIL, picture).html()
    page = assert_self_contained(html)
    assert "<script" not in html
    assert "onerror" not in re.sub(r"&lt;img src=x onerror=alert\(1\)&gt;", "", html)
    assert page.text.count("alert('x')") > 20
    assert page.text.count(EVIL) > 15


def test_index_is_escaped(tmp_path: Path, picture: Path) -> None:
    evil_picture = tmp_path / "<script>.png"
    evil_picture.write_bytes(PNG)
    odd = tmp_path / "sub dir" / 're"port#1?.html'
    odd.parent.mkdir()
    odd.write_text("x")
    entry = IndexEntry(EVIL, EVIL, odd, {EVIL: EVIL, "AUC": 0.9}, {"AUC": 0.5}, [evil_picture], 200)
    path = write_index(tmp_path / "runs" / "index.html", EVIL, [entry], EVIL)
    page = assert_self_contained(path.read_text(encoding="utf-8"))
    (link,) = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert link == "../sub%20dir/re%22port%231%3F.html"
    assert "3 min 20 s" in page.text


def test_index_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    report = Report("x").write(tmp_path / "a" / "report.html")
    entries = [
        IndexEntry("one", "first paper", report, {"AUC": 0.91, "F1": None}, {"AUC": 0.5, "MAE": 3.25}),
        IndexEntry("two", "second paper", tmp_path / "gone.html", {"Dice": math.nan}, seconds=0.2),
    ]
    page = assert_self_contained(
        write_index(tmp_path / "index.html", "all", entries).read_text(encoding="utf-8")
    )
    assert [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")] == [
        "a/report.html"
    ]
    cells = page.text.split()
    for word in ("0.9100", "0.5000", "3.250", "baseline"):
        assert word in cells
    assert "no report was written" in page.text
    assert "under 1 s" in page.text


def test_layout_promises(picture: Path) -> None:
    html = full_report("plain", picture).html()
    page = Page(html)
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert policy.startswith("default-src 'none'; img-src data:")
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 100%", "overflow-x: auto"):
        assert rule in html
    assert page.tags.count("details") == 3
    assert page.tags.count("nav") == 1
    anchors = {value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert anchors == set(page.values("id")) == {"section-1", "section-2", "section-3"}


def test_the_same_report_has_the_same_bytes(tmp_path: Path, picture: Path) -> None:
    paths = [full_report("x", picture).write(tmp_path / "new" / name) for name in ("a.html", "b.html")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_figures(picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1])
    page = assert_self_contained(Report("x").figure(figure, "cap").figure(picture).html())
    first, second = page.values("src")
    assert base64.b64decode(first.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert base64.b64decode(second.removeprefix("data:image/png;base64,")) == PNG
    assert page.values("alt") == ["cap", "Figure"]


def test_svg_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>")
    page = assert_self_contained(Report("x").figure(tmp_path / "a.svg").html())
    assert page.values("src")[0].startswith("data:image/svg+xml;base64,")


def test_wrong_figures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such picture") as caught:
        Report("x").figure(tmp_path / "a.png")
    assert caught.value.filename == str(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.txt: expected a picture"):
        Report("x").figure(tmp_path / "a.txt")


def table_of(report: Report) -> dict[str, Any]:
    return report._blocks[0]


def test_tables() -> None:
    frame = pd.DataFrame({"name": ["a", "b"], "x": [0.5, np.nan], "n": [1, 2]})
    block = table_of(Report("r").table(frame, "cap"))
    assert block["headers"] == ["name", "x", "n"]
    assert block["rows"] == [["a", "0.5000", "1"], ["b", "–", "2"]]
    assert block["numeric"] == [False, True, True]
    indexed = frame.set_index("name")
    assert table_of(Report("r").table(indexed))["headers"] == ["name", "x", "n"]
    assert table_of(Report("r").table(frame, headers=["n", "name"]))["rows"] == [["1", "a"], ["2", "b"]]
    rows = [{"a": 1}, {"b": True, "a": None}]
    assert table_of(Report("r").table(rows))["rows"] == [["1", "–"], ["–", "yes"]]
    assert table_of(Report("r").table(rows, headers=["b"]))["rows"] == [["–"], ["yes"]]
    assert table_of(Report("r").table([], headers=["a", "b"]))["numeric"] == [False, False]


def test_long_and_wrong_tables() -> None:
    html = Report("r").table([[i] for i in range(300)], headers=["n"], max_rows=10).html()
    assert "290 more rows are not shown." in html
    assert html.count("<tr>") == 11
    with pytest.raises(ValueError, match="needs headers"):
        Report("r").table([[1]])
    with pytest.raises(ValueError, match="row 1 of the table has 1 cells, expected 2"):
        Report("r").table([[1, 2], [3]], headers=["a", "b"])


def test_configuration_is_complete_yaml() -> None:
    config = {"lr": 1e-4, "run_id": "1e-4", "folder": Path("a"), "clamp": (0.0, None)}
    page = Page(Report("r").config(config).html())
    assert "Configuration" in page.text
    yaml = page.text[page.text.index("lr:") : page.text.index("medshared ")]
    assert parse_yaml(yaml) == {"lr": 1e-4, "run_id": "1e-4", "folder": "a", "clamp": [0.0, None]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.9877"),
        (1.0, "1"),
        (12.3456, "12.35"),
        (1234.56, "1235"),
        (54321.7, "54\u202f322"),
        (0.000123456, "0.0001235"),
        (1.5e-7, "1.500e−07"),
        (-0.5, "−0.5000"),
        (-3.0, "−3"),
        (math.nan, "–"),
        (-math.inf, "−∞"),
        (None, "–"),
        (True, "yes"),
        (2024, "2024"),
        (15340, "15\u202f340"),
        (np.float32(0.25), "0.2500"),
        ([1, 0.5], "1, 0.5000"),
        ({"a": 1}, "a: 1"),
        ("x", "x"),
        ("", ""),
    ],
)
def test_values_as_people_read_them(value: Any, text: str) -> None:
    assert format_value(value) == text


@given(st.floats(min_value=-1e12, max_value=1e12))
def test_shown_numbers_are_right_to_four_digits(value: float) -> None:
    shown = float(format_value(value).replace("\u202f", "").replace("−", "-"))
    assert shown == pytest.approx(value, rel=5.1e-4, abs=1e-300)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.3, "under 1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_empty_report_and_cards() -> None:
    assert_self_contained(Report("").cards({}).text("").provenance({}).html())


def test_numbers_of_cards_fill_their_rows() -> None:
    columns = [table_of(Report("r").cards({str(i): i for i in range(n)}))["columns"] for n in range(1, 11)]
    assert columns == [1, 2, 3, 4, 5, 3, 4, 4, 5, 5]


@pytest.mark.slow
def test_templates_are_in_the_wheel(tmp_path: Path) -> None:
    import shutil

    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("building the wheel needs uv")
    package = Path(__file__).parents[1]
    command = [uv, "build", "--wheel", "--offline", "--out-dir", str(tmp_path), str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=None)
    if done.returncode != 0 and "offline" in done.stderr.lower() + done.stdout.lower():
        pytest.skip("building the wheel needs hatchling in uv's cache")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = package / "src" / "medshared" / "templates"
    assert {f"medshared/templates/{path.name}" for path in source.iterdir()} <= names


def test_light_import() -> None:
    code = (
        "import sys, medshared.report, medshared.images, medshared.weights, medshared.gpu\n"
        "heavy = {'torch', 'pandas', 'matplotlib', 'rich', 'scipy', 'pooch', 'tifffile'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
