// Recorded fine-tunes: single seeds as small marks, means with their standard errors as large ones, setting by setting.

const SHAPES = [ // around (0, 0), one a colour, so that nothing is told by colour alone
  "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0 -2 0z", "M-.9 -.9h1.8v1.8h-1.8z", "M0 -1.15L1.1 .85H-1.1z", "M0 -1.25L1.25 0L0 1.25L-1.25 0z",
  "M0 1.15L1.1 -.85H-1.1z", "M-.4 -1.1h.8v.7h.7v.8h-.7v.7h-.8v-.7h-.7v-.8h.7z", "M-1.2 -.5h2.4v1h-2.4z",
];
const compact = (value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : String(value));
/** Numbers first, by size, then texts. */
const compare = (a, b) => (typeof a === typeof b ? (a > b) - (a < b) : typeof a === "string" ? 1 : -1);

/** Mean, standard error with n − 1 (null for one value) and number of `values`. */
function meanAndError(values) {
  const n = values.length, mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, error: n > 1 ? Math.sqrt(squares / (n - 1) / n) : null, n };
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** As `sweep_points.group` does it: runs that differ in nothing but their seed, together. */
function group({ runs, names, axis: [column, freeX], x, colour, fixed }) {
  const free = [...freeX, colour], found = new Map();
  const number = free.includes("alpha") && (x === "alpha" || !free.includes("rank"));
  const is = (run, name) => (name === "alpha" ? run.alpha.includes(fixed.alpha) : run[name] === fixed[name]);
  for (const run of runs) {
    if (!names.every((name) => free.includes(name) || is(run, name))) continue;
    const rules = number ? [run.alpha_over_r] : free.includes("alpha") ? run.alpha : [fixed.alpha];
    for (const rule of rules) {
      const settings = Object.fromEntries(names.map((name) => [name, name === "alpha" ? rule : run[name]]));
      const key = JSON.stringify(settings);
      if (!found.has(key)) found.set(key, { settings, runs: [] });
      found.get(key).runs.push(run);
    }
  }
  const points = [...found.values()];
  for (const point of points) point.x = median(point.runs.map((run) => run[column]));
  const inOrder = (a, b) => names.reduce((sign, name) => sign || compare(a.settings[name], b.settings[name]), a.x - b.x);
  return points.sort(inOrder);
}

/** About five round numbers from low to high. */
function roundTicks(low, high) {
  const rough = (high - low) / 4 || 1, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough * 0.999);
  const from = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - from + 1 }, (_, index) => Number(((from + index) * step).toPrecision(6)));
}

/** 1, 2 and 5 times powers of ten from low to high, or the powers alone if that is enough. */
function logTicks(low, high) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of [1, 2, 5]) all.push(Number((factor * 10 ** power).toPrecision(3)));
  }
  const inside = all.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  const powers = inside.filter((tick) => String(tick).replace(/[0.]/g, "") === "1");
  return powers.length >= 3 ? powers : inside;
}

