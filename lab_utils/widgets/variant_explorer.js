// Loss against learning rate for LoRA's variants, a panel each, and beside them who leads at one rate or at each one's best.

/** Powers of ten between low and high, and three times them where there are few. */
function logTicks(low, high) {
  const from = Math.floor(Math.log10(low)), powers = Array.from({ length: Math.ceil(Math.log10(high)) - from + 1 }, (_, at) => from + at);
  const inside = (factors) => powers.flatMap((power) => factors.map((one) => Number(`${one}e${power}`))).filter((tick) => tick >= low && tick <= high);
  const some = inside([1, 3]);
  return some.length > 5 ? inside([1]) : some.length > 1 ? some : inside([1, 2, 5]);
}

/** A map from numbers to pixels, logarithmic, with a little room at both ends; what lies outside is put at the end. */
function logScale(low, high, from, to) {
  const pad = 0.06 * Math.log(high / low), start = Math.log(low) - pad, span = Math.log(high) + pad - start;
  return (value) => from + (to - from) * Math.max(0, Math.min(1, (Math.log(value) - start) / span));
}

/** One small panel per variant, all on the same axes. Returns { root, draw }. */
function panels() {
  const width = 580, height = 330, left = 52, top = 22, wide = 128, tall = 114, gapX = 4, gapY = 28;
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const fixed = shape("g"), moving = shape("g");
  root.append(fixed, moving);
  let drawn = null;
  const draw = (race, record, rows) => {
    const names = Object.keys(record.dots), rates = record.rates;
    const corner = (index) => [left + (wide + gapX) * (index % 4), top + (tall + gapY) * Math.floor(index / 4)];
    const px = logScale(rates[0], rates[rates.length - 1], 0, wide), py = logScale(record.low, record.high, tall, 0);
    if (drawn !== race) {
      drawn = race;
      const powers = logTicks(rates[0], rates[rates.length - 1]).filter((tick) => /^1/.test(tick.toExponential(1)));
      const ticksX = powers.length > 2 ? [powers[0], powers[powers.length - 1]] : powers, ticksY = logTicks(record.low, record.high); // a panel has room for two
      fixed.replaceChildren(
        ...names.flatMap((name, index) => {
          const [x, y] = corner(index);
          return [
            ...ticksY.flatMap((tick) => [shape("line", { class: "grid", x1: x, x2: x + wide, y1: y + py(tick), y2: y + py(tick) }),
              ...(index % 4 ? [] : [shape("text", { x: x - 6, y: y + py(tick) + 5, "text-anchor": "end" }, String(tick))])]),
            ...ticksX.flatMap((tick) => [shape("line", { class: "grid", x1: x + px(tick), x2: x + px(tick), y1: y, y2: y + tall }),
              ...(index < names.length - 4 ? [] : [shape("text", { x: x + px(tick), y: y + tall + 18, "text-anchor": "middle" }, String(tick))])]),
            shape("rect", { class: "lab-box", x, y, width: wide, height: tall }),
            ...record.dots[name].map(([rate, loss]) => shape("circle", { class: "lab-dot", cx: x + px(rate), cy: y + py(loss), r: 2.8 })),
          ];
        }),
        shape("text", { x: left + 2 * wide, y: height - 6, "text-anchor": "middle" }, "learning rate"),
        shape("text", { transform: `translate(13 ${height / 2}) rotate(-90)`, "text-anchor": "middle" }, `${record.value}, ${record.unit}`));
    }
    const byName = Object.fromEntries(rows.map((row) => [row.variant, row]));
    moving.replaceChildren(...names.map((name, index) => {
      const [x, y] = corner(index), { rate, losses } = byName[name];
      const title = shape("text", { class: "note", x: x + wide / 2, y: y - 6, "text-anchor": "middle" }, record.titles[name]);
      const line = rate === null ? [] : [shape("line", { class: "lab-at", x1: x + px(rate), x2: x + px(rate), y1: y, y2: y + tall })];
      return shape("g", { class: name === "lora" ? "lab-lora" : "lab-other" }, title, ...line,
        ...losses.map((loss) => shape("circle", { class: "lab-used", cx: x + px(rate), cy: y + py(loss), r: 4.5 })),
        ...(rate === null ? [shape("text", { x: x + wide / 2, y: y + 18, "text-anchor": "middle" }, "not run here")] : []));
    }));
    root.setAttribute("aria-label", `${record.value} by rate, ${Object.values(record.dots).flat().length} runs; marked: `
      + rows.map(({ variant, rate }) => `${record.titles[variant]} ${rate === null ? "not run" : `at ${rate}`}`).join(", "));
  };
  return { root: node("div", { class: "lab-plot" }, root), draw };
}

