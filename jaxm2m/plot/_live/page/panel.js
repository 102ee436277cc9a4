// Beside the picture: sliders, numbers, bars of muscles, buttons, kept poses, the recorded session.

const SLIDERS = [
  // name of the trait, words, unit, step, shown as value / unit
  ["x", "across", "mm", 0.5, 1],
  ["y", "along", "mm", 0.5, 1],
  ["turn", "turn", "°", 1, 1],
  ["tilt_x", "tilt about x", "°", 0.5, 1],
  ["tilt_y", "tilt about y", "°", 0.5, 1],
  ["distance", "distance", "mm", 0.25, 1],
  ["didt", "intensity", "A/µs", 0.1, 1e6],
];

function element(parent, kind, attributes = {}, text = "") {
  const node = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

function makePanel(parent, model, act) {
  const sliders = {};
  const box = element(parent, "div", { class: "sliders" });
  const ranges = model.get("ranges");
  for (const [name, words, unit, step, scale] of SLIDERS) {
    const label = element(box, "label");
    element(label, "span", {}, words);
    const [low, high] = ranges[name].map((v) => v / scale);
    const fine = scale === 1 ? step : Math.max((high - low) / 200, 1e-3);
    const shared = { min: low, max: high, step: fine, "aria-label": `${words} (${unit})` };
    const slider = element(label, "input", { type: "range", ...shared, "data-name": name });
    const number = element(label, "input", { type: "number", ...shared, step: "any" });
    element(label, "span", { class: "unit" }, unit);
    slider.addEventListener("input", () => act.move({ [name]: scale * +slider.value }));
    number.addEventListener("change", () => {
      if (Number.isFinite(number.valueAsNumber)) act.move({ [name]: scale * clamp(number.valueAsNumber, low, high) });
    });
    sliders[name] = { slider, number, scale };
  }

  const choice = element(element(box, "label"), "select", { "aria-label": "colours of the cortex" });
  element(choice, "option", { value: "magnitude" }, "colour: |E|, the magnitude");
  element(choice, "option", { value: "normal" }, "colour: E along the cortex' normal");
  choice.addEventListener("change", () => act.move({ component: choice.value }));

  const buttons = element(parent, "div", { class: "buttons" });
  const button = (name, text, title) => {
    const node = element(buttons, "button", { type: "button", title, "data-name": name }, text);
    node.addEventListener("click", () => act.press(name));
    return node;
  };
  button("climb", "climb", "A few steps of the placement search (C)");
  button("reset", "reset", "Back to the start (R)");
  button("keep", "keep", "Add this pose to the list (K)");
  if (model.get("has_loop")) button("next", "next stimulus", "Where the next stimulus tells most (N)");

  const hide = element(buttons, "button", { type: "button", title: "Look under the coil (H)", "aria-pressed": "false", "data-name": "hide" }, "hide coil");
  hide.addEventListener("click", () => act.toggle());

  const table = element(parent, "table", { class: "numbers" });
  const cells = {};
  for (const [name, words] of [
    ["mean", "mean |E| in target"],
    ["percentile", "95th percentile"],
    ["better", "gain by moving"],
    ["clearance", "casing to scalp"],
    ["error", "error of basis"],
  ]) {
    const row = element(table, "tr");
    element(row, "td", {}, words);
    cells[name] = element(row, "td");
  }
  const bars = element(parent, "div", { class: "bars" });
  let largest = 50;
  const kept = element(parent, "div", { class: "kept" });

  // `wanted`: what a hand has moved on meanwhile
  function showControls(wanted) {
    for (const [name, { slider, number, scale }] of Object.entries(sliders)) {
      if (name in wanted) continue;
      const value = model.get(name) / scale;
      slider.value = value;
      if (document.activeElement !== number) number.value = +value.toPrecision(4);
    }
    choice.value = model.get("component");
  }

  function showAnswer(answer) {
    const put = (name, text, bad = false) => {
      cells[name].textContent = text;
      cells[name].classList.toggle("bad", bad);
    };
    const volts = (v) => (Number.isFinite(v) ? `${v.toPrecision(4)} V/m` : "not known");
    put("mean", volts(answer.mean));
    put("percentile", volts(answer.percentile));
    put("better", answer.gradient && answer.mean > 0 ? describeGradient(answer) : "–");
    const lifted = answer.shift > 0.01 ? `, lifted by ${answer.shift.toFixed(1)} mm` : "";
    put("clearance", Number.isFinite(answer.clearance) ? `${minus(answer.clearance.toFixed(1))} mm${lifted}` : "no casing");
    const share = `${(100 * answer.error).toPrecision(2)} %`;
    if (!Number.isFinite(answer.error)) put("error", answer.covered ? "solved in full" : "not covered", !answer.covered);
    else put("error", answer.covered ? share : `${share}: not covered`, !answer.covered);
    showBars(answer);
  }

  function showBars(answer) {
    const muscles = model.get("muscles");
    bars.replaceChildren();
    if (!muscles.length) return;
    const [mean, low, high] = answer.meps.length ? answer.meps : [[], [], []];
    const dots = answer.recorded ?? [];
    // the scale grows and never shrinks, so that bars of two poses compare
    largest = Math.max(largest, ...[...high, ...dots].filter(Number.isFinite));
    element(bars, "div", { class: "title" }, titleBars(answer, mean.length > 0));
    muscles.forEach((name, i) => {
      const row = element(bars, "div", { class: "bar" });
      element(row, "span", { class: "name" }, name);
      const track = element(row, "span", { class: "track" });
      const at = (v) => `${(100 * clamp(v / largest, 0, 1)).toFixed(2)}%`;
      if (Number.isFinite(mean[i])) {
        element(track, "i", { class: "mean", style: `width:${at(mean[i])}` });
        element(track, "i", { class: "interval", style: `left:${at(low[i])};width:${at(high[i] - low[i])}` });
      }
      if (Number.isFinite(dots[i])) element(track, "i", { class: "dot", style: `left:${at(dots[i])}` });
      const value = Number.isFinite(mean[i]) ? mean[i] : dots[i];
      element(row, "span", { class: "value" }, Number.isFinite(value) ? String(Math.round(value)) : "–");
    });
  }

  const titleBars = (answer, predicted) =>
    (predicted ? "mean MEP (µV), line: 90 % sure" : "MEP (µV)") + (answer.recorded ? ", dot: recorded" : "");

  function showKept() {
    const list = model.get("kept");
    kept.replaceChildren();
    if (!list.length) return;
    const row = element(kept, "div", { class: "chips" });
    list.forEach((pose, i) => {
      const value = Number.isFinite(pose.mean) ? `${pose.mean.toPrecision(3)} V/m` : "no field";
      const chip = element(row, "button", { type: "button", title: "Go to this pose" }, `${pose.name}: ${value}`);
      chip.addEventListener("click", () => act.press("go", { index: i }));
      if (!model.get("offline")) {
        const away = element(row, "button", { type: "button", class: "away", title: `Remove ${pose.name}`, "aria-label": `Remove ${pose.name}` }, "×");
        away.addEventListener("click", () => act.press("remove", { index: i }));
      }
    });
    const files = element(kept, "div", { class: "buttons" });
    for (const [format, words] of Object.entries(model.get("formats"))) {
      const node = element(files, "button", { type: "button", "data-format": format, title: `Export all kept poses: ${words}` }, words);
      node.addEventListener("click", () => act.press("export", { format }));
    }
  }

  // a saved page: nothing moves the coil
  function disable() {
    parent.querySelectorAll(".sliders input").forEach((node) => (node.disabled = true));
    buttons.querySelectorAll("button").forEach((node) => (node.hidden = node !== hide));
  }
  const showHidden = (hidden) => {
    hide.textContent = hidden ? "show coil" : "hide coil";
    hide.setAttribute("aria-pressed", String(hidden));
  };
  return { showControls, showAnswer, showKept, showHidden, disable };
}

// what a mm along the arrow and a degree of turn bring, in percent of the value
function describeGradient(answer) {
  const [gx, gy, gt] = answer.gradient;
  const value = answer.value || answer.mean;
  const move = (100 * Math.hypot(gx, gy)) / Math.abs(value);
  const turn = (100 * gt) / Math.abs(value);
  const side = turn >= 0 ? "+1°" : "\u22121°";
  return `${move.toFixed(2)} %/mm, ${Math.abs(turn).toFixed(2)} % by ${side}`;
}

function makeScrubber(parent, model, act) {
  const n = model.get("n_stimulus");
  if (!n) return { update() {} };
  const row = element(parent, "label", { class: "scrubber" });
  const words = element(row, "span", {}, "recorded session");
  const slider = element(row, "input", { type: "range", min: 0, max: n, step: 1, "data-name": "stimulus", "aria-label": "stimulus of the recorded session" });
  slider.addEventListener("input", () => act.move({ stimulus: +slider.value }));
  const update = () => {
    const i = model.get("stimulus");
    slider.value = i;
    words.textContent = i ? `stimulus ${i} of ${n}` : `recorded session: ${n} stimuli`;
  };
  update();
  return { update };
}
