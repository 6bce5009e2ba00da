// Sixteen numbers and the weights that are rounded to them: NF4, FP4, evenly spaced.

function render({ model, el }) {
  const view = frame({ model, el, title: "Code explorer" });
  const records = Object.fromEntries(model.get("weights").map((one) => [one.name, one])), codes = model.get("codes");
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

  /** Index of the value of `code` (ascending) that is nearest; a tie goes to the lower one. */
  const nearest = (code, value) => {
    let index = 0;
    while (index < code.length - 1 && value > (code[index] + code[index + 1]) / 2) index++;
    return index;
  };
  /** Relative error of one code on one block size, how often each value is used, and the weights divided by absmax. */
  const measure = (values, code, size) => {
    const used = new Array(code.length).fill(0), normal = [];
    let missing = 0, all = 0;
    for (let from = 0; from < values.length; from += size) {
      const block = values.subarray(from, from + size);
      let absmax = 0;
      for (const value of block) absmax = Math.max(absmax, Math.abs(value));
      for (const value of block) {
        const share = absmax ? value / absmax : 0, index = nearest(code, share), error = value - code[index] * absmax;
        normal.push(share);
        used[index]++;
        missing += error * error;
        all += value * value;
      }
    }
    return { error: Math.sqrt(missing / all), used: used.map((count) => count / values.length), normal };
  };
  view.on(["weight", "code", "blocksize"], () => {
    controls.forEach((control) => control.show());
    const values = decode(records[model.get("weight")].values), size = Math.min(model.get("blocksize"), values.length);
    const results = Object.fromEntries(Object.entries(codes).map(([name, code]) => [name, measure(values, code, size)]));
    const name = model.get("code"), { used, normal } = results[name], bins = 80, counts = new Array(bins).fill(0);
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
    const entropy = used.reduce((sum, share) => (share ? sum - share * Math.log2(share) : sum), 0);
    view.say(`${name}, blocks of ${size}: relative error ${percent(results[name].error, 2)}, ${entropy.toFixed(2)} of 4 bits used. `
      + `All codes here: ${Object.entries(results).map(([other, { error }]) => `${other} ${percent(error, 2)}`).join(", ")}.`);
  });
  return view.end;
}
export default { render };
