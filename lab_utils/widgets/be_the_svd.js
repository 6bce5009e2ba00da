// A table, and a column and a row to drag until their product comes near it.

function render({ model, el }) {
  const view = frame({ model, el, title: "Be the SVD" });
  const table = model.get("table"), highest = model.get("highest"), best = model.get("best");
  const total = Math.sqrt(table.flat().reduce((sum, value) => sum + value * value, 0));
  const put = (name, values) => {
    model.set(name, values);
    model.save_changes();
  };
  const change = (name, index, value) => {
    const step = highest[name] / 200, values = [...model.get(name)];
    values[index] = Math.max(0, Math.min(highest[name], Number((Math.round(value / step) * step).toFixed(4))));
    put(name, values);
  };

  /** One number of the column or the row: dragged up and down, or moved by the keys. */
  const knob = (name, index) => {
    const label = `${name}, number ${index + 1}`, high = highest[name], value = () => model.get(name)[index];
    let from = null; // where a drag began: its height and the value there
    const keys = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
    const text = node("span"), fill = node("i");
    const root = node("div", {
      class: "lab-knob", role: "slider", tabindex: 0, "aria-label": label, "aria-orientation": "vertical",
      "aria-valuemin": 0, "aria-valuemax": high, ...OWN_KEYS,
      pointerdown: (event) => {
        from = { y: event.clientY, value: value() };
        root.setPointerCapture(event.pointerId);
        root.focus();
        event.preventDefault();
      },
      pointermove: (event) => { if (from) change(name, index, from.value + (from.y - event.clientY) * high / 200); },
      pointerup: () => { from = null; },
      pointercancel: () => { from = null; },
      keydown: (event) => {
        if (event.key === "Home") change(name, index, 0);
        else if (event.key === "End") change(name, index, high);
        else if (event.key in keys) change(name, index, value() + keys[event.key] * high / 100);
        else return;
        event.preventDefault();
      },
    }, fill, text);
    const show = () => {
      const shown = value().toFixed(2);
      if (text.textContent === shown) return;
      text.textContent = shown;
      fill.style.setProperty("--lab-share", `${Math.min(100, 100 * value() / high)}%`);
      root.setAttribute("aria-valuenow", shown);
    };
    return { root, show };
  };

  const above = table[0].map((_, j) => knob("row", j)), beside = table.map((_, i) => knob("column", i));
  const cells = table.map((line) => line.map((wanted) => {
    const product = node("b");
    const root = node("div", { class: "lab-cell" }, product, node("small", {}, `of ${wanted.toFixed(2)}`));
    return { root, product, wanted };
  }));
  const grid = node("div", { class: "lab-hand", role: "group", "aria-label": "the column, the row and their product" },
    node("div", { class: "lab-corner" }, node("span", {}, "row →"), node("span", {}, "column ↓")), ...above.map((one) => one.root),
    ...cells.flatMap((line, i) => [beside[i].root, ...line.map((one) => one.root)]));
  grid.style.gridTemplateColumns = `minmax(64px, 1.2fr) repeat(${table[0].length}, minmax(0, 1fr))`;
  view.panels.append(grid);
  const solve = () => {
    put("column", [...best.column]);
    put("row", [...best.row]);
  };
  view.add(node("span", {}, "Drag a framed number up or down, or use the arrow keys."),
    node("button", { type: "button", class: "lab-solve", click: solve }, "Solve"));
  view.root.append(node("div", { class: "lab-key" },
    node("span", {}, node("span", { class: "orange" }, "orange"), " too little"),
    node("span", {}, node("span", { class: "blue" }, "blue"), " too much"),
    node("span", {}, "bold: column times row; below it the table's number")));

  view.on(["column", "row"], () => {
    const column = model.get("column"), row = model.get("row");
    let squares = 0, largest = { miss: 0, i: 0, j: 0 };
    cells.forEach((line, i) => line.forEach(({ root, product, wanted }, j) => {
      const made = column[i] * row[j], miss = wanted - made;
      squares += miss * miss;
      if (Math.abs(miss) > Math.abs(largest.miss) + 1e-6) largest = { miss, i, j };
      product.textContent = made.toFixed(2);
      const share = Math.round(Math.min(50, 50 * Math.abs(miss)));
      root.style.background = `color-mix(in srgb, var(--lab-${miss > 0 ? "orange" : "blue"}) ${share}%, transparent)`;
    }));
    for (const one of [...above, ...beside]) one.show();
    const error = Math.sqrt(squares) / total, end = error < best.error + 5e-4 ? " No column times a row comes closer." : "";
    view.say(`Relative error ${percent(error)}. Largest miss ${largest.miss.toFixed(2)}, row ${largest.i + 1}, `
      + `column ${largest.j + 1}.${end}`);
  });
  return view.end;
}
export default { render };
