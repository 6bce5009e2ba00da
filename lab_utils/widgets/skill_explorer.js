// Arms compared where they have learned equally much: the slider is the loss on the skill that all are read at.

const POINTS = 60; // of a path
const withSign = (value, digits) => {
  const text = fixed(value, digits);
  return text.startsWith("-") ? text : `+${text}`;
};

/** Each text's loss above the base's at a loss on the skill, on straight lines between checkpoints; null if it never came so low. */
function riseAt({ skill, losses }, loss, kind) {
  const texts = losses[kind];
  for (let step = 0; step + 1 < skill.length; step++) {
    const high = skill[step], low = skill[step + 1];
    if (high < loss || loss < low) continue;
    const part = high > low ? (high - loss) / (high - low) : 0;
    return texts[0].map((before, at) => texts[step][at] + part * (texts[step + 1][at] - texts[step][at]) - before);
  }
  return null;
}

/** What every arm has paid at a common loss, and that less another arm's: `rise`, `less` (null where not there), `above`. */
function paidAt(arms, loss, kind, against, students) {
  const rises = arms.map(({ name, runs }) => ({ name, found: new Map(runs.map((run) => [run.seed, riseAt(run, loss, kind)])) }));
  const reference = rises.find(({ name }) => name === against).found, there = ![...reference.values()].includes(null);
  return rises.map(({ name, found }) => {
    const above = [...found.values()].filter((one) => one === null).length, seeds = [...reference.keys()].filter((seed) => found.has(seed));
    const less = (seed) => found.get(seed).map((value, at) => value - reference.get(seed)[at]);
    return {
      name, above, runs: found.size, rise: above ? null : judge([...found.values()], students),
      less: above || !there ? null : judge(seeds.map(less), students),
    };
  });
}

/** The losses on the way from one to another, each the same multiple of the one before, the ends exact. */
function spread(start, end) {
  return Array.from({ length: POINTS }, (_, at) => (at + 1 < POINTS ? start * (end / start) ** (at / (POINTS - 1)) : end));
}

/** An arm's ways: of each run its line and what was measured on it, and the mean at the losses that all runs had. */
function waysOf(runs, kind) {
  const height = (run, place) => riseAt(run, place, kind)[0], lasts = runs.map(({ skill }) => Math.min(...skill));
  const together = spread(Math.min(...runs.map(({ skill }) => skill[0])), Math.max(...lasts));
  return {
    each: runs.map((run, at) => spread(run.skill[0], lasts[at]).map((place) => [place, height(run, place)])),
    dots: runs.flatMap(({ skill, losses }) => skill.map((place, at) => [place, losses[kind][at][0] - losses[kind][0][0]])),
    mean: together.map((place) => [place, average(runs.map((run) => height(run, place)))]),
  };
}

/** A line as far as a loss; between two of its points it is straight on the logarithmic axis. */
function upTo(points, loss) {
  const next = points.findIndex(([place]) => place <= loss);
  if (next <= 0) return points;
  const [[x0, y0], [x1, y1]] = [points[next - 1], points[next]], part = Math.log(x0 / loss) / Math.log(x0 / x1);
  return [...points.slice(0, next), [loss, y0 + part * (y1 - y0)]];
}

