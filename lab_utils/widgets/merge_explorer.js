// A block's weights before a merge, with the update, and as they are stored; and what is left of the update at every size.

const BLOCK = 64;
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

/** float32 numbers that were bfloat16, from their upper 16 bits. */
function widen(text) {
  const high = new Uint16Array(bytes(text)), bits = new Uint32Array(high.length);
  for (let i = 0; i < high.length; i++) bits[i] = high[i] << 16;
  return new Float32Array(bits.buffer);
}

/** The largest absolute value of the block that starts at `from`. */
function largest(values, from) {
  let absmax = 0;
  for (let i = from; i < from + BLOCK; i++) {
    const size = Math.abs(values[i]);
    if (size > absmax) absmax = size;
  }
  return absmax;
}

/** name -> function that rounds `values` (float32) to codes (what is stored) and floats (what that means), all in float32. */
function makeFormats(numbers) {
  const code = Float32Array.from(numbers), scratch = new Float32Array(1), bits = new Uint32Array(scratch.buffer);
  const middles = Float32Array.from(code.slice(1), (value, index) => Math.fround(value + code[index]) / 2);
  // Which code a value of [-1, 1] may belong to: 512 fields, narrower than any step, so that one comparison decides.
  const field = (value) => Math.max(0, Math.min(511, Math.floor(256 * (value + 1))));
  const lowest = Uint8Array.from({ length: 512 }, (_, at) => middles.filter((middle) => field(middle) < at).length);
  return {
    NF4: (values, codes, floats) => {
      for (let from = 0; from < values.length; from += BLOCK) {
        const absmax = largest(values, from), inverse = Math.fround(1 / Math.max(absmax, 1e-38));
        for (let i = from; i < from + BLOCK; i++) {
          const share = Math.fround(values[i] * inverse);
          let index = lowest[field(share)];
          while (index < 15 && share > middles[index]) index++;
          codes[i] = index;
          floats[i] = code[index] * absmax;
        }
      }
    },
    int8: (values, codes, floats) => {
      for (let from = 0; from < values.length; from += BLOCK) {
        const absmax = largest(values, from), divisor = absmax || 1;
        for (let i = from; i < from + BLOCK; i++) {
          const index = even(Math.fround(Math.fround(values[i] / divisor) * 127)); // as torch.round
          codes[i] = index;
          floats[i] = Math.fround(index / 127) * absmax;
        }
      }
    },
    bfloat16: (values, codes, floats) => {
      for (let i = 0; i < values.length; i++) {
        scratch[0] = values[i];
        bits[0] = (bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) & 0xffff0000;
        codes[i] = floats[i] = scratch[0];
      }
    },
    float32: (values, codes, floats) => {
      codes.set(values);
      floats.set(values);
    },
  };
}

/** Round a float32 below 2²² to the nearest whole number, halves to the even one: above 2²³ float32 has no room for more. */
const even = (value) => Math.fround(Math.fround(value + 12582912) - 12582912);

