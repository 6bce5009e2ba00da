// Sliders that train a small network again at every move, here in the browser; the curve grows as the losses come in.

const SCALINGS = { "alpha / rank": (alpha, rank) => alpha / rank, "alpha / √rank": (alpha, rank) => alpha / Math.sqrt(rank) };
const RATES = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08];
const POWERS = [1, 2, 4, 8, 16, 32, 64];
const SETTINGS = ["task", "rank", "alpha", "learning_rate", "rule", "steps", "seed"];
const KEPT = 16, LOWEST = 1e-4, HIGHEST = 1e3, SLICE = 12; // runs; losses as they are drawn; milliseconds between pictures
const neat = (number) => String(Number(number.toPrecision(3)));
const same = (one, other) => SETTINGS.every((name) => one[name] === other[name]);

/** In which experiment the reader is: what the scaling does when the rank moves, and what has moved since the run before. */
function experiment(now, before, locked) {
  const { rank, alpha, rule, scaling } = now, root = rule === "alpha / √rank", sum = `${alpha} / ${root ? "√" : ""}${rank}`;
  const kind = locked && !root ? "Experiment: rank alone. Alpha moves with it, so the scaling stays 2."
    : locked ? `Experiment: alpha = 2 × rank under alpha / √rank. The scaling, now ${neat(scaling)}, grows with √rank.`
      : `Experiment: alpha held at ${alpha}. Scaling = ${sum} = ${neat(scaling)}: more rank makes it smaller.`;
  const names = { task: "the digits", rank: "rank", scaling: "scaling", learning_rate: "learning rate", steps: "steps", seed: "seed" };
  const moved = Object.keys(names).filter((name) => before && before[name] !== now[name]).map((name) => names[name]);
  if (moved.length === 0) return kind;
  return `${kind} Since the run before, ${moved.length === 1 ? `only ${moved[0]} moved` : `${moved.slice(0, -1).join(", ")} and ${moved.at(-1)} moved together`}.`;
}

function render({ model, el }) {
  const view = frame({ model, el, title: "Rank and alpha trainer" });
  const network = reader(Object.fromEntries(["network", "pixels", "labels"].map((name) => [name, model.get(name)])));
  const before = Object.fromEntries(Object.keys(TURNS).map((task) => [task, network.untrained(task)]));
  const put = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const lock = tick({
    label: "alpha = 2 × rank", checked: () => model.get("locked"),
    change: (on) => put(on ? { locked: true, alpha: 2 * model.get("rank") } : { locked: false }),
  });
  const numbers = { get: (name) => String(model.get(name)), set: (name, value) => model.set(name, Number(value)),
    save_changes: () => model.save_changes() }; // for a choice of numbers
  const alpha = slider({ model, name: "alpha", label: "alpha", values: [...POWERS, 128, 256] });
  const controls = [
    choice({ model, name: "task", label: "the digits are", values: Object.keys(TURNS) }),
    slider({ model, name: "rank", label: "rank", values: POWERS }),
    choice({ model: numbers, name: "steps", label: "steps", values: ["50", "100", "200", "400"] }),
    alpha, lock,
    choice({ model: numbers, name: "seed", label: "seed", values: ["1", "2", "3", "4", "5"] }),
    choice({ model, name: "rule", label: "scaling =", values: Object.keys(SCALINGS) }),
    slider({ model, name: "learning_rate", label: "learning rate", values: RATES }),
  ];
  alpha.input.addEventListener("input", () => model.set("locked", false), true); // moving alpha opens the lock
  view.add(...controls.map((control) => control.root));
  const where = node("p", { class: "lab-key" });
  view.panels.before(where);
  const curve = chart({ label: "loss against step", xlabel: "step", ylabel: "loss, nats per image" });
  const dots = chart({ label: "accuracy against rank", xlabel: "rank", ylabel: "accuracy on new images" });
  view.panels.append(curve.root, dots.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", { class: "blue" }, "━ loss of this run"),
    node("span", { class: "orange" }, "● its accuracy"), node("span", {}, "grey: earlier runs (Reset forgets them); grey line: before training")));

  let training = null, run = null; // the steps that are still to come, and what is on screen
  const draw = () => {
    const log = model.get("log").filter((old) => old.task === run.task && !same(old, run));
    const points = (losses) => losses.map((loss, index) => [index, loss]), done = run.accuracy !== null;
    const loss = run.losses.at(-1), { steps } = run, ticks = [0, 0.25, 0.5, 0.75, 1];
    curve.draw({
      name: `loss against step: ${neat(loss)} at step ${run.losses.length - 1}`,
      x: { low: 0, high: steps, ticks: [0, steps / 2, steps] },
      y: { low: 0.001, high: 30, ticks: [0.001, 0.01, 0.1, 1, 10], log: true },
      lines: [...log.filter((old) => old.steps === steps).slice(-8).map((old) => ({ points: points(old.losses), kind: "ghost" })),
        { points: points(run.losses), kind: "blue" }],
    });
    dots.draw({
      name: done ? `accuracy against rank: ${percent(run.accuracy)} at rank ${run.rank}` : "accuracy against rank: training",
      x: { low: 0.8, high: 80, ticks: POWERS, log: true }, y: { low: 0, high: 1, ticks, text: (tick) => `${100 * tick} %` },
      lines: [{ points: [[0.8, run.before], [80, run.before]], kind: "ghost" }],
      marks: [...log.map((old) => ({ x: old.rank, y: old.accuracy, kind: "ghost" })),
        ...(done ? [{ x: run.rank, y: run.accuracy, kind: "orange", text: percent(run.accuracy) }] : [])],
    });
    const start = `Rank ${run.rank}, scaling ${neat(run.scaling)}, learning rate ${run.learning_rate}: ${whole(run.trained)} numbers trained, `;
    view.say(start + (done
      ? `loss ${neat(loss)} after ${steps} steps, accuracy on new images ${percent(run.accuracy)} (${percent(run.before)} before).`
      : "training …"));
  };
  const keep = () => put({ log: [...model.get("log").filter((old) => !same(old, run)), run].slice(-KEPT) });
  const advance = (mine) => {
    const until = performance.now() + SLICE;
    while (training === mine) {
      const { done, value } = mine.next();
      if (done) {
        training = null;
        run.accuracy = value;
        draw();
        return keep();
      }
      run.losses.push(Number.isFinite(value) ? Math.min(Math.max(value, LOWEST), HIGHEST) : HIGHEST);
      if (performance.now() > until) break;
    }
    if (training !== mine) return;
    draw();
    requestAnimationFrame(() => advance(mine));
  };
  view.on([...SETTINGS, "locked"], () => {
    const now = Object.fromEntries(SETTINGS.map((name) => [name, model.get(name)]));
    const { rank } = now;
    for (const control of controls) control.show();
    if (model.get("locked") && now.alpha !== 2 * rank) return put({ alpha: 2 * rank });
    const scaling = SCALINGS[now.rule](now.alpha, rank), old = model.get("log").findLast((one) => !same(one, now));
    where.textContent = experiment({ ...now, scaling }, old, model.get("locked"));
    if (run && same(run, now)) return;
    run = { ...now, scaling, trained: 4 * WIDTH * rank, before: before[now.task], losses: [], accuracy: null };
    const mine = training = network.fit({ ...now, scaling });
    requestAnimationFrame(() => advance(mine));
  });
  view.on(["log"], () => {
    if (run && run.losses.length) draw();
  });
  return () => {
    training = null;
    view.end();
  };
}
export default { render };
