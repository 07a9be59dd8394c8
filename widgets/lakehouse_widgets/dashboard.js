// The title and filters of a dashboard; sends the name of a filter and its value, nothing else.

const FOLD = 6; // more choices than this are folded away

function made(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Each kind of filter fills its box, and gives a function that shows a value.

function select(one, box, send) {
  const list = made("select");
  list.setAttribute("aria-label", one.label);
  for (const [value, text] of one.choices) {
    const option = made("option", "", text);
    option.value = value;
    list.append(option);
  }
  list.addEventListener("change", () => send(list.value));
  box.append(list);
  return (value) => {
    list.value = value;
  };
}

function several(one, box, send) {
  const group = made("div", "lw-choices");
  const inputs = one.choices.map(([value, text]) => {
    const label = made("label", "lw-choice");
    const input = made("input");
    input.type = "checkbox";
    input.value = value;
    label.append(input, made("span", "", text));
    group.append(label);
    return input;
  });
  const chosen = () => inputs.filter((input) => input.checked).map((input) => input.value);
  group.addEventListener("change", () => send(chosen()));
  let summary;
  if (one.choices.length > FOLD) {
    const fold = made("details");
    summary = made("summary");
    const all = made("div", "lw-all");
    for (const [text, checked] of [
      ["All", true],
      ["None", false],
    ]) {
      const button = made("button", "", text);
      button.type = "button";
      button.setAttribute("aria-label", `${text} of ${one.label}`);
      button.addEventListener("click", () => {
        for (const input of inputs) input.checked = checked;
        send(chosen());
      });
      all.append(button);
    }
    const list = made("div", "lw-fold");
    list.append(all, group);
    fold.append(summary, list);
    fold.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && fold.open) {
        fold.open = false;
        summary.focus();
      }
    });
    fold.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !fold.contains(event.relatedTarget)) fold.open = false;
    });
    box.append(fold);
  } else box.append(group);
  return (value) => {
    for (const input of inputs) input.checked = value.includes(input.value);
    const texts = one.choices.filter(([choice]) => value.includes(choice)).map(([, text]) => text);
    if (summary) {
      summary.textContent =
        texts.length === inputs.length ? `all ${inputs.length}` : texts.length === 1 ? texts[0] : `${texts.length} of ${inputs.length}`;
    }
  };
}

function between(one, box, send) {
  const inputs = ["from", "to"].map((end) => {
    const input = made("input");
    input.type = one.kind === "dates" ? "date" : "number";
    if (one.kind === "numbers") input.step = "any";
    input.min = one.low;
    input.max = one.high;
    input.setAttribute("aria-label", `${one.label} ${end}`);
    return input;
  });
  const read = (input) => (one.kind === "dates" ? input.value : input.valueAsNumber);
  box.append(inputs[0], made("span", "lw-dash", "–"), inputs[1]);
  if (one.unit) box.append(made("span", "lw-unit", one.unit));
  box.addEventListener("change", () => send(inputs.map(read)));
  return (value) => {
    inputs.forEach((input, n) => {
      input.value = value[n];
    });
  };
}

const KINDS = { select, multiselect: several, dates: between, numbers: between };

function render({ model, el }) {
  el.classList.add("lw-dashboard");
  const note = made("div", "lw-note");
  note.setAttribute("role", "alert");
  const busy = made("span", "lw-busy");
  busy.setAttribute("role", "status");
  const filters = made("div", "lw-filters");
  filters.addEventListener("keydown", (event) => event.stopPropagation()); // else JupyterLab takes them as its own
  const showing = new Map();
  for (const one of model.get("filters")) {
    const box = made("fieldset", "lw-filter");
    box.append(made("legend", "", one.label));
    const send = (value) => model.send({ kind: "filter", name: one.name, value });
    showing.set(one.name, KINDS[one.kind](one, box, send));
    filters.append(box);
  }
  if (model.get("title")) el.append(made("h2", "", model.get("title")));
  filters.append(busy);
  el.append(filters, note);
  const show = () => {
    for (const [name, value] of Object.entries(model.get("values"))) showing.get(name)?.(value);
  };
  const tell = () => {
    note.textContent = model.get("message");
    note.hidden = !note.textContent;
    busy.textContent = model.get("busy") ? "Counting …" : "";
  };
  model.on("change:message change:busy", tell);
  model.on("change:values msg:custom", show);
  tell();
  show();
  return () => {
    model.off("change:message change:busy", tell);
    model.off("change:values msg:custom", show);
  };
}

export default { render };
