// An explorer drawn outside of a browser: as much of a page as the explorers use, and of it only what can be read.
// Input on stdin: { esm, state, moves }. Output: for each move, the explorer's sentence and the names of its pictures.

class Classes {
  constructor() { this.all = new Set(); }
  toggle(name, on = !this.all.has(name)) { this.all[on ? "add" : "delete"](name); return on; }
  add(...names) { names.forEach((name) => this.all.add(name)); }
  remove(...names) { names.forEach((name) => this.all.delete(name)); }
  contains(name) { return this.all.has(name); }
}

class Element {
  constructor(tag) {
    Object.assign(this, { tag, attributes: {}, children: [], style: { setProperty() {} }, classList: new Classes(), parent: null, dataset: {} });
  }
  set textContent(text) { this.children = [String(text)]; }
  get textContent() { return this.children.map((one) => (one instanceof Element ? one.textContent : one)).join(""); }
  set className(names) { this.setAttribute("class", names); }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
    if (name === "class") { this.classList = new Classes(); this.classList.add(...String(value).split(" ")); }
  }
  getAttribute(name) { return this.attributes[name] ?? null; }
  removeAttribute(name) { delete this.attributes[name]; }
  append(...parts) {
    for (const part of parts) if (part instanceof Element) part.parent = this;
    this.children.push(...parts.map((part) => (part instanceof Element ? part : String(part))));
  }
  prepend(...parts) { const rest = this.children; this.children = []; this.append(...parts); this.children.push(...rest); }
  replaceChildren(...parts) { this.children = []; this.append(...parts); }
  after(...parts) { this._beside(1, parts); }
  before(...parts) { this._beside(0, parts); }
  _beside(offset, parts) {
    for (const part of parts) part.parent = this.parent;
    this.parent.children.splice(this.parent.children.indexOf(this) + offset, 0, ...parts);
  }
  remove() { if (this.parent) this.parent.children = this.parent.children.filter((one) => one !== this); }
  addEventListener() {}
  removeEventListener() {}
  focus() {}
  querySelector() { return null; }
  querySelectorAll() { return []; }
  get offsetWidth() { return 800; }
  get clientWidth() { return 800; }
  getBoundingClientRect() { return { left: 0, top: 0, width: 800, height: 400 }; }
  getContext() {
    const pen = { createImageData: (width, height) => ({ data: new Uint8ClampedArray(4 * width * height) }) };
    return new Proxy(pen, { get: (target, name) => target[name] ?? (() => {}), set: () => true });
  }
  find(test, found = []) {
    if (test(this)) found.push(this);
    for (const child of this.children) if (child instanceof Element) child.find(test, found);
    return found;
  }
}

globalThis.document = {
  createElement: (tag) => new Element(tag), createElementNS: (_, tag) => new Element(tag),
  createTextNode: String, addEventListener() {}, removeEventListener() {}, body: new Element("body"),
};
globalThis.requestAnimationFrame = (draw) => { draw(0); return 0; };
globalThis.cancelAnimationFrame = () => {};
globalThis.ResizeObserver = class { observe() {} disconnect() {} };

let input = "";
for await (const part of process.stdin) input += part;
const { esm, state, moves } = JSON.parse(input);
const listeners = {}, el = new Element("div");
const model = {
  get: (name) => state[name],
  set(name, value) {
    state[name] = value;
    for (const draw of listeners[`change:${name}`] ?? []) draw();
  },
  save_changes() {},
  on: (event, draw) => (listeners[event] ??= []).push(draw),
  off() {},
  send() {},
};
const { default: widget } = await import(`data:text/javascript;base64,${Buffer.from(esm).toString("base64")}`);
await widget.render({ model, el });
const seen = moves.map((move) => {
  for (const [name, value] of Object.entries(move)) model.set(name, value);
  const [sentence] = el.find((one) => one.classList.contains("lab-summary"));
  const named = el.find((one) => one.attributes.role === "img").map((one) => one.attributes["aria-label"]);
  return { sentence: sentence.textContent, named };
});
console.log(JSON.stringify(seen));
