// An exported page has no Jupyter: this gives every explorer its own model, filled from the saved state.
const states = JSON.parse(document.getElementById("lab-states").textContent);
const models = {};

function makeModel(state) {
  let listeners = [];
  const emit = (event, ...values) =>
    listeners.filter((listener) => listener.event === event).forEach((listener) => listener.callback(...values));
  const model = {
    get: (name) => state[name],
    set(name, value) {
      if (JSON.stringify(state[name]) === JSON.stringify(value)) return;
      state[name] = value;
      emit(`change:${name}`, model, value);
      emit("change", model);
    },
    save_changes() {},
    on(event, callback) {
      listeners.push({ event, callback });
    },
    off(event, callback) {
      listeners = listeners.filter(
        (listener) => (event && listener.event !== event) || (callback && listener.callback !== callback),
      );
    },
  };
  return model;
}

// Called once by each explorer's module: draws it wherever it is, and takes the static picture away.
globalThis.showExplorers = async (module, render) => {
  for (const place of document.querySelectorAll(`.lab-place[data-module="${module}"]`)) {
    const { model: id } = place.dataset;
    const el = document.createElement("div");
    place.append(el);
    try {
      models[id] ??= makeModel(states[id]);
      await render({ model: models[id], el });
      place.querySelector(".lab-still").hidden = true;
    } catch (error) {
      el.remove();
      console.error(error);
    }
  }
};
