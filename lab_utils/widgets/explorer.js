// What every explorer shares: its frame, sliders, heat maps and a chart. An explorer's own file follows in the same module.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. `attributes` whose value is a function are listeners, null and false are left out. */
function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** An SVG element. */
function shape(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** JupyterLab takes arrow keys and letters for itself unless the focused element says this. */
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };
const whole = (number) => Math.round(number).toLocaleString("en-US");
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
let counter = 0;

/** A number with so many digits; what is rounded to zero has no sign. */
function fixed(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) ? text : text.replace("-", "");
}

/** Bytes in a base64 text as int16, each divided by 32767: numbers in [-1, 1]. */
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (value) => value / 32767);
}

/**
 * The frame: title, prediction, controls, panels and a sentence that says what is seen. While `predict_first` is on and no
 * guess is made, title and question alone are seen. Two events at the document reach every explorer on the page:
 * "lab-reset-all" and "lab-predict-first" (its detail is true or false).
 * Returns { add, panels, say, on }. `on(names, draw)` calls draw at every change of these traits and once now.
 */
function frame({ model, el, title }) {
  const root = node("div", { class: "lab-explorer", role: "group", "aria-label": title });
  const question = node("div", { class: "lab-question" });
  const controls = node("div", { class: "lab-controls" });
  const panels = node("div", { class: "lab-panels" });
  const summary = node("p", { class: "lab-summary", role: "status", "aria-live": "polite" });
  const reset = () => {
    for (const [name, value] of Object.entries(model.get("start"))) model.set(name, value);
    model.save_changes();
  };
  const ask = () => {
    model.set("guess", "");
    model.save_changes();
    question.querySelector("button")?.focus();
  };
  const buttons = node("div", { class: "lab-buttons" },
    node("button", { type: "button", class: "lab-again", click: ask }, "Show the question"),
    node("button", { type: "button", class: "lab-reset", click: reset }, "Reset"));
  root.append(node("div", { class: "lab-head" }, node("div", { class: "lab-title" }, title), buttons),
    question, controls, panels, summary);
  el.replaceChildren(root);

  const listeners = [];
  const on = (names, draw) => {
    for (const name of names) {
      model.on(`change:${name}`, draw);
      listeners.push([`change:${name}`, draw]);
    }
    draw();
  };
  const guess = (choice) => () => {
    model.set("guess", choice);
    model.save_changes();
    root.querySelector(".lab-controls input, .lab-controls select")?.focus();
  };
  const everywhere = {
    "lab-reset-all": () => {
      model.set("guess", "");
      reset();
    },
    "lab-predict-first": ({ detail }) => {
      model.set("predict_first", detail);
      model.save_changes();
    },
  };
  for (const [name, act] of Object.entries(everywhere)) document.addEventListener(name, act);
  on(["guess", "question", "choices", "predict_first"], () => {
    const made = model.get("guess"), waits = model.get("predict_first") && !made && model.get("choices").length > 0;
    root.classList.toggle("lab-waiting", waits);
    question.replaceChildren(node("b", {}, "Predict. "), model.get("question"), " ");
    if (made) question.append(node("span", { class: "lab-made" }, `You said: ${made}. Now find out.`));
    else for (const choice of model.get("choices")) {
      question.append(node("button", { type: "button", click: guess(choice) }, choice));
    }
    if (waits) question.append(node("i", { class: "lab-first" }, "Answer, and the explorer opens."));
  });
  return {
    root, panels, on,
    add: (...elements) => controls.append(...elements),
    say: (text) => { if (summary.textContent !== text) summary.textContent = text; },
    end: () => {
      for (const [name, draw] of listeners) model.off(name, draw);
      for (const [name, act] of Object.entries(everywhere)) document.removeEventListener(name, act);
    },
  };
}

