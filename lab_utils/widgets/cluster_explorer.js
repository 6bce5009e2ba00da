// What each of many processes holds and sends. The arithmetic of lab_utils/machines/sharding.py, from bytes that Python counted.

const PARTS = ["weights", "adapter", "optimizer", "gradients", "activations", "gathered", "transients"];
const SHOWN = 8; // processes that are drawn
const three = (value) => { const rounded = Number(value.toPrecision(3)); return rounded >= 100 ? rounded.toFixed(0) : String(rounded); };
const gib = (bytes) => three(bytes / 2 ** 30);
const unit = (value, units, step, below) => {
  let at = 0;
  while (below(value) && at < units.length - 1) { value *= step; at++; }
  return `${three(value)} ${units[at]}`;
};
const bytesText = (bytes) => unit(bytes, ["B", "kB", "MB", "GB", "TB"], 1 / 1000, (value) => value >= 999.5);
const timeText = (seconds) => unit(seconds, ["s", "ms", "µs"], 1000, (value) => value < 0.9995);

/** Bytes on one of `n` processes, part by part, and what all processes hold together of what lasts. */
function memory(one, strategy, n) {
  const stage = n === 1 ? 0 : ["ddp", "zero1", "zero2", "fsdp"].indexOf(strategy), all = stage === 3;
  const share = (bytes, from) => (stage >= from ? Math.ceil(bytes / n) : bytes);
  const kept = all ? one.kept : 0, gathered = all ? one.gathered : 0;
  const weights = share(one.weights - kept, 3) + kept, gradients = share(one.gradients, 2);
  const [begin, end] = all ? [one.fsdp_begin, one.fsdp_end] : [one.begin, one.end];
  const first = one.activations + begin > gradients + end; // the moment of the peak: as the backward pass begins, or ends
  const parts = {
    weights, adapter: share(one.adapter, 3), optimizer: share(one.optimizer, 1), gradients: first ? 0 : gradients,
    activations: first ? one.activations : 0, gathered, transients: (first ? begin : end) - gathered,
  };
  return { parts, total: Object.values(parts).reduce((sum, bytes) => sum + bytes, 0), shared: { weights: all, adapter: all, optimizer: stage > 0, gradients: stage > 1 } };
}

/** Bytes that each of `n` processes sends in a step, by the ring. */
function sent(one, strategy, n) {
  const travels = strategy === "fsdp" ? one.travels + one.gradients : 2 * one.gradients;
  return Math.ceil(travels * (n - 1) / n);
}

/** What lasts on each process: filled where it is held, dashed where others hold it. Returns { root, draw }. */
function holders() {
  const width = 460, height = 250, left = 92, top = 14, bottom = 46, high = height - top - bottom;
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const draw = (one, { shared }, n) => {
    const lasting = PARTS.slice(0, 4), whole = lasting.reduce((sum, part) => sum + one[part], 0), shown = Math.min(n, SHOWN);
    const step = (width - left - 8) / SHOWN, wide = step - 8, drawn = [];
    let base = height - bottom;
    lasting.forEach((part, index) => {
      const tall = high * one[part] / whole;
      if (!tall) return;
      base -= tall;
      if (tall > 13) drawn.push(shape("text", { x: left - 8, y: base + tall / 2 + 5, "text-anchor": "end" }, part));
      for (let column = 0; column < shown; column++) {
        const x = left + step * column, own = shared[part] ? Math.max(tall / n, Math.min(tall, 3)) : tall;
        const at = shared[part] && shown > 1 ? base + (tall - own) * (1 - column / (shown - 1)) : base;
        if (shared[part]) drawn.push(shape("rect", { class: "elsewhere", x, y: base, width: wide, height: tall }));
        drawn.push(shape("rect", { class: `${own > 6 ? "held " : ""}lab-part-${index}`, x, y: at, width: wide, height: own }));
      }
    });
    const text = n > SHOWN ? `${SHOWN} of ${n} processes` : n === 1 ? "1 process" : `${n} processes`;
    drawn.push(shape("text", { x: left, y: height - bottom + 20 }, text),
      shape("text", { x: left, y: height - bottom + 39 }, "filled: held here; dashed: held by others"));
    root.replaceChildren(...drawn);
    const split = lasting.filter((part) => shared[part] && one[part]);
    root.setAttribute("aria-label", `${text}; shared out: ${split.join(", ") || "nothing"}`);
  };
  return { root: node("div", { class: "lab-plot" }, root), draw };
}

/** Seconds by link for each method, on a logarithmic scale. Returns { root, draw }. */
function wires(links, speeds) {
  const width = 460, row = 23, left = 234, right = 14, top = 8, ticks = [1e-6, 1e-3, 1, 1000], height = top + row * links.length + 46;
  const px = (seconds) => left + (width - left - right) * Math.max(0, Math.min(1, (Math.log10(seconds) + 6) / 10));
  const floor = top + row * links.length, dots = shape("g"), band = shape("rect", { class: "band", x: 0, width, height: row, rx: 4 });
  const names = links.map((link, index) => shape("text", { x: left - 12, y: top + row * index + 17, "text-anchor": "end" }, link));
  const words = ["1 µs", "1 ms", "1 s", "1000 s"];
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" }, band,
    ...ticks.flatMap((tick, index) => [shape("line", { class: "grid", x1: px(tick), x2: px(tick), y1: top, y2: floor }),
      shape("text", { x: px(tick), y: floor + 18, "text-anchor": "middle" }, words[index])]),
    ...names, dots, shape("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, "a step's sending"));
  const draw = (bytes, method, link) => {
    const chosen = links.indexOf(link);
    band.setAttribute("y", top + row * chosen);
    names.forEach((name, index) => name.setAttribute("class", index === chosen ? "chosen" : ""));
    dots.replaceChildren(...Object.entries(bytes).sort(([one]) => (one === method ? 1 : -1)).flatMap(([one, count]) => (count ? speeds : [])
      .map((speed, index) => shape("circle", { class: one === method ? "mark blue" : "open", cx: px(count / speed), cy: top + row * index + 12, r: one === method ? 6 : 4.5 }))));
    root.setAttribute("aria-label", links.map((name, index) => `${name}: ${timeText(bytes[method] / speeds[index])}`).join("; "));
  };
  return { root: node("div", { class: "lab-plot" }, root), draw };
}

/** Round steps for an axis from 0 to about `high`. */
function ticksTo(high) {
  const raw = high / 4, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((factor) => factor * power >= 0.7 * raw) * power;
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, index) => index * step);
}

