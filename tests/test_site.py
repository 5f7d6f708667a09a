"""The site, built once and read in headless Chromium: every page, three widths, two themes."""

import functools
import os
import re
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PREFIX = "/cptlib/"  # where the site lies on its host; the 404 page knows
WIDTHS = (390, 820, 1440)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOST, ADDRESS = "http://site", "https://cptlib.github.io/cptlib/"
BLOB = "https://github.com/cptlib/cptlib/blob/main/"
POST = "01_continued_pretraining.html"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The built site's folder; a warning of Sphinx's is an error."""
    folder = tmp_path_factory.mktemp("site") / "cptlib"
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "-q", "-b", "html"]
    command += ["-d", str(folder.parent / "doctrees"), str(ROOT / "notebooks"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def pages(site: Path) -> list[str]:
    return sorted(str(path.relative_to(site)) for path in site.rglob("*.html") if "_static" not in path.parts)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}{PREFIX}"
    server.shutdown()


@contextmanager
def launched():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser():
    if not CHROMIUM:
        assert "CI" not in os.environ, "CI must read the site in a browser: .ci/run installs chromium"
        pytest.skip("chromium is not installed (apt-get install chromium): the site is not read in a browser")
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser, address):
    """A page that notes what goes wrong: errors in the console, requests to other machines, files that are not there."""
    context = browser.new_context()
    page = context.new_page()
    page.faults = []
    page.on("console", lambda message: message.type == "error" and page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: request.url.startswith((address, "data:")) or page.faults.append(request.url))
    page.on("response", lambda response: response.status >= 400 and page.faults.append(f"missing: {response.url}"))
    yield page
    context.close()


# In the browser

OVERFLOW = """() => [...document.querySelectorAll("body *")]
  .filter(e => document.documentElement.scrollWidth > innerWidth && e.getBoundingClientRect().right > innerWidth + 1)
  .slice(0, 3).map(e => e.outerHTML.slice(0, 120))
  .concat(document.documentElement.scrollWidth > innerWidth ? [`${document.documentElement.scrollWidth} px wide`] : [])"""
ALL_IMAGES = """() => Promise.all([...document.images].map(
  image => { image.loading = "eager"; return image.decode(); }))"""
TRANSFERRED = """() => performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
  .reduce((sum, entry) => sum + entry.transferSize, 0)"""
FIRST_PAINT = """() => new Promise(done => new PerformanceObserver(list => done(list.getEntries()[0].startTime))
  .observe({type: "paint", buffered: true}))"""


def test_every_page_fits_every_width_and_asks_no_other_machine(site, address, page):
    for name in pages(site):
        page.goto(address + name)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(OVERFLOW) == [], (name, width)
        assert page.faults == [], name


def test_every_page_is_light_and_paints_soon(site, address, browser):
    """A context of its own for each load, so that nothing comes from a cache. The best of ten: machines are busy."""
    for name in pages(site):
        for _ in range(10):
            context = browser.new_context()
            page = context.new_page()
            page.goto(address + name)
            page.evaluate(ALL_IMAGES)
            size, paint = page.evaluate(TRANSFERRED), page.evaluate(FIRST_PAINT)
            context.close()
            assert size < 1.5e6, (name, size)
            if paint < 1000:
                break
        assert paint < 1000, (name, paint)


# All rules in the light; in the dark those about colours, the one thing that differs
THEMES = {"light": (390, {}), "dark": (1440, {"runOnly": ["color-contrast"]})}


def serious_faults(names, address, theme):
    """{page: what axe finds on it}, in a browser of its own, as a thread needs."""
    from axe_playwright_python.sync_playwright import Axe

    width, rules = THEMES[theme]
    options, found = {"resultTypes": ["violations"], "preload": False, **rules}, {}
    with launched() as browser:
        page = browser.new_page(color_scheme=theme, reduced_motion="reduce", viewport={"width": width, "height": 900})
        for name in names:
            page.goto(address + name)
            found[name] = [
                (fault["id"], [node["html"][:150] for node in fault["nodes"][:3]])
                for fault in Axe().run(page, options=options).response["violations"]
                if fault["impact"] in ("serious", "critical")
            ]
    return found


@pytest.fixture(scope="session")
def faults(site, address, browser):
    """What axe finds in each theme, looked for in all at once: it takes a second of one core for every page."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(functools.partial(serious_faults, pages(site), address), THEMES)
        return dict(zip(THEMES, found, strict=True))


