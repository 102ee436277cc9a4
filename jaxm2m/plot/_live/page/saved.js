// A saved scene: the widget's model without Python, over stored poses and stimuli.

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// vertices are stored as shares of their box, fields as shares of their largest value
function widen({ low, step, steps }) {
  const values = new Uint16Array(aligned(steps));
  return new DataView(Float32Array.from(values, (v, i) => low[i % 3] + v * step).buffer);
}

function widenField(stored, component) {
  const { steps, largest } = stored[component];
  const values = component === "normal" ? new Int8Array(aligned(steps)) : view8(steps);
  const most = component === "normal" ? 127 : 255;
  return new DataView(Float32Array.from(values, (v) => (stored.covered ? (v / most) * largest : NaN)).buffer);
}

async function open() {
  const state = unpack(await inflate(document.getElementById("state").textContent));
  for (const mesh of Object.values(state.meshes)) if (mesh?.vertices?.steps) mesh.vertices = widen(mesh.vertices);
  const { stored } = state;
  let current = stored.start;
  const model = makeModel(state, {
    save(changes) {
      if ("stimulus" in changes) current = changes.stimulus ? stored.session[changes.stimulus - 1] : stored.start;
      display();
    },
    send(message) {
      if (message.type === "go") {
        current = stored.kept[message.index];
        state.stimulus = 0;
        display();
      }
    },
  });
  const pick = () => ({ answer: { ...current.answer, request: state.request }, field: widenField(current.field, state.component) });
  const display = () => {
    Object.assign(state, current.controls ?? {});
    model.receive({ field: pick().field, answer: pick().answer });
  };
  Object.assign(state, pick());
  render({ model, el: document.getElementById("live") });
}

open();
