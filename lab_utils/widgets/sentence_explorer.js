// The quantizer on the whole model: bits, block and zero-point, and the recorded answer and loss at each setting.

const BITS = [2, 3, 4, 6, 8], BLOCKS = ["32", "64", "256", "row"], TICKS = [3, 4, 5, 7, 10, 15, 20];

function render({ model, el }) {
  const view = frame({ model, el, title: "The quantizer, on the whole model" });
  view.root.classList.add("lab-sentences");
  const rows = model.get("rows"), prompts = model.get("prompts"), [first] = rows;
  const blockName = (block) => (block === "row" ? "whole row" : block);
  const blocks = { // a slider over words: the trait keeps the word
    get: (name) => (name === "place" ? BLOCKS.indexOf(model.get("blocksize")) : model.get(name)),
    set: (_, place) => model.set("blocksize", BLOCKS[place]),
    save_changes: () => model.save_changes(),
  };
  const controls = [
    slider({ model, name: "bits", label: "bits", values: BITS }),
    slider({ model: blocks, name: "place", label: "block", values: [0, 1, 2, 3], text: (place) => blockName(BLOCKS[place]) }),
    tick({
      label: "zero-point",
      checked: () => model.get("zero_point"),
      change: (on) => {
        model.set("zero_point", on);
        model.save_changes();
      },
    }),
    choice({ model, name: "asked", label: "question", values: prompts }),
  ];
  view.add(...controls.map((control) => control.root));
  const curve = chart({ label: "loss", xlabel: "bits per weight, constants included", ylabel: "loss, nats per token" });
  const before = node("blockquote", { class: "lab-said", tabindex: "0" }), now = node("blockquote", { class: "lab-said lab-now", tabindex: "0" });
  view.panels.append(
    node("div", { class: "lab-answers" },
      node("div", { class: "lab-who" }, "16 bits answers"), before,
      node("div", { class: "lab-who" }, "rounded, it answers"), now),
    curve.root);
  const visited = new Map();
  view.on(["bits", "blocksize", "zero_point", "asked"], () => {
    controls.forEach((control) => control.show());
    const [bits, blocksize, shifted] = ["bits", "blocksize", "zero_point"].map((name) => model.get(name));
    const one = rows.find((row) => row.bits === bits && row.blocksize === blocksize && row.zero_point === shifted);
    const asked = prompts.indexOf(model.get("asked"));
    before.textContent = first.answers[asked];
    now.textContent = one.answers[asked] || "(nothing)";
    visited.set(`${bits} ${blocksize} ${shifted}`, one);
    const dots = [...visited.values()].filter((row) => row !== one)
      .map((row) => ({ x: row.bits_per_parameter, y: row.loss, kind: "ghost" }));
    curve.draw({
      lines: [{ points: [[2, first.loss], [9.5, first.loss]], kind: "ghost" }],
      marks: [...dots, { x: one.bits_per_parameter, y: one.loss, kind: "blue", text: `${bits} bits: ${one.loss.toFixed(2)}` }],
      x: { low: 2, high: 9.5, ticks: [2, 3, 4, 5, 6, 7, 8, 9] },
      y: { low: 3, high: 20, ticks: TICKS, log: true },
      name: `loss against bits per weight: ${one.loss.toFixed(2)} at ${one.bits_per_parameter.toFixed(2)} bits, the thin line is 16 bits with ${first.loss.toFixed(2)}`,
    });
    const where = blocksize === "row" ? "whole rows" : `blocks of ${blocksize}`;
    view.say(`${bits} bits in ${where}, ${shifted ? "zero-point" : "absmax"}: ${one.bits_per_parameter.toFixed(2)} bits per weight with the constants, `
      + `loss ${one.loss.toFixed(2)} nats per token, ${one.loss_change.toFixed(2)} ± ${one.loss_change_half.toFixed(2)} above 16 bits.`);
  });
  return view.end;
}
export default { render };
