// Sixteen levels to drag over the weights that are rounded to them, and the codes of others at as many bits.

const LEFT = 104, RIGHT = 648, WIDE = 920, TALL = 414, REACH = 14; // of the picture; the strip reaches so far beyond the levels
const BASE = 134, TOP = 12, USED_TOP = 173, USED_BASE = 219, ROWS = 262, ROW = 20.5, BAR = 742, BINS = 96;
const STEP = 0.005, FAR = 0.05, FITTED = "Lloyd-Max", ZERO_POINT = "zero-point";
const SIXTEEN = Array.from({ length: 16 }, (_, index) => index * 2 / 15 - 1); // even levels
const at = (value) => LEFT + (value + 1) / 2 * (RIGHT - LEFT);
const neat = (number) => String(Number(number.toPrecision(3)));
const same = (one, other) => one.every((value, index) => value === other[index]);
const text = (x, y, words, anchor = "start", kind = "") => shape("text", { x, y, "text-anchor": anchor, class: kind }, words);
const minus = (value, digits) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
/** Words with the mark in front that they explain. */
const marked = (x, y, mark, kind, words, anchor = "end") => {
  const element = text(x, y, "", anchor);
  element.replaceChildren(shape("tspan", { class: kind }, mark), ` ${words}`);
  return element;
};
const strokes = (levels, from, to) => levels.map((level) => `M${at(level).toFixed(1)} ${from}V${to}`).join("");
const box = (from, to, high, base) => `M${from.toFixed(1)} ${base}V${high.toFixed(1)}H${to.toFixed(1)}V${base}z`;

/** Share of the weights in each of BINS even bins of [-1, 1]. */
function histogram(shares) {
  const counts = new Array(BINS).fill(0);
  for (const share of shares) counts[Math.min(BINS - 1, Math.floor((share + 1) / 2 * BINS))]++;
  return counts.map((count) => count / shares.length);
}

