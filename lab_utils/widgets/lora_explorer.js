// The frozen W, the product of B and A laid out as matrices are multiplied, and their sum, step by step through a training.

function render({ model, el }) {
  const view = frame({ model, el, title: "What LoRA adds" });
  const { rows, columns, rank, limit } = model.get("sizes");
  const scale = model.get("scales"), frozen = decode(model.get("weight")).map((value) => value * scale.weight);
  const allA = decode(model.get("lora_A")), allB = decode(model.get("lora_B")), losses = model.get("losses");
  const steps = Array.from({ length: model.get("steps") }, (_, index) => index);
  const at = slider({ model, name: "step", label: "training step", values: steps });
  const alphas = [0, 1, 2, 4, 8, 16, 32, 64].map((factor) => factor * rank / 4);
  const alpha = slider({ model, name: "alpha", label: "alpha", values: alphas });
  view.add(at.root, alpha.root);

  const pixel = Math.max(1, Math.floor(256 / Math.max(rows, columns)));
  const width = columns * pixel, thin = Math.max(rank * pixel, 12);
  const W = picture({ caption: "W, frozen", width }), A = picture({ caption: "A", width });
  const B = picture({ caption: "B", width: thin }), BA = picture({ caption: "scaling · B · A", width });
  const sum = picture({ caption: "W + scaling · B · A", width });
  const product = node("div", { class: "lab-product" }, node("span"), A.root, B.root, BA.root);
  view.panels.append(W.root, product, sum.root);
  A.canvas.style.height = `${thin}px`;
  const curve = chart({ label: "loss against training step, as trained", xlabel: "training step", ylabel: "loss", width: 860, height: 190 });
  if (losses.length) view.panels.append(curve.root);
  W.paint(frozen, rows, columns, limit, { label: `W, frozen, ${rows} × ${columns}` });

  const delta = new Float64Array(rows * columns), added = new Float64Array(rows * columns);
  view.on(["step", "alpha"], () => {
    at.show();
    alpha.show();
    const now = Math.max(0, Math.min(model.get("step"), steps.length - 1)), scaling = model.get("alpha") / rank;
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
    BA.paint(delta, rows, columns, limit, { label: `${Number(scaling.toPrecision(3))} · B · A` });
    sum.paint(added, rows, columns, limit, { label: "W + scaling · B · A" });
    if (losses.length) {
      const last = steps.length - 1, high = Math.max(...losses), ticks = [0, Math.round(last / 2), last];
      curve.draw({
        name: `loss against training step: ${losses[now].toFixed(2)} at step ${now}`,
        x: { low: 0, high: last, ticks }, y: { low: 0, high, ticks: [0, high / 2, high], text: (tick) => tick.toFixed(1) },
        lines: [{ points: losses.map((loss, index) => [index, loss]), kind: "blue" }],
        marks: [{ x: now, y: losses[now], kind: "orange", text: losses[now].toFixed(2) }],
      });
    }
    view.say(`Step ${now}, scaling ${Number(scaling.toPrecision(3))}: ${whole(rank * (rows + columns))} numbers are trained, `
      + `${whole(moved)} of ${whole(rows * columns)} entries of W + scaling·B·A differ from W; `
      + `the update is ${percent(Math.sqrt(squares / base))} of W in size.`);
  });
  return view.end;
}
export default { render };
