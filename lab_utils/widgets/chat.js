// One message, answered by the base and by every adapter: a column each, in one batch.

function render({ model, el }) {
  const alone = typeof model.send !== "function"; // a page without a kernel
  const id = `lab-message-${++counter}`;
  const clear = node("button", { type: "button" }, "Clear");
  const history = node("div", { class: "lab-history", role: "log", tabindex: 0, "aria-label": "Messages and answers" });
  const input = node("input", { id, type: "text", autocomplete: "off", ...OWN_KEYS });
  const send = node("button", { type: "button", class: "lab-send" }, "Send");
  const form = node("div", { class: "lab-form" }, node("label", { for: id }, "message"), input, send);
  const examples = node("div", { class: "lab-examples" });
  const status = node("p", { class: "lab-summary", role: "status" });
  const root = node("div", { class: "lab-explorer lab-chat", role: "group", "aria-label": "Chat" },
    node("div", { class: "lab-head" }, node("div", { class: "lab-title" }, "One message, every adapter"), clear),
    history, form, examples, status);
  el.replaceChildren(root);

  let sent = ""; // the message that is on its way, or being answered
  const wait = (text) => {
    sent = text;
    send.setAttribute("aria-disabled", Boolean(text)); // not `disabled`: that would take the focus away
    status.textContent = text ? `thinking … “${text}”` : "";
  };
  const ask = (text) => {
    if (sent || alone) return;
    if (!text.trim()) {
      status.textContent = "Type a message first.";
      return input.focus();
    }
    wait(text);
    input.value = "";
    input.focus();
    model.send({ ask: text });
  };
  send.addEventListener("click", () => ask(input.value));
  input.addEventListener("keydown", (event) => { // in JupyterLab, Enter submits no form
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    ask(input.value);
  });
  clear.addEventListener("click", () => {
    if (!alone && !sent) model.send({ clear: true });
    input.focus();
  });

  const turn = ({ message, replies, seconds, error }) => {
    const names = model.get("columns");
    const told = error
      ? node("p", { class: "lab-error" }, error)
      : node("div", { class: "lab-replies" }, ...replies.map((text, index) => node("div", { class: "lab-reply" },
        node("div", { class: "lab-name" }, names[index]),
        node("div", { class: "lab-answer" }, text.trim() ? text : node("i", {}, "(an empty answer)")))));
    return node("section", {},
      node("p", { class: "lab-asked" }, node("b", {}, "You: "), message), told,
      node("p", { class: "lab-seconds" }, error ? "" : `${seconds.toFixed(1)} s for all ${names.length} in one batch`));
  };
  let shown = [];
  const drawTurns = () => {
    const turns = model.get("turns");
    const grown = turns.length > shown.length && shown.every((one, index) => one === JSON.stringify(turns[index]));
    if (!grown) history.replaceChildren(); // a reader's screen is told of new turns only
    history.append(...turns.slice(grown ? shown.length : 0).map(turn));
    shown = turns.map((one) => JSON.stringify(one));
    history.hidden = !turns.length;
    history.scrollTop = history.scrollHeight;
  };
  const drawThinking = () => wait(model.get("thinking"));
  const drawExamples = () => examples.replaceChildren(...model.get("examples").map((text) =>
    node("button", { type: "button", title: "Send this message", click: () => ask(text) }, text)));
  const drawn = { turns: drawTurns, thinking: drawThinking, examples: drawExamples };
  for (const [name, draw] of Object.entries(drawn)) {
    model.on(`change:${name}`, draw);
    draw();
  }
  if (alone) {
    for (const control of [input, send, clear, ...examples.children]) control.disabled = true;
    root.append(node("p", { class: "lab-alone" },
      "These messages were answered when the page was saved. Where Python runs, you can send your own."));
  }
  return () => { for (const [name, draw] of Object.entries(drawn)) model.off(`change:${name}`, draw); };
}
export default { render };