/** The picture: { root, strip, draw }. `draw` builds again only what has changed. */
function picture16() {
  const svg = shape("svg", { class: "lab-chart", viewBox: `0 0 ${WIDE} ${TALL}`, role: "img", "aria-label": "weights and sixteen levels" });
  const layers = {}, drawn = {};
  for (const name of ["axes", "weights", "used", "levels", "rows", "own", "words"]) svg.append(layers[name] = shape("g"));
  const put = (name, key, build) => {
    if (drawn[name] === key) return;
    drawn[name] = key;
    layers[name].replaceChildren(...build());
  };
  const strip = node("div", { class: "lab-strip", tabindex: 0, role: "slider", "aria-label": "chosen level", "aria-valuemin": -1, "aria-valuemax": 1, ...OWN_KEYS });
  Object.assign(strip.style, {
    left: `${100 * (LEFT - REACH) / WIDE}%`, width: `${100 * (RIGHT - LEFT + 2 * REACH) / WIDE}%`, top: 0, height: `${100 * (BASE + 12) / TALL}%`,
  });
  const axes = () => [
    shape("path", { class: "axis", d: `M${LEFT} ${BASE}H${RIGHT}M${LEFT} ${USED_BASE}H${RIGHT}` }),
    ...[-1, -0.5, 0, 0.5, 1].map((tick) => text(at(tick), BASE + 28, minus(tick, tick % 1 ? 1 : 0), "middle")),
    marked(LEFT - 20, TOP + 30, "▇", "grey", "weights"), text(LEFT - 20, TOP + 49, "in blocks", "end"),
    marked(LEFT - 20, USED_TOP + 20, "▇", "blue", "used"), marked(LEFT - 20, USED_TOP + 41, "━", "ink", "error"),
    marked(LEFT - 20, ROWS - 19, "┃", "orange", "levels"), text(BAR - 12, ROWS - 19, "bits", "end"), text(BAR, ROWS - 19, "relative error"),
  ];
  const draw = ({ name, shares, levels, level, result, rows, bits, parts }) => {
    put("axes", "", axes);
    const high = Math.max(...shares), place = (share) => BASE - (BASE - TOP) * share / high;
    const bars = shares.map((share, bin) => box(at(-1 + 2 * bin / BINS), at(-1 + 2 * (bin + 0.9) / BINS), place(share), BASE)).join("");
    put("weights", bars, () => [shape("path", { class: "bar ghost", d: bars })]);
    const middles = levels.slice(1).map((value, index) => (value + levels[index]) / 2), edges = [-1, ...middles, 1].map(at);
    const most = Math.max(0.2, ...result.used, ...result.missed), up = (share) => USED_BASE - (USED_BASE - USED_TOP) * share / most;
    const used = result.used.map((share, index) => box(edges[index], Math.max(edges[index], edges[index + 1] - 1.5), up(share), USED_BASE)).join("");
    const missed = result.missed.map((share, index) => `M${edges[index].toFixed(1)} ${up(share).toFixed(1)}H${(edges[index + 1] - 1.5).toFixed(1)}`).join("");
    put("used", used + missed, () => [shape("path", { class: "bar blue", d: used }), shape("path", { class: "missed", d: missed })]);
    const chosen = levels[level - 1];
    put("levels", JSON.stringify([levels, level]), () => [
      shape("path", { class: "level yours", d: strokes(levels, TOP, BASE) }),
      ...levels.map((value, index) => (index === level - 1 ? null : value)).filter((value) => value !== null)
        .map((value) => shape("circle", { class: "handle", cx: at(value).toFixed(1), cy: BASE, r: 7 })),
      shape("path", { class: "stem", d: strokes([chosen], TOP - 6, BASE) }),
      shape("circle", { class: "handle chosen", cx: at(chosen).toFixed(1), cy: BASE, r: 9 }),
    ]);
    const errors = rows.map(({ error }) => error ?? 0), worst = Math.max(...errors) || 2 * result.error || 1, least = Math.min(...errors);
    const row = ({ label, levels: places, error, bits: cost }, index, own) => {
      const y = ROWS + ROW * index, kind = own ? "strong" : "";
      return [
        shape("path", { class: "axis", d: `M${LEFT} ${y}H${RIGHT}` }), text(LEFT - 20, y + 5, label, "end", kind),
        ...(places ? [shape("path", { class: own ? "level yours" : "level", d: strokes(places, y - 7, y + 7) })] : []),
        text(BAR - 12, y + 5, cost.toFixed(3), "end", kind),
        ...(error === null ? [text(BAR, y + 5, "?")] : [
          shape("path", { class: "bar ink", d: box(BAR, BAR + 96 * Math.min(1.1, error / worst), y - 6, y + 6) }),
          text(WIDE - 6, y + 5, percent(error, 2), "end", own || error === least ? "strong" : "")]),
      ];
    };
    put("rows", JSON.stringify(rows), () => rows.flatMap((one, index) => row(one, index + 1, false)));
    put("own", JSON.stringify([levels, result.error, bits, worst]), () => row({ label: "yours", levels, error: result.error, bits }, 0, true));
    const words = [percent(result.error, 2), `${bits.toFixed(3)} bits per weight:`, parts[0], parts[1],
      `Level ${level}, at ${minus(chosen, 3)}:`, `${percent(result.used[level - 1])} of the weights`, `${percent(result.missed[level - 1])} of the squared error`];
    put("words", words.join("|"), () => [
      text(RIGHT + 30, TOP + 8, "your relative error"), text(RIGHT + 30, TOP + 44, words[0], "start", "large"),
      text(RIGHT + 30, TOP + 74, words[1]), text(RIGHT + 30, TOP + 94, words[2]), text(RIGHT + 30, TOP + 114, words[3]),
      text(RIGHT + 30, USED_TOP + 6, words[4], "start", "strong"), text(RIGHT + 30, USED_TOP + 26, words[5]), text(RIGHT + 30, USED_TOP + 46, words[6]),
    ]);
    svg.setAttribute("aria-label", name);
    strip.setAttribute("aria-valuenow", chosen.toFixed(3));
    strip.setAttribute("aria-valuetext", `level ${level} of 16, at ${minus(chosen, 3)}`);
  };
  return { root: node("div", { class: "lab-levels" }, svg, strip), strip, draw };
}

