// A chat token by token: read, learned, or lost. The arithmetic of lab_utils/widgets/conversation_explorer.py.

/** [start, stop] of what is in the loss with this choice of turns. */
function learnedSpans({ tokens, answers }, turns) {
  return { "all answers": answers, "the last answer": answers.slice(-1), "the first answer": answers.slice(0, 1) }[turns] ?? [[0, tokens.length]];
}

/** How many tokens of a chat are read. */
function reachOf({ tokens }, long, limit) {
  if (tokens.length <= limit) return tokens.length;
  return long === "cut the end off" ? limit : 0;
}

/** What is left of chats: { tooLong, read, learned, lost, endless }. */
function kept(records, turns, long, limit) {
  const found = { tooLong: 0, read: 0, learned: 0, lost: 0, endless: 0 };
  for (const record of records) {
    const length = record.tokens.length, reach = reachOf(record, long, limit);
    found.tooLong += length > limit ? 1 : 0;
    found.endless += reach > 0 && reach < length ? 1 : 0;
    found.read += reach;
    for (const [start, stop] of learnedSpans(record, turns)) {
      const here = Math.max(Math.min(stop, reach) - start, 0);
      found.learned += here;
      found.lost += stop - start - here;
    }
  }
  return found;
}

const HEADER = 4; // tokens, the longest

/** Round places from 0 to `high`. */
function tokenTicks(high) {
  const step = [5, 10, 20, 25, 50, 100, 200, 500, 1000, 2000, 5000].find((one) => high / one <= 6) ?? high;
  return Array.from({ length: Math.floor(high / step) + 1 }, (_, index) => index * step);
}

function render({ model, el }) {
  const view = frame({ model, el, title: "What a chat teaches, and what is cut" });
  const records = model.get("records"), { turns, long, shortest, longest } = model.get("options");
  const controls = [
    slider({ model, name: "chat", label: "chat", values: records.map((_, index) => index + 1) }),
    slider({ model, name: "max_length", label: "max_length", values: Array.from({ length: longest - shortest + 1 }, (_, index) => shortest + index) }),
    choice({ model, name: "turns", label: "learn", values: turns }),
    choice({ model, name: "long", label: "too long", values: long }),
  ];
  view.add(...controls.map((control) => control.root));
  const text = node("div", { class: "lab-chat-tokens", tabindex: "0", role: "group", "aria-label": "tokens of the chat" });
  const bars = chart({ label: "length of each chat", xlabel: "chats, the shortest first", ylabel: "tokens", width: 460, height: 210 });
  view.panels.append(text, bars.root);
  view.panels.after(node("div", { class: "lab-key" }, node("span", { class: "learned" }, "■ learned"),
    node("span", {}, "□ read, not learned"), node("span", { class: "lost" }, "cut or left out"), node("span", { class: "orange" }, "╍ max_length"),
    node("span", {}, "● this chat")));
  const order = records.map((_, index) => index).sort((a, b) => records[a].tokens.length - records[b].tokens.length || a - b);
  view.on(["chat", "max_length", "turns", "long"], () => {
    controls.forEach((control) => control.show());
    const [at, limit, which, way] = ["chat", "max_length", "turns", "long"].map((name) => model.get(name));
    const record = records[at - 1], reach = reachOf(record, way, limit), spans = learnedSpans(record, which);
    let line = 0; // tokens in this line: a header, which is short, shares the line of what is said
    text.replaceChildren(...record.tokens.flatMap((token, place) => {
      const learned = spans.some(([start, stop]) => start <= place && place < stop);
      const kind = place >= reach ? "lost" : learned ? "learned" : "read";
      const shown = node("span", { class: kind }, token.replaceAll("\n", "⏎"));
      line += 1;
      if (!token.includes("\n") || line <= HEADER) return [shown];
      line = 0;
      return [shown, node("br")];
    }));
    const high = Math.ceil(longest * 1.08), lengths = order.map((index) => records[index].tokens.length);
    const bar = (place, y, kind) => ({ from: place + 0.6, to: place + 1.4, y, kind });
    bars.draw({
      name: `lengths from ${lengths[0]} to ${longest} tokens`,
      x: { low: 0, high: records.length + 1, ticks: [1, records.length] }, y: { low: 0, high, ticks: tokenTicks(high) },
      bars: [
        ...order.map((index, place) => bar(place, records[index].tokens.length, "ghost")), // what is read is drawn over it
        ...order.map((index, place) => bar(place, reachOf(records[index], way, limit), "blue")),
      ],
      lines: [{ points: [[0, limit], [records.length + 1, limit]], kind: "orange" }],
      marks: [{ x: order.indexOf(at - 1) + 1, y: record.tokens.length, kind: "this", text: String(record.tokens.length) }],
    });
    const now = kept(records, which, way, limit), alone = kept([record], which, way, limit), count = whole(records.length);
    const fate = now.endless ? "lose their last end of turn" : "are left out";
    const tooLong = now.tooLong ? `${whole(now.tooLong)} of ${count} chats are too long and ${fate}` : "every chat fits";
    view.say(`Chat ${at}: ${record.tokens.length} tokens, ${alone.learned} learned (${which}). With max_length ${limit}, ${tooLong}. `
      + `One pass reads ${whole(now.read)} tokens and learns ${whole(now.learned)}; ${whole(now.lost)} are lost.`);
  });
  return view.end;
}

export default { render };
