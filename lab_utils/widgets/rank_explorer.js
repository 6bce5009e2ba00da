// A matrix, its best approximation of the chosen rank, and what is missing.

function render({ model, el }) {
  const view = frame({ model, el, title: "Rank explorer" });
  const matrices = Object.fromEntries(model.get("matrices").map((one) => [one.name, one]));
  const current = () => matrices[model.get("matrix")];
  const which = choice({ model, name: "matrix", label: "matrix", values: Object.keys(matrices) });
  const rank = slider({ model, name: "rank", label: "rank", values: () => current().ranks });
  view.add(which.root, rank.root);
  const panels = ["the matrix", "approximation", "what is missing"].map((caption) => picture({ caption, width: 300 }));
  /** Smallest and largest singular value on the logarithmic axis, which has four decades at most. */
  const ends = (values) => {
    const high = values[0] || 1, last = values.findLast((value) => value > 1e-4 * high) ?? high;
    return [Math.min(last, high / 2), high];
  };
  /** Powers of ten between the ends; where there are not two, the ends and their middle. */
  const decades = (low, high) => {
    const first = Math.ceil(Math.log10(low)), count = Math.floor(Math.log10(high)) - first + 1;
    return count > 1 ? Array.from({ length: count }, (_, i) => 10 ** (first + i)) : [low, Math.sqrt(low * high), high];
  };
  const curve = chart({ label: "relative error against rank", xlabel: "rank", ylabel: "relative error" });
  const spectrum = chart({ label: "singular values", xlabel: "number of the singular value", ylabel: "singular value, log" });
  view.panels.classList.add("lab-three");
  view.panels.append(...panels.map((panel) => panel.root), curve.root, spectrum.root);

  let shown = null; // the matrix on screen: its factors, and the sum of the first `terms` directions
  const load = () => {
    const one = current(), { rows, columns } = one, s = one.singular_values;
    const u = decode(one.left), v = decode(one.right), total = s.reduce((sum, value) => sum + value * value, 0);
    const rest = [...s, 0];
    for (let i = s.length - 1; i >= 0; i--) rest[i] = rest[i + 1] + s[i] * s[i];
    const errors = [...s, 0].map((_, r) => (total > 0 ? Math.sqrt((r < s.length ? rest[r] : 0) / total) : 0));
    shown = { name: one.name, one, rows, columns, s, u, v, errors, terms: 0, sum: new Float64Array(rows * columns) };
    step(s.length);
    shown.all = Float64Array.from(shown.sum);
    shown.missing = new Float64Array(rows * columns);
    panels[0].paint(shown.all, rows, columns, one.limit, { kind: one.kind, label: `the matrix, ${rows} × ${columns}` });
  };
  /** Add or take away directions until `terms` of them are in the sum. */
  const step = (terms) => {
    const { rows, columns, s, u, v, sum } = shown;
    while (shown.terms !== terms) {
      const adding = terms > shown.terms;
      if (!adding) shown.terms--;
      const k = shown.terms, weight = adding ? s[k] : -s[k], count = s.length;
      for (let i = 0; i < rows; i++) {
        const left = weight * u[i * count + k];
        for (let j = 0, at = i * columns, from = k * columns; j < columns; j++) sum[at + j] += left * v[from + j];
      }
      if (adding) shown.terms++;
    }
  };
  view.on(["matrix", "rank"], () => {
    which.show();
    if (shown?.name !== model.get("matrix")) load();
    const full = shown.s.length, r = Math.min(model.get("rank"), full), { rows, columns, one } = shown;
    if (r !== model.get("rank")) {
      model.set("rank", r);
      model.save_changes();
      return;
    }
    rank.show();
    step(r);
    let far = one.limit / 100; // at least: what rounding leaves stays white
    for (let i = 0; i < shown.sum.length; i++) {
      shown.missing[i] = shown.all[i] - shown.sum[i];
      far = Math.max(far, Math.abs(shown.missing[i]));
    }
    panels[1].paint(shown.sum, rows, columns, one.limit, { kind: one.kind, label: `rank ${r}` });
    panels[2].paint(shown.missing, rows, columns, far, { label: `what is missing, colours to ±${Number(far.toPrecision(2))}` });
    const error = shown.errors[r], kept = r * (rows + columns);
    const ticks = [...new Set([0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * full)))];
    const name = `relative error against rank: ${percent(error)} at rank ${r}`;
    curve.draw({
      name, x: { low: 0, high: full, ticks }, y: { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1], text: (tick) => `${100 * tick} %` },
      lines: [{ points: shown.errors.map((value, at) => [at, value]), kind: "blue" }],
      marks: [{ x: r, y: error, kind: "orange", text: percent(error) }],
    });
    const points = shown.s.map((value, at) => [at + 1, value]), most = Math.max(full, 2);
    const middle = Math.round((1 + most) / 2), [low, high] = ends(shown.s);
    spectrum.draw({
      name: `singular values, the first ${r} kept`,
      x: { low: 1, high: most, ticks: [1, middle, most] },
      y: { low, high, ticks: decades(low, high), text: (tick) => Number(tick.toPrecision(2)), log: true },
      lines: [{ points, kind: "ghost" }, { points: points.slice(0, r), kind: "blue" }],
      marks: r > 0 ? [{ x: r, y: shown.s[r - 1], kind: "orange" }] : [],
    });
    view.say(`Rank ${r}: ${whole(kept)} numbers instead of ${whole(rows * columns)} (${percent(kept / (rows * columns), 0)}), `
      + `relative error ${percent(error)}, energy kept ${percent(1 - error * error)}.`);
  });
  return view.end;
}
export default { render };
