// Sliders that train a small model again while they move. Python trains; the curve grows here as the losses come in.

const RULES = ["alpha / rank", "alpha / √rank"];
const RATES = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05];
const POWERS = [1, 2, 4, 8, 16, 32, 64];
const neat = (number) => String(Number(number.toPrecision(3)));

function render({ model, el }) {
  const view = frame({ model, el, title: "Rank and alpha trainer" });
  const controls = [
    choice({ model, name: "task", label: "the digits are", values: ["mirrored", "turned"] }),
    slider({ model, name: "rank", label: "rank", values: POWERS }),
    slider({ model, name: "alpha", label: "alpha", values: [...POWERS, 128, 256] }),
    slider({ model, name: "learning_rate", label: "learning rate", values: RATES }),
    choice({ model, name: "rule", label: "scaling =", values: RULES }),
  ];
  view.add(...controls.map((control) => control.root));
  const curve = chart({ label: "loss against step", xlabel: "step", ylabel: "loss, nats an image" });
  const dots = chart({ label: "accuracy against rank", xlabel: "rank", ylabel: "accuracy on new images" });
  view.panels.append(curve.root, dots.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", { class: "blue" }, "━ loss of this run"),
    node("span", { class: "orange" }, "● its accuracy"), node("span", {}, "grey: earlier runs (Reset forgets them); grey line: before training")));
  rest({ model, view, controls, what: "every move trains again" });

  view.on(["task", "rank", "alpha", "learning_rate", "rule"], () => controls.forEach((control) => control.show()));
  view.on(["run", "log"], () => {
    const run = model.get("run"), steps = model.get("steps");
    if (run.error) return view.say(run.error);
    const log = model.get("log").filter((old) => old.number !== run.number && old.task === run.task);
    const points = (losses) => losses.map((loss, index) => [index, loss]);
    const loss = run.losses.at(-1);
    curve.draw({
      name: `loss against step: ${neat(loss)} at step ${run.losses.length - 1}`,
      x: { low: 0, high: steps, ticks: [0, steps / 2, steps] },
      y: { low: 0.01, high: 10, ticks: [0.01, 0.1, 1, 10], log: true },
      lines: [...log.slice(-8).map((old) => ({ points: points(old.losses), kind: "ghost" })), { points: points(run.losses), kind: "blue" }],
    });
    const ticks = [0, 0.25, 0.5, 0.75, 1], done = run.accuracy !== null;
    dots.draw({
      name: done ? `accuracy against rank: ${percent(run.accuracy)} at rank ${run.rank}` : "accuracy against rank: training",
      x: { low: 0.8, high: 80, ticks: POWERS, log: true }, y: { low: 0, high: 1, ticks, text: (tick) => `${100 * tick} %` },
      lines: [{ points: [[0.8, run.before], [80, run.before]], kind: "ghost" }],
      marks: [...log.map((old) => ({ x: old.rank, y: old.accuracy, kind: "ghost" })),
        ...(done ? [{ x: run.rank, y: run.accuracy, kind: "orange", text: percent(run.accuracy) }] : [])],
    });
    const start = `Rank ${run.rank}, scaling ${neat(run.scaling)}: ${whole(run.trained)} numbers trained, `;
    view.say(start + (done
      ? `loss ${neat(loss)} after ${steps} steps, accuracy on new images ${percent(run.accuracy)} (${percent(run.before)} before).`
      : "training …"));
  });
  return view.end;
}
export default { render };
