// Recorded pictures of a style adapter: the base's beside the adapter's for each prompt, and what each rank costs.

/**
 * The base's picture, once, and beside it the adapter's, twice as wide, under one caption; `size` is their own in pixels.
 * The page enlarges them by its style: with canvases of 320 pixels a key press took 30 ms to be answered, so it is 13.
 * Returns { root, base, paint }.
 */
function pair(prompt, size) {
  const canvas = (label) => node("canvas", { width: size, height: size, role: "img", "aria-label": label });
  const base = canvas(`${prompt}: base`), mine = canvas(prompt);
  const root = node("figure", { class: "lab-sample" }, node("div", {}, base, mine), node("figcaption", {}, prompt));
  /** Copy the square at x, y of the sheet. */
  const copy = (to, sheet, x, y) => to.getContext("2d").drawImage(sheet, x, y, size, size, 0, 0, size, size);
  return {
    root,
    base: (sheet, x, y) => copy(base, sheet, x, y),
    paint: (sheet, x, y, label) => {
      copy(mine, sheet, x, y);
      mine.setAttribute("aria-label", `${prompt}: ${label}`);
    },
  };
}

/** What each rank costs, a row per rank; the chosen one in bold. Returns { root, draw }. */
function costs(ranks, adapters) {
  const rows = ranks.map((rank) => {
    const { trainable_parameters: count, file_bytes: size, loss, seconds } = adapters[rank];
    const cells = [whole(count), kilobytes(size), loss.toFixed(4), `${seconds.toFixed(0)} s`].map((text) => node("td", {}, text));
    return node("tr", {}, node("th", { scope: "row" }, String(rank)), ...cells);
  });
  const head = ["rank", "numbers trained", "file", "training loss", "time"].map((text) => node("th", { scope: "col" }, text));
  const root = node("table", { class: "lab-table" }, node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...rows));
  return { root, draw: (rank) => rows.forEach((row, index) => row.classList.toggle("lab-chosen", ranks[index] === rank)) };
}

const kilobytes = (size) => `${(size / 1000).toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} kB`;

/** rank -> for each strength the mean absolute difference from the base's pictures, as a share of 255. */
function measure(sheet, ranks, strengths, size) {
  const canvas = node("canvas", { width: sheet.width, height: sheet.height }), pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(sheet, 0, 0);
  const band = sheet.width * size * 4, data = pen.getImageData(0, 0, sheet.width, sheet.height).data, none = strengths.indexOf(0);
  return Object.fromEntries(ranks.map((rank, number) => [rank, strengths.map((_, index) => {
    const from = (number * strengths.length + index) * band, base = (number * strengths.length + none) * band;
    let sum = 0;
    for (let i = 0; i < band; i++) sum += Math.abs(data[from + i] - data[base + i]); // the fourth of each four is 255 in both
    return sum / (0.75 * band * 255);
  })]));
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Picture explorer" });
  const size = model.get("size"), prompts = model.get("prompts"), ranks = model.get("ranks"), strengths = model.get("strengths");
  const adapters = model.get("adapters"), none = strengths.indexOf(0), least = strengths[0], highest = strengths[strengths.length - 1];
  const controls = [
    slider({ model, name: "rank", label: "rank", values: ranks }),
    slider({ model, name: "strength", label: "strength", values: strengths }),
  ];
  view.add(...controls.map((control) => control.root));
  const pairs = prompts.map((prompt) => pair(prompt, size)), list = costs(ranks, adapters);
  const curve = chart({ label: "change of the pictures", xlabel: "strength of the adapter", ylabel: "change", width: 300, height: 196 });
  view.panels.append(node("div", { class: "lab-samples" }, ...pairs.map((one) => one.root)), list.root, curve.root);
  view.panels.after(node("div", { class: "lab-key" },
    node("span", {}, "small: base; large: adapter"), node("span", { class: "blue" }, "━ this rank"),
    node("span", {}, "grey: other ranks"), node("span", {}, "change: 100 % is black to white")));

  const sheet = new Image();
  let changes = null; // until the sheet is unpacked
  const draw = () => {
    controls.forEach((control) => control.show());
    const rank = model.get("rank"), strength = model.get("strength"), at = strengths.indexOf(strength);
    list.draw(rank);
    if (!changes) return;
    const row = ranks.indexOf(rank) * strengths.length;
    pairs.forEach((one, column) => one.paint(sheet, column * size, (row + at) * size, `rank ${rank}, strength ${strength}`));
    const most = Math.max(...Object.values(changes).flat()) || 1, change = changes[rank][at];
    const line = (one, kind) => ({ points: strengths.map((value, index) => [value, changes[one][index]]), kind });
    curve.draw({
      name: `the pictures differ from the base's by ${percent(change)} at strength ${strength}`,
      x: { low: least, high: highest, ticks: strengths }, y: { low: 0, high: most, ticks: [0, most / 2, most], text: (tick) => percent(tick, 0) },
      lines: [...ranks.filter((one) => one !== rank).map((one) => line(one, "ghost")), line(rank, "blue")],
      marks: [{ x: strength, y: change, kind: "blue", text: percent(change) }],
    });
    const { trainable_parameters: count, file_bytes: bytes, loss } = adapters[rank];
    view.say(`Rank ${rank}, strength ${strength}: ${whole(count)} numbers were trained, ${kilobytes(bytes)} in a file, training loss `
      + `${loss.toFixed(4)}; the ${prompts.length} pictures differ from the base's by ${percent(change)}.`);
  };
  view.on(["rank", "strength"], draw);
  sheet.addEventListener("load", () => {
    changes = measure(sheet, ranks, strengths, size);
    pairs.forEach((one, column) => one.base(sheet, column * size, none * size)); // without an adapter all ranks paint alike
    draw();
  });
  sheet.src = `data:image/png;base64,${model.get("sheet")}`;
  return view.end;
}
export default { render };
