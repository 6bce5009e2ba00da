// W on the levels of one format, W + ΔW, and what another format stores for it; and what arrives of ΔW at every size.

const SHOWN = 32; // weights that are drawn: they share one set of levels in every format
const TOP = 1.5; // largest share that is drawn
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
const float = Math.fround, scratch = new Float32Array(1), pattern = new Uint32Array(scratch.buffer);

/** float32 numbers that were bfloat16, from their upper 16 bits. */
function widen(text) {
  const high = new Uint16Array(bytes(text)), bits = new Uint32Array(high.length);
  for (let i = 0; i < high.length; i++) bits[i] = high[i] << 16;
  return new Float32Array(bits.buffer);
}

/** Round a float32 below 2²² to the nearest whole number, halves to the even one: above 2²³ float32 has no room for more. */
const even = (value) => float(float(value + 12582912) - 12582912);

/** The nearest float16 of a float32, halves to the even one. */
function half(value) {
  scratch[0] = value;
  const exponent = ((pattern[0] >>> 23) & 255) - 127, step = 2 ** (Math.max(exponent, -14) - 10);
  const steps = Math.abs(value) / step, low = Math.floor(steps), rest = steps - low; // all exact in float64
  const count = low + (rest > 0.5 || (rest === 0.5 && low % 2) ? 1 : 0);
  return (value < 0 ? -1 : 1) * count * step;
}

/** Of `size` values from `from` on: the smallest, the largest, and the first one of largest size. */
function ends(values, from, size) {
  let low = values[from], high = low, far = low;
  for (let i = from + 1; i < from + size; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
    if (Math.abs(values[i]) > Math.abs(far)) far = values[i];
  }
  return { low, high, far, absmax: Math.abs(far) };
}

/**
 * name -> { size, fit }: `fit(ends)` of a block of `size` weights gives { code, value, levels }, functions from a weight to its
 * code and from a code to what it means, and the codes' range. All in float32, in the order in which Python computes.
 */
function makeFormats(tables) {
  const inverse = (step) => (step === 0 ? 0 : float(1 / step));
  const table = (numbers) => {
    const code = Float32Array.from(numbers), middles = Float32Array.from(code.slice(1), (v, i) => float(v + code[i]) / 2);
    const field = (value) => Math.max(0, Math.min(511, Math.floor(256 * (value + 1))));
    const lowest = Uint8Array.from({ length: 512 }, (_, at) => middles.filter((middle) => field(middle) < at).length);
    return { size: 64, fit: ({ absmax }) => {
      const scale = float(1 / Math.max(absmax, 1e-38));
      return {
        code: (weight) => {
          const share = float(weight * scale);
          let index = lowest[field(share)];
          while (index < 15 && share > middles[index]) index++;
          return index;
        },
        value: (index) => float(code[index] * absmax), range: [0, 15],
      };
    } };
  };
  const clamp = (value) => Math.max(0, Math.min(15, Math.trunc(value)));
  return {
    NF4: table(tables.NF4),
    FP4: table(tables.FP4),
    int8: { size: 64, fit: ({ absmax }) => ({
      code: (weight) => even(float(float(weight / (absmax || 1)) * 127)), // as torch.round
      value: (code) => float(float(code / 127) * absmax), range: [-127, 127],
    }) },
    Q4_0: { size: 32, fit: ({ far }) => {
      const step = float(far / -8), by = inverse(step), stored = half(step);
      return { code: (weight) => clamp(float(float(weight * by) + 8.5)), value: (code) => float(stored * (code - 8)), range: [0, 15] };
    } },
    Q4_1: { size: 32, fit: ({ low, high }) => {
      const step = float(float(high - low) / 15), by = inverse(step), stored = half(step), lowest = half(low);
      return {
        code: (weight) => clamp(float(float(float(weight - low) * by) + 0.5)),
        value: (code) => float(float(stored * code) + lowest), range: [0, 15],
      };
    } },
    Q8_0: { size: 32, fit: ({ absmax }) => {
      const step = float(absmax / 127), by = inverse(step), stored = half(step);
      return {
        code: (weight) => {
          const share = float(weight * by), size = Math.abs(share), below = Math.floor(size);
          return Math.sign(share) * (below + Math.floor(2 * (size - below)));
        },
        value: (code) => float(stored * code), range: [-127, 127],
      };
    } },
    float16: { size: 64, fit: () => ({ code: half, value: (code) => code, range: null }) },
  };
}

