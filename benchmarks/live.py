"""The coil that is moved by hand, in a real browser without a graphics card (Debian's Chromium, WebGL by SwiftShader).

The standard head at 2 mm, its cortex of 100 000 triangles, a basis of 200 solves over 48 mm, a page of 1366 x 768
pixels, everything on the same two cores. Cases (`--cases`, all by default):

- field: from the event of a slider until the picture has changed: drawn, read back, and the next frame begun.
- muscles: the same with sources of 15 muscles, of a simulated session.
- saved: size of the page that `save` writes, with the 300 stimuli of the session.
- moves: random moves for `--minutes`: growth of the page's and Python's memory, errors in the console.
- k3d: what the package k3d would bring to the page, where it is installed.

Prediction: a pose is 5 ms, drawing 150 000 triangles without a graphics card 50 ms: 70 ms in the median.
"""

import argparse
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import browser
import jax
import numpy as np
import record

import jaxm2m as jm

# sliders are set as a person would set them; each answer is drawn before the next one moves
MOVES = """
const [count, seed, done] = [arguments[0], arguments[1], arguments[arguments.length - 1]];
const root = document.querySelector('.jaxm2m-live'); const live = root.live;
let state = seed; const random = () => (state = (state * 16807) % 2147483647) / 2147483647;
const sliders = [...document.querySelectorAll('.sliders input[type=range]')];
const times = [];
(async () => {
  for (let i = 0; i < count; i++) {
    const slider = sliders[Math.floor(random() * sliders.length)];
    const [low, high] = [+slider.min, +slider.max];
    const narrow = slider.dataset.name === 'didt' ? 0.9 : 0.6;
    slider.value = (low + high) / 2 + narrow * (random() - 0.5) * (high - low);
    const before = live.model.get('request');
    const begin = performance.now();
    const drawn = new Promise((resolve) => {
      const listener = (event) => {
        if (event.detail.request <= before) return;
        root.removeEventListener('drawn', listener);
        live.scene.finish();
        const read = performance.now() - begin;
        requestAnimationFrame(() => resolve([read, performance.now() - begin]));
      };
      root.addEventListener('drawn', listener);
    });
    slider.dispatchEvent(new Event('input'));
    times.push(await drawn);
    while (!live.idle()) await new Promise(requestAnimationFrame);
  }
  done(times);
})();
"""
REDRAW = """
const live = document.querySelector('.jaxm2m-live').live; const times = [];
for (let i = 0; i < 20; i++) { const t = performance.now(); live.drawNow(); live.scene.finish(); times.push(performance.now() - t); }
return times;
"""  # noqa: E501


class Case:
    """Head, coil, map, session and sources, made once."""

    def __init__(self, basis: Path | None, sources: Path | None):
        self.head, self.coil = jm.head.atlas(spacing=2.0), jm.coil.figure8()
        self.target = jm.placement.target(self.head, "C3")
        if basis is None or not basis.exists():
            sim = jm.efield.Simulator(self.head)
            grid = jm.efield.Grid.around(self.target, shape=(25, 25, 25), spacing=2.0)
            made = jm.efield.Basis.build(sim, grid, basis)
        else:
            made = jm.efield.Basis.load(basis)
        self.at_grid = made.bind(jm.coil.tabulate(self.coil))
        self.grid, self._sources = made.roi, sources

    def sources(self):
        rate = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
        self.session = jm.simulate.mapping_session(self.at_grid, rate=rate, key=jax.random.key(1))
        if self._sources is not None and self._sources.exists():
            return jm.muscle.Sources.load(self._sources)
        fields = np.asarray(self.at_grid(self.session.poses)) * np.asarray(self.session.didt)[:, None, None] / 1e6
        return jm.muscle.fit_sources(
            fields, self.session.meps, grid=self.grid, grey=self.at_grid, rate=rate, muscles=self.session.muscles,
            key=jax.random.key(0),
        )  # fmt: skip

    def view(self, **more):
        return jm.plot.live(self.head, self.at_grid, self.coil, target=self.target, **more)


def open_page(driver, view):
    server = view.serve()
    server.start()
    driver.get(server.url)
    while not driver.execute_script("return !!document.querySelector('.jaxm2m-live')?.live"):
        time.sleep(0.1)
    return server


