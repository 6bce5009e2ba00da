// Sixteen numbers and the weights that are rounded to them: evenly spaced, NF4, AF4, E2M1, FP4.

function render({ model, el }) {
  const view = frame({ model, el, title: "Code explorer" });
  const records = Object.fromEntries(model.get("weights").map((one) => [one.name, decode(one.values)])), codes = model.get("codes");
  const controls = [
    choice({ model, name: "weight", label: "weights", values: Object.keys(records) }),
    choice({ model, name: "code", label: "code", values: Object.keys(codes) }),
    slider({ model, name: "blocksize", label: "block", values: () => model.get("blocksizes") }),
  ];
  view.add(...controls.map((control) => control.root));
  const line = chart({ label: "weights and the sixteen values", xlabel: "weight / largest of its block", ylabel: "share, %", width: 860, height: 240 });
  const use = chart({ label: "how often each value is used", xlabel: "index of the value", ylabel: "used, %", width: 860, height: 200 });
  view.panels.append(line.root, use.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", {}, "grey bars: the weights, each divided by the largest of its block"),
    node("span", { class: "orange" }, "┃ the sixteen values"), node("span", { class: "blue" }, "▇ how often each is used")));

  const middles = Object.fromEntries(Object.entries(codes).map(([name, code]) =>
    [name, code.slice(1).map((value, index) => (value + code[index]) / 2)]));
  /** Index of the nearest value of a code, by its middles (ascending); a tie goes to the lower one. */
  const nearest = (between, value) => {
    let low = 0, high = between.length;
    while (low < high) {
      const at = (low + high) >> 1;
      if (value > between[at]) low = at + 1;
      else high = at;
    }
    return low;
  };
  /** The weights in blocks, each divided by the largest of its block: { shares, largest }, both as long as `values`. */
  const divide = (values, size) => {
    const shares = new Float64Array(values.length), largest = new Float64Array(values.length);
    for (let from = 0; from < values.length; from += size) {
      const end = Math.min(from + size, values.length);
      let absmax = 0;
      for (let i = from; i < end; i++) absmax = Math.max(absmax, Math.abs(values[i]));
      for (let i = from; i < end; i++) {
        shares[i] = absmax ? values[i] / absmax : 0;
        largest[i] = absmax;
      }
    }
    return { shares, largest };
  };
  /** Relative error of one code, and how often each of its values is used. */
  const measure = (name, { shares, largest }) => {
    const code = codes[name], used = new Array(code.length).fill(0);
    let missing = 0, all = 0;
    for (let i = 0; i < shares.length; i++) {
      const index = nearest(middles[name], shares[i]), error = (shares[i] - code[index]) * largest[i];
      used[index]++;
      missing += error * error;
      all += (shares[i] * largest[i]) ** 2;
    }
    return { error: Math.sqrt(missing / all), used: used.map((count) => count / shares.length) };
  };
  const seen = {};  // weights and block -> the codes that the reader has looked at there: only their errors are told
  view.on(["weight", "code", "blocksize"], () => {
    controls.forEach((control) => control.show());
    const values = records[model.get("weight")], size = Math.min(model.get("blocksize"), values.length);
    const blocks = divide(values, size), { shares: normal } = blocks;
    const results = Object.fromEntries(Object.keys(codes).map((name) => [name, measure(name, blocks)]));
    const name = model.get("code"), { used } = results[name], bins = 80, counts = new Array(bins).fill(0);
    for (const value of normal) counts[Math.min(bins - 1, Math.floor((value + 1) / 2 * bins))]++;
    const shares = counts.map((count) => 100 * count / normal.length), high = Math.max(...shares);
    line.draw({
      name: `the weights on [-1, 1] and the sixteen values of ${name}`,
      x: { low: -1, high: 1, ticks: [-1, -0.5, 0, 0.5, 1] }, y: { low: 0, high, ticks: [0, high], text: (tick) => tick.toFixed(1) },
      bars: shares.map((share, bin) => ({ from: -1 + 2 * bin / bins, to: -1 + 2 * (bin + 0.9) / bins, y: share, kind: "ghost" })),
      rules: codes[name],
    });
    const most = Math.max(20, Math.ceil(100 * Math.max(...used)));
    use.draw({
      name: `used between ${percent(Math.min(...used))} and ${percent(Math.max(...used))} of the time`,
      x: { low: 0, high: 16, ticks: [0, 4, 8, 12, 15] }, y: { low: 0, high: most, ticks: [0, 6.25, most], text: (tick) => `${tick}` },
      bars: used.map((share, index) => ({ from: index + 0.1, to: index + 0.9, y: 100 * share, kind: "blue" })),
    });
    const there = seen[`${model.get("weight")} ${size}`] ??= new Set(), others = [...there].filter((one) => one !== name)
      .map((one) => `${one} ${percent(results[one].error, 2)}`);
    there.add(name);
    const entropy = used.reduce((sum, share) => (share ? sum - share * Math.log2(share) : sum), 0);
    view.say(`${name}, blocks of ${size}: relative error ${percent(results[name].error, 2)}, ${entropy.toFixed(2)} of 4 bits used. `
      + (others.length ? `Seen here before: ${others.join(", ")}.` : "Choose another code to compare."));
  });
  return view.end;
}
export default { render };
