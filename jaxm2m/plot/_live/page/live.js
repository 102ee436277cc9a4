// The widget: state of the model to picture and panel, hands to the model. One request at a time; the latest wins.

const CONTROLS = ["x", "y", "turn", "tilt_x", "tilt_y", "distance", "didt"];

function render({ model, el }) {
  const meshes = model.get("meshes");
  const root = element(el, "div", { class: "jaxm2m-live" });
  const stage = element(root, "div", { class: "stage" });
  const canvas = element(stage, "canvas", { tabindex: "0", "aria-label": "head, cortex, field and coil; drag turns, the coil can be dragged" });
  const over = element(stage, "canvas", { class: "over" });
  const status = element(stage, "div", { class: "status", role: "status" });
  const side = element(root, "div", { class: "side" });
  const scene = makeScene(canvas, meshes);
  if (!scene) {
    stage.replaceChildren();
    element(stage, "p", {}, "This browser has no WebGL2: here is the figure that stands still. Turn on hardware acceleration, or use another browser.");
    const still = element(stage, "img", { alt: "the coil over the head" });
    const show = () => (still.src = URL.createObjectURL(new Blob([bytes(model.get("still"))], { type: "image/png" })));
    if (model.get("still")?.byteLength) show();
    else {
      model.on("change:still", show);
      model.send({ type: "still" });
    }
  }
  const look = meshes.look;
  const camera = makeCamera(look.towards, look.centre, look.span);
  const turned = () => turnFrame(model.get("answer"));
  let sent = model.get("request"); // a page that is opened again goes on counting
  let busy = false;
  let wanted = null;
  let frame = 0;
  let timer = 0;

  let hidden = false;
  const act = {
    toggle() {
      hidden = !hidden;
      panel.showHidden(hidden);
      paint();
    },
    move(changes) {
      if (model.get("offline") && !("stimulus" in changes) && !("component" in changes)) return;
      const held = CONTROLS.some((name) => name in changes);
      wanted = { ...wanted, ...(held ? { stimulus: 0 } : {}), ...changes };
      if (!busy) send();
    },
    press(type, more = {}) {
      if (type !== "keep" && type !== "export" && type !== "remove") status.textContent = type === "go" ? "" : `${type} …`;
      model.send({ type, ...more });
    },
  };

  function send() {
    busy = true;
    sent += 1;
    for (const [name, value] of Object.entries(wanted)) model.set(name, value);
    wanted = null;
    model.set("request", sent);
    model.save_changes();
    // an answer that never comes must not stop the next one
    clearTimeout(timer);
    timer = setTimeout(() => (busy = false), 5000);
  }

  function receive() {
    const answer = model.get("answer");
    if (answer.request === sent && busy) {
      busy = false;
      clearTimeout(timer);
    }
    scene?.setField(floats(model.get("field")));
    panel.showControls(wanted ?? {});
    panel.showAnswer(answer);
    scrubber.update();
    status.textContent = answer.message ?? "";
    status.classList.toggle("bad", !answer.covered);
    cancelAnimationFrame(frame);
    drawNow();
    if (wanted && !busy) send();
  }

  function paint() {
    if (!frame) frame = requestAnimationFrame(drawNow);
  }

  function drawNow() {
    frame = 0;
    const answer = model.get("answer");
    const component = model.get("component");
    const limit = model.get("limit");
    const range = component === "normal" ? [-limit, limit] : [0, limit];
    const refused = !answer.covered || answer.clearance < -0.1;
    if (scene) scene.draw(camera, answer.pose, { component, range, refused, hidden, scalp: [look.alpha, 0.42] });
    drawOverlay(over, camera, {
      answer: { ...answer, turned: turned() },
      hidden, target: meshes.target, letters: look.letters, limits: range, above: answer.highest > limit,
      label: component === "normal" ? "E along the outward normal (V/m)" : "|E| in grey matter (V/m)",
      table: bytes(meshes.luts[component]),
    });
    root.dispatchEvent(new CustomEvent("drawn", { detail: { request: answer.request } }));
  }

  const resize = () => {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const { clientWidth, clientHeight } = stage;
    if (!clientWidth) return;
    [camera.width, camera.height] = [clientWidth, clientHeight];
    for (const c of [canvas, over]) [c.width, c.height] = [Math.round(ratio * clientWidth), Math.round(ratio * clientHeight)];
    drawNow();
  };

  const panel = makePanel(side, model, act);
  const scrubber = makeScrubber(stage, model, act);
  hold(canvas, camera, act, () => ({ ...model.get("answer"), model }), paint);
  const keys = (event) => pressKey(event, model, act, camera, paint);
  canvas.addEventListener("keydown", keys);
  const listeners = [
    ["change:answer", receive],
    ["change:kept", () => panel.showKept()],
    ["change:limit", paint],
    ["msg:custom", (message, buffers) => message.type === "file" && download(message.name, buffers[0])],
  ];
  for (const [name, listener] of listeners) model.on(name, listener);
  panel.showKept();
  if (model.get("offline")) panel.disable();
  const observer = new ResizeObserver(resize);
  observer.observe(stage);
  receive();
  // for tests, and for whoever wants to link more to it
  root.live = { scene, camera, act, model, paint, drawNow, idle: () => !busy && !wanted && !frame };
  return () => {
    observer.disconnect();
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    for (const [name, listener] of listeners) model.off(name, listener);
    scene?.free();
  };
}

