// Weights, the levels they are rounded to, and what that costs each group of 64.

const GROUP = 64;

/** Round to the nearest whole number, halves to the even one, as torch.round does. */
function even(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : rounded;
}

/** The levels of a block, and a function that snaps a number to the nearest of them. */
function grid(block, bits, method) {
  if (method === "absmax") {
    const top = 2 ** (bits - 1) - 1, step = Math.max(...block.map(Math.abs)) / top;
    const levels = Array.from({ length: 2 * top + 1 }, (_, index) => (index - top) * step);
    return { levels, snap: (value) => (step ? even(value / step) * step : 0) };
  }
  const low = Math.min(0, ...block), step = (Math.max(0, ...block) - low) / (2 ** bits - 1);
  const zero = step ? even(-low / step) : 0;
  const levels = Array.from({ length: 2 ** bits }, (_, index) => (index - zero) * step);
  const inside = (index) => Math.max(0, Math.min(2 ** bits - 1, index));
  return { levels, snap: (value) => (step ? (inside(even(value / step) + zero) - zero) * step : 0) };
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Quantizer" });
  const records = Object.fromEntries(model.get("weights").map(({ name, values, scale }) =>
    [name, Array.from(decode(values), (value) => value * scale)]));
  const controls = [
    choice({ model, name: "weight", label: "weights", values: Object.keys(records) }),
    choice({ model, name: "method", label: "method", values: ["absmax", "zero-point"] }),
    slider({ model, name: "bits", label: "bits", values: [2, 3, 4, 5, 6, 7, 8] }),
    slider({ model, name: "blocksize", label: "block", values: () => model.get("blocksizes") }),
    slider({ model, name: "outlier", label: "outlier", values: [0, 4, 8, 16, 32, 64], text: (size) => (size ? `${size} σ` : "none") }),
  ];
  view.add(...controls.map((control) => control.root));
  const line = chart({ label: "the weights and the levels of the first block", xlabel: "weight, in σ", ylabel: "weights", width: 860, height: 230 });
  const errors = chart({ label: "error of each group of 64", xlabel: "group of 64 weights", ylabel: "error, in σ", width: 860, height: 200 });
  view.panels.append(line.root, errors.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", {}, "grey bars: how many weights"),
    node("span", { class: "orange" }, "┃ levels of the first block"), node("span", { class: "blue" }, "▇ error of a group")));

  view.on(["weight", "method", "bits", "blocksize", "outlier"], () => {
    controls.forEach((control) => control.show());
    const values = records[model.get("weight")].slice(); // a copy, for the outlier
    const sigma = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    const bits = model.get("bits"), method = model.get("method"), size = Math.min(model.get("blocksize"), values.length);
    if (model.get("outlier")) values[model.get("outlier_at")] = model.get("outlier") * sigma;
    const rounded = new Array(values.length);
    let first = null;
    for (let from = 0; from < values.length; from += size) {
      const block = values.slice(from, from + size), { levels, snap } = grid(block, bits, method);
      first ??= levels;
      block.forEach((value, index) => { rounded[from + index] = snap(value); });
    }
    let missing = 0, all = 0, largest = 0;
    const groups = [], members = [], outlier = model.get("outlier") ? model.get("outlier_at") : -1;
    values.forEach((value, index) => {
      if (index === outlier) return; // what counts are the weights that were there before
      const error = value - rounded[index], group = Math.floor(index / GROUP);
      missing += error * error;
      all += value * value;
      largest = Math.max(largest, Math.abs(error));
      groups[group] = (groups[group] ?? 0) + error * error;
      members[group] = (members[group] ?? 0) + 1;
    });
    const reach = 4.2, bins = 84, counts = new Array(bins).fill(0);
    for (const value of values) {
      const bin = Math.floor((value / sigma + reach) / (2 * reach) * bins);
      if (bin >= 0 && bin < bins) counts[bin]++;
    }
    const width = 2 * reach / bins, high = Math.max(...counts), seen = first.filter((level) => Math.abs(level) <= reach * sigma);
    line.draw({
      name: `${first.length} levels in the first block, ${seen.length} of them among the weights`,
      x: { low: -reach, high: reach, ticks: [-4, -2, 0, 2, 4] }, y: { low: 0, high, ticks: [0, high] },
      bars: counts.map((count, bin) => ({ from: -reach + bin * width, to: -reach + (bin + 0.9) * width, y: count, kind: "ghost" })),
      rules: seen.map((level) => level / sigma),
    });
    const rms = groups.map((sum, group) => Math.sqrt(sum / members[group]) / sigma), worst = Math.max(0.02, ...rms);
    errors.draw({
      name: `error of each group: from ${Math.min(...rms).toFixed(3)} to ${Math.max(...rms).toFixed(3)} σ`,
      x: { low: 0, high: rms.length, ticks: [0, rms.length / 2, rms.length] },
      y: { low: 0, high: worst, ticks: [0, worst / 2, worst], text: (tick) => tick.toFixed(2) },
      bars: rms.map((error, group) => ({ from: group + 0.1, to: group + 0.9, y: error, kind: "blue" })),
    });
    view.say(`${bits} bits, ${method}, blocks of ${size}: relative error ${outlier < 0 ? "" : "of the others "}${percent(Math.sqrt(missing / all), 2)}, `
      + `signal to noise ${(10 * Math.log10(all / missing)).toFixed(1)} dB, largest error ${(largest / sigma).toFixed(3)} σ; `
      + `${seen.length} of ${first.length} levels of the first block lie within ±${reach} σ.`);
  });
  return view.end;
}
export default { render };