/** Three rows: W, W + ΔW, what is stored; a line for each weight. Returns { root, draw }. */
function rows3(label) {
  const width = 860, height = 216, left = 150, right = 20, levels = [24, 92, 160];
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const names = ["W", "W + ΔW", "stored"].map((name, row) =>
    shape("text", { x: left - 14, y: levels[row] + 5, "text-anchor": "end" }, name));
  const steps = shape("path", { class: "line ghost" });
  const same = shape("path", { class: "line blue", style: "stroke-width: 1.5; opacity: .75" });
  const moved = shape("path", { class: "line orange", style: "stroke-width: 3" });
  const ticks = [-1, -0.5, 0, 0.5, 1].map((share) => shape("text", { y: height - 28, "text-anchor": "middle" }, String(share)));
  const title = shape("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "weight / largest of its block before");
  root.append(...names, steps, same, moved, ...ticks, title);
  /** `values` are three arrays of weights; `changed` says which are stored otherwise; `grids` the levels of rows 1 and 3. */
  const draw = ({ values, changed, grids, unit, name }) => {
    const px = (value) => left + (width - left - right) * Math.max(0, Math.min(1, (value / unit + 1.3) / 2.6));
    ticks.forEach((tick, index) => tick.setAttribute("x", px((index / 2 - 1) * unit)));
    const step = (grid, row) => grid.map((level) => `M${px(level).toFixed(1)} ${levels[row] - 14}v28`).join("");
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
  const { rows, columns, rank, blocks } = model.get("sizes"), bases = model.get("bases"), code = model.get("code");
  const formats = makeFormats(code), weight = widen(model.get("weight")), percents = model.get("percents");
  const updates = Object.fromEntries(model.get("directions").map(({ name, B, A }) => {
    const left = new Float32Array(bytes(B)), right = new Float32Array(bytes(A)), product = new Float32Array(rows * columns);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++) {
        let sum = 0;
        for (let k = 0; k < rank; k++) sum += left[i * rank + k] * right[k * columns + j];
        product[i * columns + j] = sum;
      }
    }
    return [name, product];
  }));
  const controls = [
    choice({ model, name: "into", label: "merge into", values: model.get("formats") }),
    choice({ model, name: "base", label: "W", values: bases }),
    choice({ model, name: "update", label: "update", values: Object.keys(updates) }),
    slider({ model, name: "percent", label: "size, % of W", values: percents }),
    slider({ model, name: "block", label: "block", values: Array.from({ length: blocks }, (_, index) => index) }),
  ];
  view.add(...controls.map((control) => control.root));
  const block = rows3("the weights of one block"), real = model.get("real_percent");
  const curve = chart({ label: "what is left", xlabel: "size of ΔW, % of W", ylabel: "share", width: 860, height: 220 });
  view.panels.append(block.root, curve.root);
  view.panels.after(node("div", { class: "lab-key" },
    node("span", { class: "blue" }, "━ above: same code as before; below: cosine of what arrives with ΔW"),
    node("span", { class: "orange" }, "╍ above: another code; below: share of codes that change"),
    node("span", { class: "orange" }, `┃ size of the real update, ${real.toFixed(2)} %`)));

  const size = rows * columns, delta = new Float32Array(size), wanted = new Float32Array(size);
  const codes = new Float32Array(size), floats = new Float32Array(size);
  let now = null; // what the choices fix: the format's own codes and values, W before, and results by percent
  const measure = (asked) => {
    const share = Math.fround(asked / 100), direction = updates[model.get("update")];
    for (let i = 0; i < size; i++) {
      delta[i] = share * direction[i];
      wanted[i] = now.before[i] + delta[i];
    }
    now.round(wanted, codes, floats);
    let changed = 0, inner = 0, came = 0, whole = 0, missing = 0;
    for (let i = 0; i < size; i++) {
      const arrived = Math.fround(floats[i] - now.floats[i]), want = delta[i], gap = arrived - want;
      if (codes[i] !== now.codes[i]) changed++;
      inner += arrived * want;
      came += arrived * arrived;
      whole += want * want;
      missing += gap * gap;
    }
    return { changed, cosine: came ? inner / Math.sqrt(came * whole) : 0, error: Math.sqrt(missing / whole) };
  };
  const known = {};
  const load = (key) => {
    const round = formats[model.get("into")];
    now = { key, round, codes: new Float32Array(size), floats: new Float32Array(size) };
    round(weight, now.codes, now.floats);
    now.before = model.get("base") === bases[0] ? now.floats : weight;
    now.results = known[key] ??= percents.map(measure);
  };
  /** The levels that a block's weights can be stored at, if they are few enough to be seen. */
  const levels = (values) => {
    const absmax = largest(values, 0), into = model.get("into");
    if (into === "NF4") return code.map((value) => value * absmax);
    return into === "int8" ? Array.from({ length: 255 }, (_, index) => (index / 127 - 1) * absmax) : [];
  };
  view.on(["into", "base", "update", "percent", "block"], () => {
    controls.forEach((control) => control.show());
    const key = ["into", "base", "update"].map((name) => model.get(name)).join("|");
    if (now?.key !== key) load(key);
    const asked = model.get("percent"), { changed, cosine, error } = now.results[percents.indexOf(asked)];
    const from = model.get("block") * BLOCK, cut = (values) => values.slice(from, from + BLOCK);
    const mine = cut(now.before), direction = cut(updates[model.get("update")]), share = Math.fround(asked / 100);
    const sum = mine.map((value, i) => value + Math.fround(share * direction[i]));
    const stored = new Float32Array(BLOCK), after = new Float32Array(BLOCK);
    now.round(sum, stored, after);
    const old = cut(now.codes), flipped = Array.from(stored, (value, i) => value !== old[i]);
    const count = flipped.filter(Boolean).length, unit = largest(mine, 0) || 1;
    block.draw({
      values: [mine, sum, after], changed: flipped, grids: [levels(mine), levels(sum)], unit,
      name: `block ${model.get("block")}: ${count} of ${BLOCK} codes change`,
    });
    const points = (pick) => percents.map((value, index) => [value, Math.max(0, pick(now.results[index]))]);
    curve.draw({
      name: `cosine ${cosine.toFixed(3)}, ${asked} % of W; ${percent(changed / size, 2)} of the codes change`,
      x: { low: 0.1, high: 100, ticks: [0.1, 1, 10, 100], log: true },
      y: { low: 0, high: 1, ticks: [0, 0.5, 1] }, rules: [real],
      lines: [{ points: points((one) => one.cosine), kind: "blue" }, { points: points((one) => one.changed / size), kind: "orange" }],
      marks: [{ x: asked, y: Math.max(0, cosine), kind: "blue" }, { x: asked, y: changed / size, kind: "orange" }],
    });
    view.say(`${model.get("into")}, an update of ${asked} % of W: ${count} of ${BLOCK} codes change in block `
      + `${model.get("block")}, ${whole(changed)} of ${whole(size)} (${percent(changed / size, 2)}) in the sample; what arrives has `
      + `cosine ${cosine.toFixed(3)} with the update and a relative error of ${percent(error)}.`);
  });
  return view.end;
}
export default { render };
