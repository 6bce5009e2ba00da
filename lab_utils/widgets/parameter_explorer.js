// One layer of a model, to scale: each matrix an area, B along its left side and A along its top. Area is what is trained.

const RANKS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];
const WIDTH = 880, TALL = 185, LABELS = 40; // of the drawing, in its own units

/** Share as a percentage with three significant digits, never rounded to nothing. */
const share = (part, total) => `${Number((100 * part / total).toPrecision(3))} %`;

/** Where each matrix lies: { one, x, y, wide, tall, unit }; `unit` is the length of one number's side. */
function places(modules) {
  const tallest = Math.max(...modules.map((one) => one.out)), room = RANKS.at(-1); // for the thickest A and B
  const gap = Math.max(0.1 * tallest, 1.15 * room);
  const span = modules.reduce((sum, one) => sum + one.in + gap, 0);
  const unit = Math.min(WIDTH / span, TALL / (tallest + room));
  let x = gap * unit;
  return modules.map((one) => {
    const place = { one, x, y: room * unit, wide: one.in * unit, tall: one.out * unit, unit };
    x += (one.in + gap) * unit;
    return place;
  });
}

function render({ model, el }) {
  const view = frame({ model, el, title: "A layer, drawn to scale" });
  const records = Object.fromEntries(model.get("architectures").map((one) => [one.name, one]));
  const which = choice({ model, name: "model", label: "model", values: Object.keys(records) });
  const rank = slider({ model, name: "rank", label: "rank", values: RANKS });
  view.add(which.root, rank.root, node("span", { class: "lab-key" }, node("span", { class: "blue" }, "■ B"),
    node("span", { class: "orange" }, "■ A"), node("span", {}, "grey: W")));
  const drawing = shape("svg", { viewBox: `0 0 ${WIDTH} ${TALL + LABELS}`, role: "img" }), parts = node("div", { class: "lab-parts" });
  view.panels.append(node("div", { class: "lab-layer" }, drawing), parts);

  let shown = "", lines = [];
  const chosen = (one) => model.get("targets").some((name) => name === one.name || name === one.group);
  const put = (one, on) => {
    model.set("targets", lines.filter((line) => (line.one === one ? on : chosen(line.one))).map((line) => line.one.name));
    model.save_changes();
  };
  /** One line and one rectangle a matrix. */
  const build = () => {
    shown = model.get("model");
    drawing.replaceChildren();
    lines = places(records[shown].modules).map(({ one, x, y, wide, tall, unit }) => {
      const target = tick({ label: one.name, checked: () => chosen(one), change: (on) => put(one, on) });
      const count = node("span");
      const weight = shape("rect", { class: "weight", x, y, width: wide, height: tall });
      weight.addEventListener("click", () => put(one, !chosen(one)));
      const B = shape("rect", { class: "side-b", y, height: tall }), A = shape("rect", { class: "side-a", x, width: wide });
      const words = one.name.split(".").map((word, index) =>
        shape("text", { x: x + wide / 2, y: y + tall + 15 * (index + 1), "text-anchor": "middle" }, word));
      drawing.append(weight, B, A, ...words);
      return { one, x, y, unit, target, count, A, B };
    });
    const { unit } = lines[0], length = 10 ** Math.floor(Math.log10(0.3 * WIDTH / unit));
    const right = WIDTH - 8, left = right - length * unit;
    drawing.append(shape("line", { class: "ruler", x1: left, x2: right, y1: TALL + LABELS - 22, y2: TALL + LABELS - 22 }),
      shape("text", { x: right, y: TALL + LABELS - 4, "text-anchor": "end" }, `${whole(length)} numbers long`));
    const layers = records[shown].n_layers;
    parts.replaceChildren(...lines.map(({ one, target, count }) => node("div", { class: "lab-part" }, target.root,
      node("span", {}, one.count > layers ? `${whole(one.count / layers)} ×` : ""), count)));
  };
  view.on(["model", "rank", "targets"], () => {
    if (shown !== model.get("model")) build();
    which.show();
    rank.show();
    if (!lines.some(({ one }) => chosen(one)) && model.get("targets").length) { // the targets of another model
      model.set("targets", ["attention", "mlp"]);
      return model.save_changes();
    }
    const r = model.get("rank"), { total } = records[shown];
    let trained = 0, dearest = null;
    for (const { one, x, y, unit, target, count, A, B } of lines) {
      const on = chosen(one), numbers = r * one.ranks * (one.out + one.in), thick = on ? Math.max(r * one.ranks * unit, 1) : 0;
      target.show();
      if (on) trained += numbers * one.count;
      const beside = numbers / (one.out * one.in);
      if (on && (!dearest || beside > dearest.beside)) dearest = { name: one.name, beside };
      count.textContent = on ? `${whole(numbers)}, ${share(numbers, one.out * one.in)} of W` : "frozen";
      for (const [name, value] of [["x", x - thick], ["width", thick]]) B.setAttribute(name, value);
      for (const [name, value] of [["y", y - thick], ["height", thick]]) A.setAttribute(name, value);
    }
    drawing.setAttribute("aria-label", `the matrices of one layer of ${shown}, to scale, with B and A of rank ${r}: `
      + lines.map(({ one }) => `${one.name} ${one.out} × ${one.in}`).join(", "));
    view.say(`${shown}, rank ${r}: ${whole(trained)} of ${whole(total)} numbers trained (${share(trained, total)}) in all layers. `
      + (dearest ? `Beside its own matrix ${dearest.name} has the largest B and A: ${share(dearest.beside, 1)}.` : "No matrix is chosen."));
  });
  return view.end;
}
export default { render };