/** Round `values` to a format: fill `codes` and `floats`. */
function roundAll({ size, fit }, values, codes, floats) {
  for (let from = 0; from < values.length; from += size) {
    const { code, value } = fit(ends(values, from, size));
    for (let i = from; i < from + size; i++) {
      codes[i] = code(values[i]);
      floats[i] = value(codes[i]);
    }
  }
}

/** The levels that the weights from `from` on can be stored at; none are drawn for 16 bits. */
function levelsOf({ size, fit }, values, from) {
  const { value, range } = fit(ends(values, from, size));
  return range ? Array.from({ length: range[1] - range[0] + 1 }, (_, index) => value(range[0] + index)) : [];
}

/** Three rows: W, W + ΔW, what is stored; a line for each weight. Returns { root, draw }. */
function rows3(label) {
  const width = 860, height = 142, left = 150, right = 20, levels = [16, 54, 92];
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const names = ["W", "W + ΔW", "stored"].map((name, row) =>
    shape("text", { x: left - 14, y: levels[row] + 5, "text-anchor": "end" }, name));
  const steps = shape("path", { class: "line ghost" });
  const same = shape("path", { class: "line blue", style: "stroke-width: 1.5; opacity: .75" });
  const moved = shape("path", { class: "line orange", style: "stroke-width: 3" });
  const ticks = [-1, -0.5, 0, 0.5, 1].map((share) => shape("text", { y: height - 28, "text-anchor": "middle" }, String(share)));
  const title = shape("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "weight / largest of them");
  root.append(...names, steps, same, moved, ...ticks, title);
  /** `values` are three arrays of weights; `changed` says which are stored otherwise; `grids` the levels of rows 1 and 3. */
  const draw = ({ values, changed, grids, unit, name }) => {
    const px = (value) => left + (width - left - right) * Math.max(0, Math.min(1, (value / unit + 1.3) / 2.6));
    ticks.forEach((tick, index) => tick.setAttribute("x", px((index / 2 - 1) * unit)));
    const step = (grid, row) => grid.map((level) => `M${px(level).toFixed(1)} ${levels[row] - 12}v24`).join("");
    steps.setAttribute("d", step(grids[0], 0) + step(grids[1], 2));
    const paths = ["", ""];
    for (let i = 0; i < values[0].length; i++) {
      const [a, b, c] = values.map((row) => px(row[i]).toFixed(1));
      paths[changed[i] ? 1 : 0] += `M${a} ${levels[0] - 9}V${levels[0] + 9}L${b} ${levels[1]}L${c} ${levels[2] - 9}v18`;
    }
    same.setAttribute("d", paths[0] || "M0 0");
    moved.setAttribute("d", paths[1] || "M0 0");
    root.setAttribute("aria-label", name);
  };
  return { root: node("div", { class: "lab-plot lab-wide" }, root), draw };
}

function render({ model, el }) {
  const view = frame({ model, el, title: "What a merge leaves" });
  const { rows, columns, rank, shown } = model.get("sizes"), size = rows * columns, percents = model.get("percents");
  const formats = makeFormats(model.get("levels")), shipped = widen(model.get("weight")), real = model.get("real_percent");
  const { B, A } = model.get("direction"), left = new Float32Array(bytes(B)), right = new Float32Array(bytes(A));
  const direction = new Float32Array(size);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += left[i * rank + k] * right[k * columns + j];
      direction[i * columns + j] = sum;
    }
  }
  const controls = [
    choice({ model, name: "grid", label: "W lies on", values: model.get("grids") }),
    choice({ model, name: "into", label: "round to", values: model.get("formats") }),
    slider({ model, name: "percent", label: "ΔW, % of W", values: percents }),
  ];
  view.add(...controls.map((control) => control.root));
  const block = rows3(`${SHOWN} weights`);
  const curve = chart({ label: "what arrives", xlabel: "size of ΔW, % of W", ylabel: "share", width: 860, height: 158 });
  view.panels.append(block.root, curve.root);
  view.panels.after(node("div", { class: "lab-key" },
    node("span", { class: "blue" }, `━ above: same code as without ΔW; below: share of ΔW that arrives (cut at 0 and ${TOP})`),
    node("span", { class: "orange" }, "╍ above: another code; below: share of codes that change"),
    node("span", {}, node("span", { style: "color: var(--lab-ghost)" }, "┃"), ` the real ΔW, ${real.toFixed(2)} %`)));

  const wanted = new Float32Array(size), codes = new Float32Array(size), floats = new Float32Array(size);
  let now = null; // what the choices fix: the format, W, its codes there, and results by percent
  const add = (asked) => {
    const share = float(asked / 100);
    for (let i = 0; i < size; i++) wanted[i] = now.before[i] + float(share * direction[i]);
    roundAll(now.format, wanted, codes, floats);
  };
  const measure = (asked) => {
    add(asked);
    const share = float(asked / 100);
    let changed = 0, inner = 0, update = 0, missing = 0, weight = 0;
    for (let i = 0; i < size; i++) {
      const arrived = float(floats[i] - now.before[i]), want = float(share * direction[i]);
      if (codes[i] !== now.codes[i]) changed++;
      inner += arrived * want;
      update += want * want;
      missing += (arrived - want) ** 2;
      weight += now.before[i] ** 2;
    }
    return { changed, kept: inner / update, noise: Math.sqrt(missing / weight) };
  };
  const known = {};
  const load = (key) => {
    const grid = formats[model.get("grid")], before = new Float32Array(size);
    now = { key, grid, format: formats[model.get("into")], before, codes: new Float32Array(size) };
    roundAll(grid, shipped, codes, before);
    roundAll(now.format, before, now.codes, floats);
    now.results = known[key] ??= percents.map(measure);
  };
  view.on(["grid", "into", "percent", "recorded"], () => {
    controls.forEach((control) => control.show());
    const key = `${model.get("grid")} to ${model.get("into")}`;
    if (now?.key !== key) load(key);
    const asked = model.get("percent"), { changed, kept, noise } = now.results[percents.indexOf(asked)];
    add(asked);
    const cut = (values) => values.slice(shown, shown + SHOWN), old = cut(now.codes);
    const flipped = Array.from(cut(codes), (code, i) => code !== old[i]);
    block.draw({
      values: [cut(now.before), cut(wanted), cut(floats)], changed: flipped,
      grids: [levelsOf(now.grid, shipped, shown), levelsOf(now.format, wanted, shown)],
      unit: ends(now.before, shown, SHOWN).absmax || 1,
      name: `${flipped.filter(Boolean).length} of ${SHOWN} codes change`,
    });
    const points = (pick) => percents.map((value, index) => [value, pick(now.results[index])]); // the chart keeps to its axis
    curve.draw({
      name: `${percent(kept)} of ΔW arrives at ${asked} % of W; ${percent(changed / size, 2)} of the codes change`,
      x: { low: 0.1, high: 100, ticks: [0.1, 1, 10, 100], log: true },
      y: { low: 0, high: TOP, ticks: [0, 0.5, 1, TOP] },
      lines: [
        { points: [[real, 0], [real, TOP]], kind: "ghost" },
        { points: points((one) => one.kept), kind: "blue" }, { points: points((one) => one.changed / size), kind: "orange" },
      ],
      marks: [{ x: asked, y: kept, kind: "blue" }, { x: asked, y: changed / size, kind: "orange" }],
    });
    const recorded = model.get("recorded")[key] ?? "";
    view.say(`W on ${model.get("grid")}'s levels, an update of ${asked} % of W, rounded to ${model.get("into")}: `
      + `${percent(kept)} of the update arrives, with an error of ${percent(noise, 2)} of W; `
      + `${whole(changed)} of ${whole(size)} codes change.${recorded && ` ${recorded}`}`);
  });
  return view.end;
}
export default { render };
