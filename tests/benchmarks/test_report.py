"""The report: what is chosen, what is drawn, and that a real browser opens it without network, script or error."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.cli import main
from benchmarks.examples import Chart, Curve, Example, ExampleSet
from benchmarks.report import charts
from benchmarks.report.collect import make_training_charts
from benchmarks.report.drawing import (
    ANSWER,
    GRID,
    SIDE,
    TRUTH,
    average_windows,
    draw_example,
    make_similarity_map,
    make_windows,
)
from benchmarks.report.examples import A_ALONE, B_ALONE, BOTH_RIGHT, BOTH_WRONG, RIGHT, WRONG, choose_examples
from benchmarks.report.page import Report, render_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def examples(keys, right, confidence):
    return ExampleSet(
        np.array(keys), np.array(right, dtype=bool), np.array(confidence, dtype=float), lambda row: Example(Path(), "")
    )


def test_one_reading_shows_sure_mistakes_and_unsure_hits():
    chosen = choose_examples(examples([1, 2, 3, 4], [0, 0, 1, 1], [0.1, 0.9, 0.8, 0.2]), None, each=1)
    assert [(one.kind, one.row_a) for one in chosen] == [(WRONG, 1), (RIGHT, 3)]


def test_two_readings_meet_by_key_whatever_their_order():
    a = examples([10, 20, 30, 40, 50], [1, 0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5, 0.1])
    b = examples([40, 30, 20, 10, 99], [1, 0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5, 0.5])
    chosen = {one.kind: (one.row_a, one.row_b) for one in choose_examples(a, b, each=3)}
    assert chosen == {A_ALONE: (0, 3), B_ALONE: (1, 2), BOTH_WRONG: (2, 1), BOTH_RIGHT: (3, 0)}


def pixels_of(source):
    head, data = source.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_boxes_lie_where_they_belong():
    pixels = pixels_of(draw_example(Image.new("RGB", (40, 20)), truth=[(10, 5, 20, 15)], answer=[(30, 0, 40, 10)]))
    assert pixels.shape == (SIDE // 2, SIDE, 3)
    assert np.abs(pixels[80, 81] - TRUTH).max() < 60
    assert np.abs(pixels[40, 244] - ANSWER).max() < 60
    assert pixels[140, 20].max() < 30


def test_a_map_glows_where_the_phrase_is():
    image = Image.new("RGB", (60, 60), (90, 90, 90))
    image.paste((255, 0, 0), (40, 40, 60, 60))

    class Redness:
        def encode_texts(self, texts):
            return np.array([[1.0, 0.0]])

        def encode_regions(self, images, boxes_xyxy):
            pixels = np.asarray(images[0], dtype=float)
            red = [pixels[int(y0) : int(y1), int(x0) : int(x1), 0].mean() for x0, y0, x1, y1 in boxes_xyxy[0]]
            return [np.stack([np.array(red), np.ones(len(red))], axis=1)]

    heat = make_similarity_map(Redness(), image, "red")
    assert heat.shape == (GRID, GRID)
    assert (heat[-6:, -6:] > 0.7).all()
    assert heat[0, 0] == 0.0


def test_windows_cover_the_image_and_a_flat_map_is_zero():
    cells = make_windows(0.25)
    assert cells.min() == 0
    assert cells.max() == GRID
    assert (average_windows(cells, np.ones(len(cells))) == 0).all()


def test_a_chart_says_its_ends_in_words_and_keeps_inside_its_frame():
    text = charts.draw_svg(
        Chart("loss <b>", "step", "loss", (Curve("a&b", (0, 10), (3.0, 1.0)), Curve("empty", (), ())))
    )
    assert "a&amp;b ends at 1" in text
    assert "loss &lt;b&gt;" in text
    coordinates = [float(v) for points in re.findall(r'points="([^"]*)"', text) for v in re.split("[ ,]", points) if v]
    assert min(coordinates) >= 0
    assert max(coordinates) <= 480


def test_training_curves_are_found_beside_the_export(tmp_path):
    (tmp_path / "run" / "export").mkdir(parents=True)
    lines = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo'
    (tmp_path / "run" / "metrics.jsonl").write_text(lines)
    (chart,) = make_training_charts({"a": tmp_path / "run" / "export", "b": tmp_path / "other" / "export"})
    assert chart.curves == (Curve("a", (1.0, 2.0), (2.0, 1.0)),)


class Links(HTMLParser):
    """Collects every address of a page, and images without words."""

    def __init__(self):
        super().__init__()
        self.addresses, self.silent, self.scripts, self.images = [], 0, 0, 0

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.addresses += [told[name] for name in ("src", "href", "srcset", "data", "action") if told.get(name)]
        self.images += tag == "img"
        self.silent += tag == "img" and not told.get("alt")
        self.scripts += tag == "script"


@pytest.fixture(scope="module")
def report(exports, tmp_path_factory, colours):
    """The report of a run with two models on rendered-looking data."""
    place = tmp_path_factory.mktemp("report")
    root = colours.write(place / "root", rendered=True, caption_only=("green",))
    sides = ["--model", str(exports["cloc"]), "--against", str(exports["clip"])]
    assert main(["region_recognition", "refcoco", "--data", str(root), "--out", str(place / "out"), *sides]) == 0
    return place / "out" / "report.html"


def test_the_page_needs_nothing_but_itself(report):
    text = report.read_text()
    links = Links()
    links.feed(text)
    assert links.images > 8
    assert links.silent == 0
    assert links.scripts == 0
    assert all(address.startswith("data:") for address in links.addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert 'name="viewport"' in text


def test_the_page_tells_both_models_and_that_scenes_are_rendered(report):
    text = report.read_text()
    for wanted in (
        "A = cloc, B = clip",
        "say nothing about real photographs",
        "similarity map",
        "region_recognition on",
    ):
        assert wanted in text
    assert any(kind in text for kind in (A_ALONE, B_ALONE, BOTH_WRONG, BOTH_RIGHT))


def test_what_users_name_cannot_become_markup():
    assert "<img src=x>" not in render_page(Report(("<img src=x>",), []))


def called(folder, *more):
    """Chromium with a profile of its own; a container's /dev/shm may be too small for it."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    command += ["--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Gives what Chromium says (its DOM, its console) when it opens a file with the network cut off."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the path (Debian: apt-get install chromium)")
    folder = tmp_path_factory.mktemp("browser")
    if "<html" not in called(folder / "empty", "--dump-dom", "about:blank").stdout:
        pytest.skip("the chromium on the path opens no page here, not even an empty one")

    def opened(page_file, *more):
        done = called(folder / "profile", *more, page_file.as_uri())
        assert done.returncode == 0, done.stderr
        return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]

    return opened


