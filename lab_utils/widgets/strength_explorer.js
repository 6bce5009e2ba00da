// Measured points, one per strength of an adapter: the slider chooses which is read out. Nothing lies between two points.

/** A number with its sign and three digits; what is rounded to zero has a plus. */
function signed(value) {
  const text = `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(3)}`;
  return text === "-0.000" ? "+0.000" : text;
}

/** An axis from low to high, with up to five ticks at multiples of a round number, zero among them. */
function axis(low, high) {
  const steps = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2];
  const step = steps.find((one) => high - low <= 4 * one) ?? 5, first = Math.ceil(low / step);
  const ticks = Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => (first + index) * step);
  return { low, high, ticks, text: (value) => String(Number(value.toFixed(4))) };
}

function render({ model, el }) {
  const view = frame({ model, el, title: "An adapter turned down, and up" });
  const points = model.get("points"), kinds = Object.keys(points[0].rise), places = points.map(({ strength }) => strength);
  const controls = [
    slider({ model, name: "strength", label: "strength", values: places, text: (value) => value.toFixed(2) }),
    choice({ model, name: "measured_on", label: "forgetting measured on", values: kinds }),
  ];
  view.add(...controls.map((control) => control.root));
  const skill = chart({ label: "loss on the skill", xlabel: "strength of the adapter", ylabel: "skill: loss, nats" });
  const rest = chart({ label: "loss above the base's", xlabel: "strength of the adapter", ylabel: "above base, nats" });
  view.panels.append(skill.root, rest.root);
  view.panels.after(node("div", { class: "lab-key" },
    node("span", { class: "blue" }, "━ the skill that was trained"), node("span", { class: "orange" }, "╍ what was not asked for"),
    node("span", {}, "grey: the ends of the 95 % intervals; nats per token")));
  const last = places[places.length - 1], x = { low: places[0], high: last, ticks: places, text: (value) => value.toFixed(2) };
  const highest = Math.max(...points.map((point) => point.skill));
  view.on(["strength", "measured_on"], () => {
    controls.forEach((control) => control.show());
    const kind = model.get("measured_on"), strength = model.get("strength");
    const now = points.find((point) => point.strength === strength), [mean, low, high] = now.rise[kind];
    const rises = points.map((point) => point.rise[kind]), all = rises.flat();
    const line = (values) => points.map((point, index) => [point.strength, values[index]]);
    skill.draw({
      name: `loss on the skill: ${now.skill.toFixed(3)} at strength ${strength.toFixed(2)}`,
      x, y: axis(0, highest), lines: [{ kind: "blue", points: line(points.map((point) => point.skill)) }],
      marks: [{ x: strength, y: now.skill, kind: "blue", text: now.skill.toFixed(3) }],
    });
    rest.draw({
      name: `loss on ${kind} above the base's: ${signed(mean)} at strength ${strength.toFixed(2)}`,
      x, y: axis(Math.min(0, ...all), Math.max(0.001, ...all)),
      lines: [
        { kind: "ghost", points: line(rises.map((rise) => rise[1])) }, { kind: "ghost", points: line(rises.map((rise) => rise[2])) },
        { kind: "orange", points: line(rises.map((rise) => rise[0])) },
      ],
      marks: [{ x: strength, y: mean, kind: "orange", text: signed(mean) }],
    });
    const runs = model.get("runs"), texts = model.get("texts");
    view.say(`Strength ${strength.toFixed(2)}: the skill costs ${now.skill.toFixed(3)} nats per token (base ${points[0].skill.toFixed(3)}), `
      + `and ${now.percent} % of ${texts.skill} messages are answered letter by letter. `
      + `The loss on ${kind} is ${signed(mean)} nats above the base's (95 % interval ${signed(low)} to ${signed(high)}, `
      + `${runs === 1 ? "1 seed" : `${runs} seeds`}, ${texts[kind]} texts).`);
  });
  return view.end;
}
export default { render };
