// Memory over the time of one training step, part by part, against a card. Everything is computed here, by memory_estimate.js.

const LENGTHS = [128, 256, 512, 1024, 2048, 4096, 8192];
const PARTS = ["weights", "adapter", "optimizer", "gradients", "activations", "transients"];
const NAMES = ["model", "method", "gpu", "rank", "batch_size", "sequence_length", "checkpointing", "moments"];
const PRICE_WORDS = {
  gradient_checkpointing: "checkpointing", batch_size: "batch", method: "method", moments: "Adam's moments",
  sequence_length: "tokens",
};
const WIDE = 940, HIGH = 246, LEFT = 62, RIGHT = 16, TOP = 26, BOTTOM = 44;
const three = (value) => String(Number(value.toPrecision(3)));
const hundredths = (value) => value.toFixed(value < 10 ? 2 : 1);
const inGib = (bytes) => three(bytes / 2 ** 30);

/** Round numbers from 0 up to `high`, four to six of them. */
function ticksTo(high) {
  const rough = high / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= rough);
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, index) => Number((index * step).toPrecision(6)));
}

/** The picture: an area for each part, stacked; the peak; the card's room as a line, if it is near enough. */
function memoryPicture() {
  const root = shape("svg", { class: "lab-chart lab-memory", viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
  /** Draw the moments of a step; `room` in bytes. */
  const draw = (moments, room, label) => {
    const totals = moments.map((one) => together(one.parts)), most = Math.max(...totals);
    const near = room < 2.5 * most, high = (near ? Math.max(1.12 * room, 1.12 * most) : 1.3 * most) / 2 ** 30;
    const last = moments.at(-1).at, floor = HIGH - BOTTOM;
    const x = (at) => LEFT + (WIDE - LEFT - RIGHT) * at / last, y = (bytes) => floor - (floor - TOP) * bytes / 2 ** 30 / high;
    const point = (at, bytes) => `${x(at).toFixed(1)},${y(bytes).toFixed(1)}`;
    const below = moments.map(() => 0), areas = [];
    PARTS.forEach((part, index) => {
      const lower = moments.map((one, i) => point(one.at, below[i]));
      moments.forEach((one, i) => { below[i] += one.parts[part]; });
      const upper = moments.map((one, i) => point(one.at, below[i]));
      areas.push(shape("polygon", { class: `lab-part-${index}`, points: [...upper, ...lower.reverse()].join(" ") }));
    });
    const grid = ticksTo(high).flatMap((tick) => [
      shape("line", { class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: y(tick * 2 ** 30), y2: y(tick * 2 ** 30) }),
      shape("text", { x: LEFT - 8, y: y(tick * 2 ** 30) + 5, "text-anchor": "end" }, String(tick)),
    ]);
    const spans = ["forward", "backward", "optimizer"].map((phase) => moments.filter((one) => one.phase === phase));
    const names = spans.flatMap((own, index) => {
      const from = index ? own[0].at : 0, to = spans[index + 1]?.[0].at ?? last, edge = x(from).toFixed(1);
      const name = ["forward pass", "backward pass", "optimizer"][index];
      const place = index === 2 ? { x: WIDE - RIGHT, "text-anchor": "end" } : { x: x((from + to) / 2), "text-anchor": "middle" };
      const text = shape("text", { ...place, y: floor + 18 }, name);
      return index ? [shape("line", { class: "drop", x1: edge, x2: edge, y1: TOP, y2: floor + 8 }), text] : [text];
    });
    const peak = totals.indexOf(most), at = moments[peak].at, left = at < last / 2;
    const note = shape("text", { class: "note over", x: x(at) + (left ? 12 : -12), y: Math.max(y(most) - 9, 16), "text-anchor": left ? "start" : "end" },
      `peak ${inGib(most)} GiB`);
    const corner = left ? { x: WIDE - RIGHT - 4, "text-anchor": "end" } : { x: LEFT + 6, "text-anchor": "start" };
    const card = near
      ? [shape("line", { class: "lab-card", x1: LEFT, x2: WIDE - RIGHT, y1: y(room), y2: y(room) }),
        shape("text", { class: "note over", ...corner, y: y(room) - 6 }, `room on the card ${inGib(room)} GiB`)]
      : [shape("text", { class: "note", ...corner, y: 16 }, `↑ room on the card ${inGib(room)} GiB`)];
    root.replaceChildren(...grid, ...areas, ...names, ...card,
      shape("circle", { class: "mark lab-peak", cx: x(at), cy: y(most), r: 6 }), note,
      shape("text", { x: (LEFT + WIDE) / 2, y: HIGH - 6, "text-anchor": "middle" }, "one step, in order (widths are multiplications, not seconds)"),
      shape("text", { transform: `translate(14 ${(TOP + floor) / 2}) rotate(-90)`, "text-anchor": "middle" }, "GiB"));
    root.setAttribute("aria-label", label);
  };
  return { root, draw };
}

/** What changes of the settings would do, in one sentence. */
function changesInWords(changes, room) {
  if (!changes.length) return "No setting here makes it fit: take a smaller model or a larger card.";
  const words = ({ argument, old, new: value, total }) =>
    `${PRICE_WORDS[argument]}${argument === "gradient_checkpointing" ? " on" : ` ${old} → ${value}`} (${inGib(total)} GiB)`;
  const enough = changes.at(-1).total <= room ? "" : " Then it still does not fit: take a smaller model or a larger card.";
  return `What to change, in this order: ${changes.map(words).join(", ")}.${enough}`;
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Memory over one training step" });
  const records = Object.fromEntries(model.get("records").map((one) => [one.name, one])), rooms = model.get("rooms");
  const switched = (name, on, off) => ({
    checked: () => model.get(name) === on,
    change: (now) => {
      model.set(name, now ? on : off);
      model.save_changes();
    },
  });
  const controls = [
    choice({ model, name: "model", label: "model", values: Object.keys(records) }),
    choice({ model, name: "method", label: "method", values: ["full", "lora", "qlora"] }),
    choice({ model, name: "gpu", label: "card", values: Object.keys(rooms) }),
    slider({ model, name: "rank", label: "rank", values: [1, 2, 4, 8, 16, 32, 64, 128] }),
    slider({ model, name: "batch_size", label: "batch", values: [1, 2, 4, 8, 16, 32, 64] }),
    slider({ model, name: "sequence_length", label: "tokens", values: LENGTHS }),
    tick({ label: "gradient checkpointing", ...switched("checkpointing", true, false) }),
    tick({ label: "8-bit Adam", ...switched("moments", "8bit", "float32") }),
  ];
  view.add(...controls.map((control) => control.root));
  view.root.classList.add("lab-budget");
  const drawing = memoryPicture(), key = node("div", { class: "lab-key lab-parts-key" });
  const amounts = PARTS.map((part, index) => {
    const amount = node("b");
    key.append(node("span", {}, node("span", { class: `lab-swatch lab-part-${index}` }), `${part} `, amount));
    return amount;
  });
  key.prepend(node("span", {}, "GiB at the peak:"));
  view.panels.append(node("div", { class: "lab-plot lab-wide" }, drawing.root), key);
  const changed = node("p", { class: "lab-advice" });
  view.root.append(changed);
  view.on(NAMES, () => {
    controls.forEach((control) => control.show());
    const record = records[model.get("model")], room = rooms[model.get("gpu")];
    const [method, checkpointing] = [model.get("method"), model.get("checkpointing")];
    const settings = {
      method, rank: model.get("rank"), batch_size: model.get("batch_size"), sequence_length: model.get("sequence_length"),
      moments: model.get("moments"), gradient_checkpointing: checkpointing, device: "cuda",
    };
    const one = estimate(record, settings), total = totalBytes(one), parts = peakParts(one), fits = total <= room;
    const shape = `batch ${settings.batch_size} of ${settings.sequence_length} tokens`;
    PARTS.forEach((part, index) => { amounts[index].textContent = hundredths(parts[part] / 2 ** 30); });
    const when = parts.gradients ? "ends" : "begins";
    drawing.draw(timeline(one, method, checkpointing), room,
      `Memory over one step of ${record.name}, ${method}: peak ${inGib(total)} GiB as the backward pass ${when}; room on the card ${inGib(room)} GiB`);
    view.say(`${record.name}, ${method}, rank ${settings.rank}, ${shape}: ${inGib(total)} GiB of ${inGib(room)} GiB on ${model.get("gpu")}, `
      + `at the peak, as the backward pass ${when}: ${fits ? "it fits" : "it does not fit"}.`);
    changed.textContent = fits ? "" : changesInWords(advice(record, settings, room), room);
  });
  return view.end;
}
export default { render };