/** The scatter plot. `draw` builds it, `ring` moves the ring around one point, `near` finds the point below the pointer. */
function scatter() {
  const width = 900, height = 400, left = 84, right = 20, top = 16, bottom = 56;
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const around = shape("circle", { class: "around", r: 11, visibility: "hidden" });
  let places = [];
  const scale = (axis, from, to) => {
    const map = axis.log ? Math.log : (value) => value, low = map(axis.low), span = map(axis.high) - low || 1;
    return (value) => from + (to - from) * (map(value) - low) / span;
  };
  const draw = ({ x, y, xlabel, ylabel, series, levels }) => {
    const px = scale(x, left, width - right), py = scale(y, height - bottom, top), parts = [];
    for (const tick of y.ticks) {
      parts.push(shape("line", { class: "grid", x1: left, x2: width - right, y1: py(tick), y2: py(tick) }),
        shape("text", { x: left - 8, y: py(tick) + 5, "text-anchor": "end" }, y.text(tick)));
    }
    for (const tick of x.ticks) {
      parts.push(shape("line", { class: "axis", x1: px(tick), x2: px(tick), y1: height - bottom, y2: height - bottom + 6 }),
        shape("text", { x: px(tick), y: height - bottom + 23, "text-anchor": "middle" }, x.text(tick)));
    }
    parts.push(shape("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
      shape("text", { x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, xlabel),
      shape("text", { transform: `translate(16 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, ylabel));
    for (const { value, text, below } of levels) {
      parts.push(shape("line", { class: "level", x1: left, x2: width - right, y1: py(value), y2: py(value) }),
        shape("text", { class: "over", x: width - right, y: py(value) + (below ? 18 : -7), "text-anchor": "end" }, text));
    }
    places = [];
    for (const { points, look, joined } of series) {
      const color = `var(--lab-${look % 7})`, [bars, seeds, means] = ["", "", ""].map(() => []), outline = SHAPES[look % 7];
      for (const { x: at, mean, error, all } of points) {
        const a = px(at).toFixed(1), b = py(mean).toFixed(1);
        places.push([Number(a), Number(b)]);
        if (error) {
          const ends = [mean + error, Math.max(mean - error, y.log ? y.low : -Infinity)].map((value) => py(value).toFixed(1));
          bars.push(`M${a} ${ends[0]}V${ends[1]}`, ...ends.map((end) => `M${a - 6} ${end}h12`));
        }
        for (const [seedX, seedY] of all) seeds.push([px(seedX), py(seedY), 3.2]);
        means.push([Number(a), Number(b), 6]);
      }
      if (joined) {
        parts.push(shape("polyline", { class: "line", style: `stroke: ${color}; stroke-width: 1.5; opacity: .7`,
          points: means.map(([a, b]) => `${a},${b}`).join(" ") }));
      }
      const put = (marks, style) => marks.map(([a, b, size]) =>
        shape("path", { d: outline, style, transform: `translate(${a.toFixed(1)} ${b.toFixed(1)}) scale(${size})` }));
      parts.push(shape("path", { d: bars.join("") || "M0 0", style: `stroke: ${color}; stroke-width: 2.5; fill: none` }),
        ...put(seeds, `fill: ${color}; opacity: .5`), ...put(means, `fill: ${color}`));
    }
    root.replaceChildren(...parts, around);
  };
  const ring = (index) => {
    around.setAttribute("visibility", places[index] ? "visible" : "hidden");
    if (places[index]) around.setAttribute("transform", `translate(${places[index].join(" ")})`);
  };
  /** Index of the mean that is nearest to the pointer, or −1 if none is close. */
  const near = (event) => {
    const box = root.getBoundingClientRect(), factor = width / box.width;
    const at = [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
    const far = places.map(([a, b]) => Math.hypot(a - at[0], b - at[1])), least = Math.min(...far);
    return least < 40 ? far.indexOf(least) : -1;
  };
  return { root, draw, ring, near };
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Sweep explorer" });
  const runs = model.get("runs"), others = model.get("others"), centre = model.get("centre"), values = model.get("values");
  const axes = model.get("axes"), qualities = model.get("qualities"), names = Object.keys(values);
  let points = [], drawn = []; // in the order of the slider, and in that of the plot
  const controls = [
    slider({ model, name: "at", label: "point", values: () => Array.from({ length: Math.max(1, points.length) }, (_, i) => i + 1) }),
    choice({ model, name: "x", label: "x", values: Object.keys(axes) }),
    choice({ model, name: "y", label: "y", values: Object.keys(qualities) }),
    choice({ model, name: "colour", label: "colour by", values: model.get("colours") }),
  ];
  const levels = tick({ label: "full fine-tune and prompts", checked: () => model.get("references"), change: (on) => {
    model.set("references", on);
    model.save_changes();
  } });
  const held = node("div", { class: "lab-held" }), selects = {}, words = (name, value) => (name === "alpha" ? `α = ${value}` : String(value));
  for (const name of names) {
    const id = `lab-held-${++counter}`, options = values[name].map((value, index) => node("option", { value: index }, words(name, value)));
    const select = node("select", { id, ...OWN_KEYS }, ...options), root = node("div", { class: "lab-control" }, node("label", { for: id }, name), select);
    select.addEventListener("change", () => {
      const chosen = values[name][Number(select.value)], { [name]: _, ...rest } = model.get("held");
      model.set("held", chosen === centre[name] ? rest : { ...rest, [name]: chosen });
      model.save_changes();
    });
    selects[name] = { root, select, options };
  }
  view.add(...controls.map((control) => control.root), levels.root, held);
  const plot = scatter(), key = node("div", { class: "lab-key" });
  view.panels.append(node("div", { class: "lab-plot lab-wide" }, plot.root));
  view.panels.after(key);
  plot.root.addEventListener("pointermove", (event) => {
    const index = plot.near(event), at = index < 0 ? 0 : points.indexOf(drawn[index]) + 1;
    if (!at || at === model.get("at")) return;
    model.set("at", at);
    model.save_changes();
  });

  const fixed = () => ({ ...centre, ...model.get("held") });
  const find = (held) => group({ runs, names, axis: axes[model.get("x")], x: model.get("x"), colour: model.get("colour"), fixed: held });
  const text = (value, digits = 4) => (model.get("y").endsWith("loss") ? value.toFixed(digits) : (100 * value).toFixed(1));
  const unit = () => (model.get("y").endsWith("loss") ? "" : " %");
  const range = ({ mean, error, n }) => (error === null ? `${text(mean)}${unit()}, one seed`
    : `${text(mean)} ± ${text(error)}${unit()}, ${n} seeds`);
  const setting = (one) => `${one.base}, ${one.layers}, r = ${one.rank}, α = ${one.alpha}, lr ${one["learning rate"]}, `
    + `${one.examples} examples, dropout ${one.dropout}`;

  const build = () => {
    const x = model.get("x"), y = model.get("y"), column = qualities[y], [columnX, freeX, log] = axes[x], colour = model.get("colour");
    points = find(fixed());
    for (const point of points) {
      Object.assign(point, meanAndError(point.runs.map((run) => run[column])), { all: point.runs.map((run) => [run[columnX], run[column]]) });
    }
    const free = [...new Set([...freeX, colour])].filter((name) => names.includes(name));
    const apart = free.includes(colour) && x !== colour, joined = free.length - (apart ? 1 : 0) === 1;
    const kinds = apart ? [...new Set(points.map((point) => point.settings[colour]))].sort(compare) : [null];
    const look = (kind, index) => (apart && values[colour].includes(kind) ? values[colour].indexOf(kind) : index);
    const series = kinds.map((kind, index) => ({ joined, look: look(kind, index),
      points: points.filter((point) => !apart || point.settings[colour] === kind) }));
    drawn = series.flatMap((one) => one.points);
    const lines = model.get("references") ? others.map(({ name, runs: rows }) => ({ name, ...meanAndError(rows.map((run) => run[column])) })) : [];
    const seen = [...points.flatMap((point) => point.all.map(([, value]) => value)), ...lines.map((line) => line.mean)];
    const middle = median(points.map((point) => point.mean)), low = Math.min(...seen), high = Math.max(...seen), xs = points.map((point) => point.x);
    const [lowX, highX] = points.length ? [Math.min(...xs), Math.max(...xs)] : [1, 2];
    const lower = ({ mean }) => y.endsWith("loss") && (mean < middle || lines.some((other) => other.mean > mean)); // its label goes below
    const steep = y.endsWith("loss") && low > 0 && high > 4 * low;
    const yAxis = !y.endsWith("loss") ? { low: -0.06, high: 1.03, ticks: [0, 0.25, 0.5, 0.75, 1], text: (value) => `${100 * value} %` }
      : steep ? { low: low / 1.4, high: high * 1.3, log: true, ticks: logTicks(low / 1.4, high * 1.3), text: String }
        : { low: low - (high - low) / 8, high: high + (high - low) / 8 || 1, ticks: roundTicks(low, high), text: String };
    const pad = log ? Math.max((highX / lowX) ** 0.06, 1.2) : 1, room = log ? 0 : (highX - lowX) / 12 || 1;
    const xAxis = { low: lowX / pad - room, high: highX * pad + room, log: Boolean(log), text: compact };
    xAxis.ticks = !log ? roundTicks(xAxis.low, xAxis.high) : x === "trained numbers" ? logTicks(xAxis.low, xAxis.high) : [...new Set(xs)];
    plot.draw({ x: xAxis, y: yAxis, xlabel: x, ylabel: y, series, 
      levels: lines.map((line) => ({ value: line.mean, below: lower(line), text: `${line.name}: ${range(line)}` })) });
    const legend = apart ? series.map(({ look }, index) => node("span", {}, shape("svg", { width: 18, height: 18, viewBox: "-1.5 -1.5 3 3" },
      shape("path", { d: SHAPES[look % 7], style: `fill: var(--lab-${look % 7})` })), `${colour === "alpha" ? "α = " : ""}${kinds[index]}`)) : [];
    key.replaceChildren(...legend, node("span", {}, "small: one seed · large: mean ± standard error"));
    plot.root.setAttribute("aria-label", `${y} against ${x}: ${points.length} points`);
    held.replaceChildren(node("span", {}, "Held at:"), ...names.filter((name) => !free.includes(name)).map((name) => {
      const { root, select, options } = selects[name], now = fixed();
      select.value = values[name].indexOf(now[name]);
      options.forEach((option, index) => {
        const some = find({ ...now, [name]: values[name][index] }).length;
        option.textContent = `${words(name, values[name][index])}${some || Number(select.value) === index ? "" : " (no run)"}`;
      });
      return root;
    }));
  };
  const walk = () => {
    controls[0].show();
    const at = Math.min(model.get("at"), points.length), point = points[at - 1], x = model.get("x");
    plot.ring(drawn.indexOf(point));
    if (!point) return view.say(`0 runs with ${[...held.querySelectorAll("label")].map(({ textContent: name }) => `${name} ${fixed()[name]}`).join(", ")}.`);
    const trained = point.runs[0].trainable_parameters, seconds = median(point.runs.map((run) => run.training_cpu_seconds));
    view.say(`Point ${at} of ${points.length}: ${setting(point.settings)}: ${model.get("y")} ${range(point)}; `
      + `${whole(trained)} trained numbers, ${whole(seconds)} CPU s of training.`);
  };
  view.on(["x", "y", "colour", "held", "references"], () => {
    controls.forEach((control) => control.show());
    levels.show();
    const focused = document.activeElement; // a select that is inserted again would lose it
    build();
    if (held.contains(focused)) focused.focus();
    if (model.get("at") > Math.max(1, points.length)) {
      model.set("at", Math.max(1, points.length));
      model.save_changes();
    }
    walk();
  });
  view.on(["at"], walk);
  return view.end;
}
export default { render };
