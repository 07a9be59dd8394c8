// One framed thing of a dashboard: a number, a figure, or the head of a grid; and a chart by itself.

const SAID = { loading: "Loading …", empty: "Nothing meets the filters" };

function drawing(svg, label) {
  // Parsed as an image's XML, never as HTML, and without anything that could run.
  const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
  for (const element of parsed.querySelectorAll("script, foreignObject, image, use")) element.remove();
  for (const element of parsed.querySelectorAll("*")) {
    for (const { name } of [...element.attributes]) {
      if (name.startsWith("on") || name.endsWith("href")) element.removeAttribute(name);
      // To who listens the drawing is one picture with a title; its marks are for the pointer.
      if (name === "role" || name === "aria-roledescription") element.removeAttribute(name);
      if (name === "aria-label") {
        element.dataset.mark = element.getAttribute(name);
        element.removeAttribute(name);
      }
    }
  }
  const root = document.importNode(parsed.documentElement, true);
  root.setAttribute("role", "img");
  root.setAttribute("aria-label", label);
  return root;
}

function render({ model, el }) {
  el.classList.add("lw-card");
  const name = document.createElement("div");
  name.className = "lw-name";
  const title = document.createElement("div");
  title.className = "lw-title";
  const body = document.createElement("div");
  body.className = "lw-body";
  const tip = document.createElement("div");
  tip.className = "lw-tip";
  tip.hidden = true;
  el.append(name, title, body, tip);
  let svg; // the one that stands in the body

  function draw() {
    const [state, kind, text] = [model.get("state"), model.get("kind"), model.get("text")];
    el.dataset.state = state;
    el.dataset.kind = kind;
    body.setAttribute("aria-busy", state === "loading");
    if (state === "loading" && body.childNodes.length) return; // what was shown last, paler
    const called = model.get("name");
    title.textContent = model.get("title");
    title.hidden = !title.textContent;
    name.textContent = called === title.textContent ? "" : called;
    name.hidden = !name.textContent;
    if (state === "error") body.setAttribute("role", "alert");
    else body.removeAttribute("role");
    if (state !== "ready") {
      svg = undefined;
      const said = document.createElement("span");
      said.className = "lw-said";
      said.textContent = state === "error" ? text : SAID[state];
      body.replaceChildren(said);
    } else if (kind === "figure") {
      if (svg !== model.get("svg")) {
        svg = model.get("svg");
        body.replaceChildren(drawing(svg, title.textContent || "chart"));
      } else body.firstElementChild.setAttribute("aria-label", title.textContent || "chart");
    } else body.textContent = text;
    body.hidden = !body.childNodes.length;
  }

  body.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("path[data-mark], g[data-mark] > path, line[data-mark]");
    const text = mark?.dataset.mark;
    tip.hidden = !text;
    if (!text) return;
    tip.textContent = text;
    const frame = el.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(event.clientX - frame.left + 12, frame.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${event.clientY - frame.top + 14}px`;
  });
  body.addEventListener("pointerleave", () => {
    tip.hidden = true;
  });
  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}

export default { render };
