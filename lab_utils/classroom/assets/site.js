// Explorers take the reader's theme from an attribute, as in JupyterLab; paper is light.
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = (light) => (document.body.dataset.jpThemeLight = String(light));
dark.addEventListener("change", () => paint(!dark.matches));
addEventListener("beforeprint", () => paint(true));
addEventListener("afterprint", () => paint(!dark.matches));
paint(!dark.matches);

// What is wider than the window is reached with the keyboard, and nothing else is.
const watch = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const wide = target.scrollWidth > target.clientWidth + 1 || target.scrollHeight > target.clientHeight + 1;
    if (wide) {
      target.tabIndex = 0;
      target.setAttribute("role", "group");
      target.setAttribute("aria-label", "Wide content, scrolls");
    } else for (const name of ["tabindex", "role", "aria-label"]) target.removeAttribute(name);
  }
});
document.querySelectorAll(".jp-OutputArea-output, .jp-OutputArea-output pre, .jp-RenderedMarkdown, .highlight pre, .site-own pre").forEach((part) => watch.observe(part));

// The index: show the sections whose text holds every word that was typed.
const filter = document.querySelector(".site-filter");
if (filter) {
  filter.hidden = false;
  const items = [...document.querySelectorAll(".site-sections li")];
  filter.querySelector("input").addEventListener("input", ({ target }) => {
    const words = target.value.toLowerCase().split(/\s+/);
    for (const item of items) item.hidden = !words.every((word) => item.textContent.toLowerCase().includes(word));
    const count = items.filter((item) => !item.hidden).length;
    filter.querySelector("output").textContent = `${count} of ${items.length} sections`;
  });
}