def test_a_console_error_would_be_seen(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<script>console.error('oh no')</script>")
    _, console = browser(tmp_path / "bad.html", "--dump-dom")
    assert len(console) == 1


def test_a_browser_opens_it_and_the_screenshot_is_kept(browser, report):
    picture = report.with_name("report.png")
    _, console = browser(report, "--window-size=1100,2000", f"--screenshot={picture}")
    assert console == []
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.shape == (2000, 1100)
    assert pixels.std() > 5  # something is on it


def test_at_the_width_of_a_phone_nothing_sticks_out(browser, report, tmp_path):
    """In a frame of 360 pixels, measured by a page of the test's own."""
    inner = report.read_text().replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "frame.html").write_text(
        f'<iframe style="width:360px;height:700px;border:0" srcdoc="{inner}" onload="const r = '
        "this.contentDocument.documentElement; const i = [...this.contentDocument.images]; document.title = "
        '[r.scrollWidth, r.clientWidth, i.length, i.filter(e => !e.naturalWidth).length].join()"></iframe>'
    )
    dom, console = browser(tmp_path / "frame.html", "--dump-dom", "--virtual-time-budget=5000")
    assert console == []
    scrolled, shown, images, broken = map(int, re.search(r"<title>([\d,]+)</title>", dom)[1].split(","))
    assert scrolled == shown == 360
    assert images > 8
    assert broken == 0