def latency(driver, view, moves):
    server = open_page(driver, view)
    driver.execute_async_script(MOVES, 10, 7)
    times = np.concatenate([driver.execute_async_script(MOVES, 25, 11 + i) for i in range(moves // 25)])
    explorer, controls = view._explorer, view.controls
    begin = time.perf_counter()
    for i in range(50):
        explorer.report(controls._replace(x=float(i - 25)))
    computed = (time.perf_counter() - begin) / 50
    row = {
        "moves": len(times),
        "ms, median": float(np.median(times[:, 1])),
        "ms, 95th percentile": float(np.percentile(times[:, 1], 95)),
        "ms, largest": float(times[:, 1].max()),
        "ms until the picture was read back, median": float(np.median(times[:, 0])),
        "ms of drawing alone, median": float(np.median(driver.execute_script(REDRAW))),
        "ms of computing alone": 1e3 * computed,
        "triangles of the cortex": len(view.meshes["cortex"]["triangles"]) // 12,
        "triangles of the scalp": len(view.meshes["scalp"]["triangles"]) // 12,
        "coloured vertices": int(explorer.inside.sum()),
        "muscles": len(view.muscles),
        "WebGL": driver.execute_script(
            "const gl = document.createElement('canvas').getContext('webgl2');"
            "return gl.getParameter(gl.getExtension('WEBGL_debug_renderer_info').UNMASKED_RENDERER_WEBGL)"
        ),
        **memory(driver),
        "errors in the console": count_errors(driver),
    }
    server.close()
    return row


def memory(driver) -> dict:
    """MB of the page's process and of the one that draws for it: what is theirs alone, and their share of the rest."""
    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    heap = driver.execute_script("return performance.memory.usedJSHeapSize") / 1e6
    sizes = {"renderer": 0.0, "gpu-process": 0.0}
    descendants = list_descendants(driver.service.process.pid)
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").split()
            kind = next((w[7:].decode() for w in words if w.startswith(b"--type=")), "")
            if kind not in sizes or int(folder.name) not in descendants:
                continue
            rollup = (folder / "smaps_rollup").read_text()
        except (OSError, UnicodeDecodeError):
            continue
        sizes[kind] = max(
            sizes[kind], next(int(line.split()[1]) for line in rollup.splitlines() if line[:4] == "Pss:") / 1e3
        )
    return {"MB, page": sizes["renderer"], "MB, drawing process": sizes["gpu-process"], "MB, JavaScript": heap}


def list_descendants(pid: int) -> set[int]:
    """Processes that a process started, and those that they started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def python_memory() -> float:
    """Resident size of this process now, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def count_errors(driver) -> int:
    return sum(entry["level"] == "SEVERE" for entry in driver.get_log("browser"))


def moves(driver, view, minutes):
    server = open_page(driver, view)
    driver.execute_async_script(MOVES, 100, 3)
    before, python = memory(driver), python_memory()
    end, rounds = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        driver.execute_async_script(MOVES, 50, 1000 + rounds)
        rounds += 1
    after, errors = memory(driver), count_errors(driver)
    server.close()
    return {
        "minutes": minutes,
        "moves": 50 * rounds,
        "errors in the console": errors,
        "growth of the page, %": 100 * (after["MB, page"] / before["MB, page"] - 1),
        "growth of the drawing process, %": 100 * (after["MB, drawing process"] / before["MB, drawing process"] - 1),
        "growth of JavaScript, %": 100 * (after["MB, JavaScript"] / before["MB, JavaScript"] - 1),
        "growth of Python, %": 100 * (python_memory() / python - 1),
        **after,
    }


def k3d_size() -> dict:
    """Files of k3d that a page loads, MB; ours beside them."""
    folder = Path(jm.__file__).parent / "plot" / "_live" / "page"
    ours = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    spec = find_spec("k3d")
    if spec is None or spec.origin is None:
        return {"MB of this widget's program": ours}
    files = list((Path(spec.origin).parent / "static").rglob("*.js"))
    return {"MB of k3d's program": max(p.stat().st_size for p in files) / 1e6, "MB of this widget's program": ours}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["field", "muscles", "saved", "moves", "k3d"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--moves", type=int, default=300)
    parser.add_argument("--basis", type=Path, help="where the basis is kept; built if it is not there")
    parser.add_argument("--sources", type=Path, help="what was fitted before")
    arguments = parser.parse_args()
    missing = browser.find_missing()
    if missing:
        raise SystemExit(missing)
    if "k3d" in arguments.cases:
        record.write("live", "k3d", k3d_size())
    if set(arguments.cases) <= {"k3d"}:
        return
    case = Case(arguments.basis, arguments.sources)
    with tempfile.TemporaryDirectory() as folder:
        if "field" in arguments.cases:
            with browser.open_browser(Path(folder)) as driver:
                record.write("live", "field", latency(driver, case.view(), arguments.moves))
        if not {"muscles", "saved", "moves"} & set(arguments.cases):
            return
        view = case.view(model=case.sources(), session=case.session, didt=6e7)
        if "muscles" in arguments.cases:
            with browser.open_browser(Path(folder)) as driver:
                record.write("live", "muscles", latency(driver, view, arguments.moves))
        if "saved" in arguments.cases:
            begin = time.perf_counter()
            size = view.save(Path(folder) / "scene.html").stat().st_size / 1e6
            record.write("live", "saved", {"MB": size, "stimuli": view.n_stimulus, "s": time.perf_counter() - begin})
        if "moves" in arguments.cases:
            with browser.open_browser(Path(folder)) as driver:
                record.write("live", "moves", moves(driver, view, arguments.minutes))


if __name__ == "__main__":
    main()