// the coil's own axes on the scalp: those of its pose, with the scalp point as their origin
function turnFrame(answer) {
  const pose = answer.pose;
  return [pose[0], pose[1], pose[2], 0, pose[4], pose[5], pose[6], 0, pose[8], pose[9], pose[10], 0, 0, 0, 0, 1];
}

// a pointer that begins on the coil moves it over the scalp (with Alt turns it), elsewhere it turns the view
function hold(canvas, camera, act, state, paint) {
  let grip = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const { model, pose, frame } = state();
    const [cx, cy] = camera.project(poseColumn(pose, 3));
    const on = Math.hypot(event.offsetX - cx, event.offsetY - cy) < 42 * camera.scale() && !event.shiftKey;
    const free = !model.get("offline");
    grip = { x: event.offsetX, y: event.offsetY, coil: on && event.button === 0 && free, alt: event.altKey, pan: event.shiftKey || event.button === 1 };
    grip.start = { x: model.get("x"), y: model.get("y"), turn: model.get("turn") };
    grip.frame = frame;
    grip.centre = [cx, cy];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!grip) return;
    const [dx, dy] = [event.offsetX - grip.x, event.offsetY - grip.y];
    if (grip.coil && grip.alt) {
      const angle = (x, y) => Math.atan2(y - grip.centre[1], x - grip.centre[0]);
      // seen from outside, z into the head: to the right is a positive turn
      let change = ((angle(event.offsetX, event.offsetY) - angle(grip.x, grip.y)) * 180) / Math.PI;
      if (dot(poseColumn(grip.frame, 2), camera.axes().towards) > 0) change = -change;
      act.move({ turn: wrap(grip.start.turn + change) });
    } else if (grip.coil) {
      const { right, up } = camera.axes();
      const [ax, ay] = [poseColumn(grip.frame, 0), poseColumn(grip.frame, 1)];
      const s = camera.scale();
      const [a, b, c, d] = [s * dot(ax, right), s * dot(ay, right), -s * dot(ax, up), -s * dot(ay, up)];
      const det = a * d - b * c;
      if (Math.abs(det) < 0.05 * s * s) return;
      const limit = (v) => clamp(v, -60, 60);
      act.move({ x: limit(grip.start.x + (d * dx - b * dy) / det), y: limit(grip.start.y + (a * dy - c * dx) / det) });
    } else {
      if (grip.pan) camera.pan(dx, dy);
      else camera.turn(dx, dy);
      [grip.x, grip.y] = [event.offsetX, event.offsetY];
      paint();
    }
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => (grip = null));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    camera.zoom(Math.exp(0.001 * event.deltaY));
    paint();
  }, { passive: false });
}

const wrap = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;

function pressKey(event, model, act, camera, paint) {
  const step = event.shiftKey ? 5 : 1;
  const add = (name, by) => {
    const [low, high] = model.get("ranges")[name];
    const value = model.get(name) + by;
    act.move({ [name]: name === "turn" ? wrap(value) : clamp(value, low, high) });
  };
  const actions = {
    ArrowLeft: () => add("x", -step), ArrowRight: () => add("x", step),
    ArrowUp: () => add("y", step), ArrowDown: () => add("y", -step),
    "[": () => add("turn", -2 * step), "]": () => add("turn", 2 * step),
    PageUp: () => add("distance", step), PageDown: () => add("distance", -step),
    "+": () => (camera.zoom(0.9), paint()), "-": () => (camera.zoom(1 / 0.9), paint()),
    c: () => act.press("climb"), r: () => act.press("reset"), k: () => act.press("keep"),
    n: () => model.get("has_loop") && act.press("next"),
    h: () => act.toggle(),
  };
  const action = actions[event.key];
  if (!action || event.ctrlKey || event.metaKey || (model.get("offline") && !"+-h".includes(event.key))) return;
  event.preventDefault();
  event.stopPropagation();
  action();
}

function download(name, data) {
  const url = URL.createObjectURL(new Blob([bytes(data)]));
  const link = element(document.body, "a", { href: url, download: name });
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export default { render };