/** Mouse, finger and keys on the strip. `hand` has get() -> { levels, level }, choose(level), move(value), held(whether), undo(). */
function listen(strip, hand) {
  let from = null; // where the pointer went down, and where the level was
  const value = (event) => {
    const { left, width } = strip.getBoundingClientRect(), span = RIGHT - LEFT;
    return -1 + 2 * ((event.clientX - left) / width * (span + 2 * REACH) - REACH) / span;
  };
  strip.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const x = value(event), { levels } = hand.get(), far = levels.map((level) => Math.abs(level - x)), nearest = far.indexOf(Math.min(...far));
    strip.setPointerCapture(event.pointerId);
    hand.choose(nearest + 1);
    hand.held(true);
    from = { x, level: levels[nearest] };
  });
  strip.addEventListener("pointermove", (event) => {
    if (from) hand.move(from.level + value(event) - from.x);
  });
  for (const name of ["pointerup", "pointercancel"]) strip.addEventListener(name, () => {
    from = null;
    hand.held(false);
  });
  strip.addEventListener("keydown", (event) => {
    const { levels, level } = hand.get(), step = event.shiftKey ? FAR : STEP, now = levels[level - 1];
    const acts = {
      ArrowRight: () => hand.move(now + step), ArrowLeft: () => hand.move(now - step),
      ArrowUp: () => hand.choose(level + 1), ArrowDown: () => hand.choose(level - 1), Home: () => hand.choose(1), End: () => hand.choose(16),
      PageUp: () => hand.move(now + FAR), PageDown: () => hand.move(now - FAR),
    };
    const act = (event.ctrlKey || event.metaKey) ? (event.key === "z" ? hand.undo : null) : acts[event.key];
    if (!act || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Code explorer" }), codes = model.get("codes");
  const records = Object.fromEntries(model.get("weights").map((one) => [one.name, { values: decode(one.values), count: one.count }]));
  const put = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const kept = new Map(); // the latest weights and block sizes, prepared
  const prepared = (name = model.get("weight"), block = model.get("blocksize")) => {
    const { values } = records[name], size = Math.min(block, values.length), key = `${size} ${name}`;
    if (!kept.has(key)) {
      const blocks = prepare(values, size);
      if (kept.size > 8) kept.delete(kept.keys().next().value);
      kept.set(key, { ...blocks, shares: histogram(blocks.divided) });
    }
    return kept.get(key);
  };
  const fitted = (blocks) => blocks.fitted ??= lloydMax(blocks, [codes.NF4, codes.AF4, SIXTEEN]);
  const others = (blocks) => {
    if (blocks.others) return blocks.others;
    const spread = zeroPoint(blocks), best = fitted(blocks);
    return blocks.others = [...Object.entries(codes).map(([label, levels]) => ({ label, levels, error: measure(blocks, levels).error })),
      { label: ZERO_POINT, levels: SIXTEEN.map((one) => spread.low + (one + 1) / 2 * (spread.high - spread.low)), error: spread.error },
      { label: FITTED, levels: best, error: measure(blocks, best).error }];
  };

  let ahead = false;
  /** While nothing else is to be done: what the block slider's next moves will show. */
  const lookAhead = () => {
    if (ahead || !globalThis.requestIdleCallback) return;
    ahead = true;
    requestIdleCallback(() => {
      ahead = false;
      const sizes = model.get("blocksizes"), now = sizes.indexOf(model.get("blocksize"));
      for (const size of [sizes[now - 1], sizes[now + 1]]) if (size) others(prepared(model.get("weight"), size));
    });
  };

  const past = []; // levels as they were, for Undo
  let last = model.get("levels"), held = false;
  const remember = () => {
    const now = model.get("levels");
    if (held || same(now, last)) return;
    past.push(last);
    last = now;
  };
  const hand = {
    get: () => ({ levels: model.get("levels"), level: model.get("level") }),
    choose: (level) => put({ level: Math.max(1, Math.min(16, level)) }),
    move: (value) => {
      const levels = [...model.get("levels")], [old] = levels.splice(model.get("level") - 1, 1);
      const now = Math.round(1000 * Math.max(-1, Math.min(1, value))) / 1000;
      let place = levels.filter((level) => level < now).length; // a level may pass others: they are sorted again
      if (now > old) place = levels.filter((level) => level <= now).length;
      levels.splice(place, 0, now);
      put({ level: place + 1, levels });
    },
    held: (whether) => {
      held = whether;
      remember();
      draw();
    },
    undo: () => {
      if (past.length) put({ levels: last = past.pop() });
    },
  };
  const copy = (levels) => put({ levels: [...levels, 0].slice(0, 16).sort((one, other) => one - other) });
  const controls = [
    choice({ model, name: "weight", label: "weights", values: Object.keys(records) }),
    slider({ model, name: "blocksize", label: "block", values: () => model.get("blocksizes") }),
    tick({ label: "show the others", checked: () => model.get("compared"), change: (on) => put({ compared: on }) }),
  ];
  view.add(...controls.map((control) => control.root));
  const button = (label, click, kind = "") => node("button", { type: "button", class: kind, click }, label);
  const undo = button("Undo", hand.undo, "lab-undo");
  view.panels.before(node("div", { class: "lab-presets" }, node("b", {}, "copy to yours"), button("even", () => copy(SIXTEEN)),
    ...Object.keys(codes).map((name) => button(name, () => copy(codes[name]))), button("best fit", () => copy(fitted(prepared()))), undo));
  const drawing = picture16();
  listen(drawing.strip, hand);
  view.panels.append(drawing.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", {},
    "Drag a level, or Tab to the picture: ← → move it (Shift: farther), ↑ ↓ choose another, Ctrl+Z undoes.")));

  const draw = () => {
    remember();
    controls.forEach((control) => control.show());
    undo.setAttribute("aria-disabled", past.length === 0);
    const levels = model.get("levels"), level = model.get("level"), name = model.get("weight"), blocks = prepared(), { size } = blocks;
    const result = measure(blocks, levels), scale = 32 / size, own = 16 * 32 / records[name].count, bits = 4 + scale + own;
    const compared = model.get("compared"), all = compared ? others(blocks)
      : [...Object.keys(codes), ZERO_POINT, FITTED].map((label) => ({ label, levels: null, error: null }));
    drawing.draw({
      name: `weights of ${name} in blocks of ${size}, and sixteen levels: relative error ${percent(result.error, 2)}`,
      shares: blocks.shares, levels, level, result, bits, parts: [`index 4 + scale ${neat(scale)}`, `+ the levels ${neat(own)}`],
      rows: all.map((row) => ({ ...row, bits: 4 + scale + (row.label === FITTED ? own : 0) })),
    });
    const ranking = all.map(({ label, error }) => [error, label]).sort(([a, one], [b, other]) => a - b || (one < other ? -1 : 1));
    view.say(`Yours on ${name}, blocks of ${size}: relative error ${percent(result.error, 2)} at ${bits.toFixed(3)} bits per weight. `
      + `Level ${level}, at ${minus(levels[level - 1], 3)}, `
      + `holds ${percent(result.used[level - 1])} of the weights and makes ${percent(result.missed[level - 1])} of the squared error.`
      + (compared ? ` With scales of as many bits: ${ranking.map(([error, label]) => `${label} ${percent(error, 2)}`).join(", ")}.` : ""));
    lookAhead();
  };
  view.root.classList.add("lab-code");
  view.root.querySelector(".lab-summary")?.classList.add("lab-long");
  view.on(["weight", "blocksize", "levels", "level", "compared"], draw);
  return view.end;
}
export default { render };
