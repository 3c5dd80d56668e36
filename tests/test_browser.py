"""What a reader sees in a browser: JupyterLab, a run's pages, the service's and the site's."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect, sync_playwright

from lepton_lib.classroom.editions import slides_page
from lepton_lib.runs import find_notebooks
from lepton_lib.serving import start
from tests import chromium, offline
from tests.course import write_course

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
pytestmark = pytest.mark.no_cover
both_widths = pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
TIMEOUT = 120_000  # ms; long enough for a busy machine, but a hanging one must not hang the tests


@pytest.fixture(scope="module")
def browser():
    """A browser without history or cache: playwright gives it an empty folder."""
    if chromium.path() is None:
        pytest.fail(chromium.MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path(), args=chromium.ARGUMENTS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Where screenshots are kept: LEPTON_SCREENSHOTS, or a temporary folder."""
    chosen = os.environ.get("LEPTON_SCREENSHOTS")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def looking(browser, size=WIDE, scheme="light", *, refusal=False):
    """Open a page; at the end, fail on console errors and requests to other machines.

    Args:
        browser: The browser.
        size: Width and height in pixels.
        scheme: ``light`` or ``dark``.
        refusal: Whether the service is to refuse something, which a browser reports on the console.
    """
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    complaints = []
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: local(request.url) or complaints.append(request.url))
    yield page
    context.close()
    assert [text for text in complaints if not (refusal and "422" in text)] == []


def local(url):
    return re.match(r"file:|data:|blob:|(http|ws)://127\.0\.0\.1:", url)


def check_layout(page):
    """The page doesn't scroll sideways, and every picture and table is visible."""
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    for picture in page.locator("img").all():
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        assert picture.bounding_box()["width"] > 100
        assert picture.get_attribute("alt")
    for table in page.locator("table:visible").all():
        box = table.bounding_box()
        assert min(box["width"], box["height"]) > 20