function render({ model, el }) {
  const view = frame({ model, el, title: "From one GPU to many" });
  const records = model.get("records"), { gpu: gpus, link: links, rank: ranks, processes, strategy: strategies, method: methods, ...options } = model.get("options");
  const controls = [
    choice({ model, name: "model", label: "model", values: options.model }),
    choice({ model, name: "method", label: "method", values: methods }),
    choice({ model, name: "strategy", label: "strategy", values: strategies }),
    choice({ model, name: "gpu", label: "GPU", values: gpus }),
    choice({ model, name: "link", label: "link", values: links }),
    slider({ model, name: "processes", label: "processes", values: processes }),
    slider({ model, name: "rank", label: "rank", values: ranks }),
  ];
  for (const { input } of controls.slice(-2)) input.style.width = "158px"; // so that two rows hold all controls
  view.add(...controls.map((control) => control.root));
  const held = holders(), wire = wires(links, options.speeds);
  const curve = chart({ label: "memory of each GPU", xlabel: "processes", ylabel: "GiB on each GPU", width: 460, height: 270 });
  const cells = {}, table = node("table", { class: "lab-table" }, node("caption", { class: "lab-hidden" }, "Memory on each GPU, by part"));
  [...PARTS, "together", "room on the GPU"].forEach((name, index) => {
    const number = node("td"), bar = node("span", { class: `lab-bar ${index < PARTS.length ? `lab-part-${index}` : ""}` });
    const swatch = index < PARTS.length ? [node("span", { class: `lab-swatch lab-part-${index}` })] : [];
    table.append(node("tr", {}, node("th", { scope: "row" }, ...swatch, name), number, node("td", { class: "lab-bars lab-cluster" }, bar)));
    cells[name] = { number, bar };
  });
  view.panels.append(held.root, table, curve.root, wire.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", { class: "blue" }, "━ ● what is chosen"),
    node("span", {}, "thin grey: the other strategies"), node("span", { class: "orange" }, "╍ room on the GPU"), node("span", {}, "○ the other methods")));
  view.on(["model", "method", "strategy", "processes", "rank", "link", "gpu"], () => {
    controls.forEach((control) => control.show());
    const [name, method, strategy, n, rank, link, gpu] = ["model", "method", "strategy", "processes", "rank", "link", "gpu"].map((one) => model.get(one));
    const of = (which) => records[name][which][which === "full" ? 0 : ranks.indexOf(rank)], one = of(method);
    const now = memory(one, strategy, n), room = options.rooms[gpus.indexOf(gpu)], fits = now.total <= room;
    held.draw(one, now, n);
    const rows = { ...now.parts, together: now.total, "room on the GPU": room }, most = Math.max(now.total, room);
    for (const [part, { number, bar }] of Object.entries(cells)) {
      number.textContent = `${gib(rows[part])} GiB`;
      bar.style.width = `${(180 * rows[part] / most).toFixed(1)}px`;
    }
    cells.together.bar.className = `lab-bar ${fits ? "" : "over"}`;
    cells["room on the GPU"].bar.className = "lab-bar lab-room";
    const all = Object.fromEntries(strategies.map((which) => [which, processes.map((count) => [count, memory(one, which, count).total / 2 ** 30])]));
    const high = 1.15 * Math.max(room / 2 ** 30, ...Object.values(all).flat().map(([, value]) => value));
    curve.draw({
      name: `${gib(now.total)} GiB on each of ${n}`,
      x: { low: 1, high: 512, ticks: processes.filter((_, index) => index % 2 === 0 || index === 9), log: true },
      y: { low: 0, high, ticks: ticksTo(high) },
      lines: [...strategies.filter((which) => which !== strategy).map((which) => ({ points: all[which], kind: "ghost" })),
        { points: all[strategy], kind: "blue" }, { points: [[1, room / 2 ** 30], [512, room / 2 ** 30]], kind: "orange" }],
      marks: [{ x: n, y: now.total / 2 ** 30, kind: "blue", text: `${gib(now.total)} GiB` }],
    });
    const bytes = Object.fromEntries(methods.map((which) => [which, sent(of(which), strategy, n)])), mine = bytes[method];
    wire.draw(bytes, method, link);
    view.say(`${name}, ${method}${method === "full" ? "" : ` of rank ${rank}`}, ${strategy} on ${n === 1 ? "1 process" : `${n} processes`}: `
      + `${gib(now.total)} GiB on each; there is room for ${gib(room)} (${gpu}): it ${fits ? "fits" : "does not fit"}. `
      + (mine ? `Each sends ${bytesText(mine)} per step: ${timeText(mine / options.speeds[links.indexOf(link)])} over ${link}.` : "Nothing is sent."));
  });
  return view.end;
}
export default { render };
