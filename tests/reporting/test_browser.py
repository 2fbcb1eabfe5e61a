"""The page in a real browser: no error, no request, switches work, nothing overflows.

Screenshots go to $REPORT_SHOTS where that names a folder; $REPORT_PAGE names a page to look at
instead of the small one made here.
"""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from lasat_ray.report import main

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"),
]
SIZES = {"phone": 390, "desktop": 1440}


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    if "REPORT_PAGE" in os.environ:
        return Path(os.environ["REPORT_PAGE"]).resolve()
    out = tmp_path_factory.mktemp("page")
    assert main([*map(str, runs.values()), "--out", str(out), "--n-examples", "16", "--no-png"]) == 0
    return out / "report.html"


@pytest.fixture(scope="module")
def browser(page):
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.command_executor.client_config.timeout = 600
    driver.set_script_timeout(500)
    driver.get(page.as_uri())
    draw_all(driver)
    yield driver
    driver.quit()


def draw_all(driver):
    driver.execute_async_script("const done = arguments[0]; drawAll().then(() => setTimeout(done, 300))")


def inspect_tracked(driver, size, scheme):
    """Set window and colour scheme as a device would."""
    wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
    metrics = {"width": SIZES[size], "height": 900, "deviceScaleFactor": 1, "mobile": size == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_async_script("setTimeout(arguments[0], 500)")


def shown(driver):
    """Traces that are visible, over all plots."""
    return driver.execute_script(
        "return [...document.querySelectorAll('.plot')].flatMap(d => d.data).filter(t => t.visible).length"
    )


def test_every_panel_is_drawn_without_an_error_and_without_a_request(browser):
    empty = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].filter(d => !d.querySelector('svg')).map(d => d.id)"
    )
    assert not empty
    assert not [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def test_a_button_switches_its_runs_everywhere_and_back(browser):
    before = shown(browser)
    rows = "return [...document.querySelectorAll('.of-runs')].filter(e => e.hidden).length"
    assert browser.execute_script(rows) == 0
    press = "document.querySelector('nav button[data-runs]').click()"
    browser.execute_script(press)
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    assert 0 < shown(browser) < before and browser.execute_script(rows) > 0
    state = "return document.querySelector('nav button[data-runs]').ariaPressed"
    assert browser.execute_script(state) == "false"
    browser.execute_script(press)
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    assert shown(browser) == before and browser.execute_script(rows) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_page_fits_and_follows_the_colour_scheme(browser, size, scheme):
    inspect_tracked(browser, size, scheme)
    assert browser.execute_script("return document.documentElement.dataset.theme") == scheme
    assert browser.execute_script("return document.documentElement.scrollWidth") <= SIZES[size]
    wide = browser.execute_script(
        "return [...document.querySelectorAll('.plot svg.main-svg')]"
        ".filter(s => s.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert wide == 0
    if "REPORT_SHOTS" in os.environ:
        height = browser.execute_script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": SIZES[size], "height": height, "scale": 1}
        wanted = {"captureBeyondViewport": True, "clip": clip}
        picture = browser.execute_cdp_cmd("Page.captureScreenshot", wanted)["data"]
        file = Path(os.environ["REPORT_SHOTS"]) / f"{size}-{scheme}.png"
        file.write_bytes(base64.b64decode(picture))


def test_the_theme_button_overrides_the_device(browser):
    inspect_tracked(browser, "desktop", "light")
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"


def test_figures_drawn_for_a_screen_shrink_onto_paper(browser):
    """Paper gets no redrawing: the page narrows and what was drawn has to follow."""
    inspect_tracked(browser, "desktop", "light")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("document.querySelector('main').style.width = '680px'")
    over = (
        "return [...document.querySelectorAll('.plot')].filter(d => [...d.querySelectorAll('svg.main-svg')]"
        ".some(s => s.getBoundingClientRect().right > d.getBoundingClientRect().right + 1)).length"
    )
    boxed = (
        "return [...document.querySelectorAll('svg.main-svg')].filter(s => !s.getAttribute('viewBox')).length"
    )
    try:
        assert browser.execute_script(over) == 0
        assert browser.execute_script(boxed) == 0, "without a view box a drawing is cut, not scaled"
    finally:
        browser.execute_script("document.querySelector('main').style.width = ''")
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
