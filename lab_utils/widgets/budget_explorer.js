// A training step's gigabytes, part by part, against a GPU's. Python estimates; the bars are drawn here.

const LENGTHS = [128, 256, 512, 1024, 2048, 4096, 8192];
const gib = (bytes) => `${Number((bytes / 2 ** 30).toPrecision(3))} GiB`;

function render({ model, el }) {
  const view = frame({ model, el, title: "Memory budget" });
  const controls = [
    choice({ model, name: "model", label: "model", values: model.get("models") }),
    choice({ model, name: "method", label: "method", values: ["full", "lora", "qlora"] }),
    choice({ model, name: "gpu", label: "GPU", values: model.get("gpus") }),
    slider({ model, name: "rank", label: "rank", values: [1, 2, 4, 8, 16, 32, 64, 128] }),
    slider({ model, name: "batch_size", label: "batch", values: [1, 2, 4, 8, 16, 32, 64] }),
    slider({ model, name: "sequence_length", label: "tokens", values: LENGTHS }),
    tick({
      label: "gradient checkpointing",
      checked: () => model.get("checkpointing"),
      change: (on) => {
        model.set("checkpointing", on);
        model.save_changes();
      },
    }),
  ];
  view.add(...controls.map((control) => control.root));
  const table = node("table", { class: "lab-table" }), advice = node("ul", { class: "lab-advice" });
  view.panels.append(table);
  view.panels.after(advice);
  rest({ model, view, controls, what: "it answers" });
  view.on(["model", "method", "gpu", "rank", "batch_size", "sequence_length", "checkpointing"],
    () => controls.forEach((control) => control.show()));
  view.on(["budget"], () => {
    const { parts, total, room, changes } = model.get("budget"), most = Math.max(total, room);
    const row = (name, bytes, kind) => node("tr", {},
      node("th", { scope: "row" }, name), node("td", {}, gib(bytes)),
      node("td", { class: "lab-bars" }, node("span", { class: `lab-bar ${kind}`, style: `width: ${(420 * bytes / most).toFixed(0)}px` })));
    table.replaceChildren(
      node("caption", { class: "lab-hidden" }, "Memory of a training step, by part"),
      ...Object.entries(parts).map(([name, bytes]) => row(name, bytes, "")),
      row("together", total, total > room ? "over" : ""), row("room on the GPU", room, "room"));
    advice.replaceChildren(...changes.map((text) => node("li", {}, text)));
    const fits = total <= room;
    const shape = `batch ${model.get("batch_size")} of ${model.get("sequence_length")} tokens`;
    view.say(`${model.get("model")}, ${model.get("method")}, ${shape}: ${gib(total)} of ${gib(room)}: ${fits ? "it fits" : "it does not fit"}.`
      + (fits ? "" : changes.length ? " What helps, in this order, is listed above." : " Nothing here helps but a smaller model or a larger GPU."));
  });
  return view.end;
}
export default { render };