# JupyterLab


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab's address and its folder: opened as `make learn` does, on copies."""
    folder = tmp_path_factory.mktemp("lab")
    write_course(folder)
    shutil.copytree(offline.ROOT / "notebooks" / "diagrams", folder / "notebooks" / "diagrams")
    for path in offline.ROOT.glob("notebooks/exercises/*.toml"):
        shutil.copy(path, folder / "notebooks" / "exercises")
    for path in offline.ROOT.glob("notebooks/0*.ipynb"):
        notebook = nbformat.read(path, 4)
        if path.stem == "02_training":  # only a bar is looked for in it
            notebook.cells = [new_code_cell(BAR, id="bar")]
        nbformat.write(notebook, folder / "notebooks" / path.name)
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        # all cells are in the page, seen or not
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, values in settings.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    (folder / "config").mkdir()
    # those of `make bench`'s packages complain on the console
    no_extensions = {"LabApp": {"labextensions_path": []}}
    (folder / "config" / "jupyter_lab_config.json").write_text(json.dumps(no_extensions))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(offline.ROOT), os.environ.get("PYTHONPATH", "")])
        ),
        "LEPTON_DATASETS": str(offline.ROOT / "datasets"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    environment.pop("TQDM_DISABLE", None)
    opener = folder / "browser"  # what JupyterLab takes for the reader's browser
    opener.write_text(f'#!/bin/sh\ncp "${{1#file://}}" "{folder}/opened.html"\n')
    opener.chmod(0o755)
    words = [sys.executable, "-m", "lepton_lib.cli", "work", "--open"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            words, cwd=folder, env=environment | {"BROWSER": str(opener)}, stdout=log, stderr=log
        )
        try:
            yield first_page(server, folder), folder / "work"
        finally:
            server.terminate()
            server.wait(30)


BAR = """from lepton_lib.cases import load_case
from lepton_lib.data import clean, encode, read_table
from lepton_lib.trainer import fit_model

credit = load_case("credit")
rows = encode(clean(read_table(credit), credit)[0], credit)
_ = fit_model(credit, rows, None, seed=0, kind="ensemble", epochs=2)"""


def first_page(server, folder):
    """The address that JupyterLab opens in a reader's browser."""
    deadline = time.monotonic() + TIMEOUT / 1000
    while server.poll() is None and time.monotonic() < deadline:
        if (folder / "opened.html").exists():
            found = re.search(r'href="(http[^"]+)"', (folder / "opened.html").read_text())
            if found:
                return found.group(1).replace("//localhost:", "//127.0.0.1:")
        time.sleep(0.2)
    pytest.fail("JupyterLab doesn't open a page: " + (folder / "log").read_text()[-2000:])


RUN = r"""() => {  // a folded cell has a placeholder's prompt, which stays empty
  const shown = ".jp-CodeCell .jp-InputPrompt:not(.jp-Placeholder-prompt)";
  const prompts = [...document.querySelectorAll(shown)];
  return prompts.length > 0 && prompts.every((prompt) => /\[\d+\]/.test(prompt.textContent));
}"""


def run_all(page, url):
    """Open a notebook, choose *Run All Cells*, and wait until each code cell has its number."""
    with page.expect_websocket(lambda socket: "/api/kernels/" in socket.url):
        page.goto(f"{url}&reset")  # no other notebook beside it
    # the indicator beside the name says so too early
    idle = page.locator("#jp-bottom-panel", has_text="| Idle")
    expect(idle).to_be_visible(timeout=TIMEOUT)
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    page.wait_for_function(RUN, timeout=TIMEOUT, polling=300)
    expect(idle).to_be_visible(timeout=TIMEOUT)
    problems = page.locator(".jp-OutputArea-output[data-mime-type*='error']")
    assert problems.all_text_contents() == []


@pytest.mark.parametrize("step", ["00_environment", "01_data"])
def test_run_all_cells_in_jupyterlab(browser, lab, shots, step):
    """*Run All Cells* ends without an error; each figure, table and formula can be seen."""
    notebook = nbformat.read(offline.ROOT / "notebooks" / f"{step}.ipynb", 4)
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    with looking(browser) as page:
        run_all(page, lab[0].replace("00_environment", step))
        panel = page.locator(".jp-NotebookPanel:visible")
        for selector, kind in (
            (".jp-RenderedImage img", "image/png"),
            (".jp-OutputArea table", "text/html"),
        ):
            shown = panel.locator(selector).all()
            assert len(shown) >= sum(kind in output for output in data)
            for element in shown:
                element.scroll_into_view_if_needed()
                box = element.bounding_box()
                assert min(box["width"], box["height"]) > 20
                if kind == "image/png":
                    assert element.evaluate("image => image.naturalWidth") > 100
        assert panel.locator(".jp-RenderedImage img").count() == sum(
            "image/png" in output for output in data
        )
        assert panel.locator("mjx-container").count() > 0
        assert panel.locator("mjx-merror").count() == 0
        page.screenshot(path=shots / f"lab-{step}.jpg")


def test_the_progress_bar_is_seen_in_jupyterlab(browser, lab, shots):
    """Training in a notebook shows a bar that ends full."""
    with looking(browser) as page:
        run_all(page, lab[0].replace("00_environment", "02_training"))
        bar = page.locator(".jp-OutputArea-output", has_text="training: 100%")
        expect(bar).to_be_visible()
        assert "█" in bar.text_content()
        page.screenshot(path=shots / "lab-bar.jpg")


def answer(page, key, source):
    """Type code into the cell that checks an exercise and run it by keyboard; its output."""
    cell = page.locator(
        ".jp-NotebookPanel:visible .jp-CodeCell",
        has=page.locator(".cm-content", has_text=f'"{key}"'),
    )
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")
    return cell.locator(".jp-OutputArea-output")


def test_an_exercise_answers_in_jupyterlab(browser, lab, shots):
    """A typed answer gets *not yet* and why, a better one *correct*; the progress is stored."""
    with looking(browser) as page:
        run_all(page, lab[0].replace("00_environment", "07_small"))
        output = answer(page, "07.q1", 'check("07.q1", "c")')
        expect(output).to_have_text("07.q1 not yet: c is too late.")
        expect(answer(page, "07.q1", 'check("07.q1", "b")')).to_have_text("07.q1 correct: It is b.")
        output = answer(page, "07.2", 'share = 2 / 8\nshare = checkpoint("07.2", share)')
        expect(output).to_have_text("07.2 correct: A share lies between 0 and 1.")
        page.screenshot(path=shots / "lab-exercise.jpg")
    events = [json.loads(line) for line in (lab[1] / "progress.jsonl").read_text().splitlines()]
    assert {"exercise": "07.q1", "event": "not yet"} in events
    assert events[-1] == {"exercise": "07.2", "event": "correct"}


# A run's pages and its service


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, pipeline):
    """A run folder after `lepton run loop`, to serve from."""
    return shutil.copytree(pipeline, tmp_path_factory.mktemp("runs") / "credit")


