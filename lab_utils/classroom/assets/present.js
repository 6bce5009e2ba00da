// The bar of the pages of `make present`. Every button and link has a key; what is switched on lasts as long as the tab.
(() => {
  const KEPT = "lora-lab-present";
  const kept = { predict: false, dark: matchMedia("(prefers-color-scheme: dark)").matches, larger: 0 };
  Object.assign(kept, JSON.parse(sessionStorage.getItem(KEPT) ?? "{}"));
  const bar = document.querySelector(".present-bar"), place = (key) => bar.querySelector(`[data-key="${key}"]`);
  document.body.append(bar); // out of what Voilà scrolls
  const tell = (name, detail) => document.dispatchEvent(new CustomEvent(name, { detail }));

  // An explorer's smallest type is 15 px. As large as the window holds, but never below a 40th of its height: from six
  // heights away a capital letter is then seen at 10 minutes of arc, twice what a good eye needs.
  const SMALLEST = 40, LARGEST = 26;
  const fit = () => {
    const explorer = document.querySelector(".lab-explorer");
    if (!explorer) return;
    const room = innerHeight - bar.offsetHeight;
    for (let part = LARGEST; part <= SMALLEST; part++) {
      explorer.style.zoom = innerHeight / part / 15;
      if (explorer.getBoundingClientRect().height <= room) break;
    }
    explorer.style.zoom *= 1.1 ** kept.larger;
  };
  const show = () => {
    sessionStorage.setItem(KEPT, JSON.stringify(kept));
    document.body.dataset.jpThemeLight = String(!kept.dark);
    place("d").setAttribute("aria-pressed", kept.dark);
    place("q")?.setAttribute("aria-pressed", kept.predict);
    fit();
  };
  const act = {
    q() {
      kept.predict = !kept.predict;
      tell("lab-predict-first", kept.predict);
    },
    a: () => document.querySelector(".lab-again")?.click(),
    r: () => tell("lab-reset-all"),
    d() { kept.dark = !kept.dark; },
    f: () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()),
    "+"() { kept.larger++; },
    "-"() { kept.larger--; },
  };
  bar.addEventListener("click", ({ target }) => {
    const key = target.closest("button")?.dataset.key;
    if (!key) return;
    act[key]();
    show();
  });
  const TURNS = { PageDown: "n", PageUp: "p", "=": "+" }; // a remote control sends the first two
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("textarea, [type=text]")) return;
    if (event.key.startsWith("Page") && event.target.matches("input, select")) return; // moves a slider or a choice
    const meant = place(TURNS[event.key] ?? CSS.escape(event.key.toLowerCase()));
    if (!meant) return;
    event.preventDefault(); // a choice in focus would go to what begins with this letter
    meant.click();
  });
  addEventListener("resize", fit);
  // An explorer is drawn some time after the page; it then learns what is on. An answer makes room. Voilà sets its theme late.
  let seen = null, answered = false;
  new MutationObserver(() => {
    const explorer = document.querySelector(".lab-explorer"), made = Boolean(explorer?.querySelector(".lab-made"));
    if (document.body.dataset.jpThemeLight !== String(!kept.dark)) show();
    if (explorer && explorer !== seen && kept.predict) tell("lab-predict-first", true);
    if (explorer !== seen || made !== answered) fit();
    [seen, answered] = [explorer, made];
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-jp-theme-light"] });
  show();
})();