/** A row's interval around zero on the common scale; the disc is filled where it leaves zero out. */
function interval(change, scale, kind) {
  const at = (value) => 4 + 102 * (value - scale.low) / (scale.high - scale.low);
  const root = shape("svg", { class: `lab-chart lab-interval ${kind}`, viewBox: "0 0 110 20", "aria-hidden": "true" },
    shape("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: 20 }));
  if (change) root.append(
    shape("line", { class: "reach", x1: at(change.low), x2: at(change.high), y1: 10, y2: 10 }),
    shape("circle", { class: change.low > 0 || change.high < 0 ? "full" : "open", cx: at(change.mean), cy: 10, r: 5 }));
  return root;
}

function render({ model, el }) {
  const view = frame({ model, el, title: "At equal skill: what has each paid?" });
  const arms = model.get("arms"), students = model.get("students"), texts = model.get("texts"), losses = model.get("losses");
  const names = arms.map(({ name }) => name), kinds = Object.keys(texts);
  const means = arms.map(({ runs }) => runs.map(({ skill, losses: all }) => (
    { skill, losses: Object.fromEntries(kinds.map((kind) => [kind, all[kind].map((some) => [average(some)])])) })));
  const controls = [
    slider({ model, name: "loss", label: "common loss on the skill", values: losses, text: (value) => value.toFixed(3) }),
    choice({ model, name: "measured_on", label: "paid on", values: kinds }),
    choice({ model, name: "arm", label: "arm", values: names }),
    choice({ model, name: "against", label: "compared with", values: names }),
  ];
  view.add(...controls.map((control) => control.root));
  const plane = chart({ label: "both losses", xlabel: "loss on the skill, nats (better to the right)", ylabel: "paid: rise, nats", width: 380, height: 310 });
  const heads = ["arm", "", ""].map((text) => node("th", { scope: "col" }, text)), body = node("tbody");
  view.panels.classList.add("lab-skill");
  view.panels.append(plane.root, node("table", { class: "lab-table lab-paid" }, node("thead", {}, node("tr", {}, ...heads)), body));
  const keys = { arm: node("span", { class: "blue" }), against: node("span", { class: "orange" }) };
  view.panels.after(node("div", { class: "lab-key" }, keys.arm, keys.against, node("span", {}, "grey: means of the others"),
    node("span", {}, "dots: measured"), node("span", {}, "● clear, ○ not clear")));
  const x = {
    low: Math.max(...arms.flatMap(({ runs }) => runs.map(({ skill }) => skill[0]))), high: losses[losses.length - 1], log: true,
    ticks: [2, 1, 0.5, 0.2, 0.1, 0.05],
  };
  const scales = {}; // of each kind, computed once: its paths, and axes that are the same at every common loss
  const scaleOf = (kind) => (scales[kind] ??= (() => {
    const ends = losses.flatMap((loss) => paidAt(arms, loss, kind, names[0], students).flatMap(({ rise }) => (rise ? [rise.low, rise.high] : [])));
    const ways = means.map((runs) => waysOf(runs, kind)), heights = ways.flatMap(({ dots }) => dots.map(([, height]) => height));
    const [low, high] = [Math.min(0, ...heights), Math.max(0, ...heights)];
    return { ways, bars: { low: Math.min(0, ...ends), high: Math.max(0, ...ends) }, y: { low, high, ticks: roundTicks(low, high) } };
  })());
  view.on(["loss", "measured_on", "arm", "against"], () => {
    controls.forEach((control) => control.show());
    const [loss, kind, arm, against] = ["loss", "measured_on", "arm", "against"].map((name) => model.get(name));
    const rows = paidAt(arms, loss, kind, against, students), { ways, bars, y } = scaleOf(kind);
    const of = (name) => rows.find((row) => row.name === name), now = of(arm), other = of(against);
    const colours = { [against]: "orange", [arm]: "blue" }, lines = [];
    names.forEach((name, at) => { if (!colours[name]) lines.push({ kind: "ghost", points: upTo(ways[at].mean, loss) }); });
    for (const [name, colour] of Object.entries(colours)) {
      const { each, dots, mean } = ways[names.indexOf(name)];
      lines.push(...each.map((points) => ({ kind: `${colour} thin`, points: upTo(points, loss) })), { kind: colour, points: upTo(mean, loss) });
      lines.push(...dots.filter(([place]) => place >= loss).map((dot) => ({ kind: `${colour} dot`, points: [dot, dot] })));
    }
    const marks = Object.entries(colours).filter(([name]) => of(name).rise)
      .map(([name, colour]) => ({ x: loss, y: of(name).rise.mean, kind: colour, text: withSign(of(name).rise.mean, 2) }));
    plane.draw({ name: `loss on the skill and rise on ${kind} of ${arm} and ${against}, up to ${loss.toFixed(3)}`, x, y, lines, marks, rules: [loss] });
    heads[1].replaceChildren(`paid on ${kind}`);
    heads[2].replaceChildren(`less ${against}`);
    body.replaceChildren(...rows.map(({ name, rise, less, above, runs }) => {
      const gap = less ? `${withSign(less.mean, 2)} ± ${((less.high - less.low) / 2).toFixed(2)} ${less.low > 0 || less.high < 0 ? "●" : "○"}` : "";
      const away = `${above} of ${runs} seeds not there`, itself = name === against && rise ? "itself" : null;
      return node("tr", { class: `${colours[name] ?? ""} ${rise ? "" : "away"}` }, node("td", {}, name),
        node("td", {}, node("span", {}, rise ? withSign(rise.mean, 2) : ""), interval(rise, bars, colours[name] ?? "")), node("td", {}, rise ? itself ?? gap : away));
    }));
    keys.arm.textContent = `━ ${arm}, thin: its seeds`;
    keys.against.textContent = `╍ ${against}`;
    const paid = ({ name, rise, above, runs }) => (rise
      ? `${name} has paid ${withSign(rise.mean, 3)} (${withSign(rise.low, 3)} to ${withSign(rise.high, 3)})`
      : `${name} is not there with ${above} of its ${runs} seeds`);
    const apart = now.less && arm !== against
      ? ` Difference ${withSign(now.less.mean, 3)} (${withSign(now.less.low, 3)} to ${withSign(now.less.high, 3)}): `
        + `${now.less.low > 0 || now.less.high < 0 ? "clear" : "not clear"}.` : "";
    const missing = rows.filter(({ rise }) => !rise).length;
    view.say(`Loss ${loss.toFixed(3)}, ${texts[kind]} texts of ${kind}, nats with 95 % intervals: ${paid(now)}; ${paid(other)}.${apart} `
      + `${missing} of ${rows.length} arms are not there with all seeds.`);
  });
  return view.end;
}
export default { render };
