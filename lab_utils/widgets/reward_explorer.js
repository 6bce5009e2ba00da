// A policy of four parts: answers drawn with it, their rewards and advantages, and what a step of GRPO does to each part.

const SHOWN = 8; // answers in the table

/** Probabilities of logits divided by a temperature. */
function softmax(logits, temperature = 1) {
  const largest = Math.max(...logits), powers = logits.map((one) => Math.exp((one - largest) / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((one) => one / sum);
}

/** The first way whose summed probability exceeds a random number. */
function drawn(probabilities, number) {
  let sum = 0;
  for (let way = 0; way < probabilities.length; way++) {
    sum += probabilities[way];
    if (number < sum) return way;
  }
  return probabilities.length - 1;
}

/** Rewards as `SMALL_REWARDS` gives them. */
const WORTH = {
  right: ({ ways }) => (ways.every((way) => way === 0) ? 1 : 0),
  valid: ({ ways }) => (ways[0] === 0 ? 1 : 0),
  "valid and short": ({ ways, text }) => (ways[0] === 0 ? 1 : 0) - text.length / 40,
};

/** A group's deviation (n - 1), each reward less the mean, and that over the deviation plus 0.0001. */
function comparedInGroup(rewards) {
  const mean = rewards.reduce((a, b) => a + b, 0) / rewards.length, plain = rewards.map((one) => one - mean);
  const deviation = Math.sqrt(plain.reduce((sum, one) => sum + one ** 2, 0) / (rewards.length - 1));
  return { mean, deviation, plain, scaled: plain.map((one) => one / (deviation + 1e-4)) };
}

const meanSize = (values) => values.reduce((sum, one) => sum + Math.abs(one), 0) / values.length;

/**
 * A run: for each step { answers, rewards, group, advantages, before, after }. The loss is the mean over all parts of
 * -advantage · ratio + beta · (exp(d) - d - 1), d = log reference - log policy; the ratio is 1 and has the gradient of its logarithm.
 */
function train({ parts, chances, rate, start }, { reward, size, temperature, beta, divided }) {
  const steps = [];
  let logits = start.map((row) => [...row]);
  const reference = start.map((row) => softmax(row, temperature).map(Math.log));
  for (const numbers of chances) {
    const likely = logits.map((row) => softmax(row, temperature));
    const answers = numbers.slice(0, size).map((row) => {
      const ways = row.map((number, part) => drawn(likely[part], number));
      return { ways, text: ways.map((way, part) => parts[part][way]).join("") };
    });
    const rewards = answers.map(WORTH[reward]), group = comparedInGroup(rewards);
    const advantages = divided ? group.scaled : group.plain;
    const after = logits.map((row) => [...row]);
    answers.forEach(({ ways }, at) => ways.forEach((way, part) => {
      const ahead = reference[part][way] - Math.log(likely[part][way]);
      const slope = (-advantages[at] + beta * (1 - Math.exp(ahead))) / (size * parts.length); // d loss / d log-probability
      likely[part].forEach((chance, other) => {
        after[part][other] -= rate * slope * ((other === way ? 1 : 0) - chance) / temperature;
      });
    }));
    steps.push({ answers, rewards, group, advantages, before: logits, after });
    logits = after;
  }
  return steps;
}

/** How often an answer of the policy is right, and well-formed, at temperature 1. */
function shares(logits) {
  const first = logits.map((row) => softmax(row)[0]);
  return { right: first.reduce((a, b) => a * b, 1), valid: first[0] };
}

/** Which way a probability went: nothing where the shown digits hardly differ. Colours mean right and well-formed, never this. */
function moved(was, is) {
  return is > was + 5e-4 ? "▲" : is < was - 5e-4 ? "▼" : "\u2007";
}

function render({ model, el }) {
  const view = frame({ model, el, title: "What a step does to each part of an answer" });
  const policy = model.get("policy"), { parts, steps } = policy;
  const controls = [
    choice({ model, name: "reward", label: "paid for", values: policy.rewards }),
    slider({ model, name: "group_size", label: "answers per step", values: policy.groups }),
    tick({
      label: "divide by the deviation",
      checked: () => model.get("divided"),
      change: (on) => {
        model.set("divided", on);
        model.save_changes();
      },
    }),
    slider({ model, name: "step", label: "step", values: Array.from({ length: steps }, (_, at) => at + 1) }),
    slider({ model, name: "temperature", label: "temperature", values: policy.temperatures }),
    slider({ model, name: "beta", label: "beta", values: policy.betas }),
  ];
  view.add(...controls.map((control) => control.root));
  const row = (cells, kind = "") => node("tr", kind ? { class: kind } : {}, ...cells);
  const heads = (...names) => node("thead", {}, row(names.map((name) => node("th", { scope: "col" }, name))));
  const title = node("span"); // of the answers; says how many are left out
  const group = node("tbody"), whole = node("tfoot"), ways = node("tbody");
  const answers = node("table", { class: "lab-table lab-answers" }, heads(title, "reward", "less mean", "÷ deviation"), group, whole);
  const chancesTable = node("table", { class: "lab-table lab-ways" }, heads("a part", "before", "after the step"), ways);
  const curve = chart({ label: "right and well-formed", xlabel: "step", ylabel: "probability", width: 860, height: 128 });
  view.panels.classList.add("lab-reward");
  view.panels.append(answers, chancesTable, curve.root);
  view.panels.after(node("div", { class: "lab-key" },
    node("span", { class: "blue" }, "━ right"), node("span", { class: "orange" }, "╍ well-formed"),
    node("span", {}, "▲ likelier, ▼ rarer (as the curve, at temperature 1)"), node("span", {}, "shaded: the step’s advantages")));
  let key = "", run = [], lines = [];
  view.on(["reward", "step", "group_size", "temperature", "beta", "divided"], () => {
    controls.forEach((control) => control.show());
    const set = {
      reward: model.get("reward"), size: model.get("group_size"), temperature: model.get("temperature"), beta: model.get("beta"),
      divided: model.get("divided"),
    };
    if (key !== JSON.stringify(set)) {
      key = JSON.stringify(set);
      run = train(policy, set);
      const all = [run[0].before, ...run.map(({ after }) => after)].map(shares);
      lines = [
        { kind: "blue", points: all.map(({ right }, at) => [at, right]) },
        { kind: "orange", points: all.map(({ valid }, at) => [at, valid]) },
      ];
    }
    const at = model.get("step"), now = run[at - 1], old = shares(now.before), next = shares(now.after), end = shares(run[steps - 1].after);
    const isRight = ({ ways: chosen }) => chosen.every((way) => way === 0);
    const { mean, deviation, plain, scaled } = now.group, numbers = (reward, less, over) => [
      node("td", {}, reward), node("td", set.divided ? {} : { class: "used" }, less), node("td", set.divided ? { class: "used" } : {}, over),
    ];
    title.textContent = set.size > SHOWN ? `first ${SHOWN} of ${set.size} answers` : "sampled answer";
    group.replaceChildren(...now.answers.slice(0, SHOWN).map((answer, index) => row([
      node("td", {}, answer.text), ...numbers(fixed(now.rewards[index], 3), fixed(plain[index], 3), fixed(scaled[index], 2)),
    ], isRight(answer) ? "good" : "")));
    whole.replaceChildren(
      row([node("th", { scope: "row" }, `deviation of the ${set.size}`), ...numbers(fixed(deviation, 3), "", "")]),
      row([node("th", { scope: "row" }, "mean size"), ...numbers("", fixed(meanSize(plain), 3), fixed(meanSize(scaled), 2))]));
    ways.replaceChildren(...parts.flatMap((names, part) => {
      const [was, is] = [now.before, now.after].map((logits) => softmax(logits[part]));
      return names.map((name, way) => row([
        node("td", {}, name), node("td", {}, percent(was[way])),
        node("td", {}, `${percent(is[way])} ${moved(was[way], is[way])}`),
      ], way ? "" : "first"));
    }));
    curve.draw({
      name: `after ${steps} steps ${percent(end.right)} right, ${percent(end.valid)} well-formed`,
      x: { low: 0, high: steps, ticks: [0, 10, 20, steps] }, y: { low: 0, high: 1, ticks: [0, 1] }, lines,
      marks: [{ x: at, y: next.right, kind: "blue" }, { x: at, y: next.valid, kind: "orange" }],
    });
    const taught = run.filter(({ advantages }) => advantages.some((one) => one !== 0)).length;
    view.say(`Step ${at} of ${steps}, paid for “${set.reward}”: ${now.answers.filter(isRight).length} of ${set.size} sampled answers are `
      + `right, mean reward ${fixed(mean, 2)}, deviation ${fixed(deviation, 3)}. Mean size of the advantages: ${fixed(meanSize(plain), 3)}, `
      + `divided by the deviation ${fixed(meanSize(scaled), 2)}. The step, ${set.divided ? "divided" : "not divided"}, takes the right answer from `
      + `${percent(old.right)} to ${percent(next.right)}, and well-formed ones from ${percent(old.valid)} to ${percent(next.valid)}. `
      + `${taught} of ${steps} steps have unequal rewards; after the last, ${percent(end.right)} are right and ${percent(end.valid)} well-formed.`);
  });
  return view.end;
}
export default { render };
