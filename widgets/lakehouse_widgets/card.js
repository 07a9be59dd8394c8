// One framed thing of a dashboard: a number, a figure, or the head of a grid; and a chart by itself.

const SAID = { loading: "Loading …", empty: "Nothing meets the filters" };

function drawing(svg) {
  // Parsed as an image's XML, never as HTML, and without anything that could run.
  const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
  for (const element of parsed.querySelectorAll("script, foreignObject, image, use")) element.remove();
  for (const element of parsed.querySelectorAll("*")) {
    for (const { name } of [...element.attributes]) {
      if (name.startsWith("on") || name.endsWith("href")) element.removeAttribute(name);
    }
  }
  return document.importNode(parsed.documentElement, true);
}

function render({ model, el }) {
  el.classList.add("lw-card");
  const title = document.createElement("div");
  title.className = "lw-title";
  const body = document.createElement("div");
  body.className = "lw-body";
  const tip = document.createElement("div");
  tip.className = "lw-tip";
  tip.hidden = true;
  el.append(title, body, tip);

  function draw() {
    const [state, kind, text] = [model.get("state"), model.get("kind"), model.get("text")];
    el.dataset.state = state;
    el.dataset.kind = kind;
    title.textContent = model.get("title");
    title.hidden = !title.textContent;
    body.setAttribute("aria-busy", state === "loading");
    body.setAttribute("role", state === "error" ? "alert" : "group");
    if (state === "loading" && body.childNodes.length && kind === "figure") return; // the last drawing, paler
    if (state !== "ready") {
      const said = document.createElement("span");
      said.className = "lw-said";
      said.textContent = state === "error" ? text : SAID[state];
      body.replaceChildren(said);
    } else if (kind === "figure") {
      const svg = drawing(model.get("svg"));
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", model.get("title") || "chart");
      body.replaceChildren(svg);
    } else body.textContent = text;
  }

  body.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("path[aria-label][role='graphics-symbol']");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.getAttribute("aria-label");
    const frame = el.getBoundingClientRect();
    tip.style.left = `${Math.min(event.clientX - frame.left + 12, frame.width - 160)}px`;
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
