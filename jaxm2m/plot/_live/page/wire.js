// State out of octets: a length, JSON of that length, then the binary parts that the JSON names by offset and length.

function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const content = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const revive = (value) => {
    if (Array.isArray(value)) return value.map(revive);
    if (value === null || typeof value !== "object") return value;
    if ("$binary" in value) return new DataView(buffer, 4 + length + value.$binary[0], value.$binary[1]);
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, revive(inner)]));
  };
  return revive(content);
}

// what the widget needs of a model: get, set, save_changes, send, on, off
function makeModel(state, { save = () => {}, send = () => {} }) {
  const listeners = {};
  let pending = {};
  const model = {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      pending[name] = value;
    },
    save_changes() {
      const changes = pending;
      pending = {};
      save(changes);
    },
    send,
    on: (name, listener) => (listeners[name] ??= []).push(listener),
    off: (name, listener) => (listeners[name] = (listeners[name] ?? []).filter((other) => other !== listener)),
    fire: (name, ...details) => (listeners[name] ?? []).forEach((listener) => listener(...details)),
    receive(changes) {
      Object.assign(state, changes);
      for (const name of Object.keys(changes)) model.fire(`change:${name}`);
    },
  };
  return model;
}
