// The title and filters of a dashboard; sends the name of a filter and its value, nothing else.

function made(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function control(one, send) {
  const box = made("fieldset", "lw-filter");
  box.append(made("legend", "", one.name));
  if (one.kind === "select") {
    const select = made("select");
    select.setAttribute("aria-label", one.name);
    select.append(...one.choices.map((choice) => made("option", "", choice)));
    select.addEventListener("change", () => send(select.value));
    box.append(select);
  } else if (one.kind === "multiselect") {
    const boxes = one.choices.map((choice) => {
      const label = made("label", "lw-choice");
      const input = made("input");
      input.type = "checkbox";
      input.checked = true;
      input.value = choice;
      label.append(input, choice);
      box.append(label);
      return input;
    });
    box.addEventListener("change", () => send(boxes.filter((input) => input.checked).map((input) => input.value)));
  } else {
    const [low, high] = ["from", "to"].map((end) => {
      const input = made("input");
      input.type = one.kind === "dates" ? "date" : "number";
      input.step = one.kind === "dates" ? "1" : "any";
      input.min = one.low;
      input.max = one.high;
      input.value = end === "from" ? one.low : one.high;
      input.setAttribute("aria-label", `${one.name} ${end}`);
      return input;
    });
    const value = (input) => (one.kind === "dates" ? input.value : input.valueAsNumber);
    box.append(low, made("span", "", " – "), high);
    box.addEventListener("change", () => send([value(low), value(high)]));
  }
  return box;
}

function render({ model, el }) {
  el.classList.add("lw-dashboard");
  const note = made("div", "lw-note");
  note.setAttribute("role", "alert");
  const filters = made("div", "lw-filters");
  filters.addEventListener("keydown", (event) => event.stopPropagation());
  for (const one of model.get("filters")) {
    filters.append(control(one, (value) => model.send({ kind: "filter", name: one.name, value })));
  }
  el.append(made("h2", "", model.get("title")), filters, note);
  const tell = () => {
    note.textContent = model.get("message");
    note.hidden = !note.textContent;
  };
  model.on("change:message", tell);
  tell();
  return () => model.off("change:message", tell);
}

export default { render };
