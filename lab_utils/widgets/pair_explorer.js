// Two answers of a pair while DPO trains on it: recorded log-probabilities, and margin, loss and weight of any beta.

/** A probability: in per cent where it is not too small to be read so. */
function chance(nats) {
  const found = Math.exp(nats);
  return found >= 1e-4 ? `${(100 * found).toPrecision(3)} %` : found.toExponential(1);
}

/** How a log-probability has changed, in words. */
function changed(nats) {
  const shown = fixed(Math.abs(nats), 2);
  return Number(shown) === 0 ? "is as likely as it was" : `has become ${nats > 0 ? "likelier" : "rarer"} by ${shown} nats`;
}

/** The weight of a pair in the gradient: the slope of its loss, without its sign. */
const weightOf = (margin) => 1 / (1 + Math.exp(margin));

function render({ model, el }) {
  const view = frame({ model, el, title: "Both answers of a pair" });
  const courses = model.get("courses"), pairs = model.get("pairs"), trained = model.get("trained");
  const last = courses[0].logprobs.length - 1, counted = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => from + at);
  const controls = [
    slider({ model, name: "step", label: "step", values: counted(0, last) }),
    slider({ model, name: "pair", label: "pair", values: counted(1, pairs.length) }),
    slider({ model, name: "learning_rate", label: "learning rate", values: courses.map(({ rate }) => rate) }),
    slider({ model, name: "beta", label: "beta", values: model.get("betas") }),
  ];
  view.add(...controls.map((control) => control.root));
  const row = (...cells) => node("tr", {}, ...cells);
  const heads = ["", "what differs", "p at the start", "p now", "change, nats", "reward"];
  const body = node("tbody"), prompt = node("p", { class: "lab-message" });
  const table = node("table", { class: "lab-table" }, node("thead", {}, row(...heads.map((name) => node("th", { scope: "col" }, name)))), body);
  const course = chart({ label: "log-probabilities", xlabel: "step", ylabel: "log-probability, nats", height: 210 });
  const pull = chart({ label: "weight", xlabel: "margin", ylabel: "weight of the pair", height: 210 });
  view.panels.classList.add("lab-pair");
  view.panels.append(node("div", { class: "lab-both" }, prompt, table), course.root, pull.root);
  view.panels.after(node("div", { class: "lab-key" },
    node("span", { class: "blue" }, "━ chosen"), node("span", { class: "orange" }, "╍ rejected"),
    node("span", {}, "p: of the whole answer"),
    node("span", {}, `trained with beta ${trained}; other betas only read the same probabilities`)));
  const ticks = counted(0, last).filter((step) => step % 3 === 0);
  view.on(["step", "pair", "learning_rate", "beta"], () => {
    controls.forEach((control) => control.show());
    const [step, pair, rate, beta] = ["step", "pair", "learning_rate", "beta"].map((name) => model.get(name));
    const { logprobs } = courses.find((one) => one.rate === rate), lines = [0, 1].map((side) => logprobs.map((found) => found[pair - 1][side]));
    const [chosen, rejected] = lines.map((line) => line[step] - line[0]), margin = beta * (chosen - rejected);
    const loss = Math.log1p(Math.exp(-Math.abs(margin))) + Math.max(-margin, 0), weight = weightOf(margin);
    prompt.textContent = pairs[pair - 1].prompt;
    body.replaceChildren(...["chosen", "rejected"].map((name, side) => row(
      node("th", { scope: "row", class: side ? "orange" : "blue" }, name), node("td", {}, pairs[pair - 1].parts[side]),
      ...[chance(lines[side][0]), chance(lines[side][step]), fixed(lines[side][step] - lines[side][0], 2),
        fixed(beta * (lines[side][step] - lines[side][0]), 2)].map((text) => node("td", {}, text)))));
    const lowest = Math.min(...logprobs.flat(2)), every = [1, 2, 5, 10, 20, 50].find((one) => -lowest / one <= 5) ?? 100;
    const down = counted(0, Math.ceil(-lowest / every)).map((at) => -at * every).reverse();
    course.draw({
      name: `log-probability of the chosen answer ${fixed(lines[0][step], 2)}, of the rejected ${fixed(lines[1][step], 2)} nats, at step ${step}`,
      x: { low: 0, high: last, ticks }, y: { low: down[0], high: 0, ticks: down },
      lines: lines.map((line, side) => ({ kind: side ? "orange" : "blue", points: line.slice(0, step + 1).map((one, at) => [at, one]) })),
      marks: lines.map((line, side) => ({ x: step, y: line[step], kind: side ? "orange" : "blue" })),
    });
    const margins = counted(-16, 48).map((at) => at / 8);
    pull.draw({
      name: `weight of the pair ${fixed(weight, 3)} at a margin of ${fixed(margin, 2)}`,
      x: { low: -2, high: 6, ticks: [-2, 0, 2, 4, 6] }, y: { low: 0, high: 1, ticks: [0, 0.5, 1] },
      lines: [{ kind: "ghost", points: margins.map((one) => [one, weightOf(one)]) }],
      marks: [{ x: margin, y: weight, kind: "ghost", text: margin > 6 ? `margin ${fixed(margin, 1)} →` : `weight ${fixed(weight, 3)}` }],
    });
    view.say(`Step ${step} at learning rate ${rate}, pair ${pair} of ${pairs.length}: since the start the chosen answer ${changed(chosen)}, `
      + `the rejected one ${changed(rejected)}. With beta ${beta} the rewards are ${fixed(beta * chosen, 2)} and ${fixed(beta * rejected, 2)}: `
      + `the margin is ${fixed(margin, 2)}, the loss ${fixed(loss, 3)}, the weight ${fixed(weight, 3)}.`);
  });
  return view.end;
}
export default { render };
