// Which matrices get an adapter, of which rank, on which model: what is trained, and what is stored.

const RANKS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];

/** Bytes with three significant digits, in units of 1000. */
function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 999.5 && unit < units.length - 1) { bytes /= 1000; unit++; }
  return `${Number(bytes.toPrecision(3))} ${units[unit]}`;
}

/** Share as a percentage with three significant digits, never rounded to nothing. */
const share = (part, total) => `${Number((100 * part / total).toPrecision(3))} %`;

function render({ model, el }) {
  const view = frame({ model, el, title: "Parameter explorer" });
  const records = Object.fromEntries(model.get("architectures").map((one) => [one.name, one]));
  const which = choice({ model, name: "model", label: "model", values: Object.keys(records) });
  const rank = slider({ model, name: "rank", label: "rank", values: RANKS });
  view.add(which.root, rank.root);
  const table = node("table", { class: "lab-table" });
  view.panels.append(table);

  let shown = "", lines = [];
  const chosen = (one) => model.get("targets").some((name) => name === one.name || name === one.group);
  /** One row a matrix, with a tick to give it an adapter. */
  const build = () => {
    shown = model.get("model");
    const head = ["matrix", "shape", "× layers", "frozen numbers", "trained numbers", ""];
    table.replaceChildren(
      node("caption", { class: "lab-hidden" }, "The matrices of the model; tick those that get an adapter"),
      node("tr", {}, ...head.map((text) => node("th", { scope: "col" }, text || node("span", { class: "lab-hidden" }, "as a bar")))));
    lines = records[shown].modules.map((one) => {
      const target = tick({
        label: one.name,
        checked: () => chosen(one),
        change: () => {
          model.set("targets", lines.filter((line) => line.target.input.checked).map((line) => line.one.name));
          model.save_changes();
        },
      });
      const trained = node("td"), bar = node("span", { class: "lab-bar" });
      table.append(node("tr", {},
        node("th", { scope: "row" }, target.root),
        node("td", {}, `${whole(one.out)} × ${whole(one.in)}`), node("td", {}, whole(one.count)),
        node("td", {}, whole(one.out * one.in * one.count)), trained, node("td", { class: "lab-bars" }, bar)));
      return { one, target, trained, bar };
    });
  };
  view.on(["model", "rank", "targets"], () => {
    if (shown !== model.get("model")) build();
    which.show();
    rank.show();
    if (!lines.some(({ one }) => chosen(one)) && model.get("targets").length) { // the targets of another model
      model.set("targets", ["attention", "mlp"]);
      return model.save_changes();
    }
    const r = model.get("rank"), { total } = records[shown];
    const numbers = lines.map(({ one }) => r * (one.out + one.in) * one.count), largest = Math.max(...numbers);
    let trained = 0;
    lines.forEach(({ one, target, trained: cell, bar }, index) => {
      const on = chosen(one);
      target.show();
      if (on) trained += numbers[index];
      cell.textContent = on ? whole(numbers[index]) : "0";
      bar.style.width = on ? `${(140 * numbers[index] / largest).toFixed(0)}px` : "0";
    });
    view.say(`${shown}, rank ${r}: ${whole(trained)} of ${whole(total)} numbers trained (${share(trained, total)}). `
      + `Adapter file in 16 bits ${size(2 * trained)}, whole checkpoint ${size(2 * total)}. `
      + `Weights, gradients and Adam in training: ${size(2 * total + 12 * trained)} with LoRA, ${size(12 * total)} without.`);
  });
  return view.end;
}
export default { render };
