// The frozen W, the product of B and A laid out as matrices are multiplied, and their sum; and what the model with this
// update does: its loss and the share of images it reads, measured by the page at every step and alpha that can be chosen.

function render({ model, el }) {
  const view = frame({ model, el, title: "What LoRA adds" });
  const { rows, columns, rank, limit } = model.get("sizes");
  const scale = model.get("scales"), frozen = decode(model.get("weight")).map((value) => value * scale.weight);
  const allA = decode(model.get("lora_A")), allB = decode(model.get("lora_B"));
  const steps = model.get("steps"), alphas = model.get("alphas"), trained = model.get("start").alpha;
  const losses = model.get("losses"), shares = Object.entries(model.get("shares"));
  const at = slider({ model, name: "step", label: "training step", values: steps });
  const alpha = slider({ model, name: "alpha", label: "alpha", values: alphas });
  view.add(at.root, alpha.root);

  const pixel = Math.max(1, Math.floor(128 / Math.max(rows, columns)));
  const width = columns * pixel, thin = Math.max(rank * pixel, 12);
  const W = picture({ caption: "W, frozen", width }), A = picture({ caption: "A", width });
  const B = picture({ caption: "B", width: thin }), BA = picture({ caption: "scaling · B · A", width });
  const sum = picture({ caption: "W + scaling · B · A", width });
  const product = node("div", { class: "lab-product" }, node("span"), A.root, B.root, BA.root);
  view.panels.append(W.root, product, sum.root);
  A.canvas.style.height = `${thin}px`;
  B.canvas.style.height = `${rows * pixel}px`;
  const curve = chart({ label: "loss against training step", xlabel: "training step", ylabel: "loss, nats", height: 165 });
  const read = chart({ label: "images read right, against alpha", xlabel: "alpha", ylabel: "read right", height: 165 });
  if (losses.length) view.panels.append(curve.root);
  if (shares.length) view.panels.append(read.root);
  const key = [];
  if (losses.length) key.push(node("span", {}, "━ loss at this alpha"), node("span", {}, `grey: at alpha ${trained}, as trained`));
  shares.forEach(([name], index) => key.push(node("span", { class: index ? "orange" : "blue" }, `${index ? "┅" : "━"} ${name}`)));
  if (key.length) view.panels.after(node("div", { class: "lab-key" }, ...key));
  W.paint(frozen, rows, columns, limit, { label: `W, frozen, ${rows} × ${columns}` });

  const delta = new Float64Array(rows * columns), added = new Float64Array(rows * columns);
  const highest = losses.length ? Math.max(...losses.flat()) : 1, lowest = losses.length ? Math.min(...losses.flat()) : 1;
  const ticks = [0.001, 0.01, 0.1, 1, 10, 100, 1000].filter((tick) => tick >= lowest / 3 && tick <= highest * 3);
  const place = (values, value) => Math.max(0, values.indexOf(value));
  view.on(["step", "alpha"], () => {
    at.show();
    alpha.show();
    const now = place(steps, model.get("step")), strength = place(alphas, model.get("alpha"));
    const scaling = model.get("alpha") / rank, neat = Number(scaling.toPrecision(3));
    const a = allA.subarray(now * rank * columns, (now + 1) * rank * columns);
    const b = allB.subarray(now * rows * rank, (now + 1) * rows * rank);
    const factor = scaling * scale.lora_A * scale.lora_B;
    delta.fill(0);
    let squares = 0, base = 0, moved = 0;
    for (let i = 0; i < rows; i++) {
      for (let k = 0; k < rank; k++) {
        const left = factor * b[i * rank + k];
        if (left) for (let j = 0; j < columns; j++) delta[i * columns + j] += left * a[k * columns + j];
      }
    }
    for (let i = 0; i < delta.length; i++) {
      added[i] = frozen[i] + delta[i];
      squares += delta[i] * delta[i];
      base += frozen[i] * frozen[i];
      if (delta[i]) moved++;
    }
    A.paint(a, rank, columns, 0.8, { label: `A, ${rank} × ${columns}` });
    B.paint(b, rows, rank, 0.8, { label: `B, ${rows} × ${rank}` });
    BA.paint(delta, rows, columns, limit, { label: `${neat} · B · A` });
    sum.paint(added, rows, columns, limit, { label: `W + ${neat} · B · A` });
    const said = [];
    if (losses.length) {
      const line = (values) => values.map((loss, index) => [steps[index], loss]);
      const loss = losses[strength][now], usual = place(alphas, trained);
      curve.draw({
        name: `loss against training step: ${loss.toFixed(2)} at step ${steps[now]} and alpha ${alphas[strength]}`,
        x: { low: steps[0], high: steps.at(-1), ticks: [steps[0], Math.round(steps.at(-1) / 2), steps.at(-1)] },
        y: { low: Math.min(ticks[0], lowest), high: Math.max(ticks.at(-1), highest), ticks, log: true },
        lines: [{ points: line(losses[usual]), kind: "ghost" }, { points: line(losses[strength]), kind: "ink" }],
        marks: [{ x: steps[now], y: loss, kind: "ink", text: loss.toFixed(2) }],
      });
      said.push(`loss ${loss.toFixed(2)}`);
    }
    if (shares.length) {
      read.draw({
        name: `images read right, against alpha: ${shares.map(([name, grid]) => `${name} ${percent(grid[strength][now])}`).join(", ")}`,
        x: { low: 0, high: alphas.length - 1 || 1, ticks: alphas.map((_, index) => index), text: (index) => String(alphas[index]) },
        y: { low: 0, high: 1, ticks: [0, 0.5, 1], text: (tick) => `${100 * tick} %` },
        lines: shares.map(([, grid], index) => ({ points: grid.map((values, a) => [a, values[now]]), kind: index ? "orange" : "blue" })),
        marks: shares.map(([, grid], index) => ({ x: strength, y: grid[strength][now], kind: index ? "orange" : "blue" })),
      });
      said.push(...shares.map(([name, grid]) => `${name} ${percent(grid[strength][now])} right`));
    }
    view.say(`Step ${model.get("step")}, alpha ${model.get("alpha")}, scaling ${neat}: ${said.length ? `${said.join(", ")}; ` : ""}`
      + `the update is ${percent(Math.sqrt(squares / base))} of W in size, ${whole(moved)} of ${whole(rows * columns)} entries differ from W.`);
  });
  return view.end;
}
export default { render };