/** A row per variant, from the smallest mean down; rows glide to their new places. Returns { root, draw }. */
function ladder() {
  const width = 410, height = 330, left = 176, right = 12, top = 22, step = 32.5, floor = 284;
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const fixed = shape("g"), rowsOf = {}, moving = shape("g");
  root.append(fixed, moving);
  let drawn = null;
  const draw = (race, record, rows) => {
    const px = logScale(record.low, record.high, left, width - right);
    if (drawn !== race) {
      drawn = race;
      moving.replaceChildren();
      for (const name of Object.keys(rowsOf)) delete rowsOf[name];
      fixed.replaceChildren(
        ...logTicks(record.low, record.high).flatMap((tick) => [shape("line", { class: "grid", x1: px(tick), x2: px(tick), y1: top - 14, y2: floor }),
          shape("text", { x: px(tick), y: floor + 18, "text-anchor": "middle" }, String(tick))]),
        shape("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, record.value));
    }
    rows.forEach(({ variant, rate, losses, mean, reach, clear, edge }, place) => {
      if (!rowsOf[variant]) moving.append(rowsOf[variant] = shape("g"));
      const row = rowsOf[variant];
      row.setAttribute("class", `lab-row ${variant === "lora" ? "lab-lora" : "lab-other"}${clear ? " lab-clear" : ""}`);
      row.style.transform = `translate(0px, ${(top + step * place).toFixed(1)}px)`;
      const at = rate === null ? "not run" : `${rate}${edge ? " ↔" : ""}`, many = losses.length > 1;
      row.replaceChildren(
        shape("text", { class: "note", x: 0, y: 9 }, record.titles[variant]), shape("text", { x: left - 8, y: 9, "text-anchor": "end" }, at),
        ...(many ? [shape("line", { class: "lab-reach", x1: px(Math.max(mean - reach, record.low / 9)), x2: px(mean + reach), y1: -1, y2: -1 })] : []),
        ...losses.map((loss) => shape("circle", { class: many ? "lab-dot" : "lab-used", cx: px(loss), cy: many ? 10 : 4, r: many ? 3.2 : 5 })),
        ...(many ? [shape("circle", { class: "lab-mean", cx: px(mean), cy: -1, r: 5.5 })] : []));
    });
    root.setAttribute("aria-label", rows.map(({ variant, mean, losses, clear }) => `${record.titles[variant]} `
      + (losses.length ? `${mean.toFixed(3)}, n = ${losses.length}${clear ? ", clearly unlike LoRA" : ""}` : "not run")).join("; "));
  };
  return { root: node("div", { class: "lab-plot" }, root), draw };
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Who leads, and at which rate" });
  const records = model.get("records"), modes = model.get("modes"), record = () => records[model.get("race")];
  const controls = [
    choice({ model, name: "race", label: "runs", values: Object.keys(records) }),
    slider({ model, name: "rate", label: "learning rate", values: () => record().rates }),
    choice({ model, name: "mode", label: "compare", values: modes }),
  ];
  view.add(...controls.map((control) => control.root));
  controls[0].input.addEventListener("change", () => {
    model.set("rate", record().start);
    model.save_changes();
  });
  controls[1].input.addEventListener("input", () => { // a reader who moves the common rate wants to see it
    model.set("mode", modes[0]);
    model.save_changes();
  });
  const every = panels(), rank = ladder();
  view.panels.classList.add("lab-race");
  view.panels.append(every.root, rank.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", {}, "dot: one run"), node("span", {}, "bar: 95 % interval of the mean over seeds"),
    node("span", {}, "filled: clearly unlike LoRA (corrected for all comparisons)"), node("span", {}, "↔ no lower or no higher rate was tried")));
  view.on(["race", "mode", "rate"], () => {
    controls.forEach((control) => control.show());
    const race = model.get("race"), now = record(), place = now.rates.indexOf(model.get("rate"));
    const { rows, sentence } = model.get("mode") === modes[1] ? now.best : now.at[place < 0 ? now.rates.indexOf(now.start) : place];
    every.draw(race, now, rows);
    rank.draw(race, now, rows);
    view.say(sentence);
  });
  return view.end;
}
export default { render };
