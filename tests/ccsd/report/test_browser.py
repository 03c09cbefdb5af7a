"""The page in a real browser: no error, no request, tables that sort, nothing wider than a phone."""

import json
import os
import re
import shutil
import subprocess

import pytest

from ccsd.report import write_report

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--virtual-time-budget=4000",
)  # fmt: skip
PROBE = """
<script>
const errors = [];
window.addEventListener("error", (event) => errors.push(String(event.message)));
document.addEventListener("securitypolicyviolation", (event) => errors.push("blocked " + event.blockedURI));
window.addEventListener("load", () => {
  const table = document.querySelector("table.sortable");
  const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
  const column = [...table.querySelectorAll("thead th")].findIndex((th) => /^(Dice )?WT$/.test(th.textContent));
  const values = () => [...table.tBodies[0].rows].slice(0, -1).map((row) => Number(row.cells[column].dataset.sort));
  const before = names();
  table.querySelectorAll("thead th button")[column].click();
  const rising = values();
  table.querySelectorAll("thead th button")[column].click();
  const found = {
    errors, before, after: names(), rising, falling: values(),
    requests: performance.getEntriesByType("resource").map((entry) => entry.name).filter((n) => !n.startsWith("data:")),
    broken: [...document.images].filter((image) => !image.naturalWidth).length,
    images: document.images.length,
    width: document.documentElement.scrollWidth, window: window.innerWidth,
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
    chart: getComputedStyle(document.querySelector(".chart svg text")).fill,
  };
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module", autouse=True)
def _browser():
    if CHROMIUM is None:
        message = "no browser; install one with: apt-get install chromium"
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)


def browse(page, profile, *flags):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.fixture(scope="module")
def page(evaluated_study, tmp_path_factory):
    """Return the path of a page."""
    return write_report(shutil.copytree(evaluated_study, tmp_path_factory.mktemp("browser") / "tiny")).page


@pytest.fixture(scope="module")
def page_of_several(evaluated_study, add_experiment, tmp_path_factory):
    """Return the path of a page that compares three experiments."""
    root = shutil.copytree(evaluated_study, tmp_path_factory.mktemp("several") / "tiny")
    add_experiment(root, "dropout", 0.9)
    add_experiment(root, "a.rather.long_name", 0.8)
    return write_report(root).page


@pytest.fixture
def probe(page, tmp_path):
    """Return a function that loads a page with a probe in it and returns what the probe saw."""
    watched = tmp_path / "watched.html"

    def run(*flags, of=page):
        watched.write_text(of.read_text().replace("</title>", "</title>" + PROBE))
        html = browse(watched, tmp_path / "profile", "--dump-dom", *flags)
        return json.loads(re.search(r'<pre id="probe">(.*?)</pre>', html, re.DOTALL).group(1).replace("&amp;", "&"))

    return run


def test_page_loads_without_error_or_request_and_its_tables_sort(probe):
    seen = probe("--window-size=1200,900")

    assert seen["errors"] == []
    assert seen["requests"] == []
    assert (seen["broken"], seen["images"] > 10) == (0, True)
    assert seen["rising"] == sorted(seen["rising"])
    assert seen["falling"] == sorted(seen["falling"], reverse=True)
    assert seen["before"][-1] == seen["after"][-1] == "Average"
    assert sorted(seen["before"]) == sorted(seen["after"])


@pytest.mark.parametrize("kind", ["page", "page_of_several"])
def test_page_fits_a_phone(probe, kind, request):
    seen = probe("--window-size=500,900", of=request.getfixturevalue(kind))

    assert seen["errors"] == []
    assert seen["width"] <= seen["window"]


def test_page_is_dark_where_the_reader_wants_it_dark(probe):
    light, dark = probe(), probe("--blink-settings=preferredColorScheme=0")

    assert light["paper"] != dark["paper"]
    assert light["ink"] != dark["ink"]
    assert dark["chart"] == dark["ink"]


def test_page_prints_and_can_be_photographed(page, tmp_path):
    browse(page, tmp_path / "profile", f"--screenshot={tmp_path / 'page.png'}", "--window-size=1100,1600")
    browse(page, tmp_path / "profile", f"--print-to-pdf={tmp_path / 'page.pdf'}")

    assert (tmp_path / "page.png").stat().st_size > 50_000
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