@both_widths
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_runs_index_can_be_read(browser, run_dir, shots, size, scheme):
    """A run's index page fits its window, shows gate and curves, opens details and notebooks."""
    with looking(browser, size, scheme) as page:
        page.goto((run_dir / "index.html").as_uri())
        check_layout(page)
        expect(page.locator("header .verdict")).to_be_in_viewport()
        judged = json.loads((run_dir / "evaluation" / "gate.json").read_text())["criteria"][0]
        expect(page.locator("header dl")).to_contain_text(f"gate judged {judged['judged']:.3f}")
        titles = page.locator(".curves img").evaluate_all("all => all.map(e => e.alt.slice(0, 11))")
        assert titles == ["ROC curve o", "Calibration", "The largest"]
        page.screenshot(path=shots / f"run-{size['width']}-{scheme}.jpg", full_page=True)
        for summary in page.locator("summary").all():
            summary.press("Enter")
        check_layout(page)
        assert page.locator("table:visible").count() == page.locator("table").count()
        page.locator("a[href='notebooks/00_environment.html']").click()
        expect(page.locator("h1")).to_contain_text("00")


@both_widths
def test_executed_pages_can_be_read(browser, run_dir, shots, size):
    """Each executed notebook of a run is a page that fits its window and shows its figures."""
    pages, seen = sorted((run_dir / "notebooks").glob("*.html")), 0
    with looking(browser, size) as page:
        for path in pages:
            page.goto(path.as_uri())
            check_layout(page)
            formulas = page.locator("math[display=block]").all()
            seen += len(formulas)
            for formula in formulas:
                assert formula.bounding_box()["height"] > 10
            page.screenshot(
                path=shots / f"executed-{path.stem}-{size['width']}.jpg", full_page=True
            )
        assert seen > 5
        page.get_by_role("link", name="This run").click()
        expect(page.locator("h2").first).to_have_text("The gate")


# The class of each bar, and whether it lies in the right half of its cell.
SIDES = """all => all.map(bar => {
  const box = bar.getBoundingClientRect(), cell = bar.parentElement.getBoundingClientRect();
  return [bar.className.replace("bar ", ""), box.left + box.right > cell.left + cell.right];
})"""


@both_widths
def test_the_service_is_asked_by_keyboard(browser, run_dir, shots, size):
    """The form works by keyboard; the answer takes the focus, and goes when an input changes."""
    with start(run_dir) as service, looking(browser, size) as page:
        page.goto(service.url)
        check_layout(page)
        fields = page.locator("#form [data-kind]")
        for field in fields.all():
            page.keyboard.press("Tab")
            expect(field).to_be_focused()
            page.keyboard.type(field.get_attribute("data-example"))
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#answer h2")).to_contain_text("Action: ")
        expect(page.locator("#answer h2")).to_be_in_viewport()
        expect(page.locator("#answer")).to_be_focused()
        expect(page.locator(".reasons tr")).to_have_count(fields.count())
        assert [
            value
            for value in fields.evaluate_all("all => all.map(field => field.value)")
            if not value
        ] == []
        bars = page.locator(".bar.up, .bar.down").evaluate_all(SIDES)
        assert {tuple(bar) for bar in bars} == {("up", True), ("down", False)}
        check_layout(page)
        page.screenshot(path=shots / f"service-{size['width']}.jpg", full_page=True)
        fields.first.fill("")
        expect(page.locator("#answer")).to_be_empty()


def test_the_service_says_what_it_refuses(browser, run_dir, shots):
    """A value out of range is refused beside its field, which takes the focus until it is fixed."""
    with start(run_dir) as service, looking(browser, PHONE, "dark", refusal=True) as page:
        page.goto(service.url)
        page.locator("#example").press("Enter")
        # as a client without checks would
        page.locator("#form").evaluate("form => { form.noValidate = true; }")
        field = page.locator("#form input[type=number]").first
        good = field.input_value()
        field.fill("1e9")
        page.locator("button[type=submit]").press("Enter")
        expect(field).to_be_focused()
        expect(page.locator(".fields .problem")).to_contain_text("expected a number from")
        expect(page.locator(".fields .problem")).to_be_in_viewport()
        page.screenshot(path=shots / "service-refusal.jpg", full_page=True)
        field.fill(good)
        field.press("Enter")
        expect(page.locator("#answer h2")).to_contain_text("Action: ")
        assert page.locator(".problem").count() == 0