/** A labelled slider for trait `name` over `values` (a list); `text` writes a value. Returns { root, show }. */
function slider({ model, name, label, values, text = String }) {
  const id = `lab-${name}-${++counter}`;
  const output = node("output", { for: id, class: "lab-value" });
  const input = node("input", { id, type: "range", min: 0, step: 1, ...OWN_KEYS });
  const list = () => (typeof values === "function" ? values() : values);
  const show = () => {
    const value = model.get(name), all = list();
    let nearest = 0;
    all.forEach((one, index) => { if (Math.abs(one - value) < Math.abs(all[nearest] - value)) nearest = index; });
    input.max = all.length - 1;
    if (Number(input.value) !== nearest) input.value = nearest;
    output.textContent = text(value);
    input.setAttribute("aria-valuetext", text(value));
  };
  input.addEventListener("input", () => {
    model.set(name, list()[Number(input.value)]);
    model.save_changes();
  });
  return { root: node("div", { class: "lab-control" }, node("label", { for: id }, label), input, output), show, input };
}

/** A labelled choice for trait `name` out of `values`. Returns { root, show }. */
function choice({ model, name, label, values }) {
  const id = `lab-${name}-${++counter}`;
  const select = node("select", { id, ...OWN_KEYS }, ...values.map((value) => node("option", { value }, value)));
  select.addEventListener("change", () => {
    model.set(name, select.value);
    model.save_changes();
  });
  return {
    root: node("div", { class: "lab-control" }, node("label", { for: id }, label), select),
    show: () => { select.value = model.get(name); },
    input: select,
  };
}

/** A labelled tick box; `change` gets the new state, `checked` says the present one. Returns { root, show, input }. */
function tick({ label, change, checked }) {
  const id = `lab-tick-${++counter}`;
  const input = node("input", { type: "checkbox", id, ...OWN_KEYS, change: () => change(input.checked) });
  return {
    root: node("span", { class: "lab-control" }, input, node("label", { for: id }, label)),
    show: () => { input.checked = checked(); },
    input,
  };
}

/** Where no kernel answers, rest the controls of an explorer that asks Python, and say what is seen. */
function rest({ model, view, controls, what }) {
  if (typeof model.send === "function") return;
  for (const { input } of controls) input.disabled = true;
  view.root.append(node("p", { class: "lab-alone" }, `This is how it was when the page was saved. Where Python runs, ${what}.`));
}

