// What a variant of LoRA freezes and trains, how many numbers that is, and what its update looks like, step by step.

const WORDS = { trained: "trained", frozen: "frozen", moves: "moves without gradient" };

/** W and the factors beside it, each by its state: filled is trained, hatched is frozen, dashed moves. Returns { root, draw }. */
function diagram() {
  const width = 430, height = 210, hatch = `lab-hatch-${++counter}`;
  const pattern = shape("pattern", { id: hatch, width: 9, height: 9, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    shape("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 9 }));
  const parts = shape("g");
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" }, shape("defs", {}, pattern), parts);
  const places = { // x, y, width, height; lower case letters are vectors
    m: [16, 40, 12, 120], W: [56, 40, 120, 120], b: [212, 40, 12, 120], B: [236, 40, 34, 120], d: [282, 40, 34, 12], A: [282, 64, 120, 34],
  };
  const draw = ({ title, parts: states, name }) => {
    const drawn = Object.entries(states).flatMap(([part, state]) => {
      const [x, y, w, h] = places[part], box = { x, y: part === "A" && !states.d ? 40 : y, width: w, height: h };
      const label = part === "W" && name === "pissa" ? "W − B₀A₀" : part;
      return [
        shape("rect", { ...box, class: state }), ...(state === "frozen" ? [shape("rect", { ...box, fill: `url(#${hatch})` })] : []),
        shape("text", { x: x + w / 2, y: part === "A" || part === "d" ? box.y + (part === "d" ? -8 : h + 20) : 30, "text-anchor": "middle", class: "note" }, label),
      ];
    });
    const key = Object.entries(WORDS).flatMap(([state, text], index) => {
      const box = { x: [10, 118, 222][index], y: 184, width: 18, height: 18 };
      return [shape("rect", { ...box, class: state }), ...(state === "frozen" ? [shape("rect", { ...box, fill: `url(#${hatch})` })] : []),
        shape("text", { x: box.x + 25, y: 198 }, text)];
    });
    parts.replaceChildren(shape("text", { x: 193, y: 107, "text-anchor": "middle", class: "note" }, "+"), ...drawn, ...key);
    root.setAttribute("aria-label", `${title}: ${Object.entries(states).map(([part, state]) => `${part} ${WORDS[state]}`).join(", ")}`);
  };
  return { root: node("div", { class: "lab-plot" }, root), draw };
}

/** A table of all variants' counts with bars; the chosen one in bold. Returns { root, draw }. */
function table(records) {
  const head = node("th", {}, "trained"), rows = {}, body = node("tbody");
  for (const { name, title } of records) {
    const count = node("td"), bar = node("span", { class: "lab-bar" });
    rows[name] = { row: node("tr", {}, node("th", { scope: "row" }, title), count, node("td", { class: "lab-bars" }, bar)), count, bar };
    body.append(rows[name].row);
  }
  const root = node("table", { class: "lab-table" }, node("thead", {}, node("tr", {}, node("th", {}, "variant"), head, node("th", {}, "side by side"))), body);
  const draw = (counts, chosen) => {
    const largest = Math.max(...Object.values(counts));
    for (const [name, { row, count, bar }] of Object.entries(rows)) {
      count.textContent = whole(counts[name]);
      bar.style.width = `${Math.max(1, 150 * counts[name] / largest).toFixed(0)}px`;
      row.classList.toggle("lab-chosen", name === chosen);
    }
  };
  return { root, draw };
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Variant explorer" });
  const records = Object.fromEntries(model.get("records").map((one) => [one.name, one])), layers = model.get("layers");
  const { rows, columns, scale, steps, norm, values, negligible, ...task } = model.get("task"), size = rows * columns;
  const target = decode(task.target).map((value) => value * scale), length = (numbers) => Math.hypot(...numbers);
  const wanted = length(target), counts = model.get("counts"), updates = {}, errors = {};
  for (const { name, updates: text } of Object.values(records)) {
    const all = decode(text).map((value) => value * scale);
    updates[name] = Array.from({ length: steps + 1 }, (_, step) => all.subarray(step * size, (step + 1) * size));
    errors[name] = updates[name].map((update) => length(update.map((value, i) => target[i] - value)) / wanted);
  }
  const controls = [
    choice({ model, name: "variant", label: "variant", values: Object.keys(records) }),
    slider({ model, name: "step", label: "training step", values: Array.from({ length: steps + 1 }, (_, step) => step) }),
    choice({ model, name: "layer", label: "layer", values: Object.keys(layers) }),
    slider({ model, name: "rank", label: "rank", values: model.get("ranks") }),
  ];
  view.add(...controls.map((control) => control.root));
  const parts = diagram(), list = table(model.get("records")), story = node("p", { class: "lab-story" });
  const pictures = ["the target", "ΔW", "what is missing"].map((caption) => picture({ caption, width: 130 }));
  const spectrum = chart({ label: "singular values", xlabel: "number of the singular value", ylabel: "singular value", width: 460, height: 230 });
  const curve = chart({ label: "distance to the target", xlabel: "training step", ylabel: "missing", width: 860, height: 180 });
  view.panels.append(parts.root, list.root, story, ...pictures.map((one) => one.root), spectrum.root, curve.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", { class: "blue" }, "━ this variant"),
    node("span", {}, "thin grey: the target's singular values; the other variants")));
  const limit = 3 * wanted / Math.sqrt(size), missing = new Float32Array(size);
  const highest = Math.max(1, ...Object.values(errors).flat()), most = Math.max(...Object.values(records).flatMap((one) => one.values.map((all) => all[0])));
  pictures[0].paint(target, rows, columns, limit, { label: "the target" });

  view.on(["variant", "layer", "rank"], () => {
    const one = records[model.get("variant")], now = counts[model.get("layer")][model.get("rank")];
    parts.draw(one);
    list.draw(now, one.name);
    story.replaceChildren(node("b", {}, `${one.title}, ${one.published}. `), `${one.rule}. Trains: ${one.trains}. Saves: ${one.saves}.`);
  });
  view.on(["variant", "step", "layer", "rank"], () => {
    controls.forEach((control) => control.show());
    const one = records[model.get("variant")], step = model.get("step"), update = updates[one.name][step], error = errors[one.name][step];
    for (let i = 0; i < size; i++) missing[i] = target[i] - update[i];
    pictures[1].paint(update, rows, columns, limit, { label: `ΔW, step ${step}` });
    pictures[2].paint(missing, rows, columns, limit, { label: "what is missing" });
    const mine = one.values[step], points = (all) => all.map((value, index) => [index + 1, value]);
    const rank = mine[0] ? mine.filter((value) => value > negligible * mine[0]).length : 0;
    spectrum.draw({
      name: `singular values of ΔW: rank ${rank}`,
      x: { low: 1, high: columns, ticks: [1, 4, 8, 12, 16] }, y: { low: 0, high: most, ticks: [0, most / 2, most], text: (tick) => tick.toFixed(1) },
      lines: [{ points: points(values), kind: "ghost" }, { points: points(mine), kind: "blue" }],
    });
    const line = (name, kind) => ({ points: errors[name].map((value, index) => [index, value]), kind });
    curve.draw({
      name: `${percent(error)} of the target is missing at step ${step}`,
      x: { low: 0, high: steps, ticks: [0, 10, 20, 30, 40] }, y: { low: 0, high: highest, ticks: [0, 0.5, 1], text: (tick) => `${100 * tick} %` },
      lines: [...Object.keys(records).filter((name) => name !== one.name).map((name) => line(name, "ghost")), line(one.name, "blue")],
      marks: [{ x: step, y: error, kind: "blue", text: percent(error) }],
    });
    const [out, into] = layers[model.get("layer")], count = counts[model.get("layer")][model.get("rank")][one.name];
    view.say(`${one.title}: ${whole(count)} numbers are trained in a layer of ${model.get("layer")} at r = ${model.get("rank")} `
      + `(${percent(count / (out * into), 2)} of it); step ${step} on the small matrix with r = ${one.small_rank}: ΔW is ${percent(length(update) / norm)} of W, `
      + `its rank is ${rank}, it misses the target by ${percent(error)}.`);
  });
  return view.end;
}
export default { render };
