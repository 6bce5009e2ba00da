// What each of many processes holds and sends. The arithmetic of lab_utils/machines, from bytes that Python counted.

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

/** Bytes on one of `n` processes, part by part, and what is shared out; with hsdp among the `machine` of one machine. */
function memory(one, strategy, n, machine) {
  if (strategy === "hsdp") return memory(one, "fsdp", Math.min(n, machine), machine);
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

/** Bytes that each of `n` processes sends in a step, by the ring; with hsdp on several machines, between these. */
function sent(one, strategy, n, machine) {
  if (strategy === "hsdp" && n > machine) return sent({ gradients: Math.ceil(one.gradients / machine) }, "ddp", n / machine, machine);
  if (strategy === "hsdp") return sent(one, "fsdp", n, machine);
  const travels = strategy === "fsdp" ? one.travels + one.gradients : 2 * one.gradients;
  return Math.ceil(travels * (n - 1) / n);
}

/** What lasts on each process: filled where it is held, dashed where others hold it. Returns { root, draw }. */
function holders() {
  const width = 220, height = 290, top = 6, bottom = 28, high = height - top - bottom;
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const draw = (one, { shared }, n, group) => {
    const lasting = PARTS.slice(0, 4), whole = lasting.reduce((sum, part) => sum + one[part], 0), shown = Math.min(n, SHOWN);
    const step = width / SHOWN, wide = step - 5, drawn = [];
    let base = height - bottom;
    lasting.forEach((part, index) => {
      const tall = high * one[part] / whole;
      if (!tall) return;
      base -= tall;
      for (let column = 0; column < shown; column++) {
        const x = step * column, own = shared[part] ? Math.max(tall / group, Math.min(tall, 3)) : tall;
        const at = shared[part] && shown > 1 ? base + (tall - own) * (1 - column / (shown - 1)) : base;
        if (shared[part]) drawn.push(shape("rect", { class: "elsewhere", x, y: base, width: wide, height: tall }));
        drawn.push(shape("rect", { class: `${own > 6 ? "held " : ""}lab-part-${index}`, x, y: at, width: wide, height: own }));
      }
    });
    const text = n > SHOWN ? `${SHOWN} of ${n} processes` : n === 1 ? "1 process" : `${n} processes`;
    drawn.push(shape("text", { x: width / 2, y: height - 8, "text-anchor": "middle" }, text));
    root.replaceChildren(...drawn);
    const split = lasting.filter((part) => shared[part] && one[part]);
    root.setAttribute("aria-label", `${text}; shared out: ${split.join(", ") || "nothing"}`);
  };
  return { root: node("div", { class: "lab-plot lab-holders" }, root), draw };
}

/** Seconds of a step's sending by method, over the chosen link and, small, over the others. Returns { root, draw }. */
function wires(methods, links, speeds) {
  const width = 400, row = 24, left = 78, right = 26, top = 4, ticks = [1e-6, 1e-3, 1, 1000], words = ["1 µs", "1 ms", "1 s", "1000 s"];
  const floor = top + row * methods.length, height = floor + 42, dots = shape("g"), band = shape("rect", { class: "band", x: 0, width, height: row, rx: 4 });
  const px = (seconds) => left + (width - left - right) * Math.max(0, Math.min(1, (Math.log10(seconds) + 6) / 9));
  const names = methods.map((method, index) => shape("text", { x: left - 12, y: top + row * index + 17, "text-anchor": "end" }, method));
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img" }, band,
    ...ticks.flatMap((tick, index) => [shape("line", { class: "grid", x1: px(tick), x2: px(tick), y1: top, y2: floor }),
      shape("text", { x: px(tick), y: floor + 17, "text-anchor": "middle" }, words[index])]),
    ...names, dots, shape("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "time to send, per step"));
  const draw = (bytes, method, link) => {
    const chosen = links.indexOf(link), at = methods.indexOf(method);
    band.setAttribute("y", top + row * at);
    names.forEach((name, index) => name.setAttribute("class", index === at ? "chosen" : ""));
    dots.replaceChildren(...methods.flatMap((one, place) => (bytes[one] ? speeds : []).map((speed, index) => [px(bytes[one] / speed), index === chosen, place]))
      .sort(([, one], [, other]) => one - other)
      .map(([cx, mine, place]) => shape("circle", { class: mine ? "lab-now" : "mark ghost", cx, cy: top + row * place + 12, r: mine ? 6.5 : 3.5 })));
    root.setAttribute("aria-label", methods.map((one) => `${one}: ${bytes[one] ? timeText(bytes[one] / speeds[chosen]) : "nothing to send"}`).join("; "));
  };
  return { root, draw };
}

/** Round steps for an axis from 0 to about `high`. */
function ticksTo(high) {
  const raw = high / 4, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((factor) => factor * power >= 0.7 * raw) * power;
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, index) => index * step);
}