@pytest.mark.parametrize("theme", THEMES)
def test_no_serious_accessibility_fault(site, faults, theme):
    assert list(faults[theme]) == pages(site)
    assert {name: found for name, found in faults[theme].items() if found} == {}


def test_search_finds_a_phrase(address, page):
    page.goto(address + "search.html?q=rotary+position+embeddings")
    page.wait_for_selector("#search-results li a")
    assert any(POST in link.get_attribute("href") for link in page.query_selector_all("#search-results li a"))


def test_a_wrong_address_shows_the_404_page_with_its_style(site, address, page):
    page.goto(address + "404.html")
    assert page.query_selector("h1").inner_text().startswith("Page not found")
    assert page.evaluate("getComputedStyle(document.querySelector('.sidebar-brand')).display") != "inline"
    assert page.faults == []


def test_the_front_page_shows_all_in_one_screen(address, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(address)
    for selector in (".lead", ".door", ".tiles", ".pair figure"):
        for box in (element.bounding_box() for element in page.query_selector_all(selector)):
            assert box["y"] + box["height"] <= 900, selector
    assert [door.inner_text() for door in page.query_selector_all(".doors .door")] == [
        "Open in Colab",
        "Read on",
        "Import the library",
    ]


# In its files


@pytest.fixture(scope="session")
def soups(site):
    """Every page, parsed."""
    return {name: BeautifulSoup((site / name).read_text(), "html.parser") for name in pages(site)}


def test_every_internal_link_and_anchor_resolves(site, soups):
    anchors = {name: {element["id"] for element in soup.find_all(id=True)} for name, soup in soups.items()}
    checked = 0
    for name, soup in soups.items():
        for element in soup.find_all(["a", "link", "img", "script"]):
            link = element.get("href") or element.get("src")
            target, anchor = urldefrag(urljoin(HOST + PREFIX + name, link or ""))
            if link and target.startswith(HOST) and "_static" not in target:
                target = unquote(target.removeprefix(HOST + PREFIX).partition("?")[0]) or "index.html"
                assert (site / target).is_file(), (name, link)
                assert not anchor or unquote(anchor) in anchors[target], (name, link)
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_a_post(site, soups, path):
    post, notebook = soups[f"{path.stem}.html"], nbformat.read(path, as_version=4)
    assert soups["index.html"].select(f'.posts a[href="{path.stem}.html"]')
    assert "](" not in soups["index.html"].select_one(".posts").text  # no markdown is left in the summaries
    assert re.match(r"\d+ min read", post.select_one(".post-facts span").text)
    assert notebook.metadata.get("run", {}).get("device", "") in post.select_one(".post-facts").text
    doors = [door["href"] for door in post.select(".post-doors a")]
    assert doors[0].endswith(f"/blob/main/notebooks/{path.name}") and doors[0].startswith("https://colab.research")
    assert doors[1].endswith(f"/blob/main/notebooks/{path.stem}.py")
    assert not post.find("img", src=re.compile("badge"))
    card = post.find("meta", property="og:image")["content"].removeprefix(ADDRESS)
    assert (site / card).stat().st_size > 5000
    assert len(post.find("meta", property="og:description")["content"]) > 60


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_are_described_and_have_dots_for_a_dense_screen(site, soups, path):
    images = soups[f"{path.stem}.html"].select(".cell_output img")
    outputs = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", ())]
    assert len(images) == sum("image/png" in out.get("data", {}) for out in outputs)
    for image in images:
        assert "figure" in image["class"] and len(image["alt"]) > 30
        dots = int.from_bytes((site / image["src"]).read_bytes()[16:20])  # the PNG's width
        assert dots // 2 == int(re.search(r"width: (\d+)px", image["style"])[1])


def test_set_up_is_folded_and_names_in_cells_lead_to_their_documentation(soups):
    post = soups[POST]
    assert "google.colab" in post.select_one("details.hide .highlight").text
    links = {link["href"] for link in post.select(".highlight a")}
    assert {"api/checks.html#cptlib.checks.preflight", "api/memory.html#cptlib.memory.MemoryLog.note"} <= links


def test_everything_public_is_documented_with_its_source(soups):
    package = ROOT / "cptlib"
    for path in [*package.glob("[a-z]*.py"), *package.glob("documents/[a-z]*.py"), *package.glob("bench/[a-z]*.py")]:
        parts = path.relative_to(package).with_suffix("").parts
        page = soups[f"api/{'.'.join(parts)}.html"]
        for name in re.findall(r"^(?:def|class) ([a-zA-Z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            entry = page.find(id=f"cptlib.{'.'.join(parts)}.{name}")
            assert entry, f"{'.'.join(parts)}.{name} has no docstring"
            assert entry.find("a", href=f"../_modules/cptlib/{'/'.join(parts)}.html#{name}")


def test_each_of_the_25_questions_is_answered_or_said_to_be_open(soups):
    headings = soups["questions.html"].select("h3")
    assert [int(heading.text.split(".")[0]) for heading in headings] == list(range(1, 26))
    for heading in headings:
        answer = heading.parent
        measured = answer.find("a", href=re.compile(r"^\d\d_\w+\.html#cell-\d+$"))
        assert bool(measured) != ("Not yet measured here." in answer.text), heading.text


def test_the_feed_has_every_notebook_whose_run_is_dated(site, soups):
    entries = xml.parse(site / "feed.xml").getroot().findall("{*}entry/{*}link")
    dated = [path.stem for path in NOTEBOOKS if nbformat.read(path, as_version=4).metadata.get("run")]
    assert sorted(entry.attrib["href"] for entry in entries) == [f"{ADDRESS}{stem}.html" for stem in dated]
    assert soups["index.html"].find("link", type="application/atom+xml")["href"] == "feed.xml"


def test_llms_txt_leads_to_every_post_and_to_what_is_looked_up(site):
    title, summary, *rest = (site / "llms.txt").read_text(encoding="utf-8").split("\n\n")
    assert title == "# cptlib" and summary.startswith("> ") and "\n" not in summary and "{" not in "".join(rest)
    lines = re.findall(r"^- \[(.+?)\]\((\S+)\): .+", "\n\n".join(rest), re.MULTILINE)
    pages = {link.removeprefix(ADDRESS) for _, link in lines if link.startswith(ADDRESS)}
    files = {link.removeprefix(BLOB) for _, link in lines if link.startswith(BLOB)}
    assert len(pages | files) == len(lines)  # and none leads elsewhere
    assert all((site / page).is_file() for page in pages) and all((ROOT / file).is_file() for file in files)
    assert pages == {f"{path.stem}.html" for path in NOTEBOOKS} | {"questions.html", "api.html"}
    assert "CONTRIBUTING.md" in files


def test_formulas_need_no_script(tmp_path):
    (tmp_path / "index.md").write_text("# A page\n\nInline $W + s B A$, and alone:\n\n$$\\sqrt{r}$$\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-c", str(ROOT / "notebooks"), "-D", "extensions=myst_nb,mathml"]
    subprocess.run([*command, str(tmp_path), str(tmp_path / "out")], check=True, capture_output=True)
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<math ") == 2 and "<msqrt>" in page
    assert not re.search("<script[^>]*(mathjax|katex)", page, re.IGNORECASE)


def test_the_citation_agrees_with_the_package():
    import cptlib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cptlib.__version__ and citation["license"] == "Apache-2.0"


def test_the_site_says_where_a_page_is_wrong():
    """What keeps a page from disagreeing with its notebook."""
    sys.path.insert(0, str(ROOT / "notebooks" / "_site"))
    import posts
    from sphinx.errors import ExtensionError

    post = posts.Post(ROOT / "notebooks" / "01_continued_pretraining.ipynb", "https://github.com/cptlib/cptlib")
    with pytest.raises(ExtensionError, match="prints nothing like"):
        posts.found(post, "the answer is (43)")
    with pytest.raises(ExtensionError, match="in 0 code cells"):
        posts.cell_link(post, "no_such_call(")
    assert "cell" in posts.cell_link(post, "checks.preflight(")