# Slides


@pytest.mark.parametrize("path", find_notebooks().values(), ids=lambda path: path.stem)
def test_slides_fit_their_window_and_are_printed(browser, shots, tmp_path, path):
    """Nothing is cut off, formulas and figures are drawn, keys work, each slide is printed."""
    file = tmp_path / "slides.html"
    file.write_text(slides_page(nbformat.read(path, 4), path.stem), encoding="utf-8")
    with looking(browser, {"width": 1280, "height": 720}) as page:
        page.goto(file.as_uri())
        cut = (
            "all => all.filter(s => s.scrollHeight > s.clientHeight + 1"
            " || s.scrollWidth > s.clientWidth + 1).length"
        )
        assert page.locator(".slide").evaluate_all(cut) == 0
        sizes = page.locator(".slide").evaluate_all(
            "all => all.map(s => parseFloat(getComputedStyle(s).fontSize))"
        )
        assert min(sizes) > 16  # pixels
        count = page.locator("section").count()
        assert count > 10
        boxes = (
            "all => all.map(e => e.getBoundingClientRect())"
            ".filter(b => b.width).map(b => [b.width, b.height])"
        )
        # those in the notes are hidden
        for width, height in page.locator("math[display=block]").evaluate_all(boxes):
            assert min(width, height) > 12
        for width, _ in page.locator("img").evaluate_all(boxes):
            assert width > 500
        for _, height in page.locator("img[src*='image/png']").evaluate_all(boxes):
            assert height > 300  # diagrams are wide and low
        page.keyboard.press("ArrowRight")
        expect(page.locator("section").nth(1)).to_be_in_viewport(ratio=0.9)
        expect(page.locator(".foot").nth(1)).to_contain_text(f"2 / {count}")
        page.keyboard.press("End")
        expect(page.locator("section").last).to_be_in_viewport(ratio=0.9)
        page.keyboard.press("n")
        assert page.locator(".slide").evaluate_all(cut) == 0
        page.screenshot(path=shots / f"slides-{path.stem}.jpg")
        assert page.pdf(prefer_css_page_size=True).count(b"/Type /Page\n") == count


# The course's site


def test_the_sites_pages_can_be_read_from_the_disk(browser, site, shots):
    """Every page opens without a server, fits a phone and a wide window, typesets formulas."""
    out, pages = site
    for size, names in ((PHONE, ["index", *pages]), (WIDE, ["index", pages[0]])):
        with looking(browser, size) as page:
            for name in names:
                page.goto((out / f"{name}.html").as_uri())
                if page.locator(".math").count():
                    expect(page.locator("mjx-container")).to_have_count(
                        page.locator(".math").count()
                    )
                    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
                check_layout(page)
                page.screenshot(
                    path=shots / f"site-{name.replace('/', '-')}-{size['width']}.jpg",
                    full_page=True,
                )


@both_widths
def test_the_sites_search_finds_a_page_from_the_disk(browser, site, shots, size):
    """A word typed into the search leads to the notebook about it, with no server."""
    out, pages = site
    with looking(browser, size) as page:
        page.goto((out / f"{pages[-1]}.html").as_uri())
        if size is PHONE:
            page.locator("label.nav-overlay-icon").first.click()
        page.locator("input[name=q]").fill("leakage")
        page.locator("input[name=q]").press("Enter")
        found = page.locator("#search-results a", has_text="01 Data")
        expect(found).to_be_visible()
        page.screenshot(path=shots / f"site-search-{size['width']}.jpg")
        found.click()
        expect(page.locator("h1")).to_contain_text("01 Data")
        expect(page.locator(".highlighted").first).to_be_attached()
        page.locator("a.next-page").click()
        expect(page.locator("h1")).to_contain_text("02 Training")


def test_dark_pages_of_the_site_keep_figures_on_white(browser, site, shots):
    """In the dark scheme a figure stands on white ground, so that its black text can be read."""
    out, pages = site
    with looking(browser, WIDE, "dark") as page:
        notebook = next(name for name in pages if "00_environment" in name)
        page.goto((out / f"{notebook}.html").as_uri())
        figure = page.locator(".cell_output img").first
        assert (
            figure.evaluate("image => getComputedStyle(image).backgroundColor")
            == "rgb(255, 255, 255)"
        )
        figure.scroll_into_view_if_needed()
        page.screenshot(path=shots / "site-dark.jpg")