/** A canvas with a caption; `width` is its size on the page in pixels. Returns { root, paint }. */
function picture({ caption, width }) {
  const canvas = node("canvas", { role: "img", "aria-label": caption });
  const text = node("figcaption", {}, caption);
  const root = node("figure", { class: "lab-picture" }, canvas, text);
  let image = null;
  /** Paint `values` (rows × columns): "grey" from 0 to `limit`, "signed" from -limit (blue) over white to limit (orange). */
  const paint = (values, rows, columns, limit, { kind = "signed", label = caption, size = width } = {}) => {
    if (canvas.width !== columns || canvas.height !== rows || !image) {
      canvas.width = columns;
      canvas.height = rows;
      image = canvas.getContext("2d").createImageData(columns, rows);
    }
    canvas.dataset.kind = kind; // a signed matrix has dark paper on a dark page, as the figures have
    canvas.style.width = `${size}px`;
    canvas.style.aspectRatio = `${columns} / ${rows}`;
    const data = image.data;
    for (let i = 0; i < rows * columns; i++) {
      const value = limit > 0 ? Math.max(-1, Math.min(1, values[i] / limit)) : 0;
      const ink = Math.abs(value);
      if (kind === "grey") {
        data[4 * i] = data[4 * i + 1] = data[4 * i + 2] = 255 * Math.max(0, value);
      } else {
        data[4 * i] = 255 - ink * (value < 0 ? 244 : 46);
        data[4 * i + 1] = 255 - ink * (value < 0 ? 160 : 171);
        data[4 * i + 2] = 255 - ink * (value < 0 ? 90 : 245);
      }
      data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    if (text.textContent !== label) {
      text.textContent = label;
      canvas.setAttribute("aria-label", label);
    }
  };
  return { root, paint, canvas };
}

/**
 * A chart. `draw({ lines, bars, rules, marks, x, y })`: lines are { points: [[x, y], …], kind }, kinds are classes of the
 * style sheet ("blue", "orange", "ghost"); bars are { from, to, y, kind }; rules are places on x where a line goes up;
 * marks are { x, y, kind, text }; x and y are { low, high, ticks, text, log }.
 */
function chart({ label, xlabel, ylabel, width = 420, height = 250 }) {
  const left = 78, right = 16, top = 14, bottom = 46;
  const root = shape("svg", { class: "lab-chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const layers = Object.fromEntries(["axes", "bars", "rules", "lines", "marks"].map((name) => [name, shape("g")]));
  const drawn = {}; // what each layer shows: it is built again only when that changes
  root.append(...Object.values(layers));
  const layer = (name, key, build) => {
    if (drawn[name] === key) return;
    drawn[name] = key;
    layers[name].replaceChildren(...build());
  };
  const draw = ({ lines = [], bars = [], rules = [], marks = [], x, y, name = label }) => {
    const place = (axis, from, to) => {
      const map = axis.log ? Math.log : (value) => value;
      const low = map(axis.low), span = map(axis.high) - low || 1;
      return (value) => from + (to - from) * Math.max(0, Math.min(1, (map(value) - low) / span));
    };
    const px = place(x, left, width - right), py = place(y, height - bottom, top);
    layer("axes", JSON.stringify([x, y]), () => [
      ...y.ticks.flatMap((tick) => [
        shape("line", { class: "grid", x1: left, x2: width - right, y1: py(tick), y2: py(tick) }),
        shape("text", { x: left - 8, y: py(tick) + 5, "text-anchor": "end" }, (y.text ?? String)(tick)),
      ]),
      ...x.ticks.map((tick) =>
        shape("text", { x: px(tick), y: height - bottom + 20, "text-anchor": "middle" }, (x.text ?? String)(tick))),
      shape("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, xlabel),
      shape("text", { transform: `translate(16 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, ylabel),
    ]);
    // All bars of a kind are one path, and so are all rules: a hundred elements would take the browser much longer.
    const boxes = {};
    for (const { from, to, y: high, kind } of bars) {
      const wide = Math.max(px(to) - px(from), 1).toFixed(1);
      boxes[kind] = `${boxes[kind] ?? ""}M${px(from).toFixed(1)} ${height - bottom}V${py(high).toFixed(1)}h${wide}V${height - bottom}z`;
    }
    layer("bars", JSON.stringify(boxes), () => Object.entries(boxes).map(([kind, d]) => shape("path", { class: `bar ${kind}`, d })));
    const strokes = rules.map((at) => `M${px(at).toFixed(1)} ${top}V${height - bottom + 6}`).join("");
    layer("rules", strokes, () => [shape("path", { class: "rule", d: strokes })]);
    const paths = lines.map(({ points }) => points.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join(" "));
    layer("lines", lines.map(({ kind }, index) => kind + paths[index]).join("|"), () =>
      lines.map(({ kind }, index) => shape("polyline", { class: `line ${kind}`, points: paths[index] })));
    layer("marks", JSON.stringify([marks, x, y]), () => marks.flatMap(({ x: a, y: b, kind, text }) => {
      const before = px(a) > width / 2, anchor = before ? "end" : "start";
      const note = { class: "note", x: px(a) + (before ? -10 : 10), y: Math.max(py(b) - 10, top + 12), "text-anchor": anchor };
      return [
        shape("line", { class: "drop", x1: px(a), x2: px(a), y1: py(b), y2: height - bottom }),
        shape("circle", { class: `mark ${kind}`, cx: px(a), cy: py(b), r: 6 }),
        ...(text ? [shape("text", note, text)] : []),
      ];
    }));
    root.setAttribute("aria-label", name);
  };
  return { root: node("div", { class: width > 600 ? "lab-plot lab-wide" : "lab-plot" }, root), draw };
}
