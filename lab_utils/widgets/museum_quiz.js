// The museum's test: measure, compare with a run without a fault, name the accident. The points of museum_quiz.py.

/** What naming is worth after so many measurements. */
function pointsFor(measured, right, { most, least }) {
  return right ? Math.max(most + 1 - measured, least) : 0;
}

/** The buttons of measurements with what they say. Returns { root, draw, next }; a click calls `measure(place)`, and `next(place)` is the button after it. */
function readingsTable(measurements, measure) {
  const rows = measurements.map((name, place) => {
    const button = node("button", { type: "button", "aria-label": `measure: ${name}`, ...OWN_KEYS, click: () => measure(place) }, "measure");
    const here = node("td", {}, button), there = node("td", {});
    return { root: node("tr", {}, node("th", { scope: "row" }, name), here, there), here, there, button, shown: null };
  });
  const head = ["measurement", "this case", "without a fault"].map((text) => node("th", { scope: "col" }, text));
  const root = node("table", { class: "lab-table" }, node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...rows.map((row) => row.root)));
  const draw = ({ readings, healthy }, taken, over) => rows.forEach((row, place) => {
    const text = taken.includes(place) || over ? readings[place] : null;
    if (row.shown !== text) {
      row.here.replaceChildren(text === null ? row.button : text);
      row.shown = text;
    }
    row.there.textContent = text === null ? "" : healthy[place];
  });
  const next = (place) => [...rows.slice(place), ...rows].find((row) => row.shown === null)?.button;
  return { root, draw, next };
}

function render({ model, el }) {
  const view = frame({ model, el, title: "What has happened here?" });
  view.root.classList.add("lab-museum");
  const records = model.get("records"), accidents = model.get("accidents"), scale = model.get("scale");
  const measurements = model.get("measurements");
  const number = () => String(model.get("case"));
  const cases = slider({ model, name: "case", label: "case", values: records.map((_, index) => index + 1) });
  view.add(cases.root);
  const symptom = node("p", { class: "lab-symptom" });
  const put = (trait, value) => {
    model.set(trait, { ...model.get(trait), [number()]: value });
    model.save_changes();
  };
  const id = `lab-accident-${++counter}`;
  const select = node("select", { id, ...OWN_KEYS }, node("option", { value: "" }, "choose …"),
    ...accidents.map((name, place) => node("option", { value: place }, name)));
  const table = readingsTable(measurements, (place) => {
    put("taken", [...(model.get("taken")[number()] ?? []), place]);
    (table.next(place) ?? select).focus(); // where the keyboard was
  });
  const button = node("button", { type: "button", ...OWN_KEYS, click: () => {
    if (select.value !== "") put("named", Number(select.value));
  } }, "Name it");
  select.addEventListener("change", () => draw());
  view.panels.append(symptom, table.root, node("div", { class: "lab-naming" },
    node("label", { for: id }, "The accident:"), select, button,
    node("span", {}, `Measure first. ${scale.most} points after one measurement, one less for each more, at least ${scale.least}.`)));
  let last = "";
  const draw = () => {
    cases.show();
    const key = number(), record = records[model.get("case") - 1], taken = model.get("taken")[key] ?? [], named = model.get("named");
    const over = named[key] !== undefined;
    if (last !== key) select.value = "";
    last = key;
    if (over) select.value = String(named[key]);
    symptom.textContent = record.symptom;
    table.draw(record, taken, over);
    select.disabled = over || taken.length === 0;
    button.disabled = select.disabled || select.value === "";
    let text = `Case ${key} of ${records.length}: ${taken.length} of ${measurements.length} measurements made`;
    if (over) {
      const right = named[key] === record.answer;
      text += `; you named ${accidents[named[key]]}: ${right ? "right" : `not this one; it is ${accidents[record.answer]}`}. ${record.why}`;
    } else text += ", nothing named yet.";
    const sum = Object.entries(named).reduce((total, [one, choice]) =>
      total + pointsFor((model.get("taken")[one] ?? []).length, choice === records[Number(one) - 1].answer, scale), 0);
    view.say(`${text} ${sum} of ${scale.most * Object.keys(named).length} points.`);
  };
  view.on(["case", "taken", "named"], draw);
  return view.end;
}

export default { render };
