"""The page in a real browser: what is seen and exported is what direct calls give."""

import json
import time

import browser
import numpy as np
import pytest
from cheap_map import TARGET
from live_cases import make_coil, make_head, make_map, make_model, make_session

import jaxm2m as jm
from jaxm2m.plot import _cortex

pytestmark = [pytest.mark.float32, pytest.mark.skipif(bool(browser.find_missing()), reason=browser.find_missing())]

# what runs in the page: `live` is the widget, `done` what ends the script
LIVE = "const live = document.querySelector('.jaxm2m-live').live; const done = arguments[arguments.length - 1];"
# until the picture of an answer to a request after `count` is drawn
WAIT = """
const root = document.querySelector('.jaxm2m-live');
const drawn = (event) => {
  if (event.detail.request <= before) return;
  root.removeEventListener('drawn', drawn);
  live.scene.finish();
  done(true);
};
const before = live.model.get('request');
root.addEventListener('drawn', drawn);
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def case(precision):
    head, coil, at_grid = make_head(), make_coil(), make_map()
    return head, coil, at_grid


@pytest.fixture(scope="module")
def view(case):
    from jaxm2m.plot._live._call import make_view

    head, coil, at_grid = case
    return make_view(head, at_grid, coil, target=TARGET, model=make_model(), session=make_session(head, coil))


@pytest.fixture(scope="module")
def driver(folder):
    with browser.open_browser(folder) as driver:
        yield driver


@pytest.fixture
def page(driver, view):
    view.reset()
    view.kept = []
    view.component = "magnitude"
    server = view.serve()
    server.start()
    driver.get(server.url)
    wait_for(lambda: driver.execute_script("return !!document.querySelector('.jaxm2m-live')?.live"))
    yield driver
    said = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    # graphics drivers remark on speed
    errors = [entry for entry in said if "GL Driver Message" not in entry["message"]]
    assert not errors, errors
    server.close()


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def move(page, **values):
    """Move sliders as a person does, and wait for the picture."""
    steps = "".join(
        f"s = document.querySelector('[data-name={name}]'); s.value = {value}; s.dispatchEvent(new Event('input'));"
        for name, value in values.items()
    )
    page.execute_async_script(f"{LIVE}{WAIT} let s; {steps}")
    wait_for(lambda: page.execute_script("return document.querySelector('.jaxm2m-live').live.idle()"))


def press(page, name):
    page.execute_script(f"document.querySelector('[data-name={name}]').click()")


def read(page):
    """What the page holds: values of the coloured vertices, the answer, the words of its table."""
    return page.execute_script(
        """const live = document.querySelector('.jaxm2m-live').live;
        return {values: [...live.scene.inside].map((i) => live.scene.values[i]), answer: live.model.get('answer'),
          words: Object.fromEntries([...document.querySelectorAll('.numbers tr')].map((row) =>
            [row.cells[0].textContent, row.cells[1].textContent])),
          status: document.querySelector('.status').textContent}"""
    )


def check(page, view, case):
    """The field on the cortex and the numbers are those of direct calls at the pose that is shown."""
    head, _, at_grid = case
    seen = read(page)
    pose = np.reshape(seen["answer"]["pose"], (4, 4))
    e = at_grid(np.asarray(pose, np.float32), didt=view.didt)
    on_cortex, _ = jm.efield.interpolate(at_grid, _cortex.extract_ribbon(head).points, tissue="grey")
    direct = np.linalg.norm(on_cortex(np.asarray(pose, np.float32), didt=view.didt), axis=-1)
    np.testing.assert_allclose(seen["values"], direct, rtol=1e-5, atol=1e-5 * direct.max())
    near = at_grid.within(TARGET, 5.0)
    mean = float(jm.placement.magnitude(near)(e))
    np.testing.assert_allclose(seen["answer"]["mean"], mean, rtol=1e-5)
    percentile = float(jm.placement.magnitude(near, percentile=95)(e))
    np.testing.assert_allclose(seen["answer"]["percentile"], percentile, rtol=1e-5)
    assert float(seen["words"]["mean |E| in target"].split()[0]) == pytest.approx(mean, rel=1e-3)
    members = make_model().predict_members(e) * make_model().largest
    np.testing.assert_allclose(seen["answer"]["meps"][0], members.mean(0), rtol=1e-4)
    return pose, mean


def test_sliders_climb_keep_and_export(page, view, case, folder):
    check(page, view, case)
    move(page, x=14, turn=25)
    move(page, distance=0)
    assert (view.x, view.turn, view.distance) == (14, 25, 0)
    before, low = check(page, view, case)
    assert np.linalg.norm(before[:3, 3] - TARGET) > 10
    press(page, "keep")
    press(page, "climb")
    wait_for(lambda: read(page)["status"].startswith("climbed"))
    after, high = check(page, view, case)
    assert high > 1.02 * low
    press(page, "keep")
    wait_for(lambda: len(page.find_elements("css selector", ".kept .away")) == 2)
    page.find_element("css selector", "[data-format=npy]").click()
    wait_for((folder / "poses.npy").exists)
    exported = np.load(folder / "poses.npy")
    np.testing.assert_allclose(exported, [before, after], rtol=1e-5, atol=1e-5)
    _, coil, _ = case
    jm.efield.check_poses(exported, coil, view._head.scalp)


def test_a_pose_outside_the_map_is_shown_as_such(page, view):
    move(page, x=60)
    seen = read(page)
    assert seen["status"].startswith("not covered by the field map: estimated error")
    assert seen["words"]["error of basis"].endswith("not covered")
    assert seen["words"]["mean |E| in target"] == "not known"
    move(page, x=0)
    assert read(page)["status"] == ""


def test_the_coil_is_moved_by_keys_and_by_dragging_it(page, view):
    from selenium.webdriver import ActionChains, Keys

    canvas = page.find_element("css selector", ".stage canvas")
    page.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP, "]")
    wait_for(lambda: (view.x, view.y, view.turn) == (2, 1, 2))
    where = page.execute_script(
        """const live = document.querySelector('.jaxm2m-live').live; const p = live.model.get('answer').pose;
        const [x, y] = live.camera.project([p[3], p[7], p[11]]);
        return [x - live.camera.width / 2, y - live.camera.height / 2]"""
    )
    drag = ActionChains(page).move_to_element_with_offset(canvas, round(where[0]), round(where[1]))
    drag.click_and_hold().move_by_offset(15, 0).move_by_offset(15, 10).release().perform()
    wait_for(lambda: abs(view.x - 2) + abs(view.y - 1) > 3)
    # beside the coil the view turns, and the coil stays
    wait_for(lambda: page.execute_script("return document.querySelector('.jaxm2m-live').live.idle()"))
    before = view.controls
    azimuth = page.execute_script("return document.querySelector('.jaxm2m-live').live.camera.azimuth")
    beside = ActionChains(page).move_to_element_with_offset(canvas, -300, 300)
    beside.click_and_hold().move_by_offset(40, 0).release().perform()
    assert page.execute_script("return document.querySelector('.jaxm2m-live').live.camera.azimuth") != azimuth
    assert view.controls == before


def test_a_recorded_session_is_scrubbed(page, view, case):
    move(page, stimulus=2)
    seen = read(page)
    assert seen["answer"]["recorded"] == [201.0, 101.0, None]
    assert "recorded stimulus 2: 2 A/" in seen["status"]
    assert len(page.find_elements("css selector", ".bar .dot")) == 2
    np.testing.assert_allclose(seen["values"], view._explorer.report_pose(view.pose, 2e6).magnitude, rtol=1e-5)


def test_a_saved_page_opens_without_a_network(driver, view, tmp_path):
    view.reset()
    view.kept = []
    view.keep()
    path = view.save(tmp_path / "scene.html")
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        driver.get(path.as_uri())
        wait_for(lambda: driver.execute_script("return !!document.querySelector('.jaxm2m-live')?.live"))
        seen = read(driver)
        largest = max(seen["values"])
        np.testing.assert_allclose(seen["values"], view._explorer.report(view.controls).magnitude, atol=largest / 400)
        move(driver, stimulus=4)
        assert read(driver)["answer"]["recorded"] == [203.0, 103.0, None]
        assert not driver.find_element("css selector", "[data-name=x]").is_enabled()
        driver.find_element("css selector", ".kept button").click()
        assert "recorded" not in read(driver)["answer"]
        pixels = driver.execute_script(
            """const live = document.querySelector('.jaxm2m-live').live; live.drawNow();
            return live.scene.sample()"""
        )
        assert len({json.dumps(p) for p in pixels}) > 20  # a head was drawn
        assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    finally:
        online = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", online)