function render({ model, el }) {
  const view = frame({ model, el, title: "From one GPU to many" });
  const records = model.get("records"), { gpu: gpus, link: links, rank: ranks, processes, strategy: strategies, method: methods, machine, ...options } = model.get("options");
  const controls = [
    choice({ model, name: "model", label: "model", values: options.model }),
    choice({ model, name: "method", label: "method", values: methods }),
    choice({ model, name: "strategy", label: "strategy", values: strategies }),
    choice({ model, name: "gpu", label: "GPU", values: gpus }),
    choice({ model, name: "link", label: "link", values: links }),
    slider({ model, name: "processes", label: "processes", values: processes }),
    slider({ model, name: "rank", label: "rank", values: ranks }),
  ];
  for (const { input } of controls.slice(-2)) input.style.width = "120px";
  view.add(...controls.map((control) => control.root));
  const held = holders(), wire = wires(methods, links, options.speeds);
  const curve = chart({ label: "memory of each GPU", xlabel: "processes", ylabel: "GiB on each GPU", width: 400, height: 182 });
  const cells = {}, table = node("table", { class: "lab-table" }, node("caption", { class: "lab-hidden" }, "Memory on each GPU, by part"));
  [...PARTS, "together", "room on the GPU"].forEach((name, index) => {
    const number = node("td"), swatch = index < PARTS.length ? [node("span", { class: `lab-swatch lab-part-${index}` })] : [];
    table.append(node("tr", { class: index < PARTS.length ? "" : "lab-chosen" }, node("th", { scope: "row" }, ...swatch, name), number));
    cells[name] = number;
  });
  view.panels.classList.add("lab-cluster");
  view.panels.append(table, held.root, node("div", { class: "lab-plot" }, curve.root.children[0], wire.root));
  view.panels.after(node("div", { class: "lab-key" }, node("span", {}, "dashed: held by others"), node("span", {}, "thin: other strategies"),
    node("span", {}, "╍ room on the GPU"), node("span", {}, "small: other links"), node("span", {}, `hsdp: machines of ${machine}`)));
  view.on(["model", "method", "strategy", "processes", "rank", "link", "gpu"], () => {
    controls.forEach((control) => control.show());
    const [name, method, strategy, n, rank, link, gpu] = ["model", "method", "strategy", "processes", "rank", "link", "gpu"].map((one) => model.get(one));
    const of = (which) => records[name][which][which === "full" ? 0 : ranks.indexOf(rank)], one = of(method);
    const now = memory(one, strategy, n, machine), room = options.rooms[gpus.indexOf(gpu)], fits = now.total <= room;
    held.draw(one, now, n, strategy === "hsdp" ? Math.min(n, machine) : n);
    for (const [part, bytes] of Object.entries({ ...now.parts, together: now.total, "room on the GPU": room })) cells[part].textContent = `${gib(bytes)} GiB`;
    const all = Object.fromEntries(strategies.map((which) => [which, processes.map((count) => [count, memory(one, which, count, machine).total / 2 ** 30])]));
    const high = 1.15 * Math.max(room / 2 ** 30, ...Object.values(all).flat().map(([, value]) => value));
    curve.draw({
      name: `${gib(now.total)} GiB on each of ${n}`,
      x: { low: 1, high: 512, ticks: processes.filter((_, index) => index % 2 === 1 || index === 0), log: true },
      y: { low: 0, high, ticks: ticksTo(high) },
      lines: [...strategies.filter((which) => which !== strategy).map((which) => ({ points: all[which], kind: "ghost" })),
        { points: [[1, room / 2 ** 30], [512, room / 2 ** 30]], kind: "room" }, { points: all[strategy], kind: "now" }],
      marks: [{ x: n, y: now.total / 2 ** 30, kind: "now", text: `${gib(now.total)} GiB` }],
    });
    const bytes = Object.fromEntries(methods.map((which) => [which, sent(of(which), strategy, n, machine)])), mine = bytes[method];
    const inside = strategy === "hsdp" && n > machine ? `${bytesText(sent(one, "fsdp", machine, machine))} inside its machine and, between machines, ` : "";
    wire.draw(bytes, method, link);
    view.say(`${name}, ${method}${method === "full" ? "" : ` of rank ${rank}`}, ${strategy} on ${n === 1 ? "1 process" : `${n} processes`}: `
      + `${gib(now.total)} GiB on each; there is room for ${gib(room)} (${gpu}): it ${fits ? "fits" : "does not fit"}. `
      + (mine ? `Each sends ${inside}${bytesText(mine)} per step: ${timeText(mine / options.speeds[links.indexOf(link)])} over ${link}.` : "Nothing is sent."));
  });
  return view.end;
}
export default { render };
