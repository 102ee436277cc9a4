// The page of `jaxm2m live`: the widget's model over fetch.

const token = new URLSearchParams(location.search).get("token") ?? "";

async function ask(path, body) {
  const answer = await fetch(`${path}${path.includes("?") ? "&" : "?"}token=${encodeURIComponent(token)}`, {
    method: body === undefined ? "GET" : "POST",
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.arrayBuffer();
}

async function serve() {
  const root = document.getElementById("live");
  const first = unpack(await ask("state"));
  const lost = (error) => {
    const status = root.querySelector(".status");
    status.textContent = `jaxm2m live has stopped (${error.message}); start it again.`;
    status.classList.add("bad");
  };
  let version = first.version;
  const take = (content) => {
    if (content.version <= version) return; // it came the other way already
    version = content.version;
    model.receive(content.state);
    for (const message of content.messages) model.fire("msg:custom", message.content, message.buffers);
  };
  // a move is answered at once; what Python does by itself comes by the question below
  const model = makeModel(first.state, {
    save: (changes) => ask(`update?after=${version}`, changes).then((buffer) => take(unpack(buffer))).catch(lost),
    send: (message) => ask("message", message).catch(lost),
  });
  render({ model, el: root });
  for (;;) {
    try {
      take(unpack(await ask(`changes?after=${version}`)));
    } catch (error) {
      lost(error);
      return;
    }
  }
}

serve();
