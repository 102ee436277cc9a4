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
  const model = makeModel(first.state, {
    save: (changes) => ask("update", changes).catch(lost),
    send: (message) => ask("message", message).catch(lost),
  });
  render({ model, el: root });
  let version = first.version;
  for (;;) {
    try {
      const next = unpack(await ask(`changes?after=${version}`));
      version = next.version;
      model.receive(next.state);
      for (const message of next.messages) model.fire("msg:custom", message.content, message.buffers);
    } catch (error) {
      lost(error);
      return;
    }
  }
}

serve();
