// Any two settings of a recorded sweep: where they are among all, and their difference with its 95 % intervals.

const signed = (value, digits) => `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(digits)}`;

/** All settings as points, A a blue square and B an orange disc. `pick(index)` is called with the point that was clicked. */
function atlas(settings, pick) {
  const width = 400, height = 266, left = 72, right = 10, top = 12, bottom = 48;
  const root = shape("svg", { class: "lab-chart lab-atlas", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const fixed = shape("g"), moving = shape("g");
  root.append(fixed, moving);
  let places = [], drawn = null;
  const place = (value, low, high, from, to) => from + (to - from) * (Math.log(value) - Math.log(low)) / (Math.log(high) - Math.log(low));
  const draw = (column, name, first, second) => {
    const loss = column === "loss", means = settings.map((one) => average(one[column].flat()));
    if (drawn !== column) {
      drawn = column;
      const px = (trained) => (trained ? place(trained, 4e4, 2e8, left + 50, width - right) : left + 18);
      const py = loss ? (value) => place(value, 0.03, 1.6, height - bottom, top) : (value) => height - bottom - 8 + (top - height + bottom + 16) * value;
      places = settings.map((one, index) => [px(one.trained), py(means[index])]);
      const ticksY = loss ? [0.03, 0.1, 0.3, 1] : [0, 0.25, 0.5, 0.75, 1];
      fixed.replaceChildren(
        ...ticksY.flatMap((tick) => [shape("line", { class: "grid", x1: left, x2: width - right, y1: py(tick), y2: py(tick) }),
          shape("text", { x: left - 7, y: py(tick) + 5, "text-anchor": "end" }, loss ? String(tick) : `${100 * tick} %`)]),
        ...[[0, "0"], [1e5, "0.1M"], [1e6, "1M"], [1e7, "10M"], [1e8, "100M"]].map(([value, text]) =>
          shape("text", { x: px(value), y: height - bottom + 20, "text-anchor": "middle" }, text)),
        shape("text", { x: (left + width) / 2, y: height - 8, "text-anchor": "middle" }, "trained numbers"),
        shape("text", { transform: `translate(15 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, `${name}, mean`),
        ...places.map(([a, b]) => shape("circle", { class: "mark ghost", cx: a, cy: b, r: 5 })));
    }
    const [a, b] = [places[first - 1], places[second - 1]];
    moving.replaceChildren(
      shape("rect", { class: "mark blue", x: a[0] - 9, y: a[1] - 9, width: 18, height: 18 }),
      shape("circle", { class: "mark orange", cx: b[0], cy: b[1], r: 8 }));
    root.setAttribute("aria-label", `All settings by trained numbers and ${name}; A is number ${first}, B number ${second}`);
  };
  root.addEventListener("click", (event) => {
    const box = root.getBoundingClientRect(), factor = width / box.width;
    const at = [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
    const far = places.map(([a, b]) => Math.hypot(a - at[0], b - at[1])), least = Math.min(...far);
    if (least < 30) pick(far.indexOf(least));
  });
  return { root, draw };
}

/** Three intervals around zero, with the seeds' own differences as dots. */
function intervals() {
  const width = 400, height = 266, left = 14, right = 14, bottom = 48;
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const draw = ({ rows, xlabel, digits }) => {
    const ends = [0, ...rows.flatMap(({ low, high, seeds }) => [low, high, ...seeds])], pad = (Math.max(...ends) - Math.min(...ends)) / 14 || 0.01;
    const low = Math.min(...ends) - pad, high = Math.max(...ends) + pad;
    const px = (value) => left + (width - left - right) * (value - low) / (high - low), parts = [];
    for (const tick of roundTicks(low, high)) {
      parts.push(shape("line", { class: "grid", x1: px(tick), x2: px(tick), y1: 8, y2: height - bottom }),
        shape("text", { x: px(tick), y: height - bottom + 20, "text-anchor": "middle" }, signed(tick, Math.max(0, digits - 2)).replace(/^[+-](0(\.0+)?)$/, "$1")));
    }
    parts.push(shape("line", { class: "zero", x1: px(0), x2: px(0), y1: 8, y2: height - bottom }),
      shape("text", { x: width / 2, y: height - 8, "text-anchor": "middle" }, xlabel));
    rows.forEach(({ label, mean, low: from, high: to, clear, seeds, judged }, index) => {
      const y = 50 + 78 * index, look = clear ? "" : " open";
      parts.push(shape("text", { class: "over", x: left, y: y - 22 }, label),
        shape("text", { class: "note over", x: width - right, y: y - 22, "text-anchor": "end" }, judged ? (clear ? "clear" : "not clear") : ""),
        shape("path", { class: `interval${judged ? " judged" : ""}`, d: `M${px(from)} ${y}H${px(to)}M${px(from)} ${y - 8}v16M${px(to)} ${y - 8}v16` }),
        ...seeds.map((value) => shape("circle", { class: "mark ghost", cx: px(value), cy: y + 14, r: 4.5 })),
        shape("circle", { class: `mean${look}`, cx: px(mean), cy: y, r: 7 }));
    });
    root.replaceChildren(...parts);
    root.setAttribute("aria-label", `${xlabel}, with 95 % intervals: ${rows.map(({ label, clear, judged }) => label + (judged ? (clear ? ", clear" : ", not clear") : "")).join("; ")}`);
  };
  return { root, draw };
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Any two settings" });
  const settings = model.get("settings"), students = model.get("students"), qualities = model.get("qualities");
  const places = settings.map((_, index) => index + 1), seen = new Set();
  const controls = [
    slider({ model, name: "first", label: "A", values: places }), slider({ model, name: "second", label: "B", values: places }),
    choice({ model, name: "quality", label: "compare", values: Object.keys(qualities) }),
  ];
  view.add(...controls.map((control) => control.root));
  const key = node("div", { class: "lab-key lab-pair" }), looks = node("p", { class: "lab-looks" });
  const map = atlas(settings, (index) => {
    model.set("second", index + 1);
    model.save_changes();
  });
  const bars = intervals();
  view.panels.append(node("div", { class: "lab-plot" }, map.root), node("div", { class: "lab-plot" }, bars.root));
  view.panels.before(key);
  view.panels.after(looks);

  view.on(["first", "second", "quality"], () => {
    controls.forEach((control) => control.show());
    const first = model.get("first"), second = model.get("second"), quality = model.get("quality");
    const [column, factor, digits] = qualities[quality], [a, b] = [settings[first - 1], settings[second - 1]];
    const rows = b[column].map((row, run) => row.map((value, set) => factor * (value - a[column][run][set])));
    const of = (sets) => judge(rows.map((row) => sets.map((set) => row[set])), students);
    const [validation, test, both] = [of([0]), of([1]), of([0, 1])];
    key.replaceChildren(node("span", { class: "blue" }, `■ A: ${a.name}`), node("span", { class: "orange" }, `● B: ${b.name}`));
    map.draw(column, quality, first, second);
    bars.draw({ digits, xlabel: `${quality}, B minus A${factor === 100 ? ", points of 100" : ", nats per token"}`, rows: [
      { ...validation, label: "validation messages, over seeds", seeds: rows.map(([value]) => value), judged: false },
      { ...test, label: "test messages, over seeds", seeds: rows.map(([, value]) => value), judged: false },
      { ...both, label: "over seeds and both sets of messages", seeds: [], judged: true },
    ] });
    if (first !== second) seen.add([Math.min(first, second), Math.max(first, second), quality].join());
    const chance = Math.min(100, 5 * seen.size);
    looks.textContent = seen.size < 2 ? "A 95 % interval misses the truth in 1 of 20 comparisons: how many you look at is counted here."
      : `Looked at so far: ${seen.size} comparisons. `
      + (chance < 100 ? `If nothing differed, the chance of at least one "clear" is up to ${chance} %.`
        : `If nothing differed, about ${Math.round(seen.size / 20)} would still come out "clear".`);
    const range = ({ mean, low, high }) => `${signed(mean, digits)} (${signed(low, digits)} to ${signed(high, digits)})`;
    view.say(`Setting ${second} (${b.name}) minus ${first} (${a.name}), ${quality}: validation ${range(validation)}, test ${range(test)}; `
      + `over seeds and both sets ${range(both)}: ${both.clear ? "clear" : "not clear"}.`);
  });
  return view.end;
}
export default { render };
