// The page's side of explorer.py: controls, a tree that is asked for page by page, and what is opened of it.

const PAGE = 100; // entries asked for at once
const MOST = 200; // as explorer.py gives at most
const PATIENCE = 8000; // milliseconds until it is said that the kernel is slow
const NARROW = 600; // pixels, as in explorer.css
const TYPING = 250; // milliseconds after the last letter
const MARKS = { done: "✓", skipped: "✓", failed: "✕", timeout: "✕", interrupted: "✕", running: "●", view: "◇" };

function made(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function word(status) {
  const shown = made("span", "lw-status", status.replace("_", " "));
  shown.dataset.status = status;
  const mark = made("span", "lw-mark", MARKS[status] ?? "–");
  mark.setAttribute("aria-hidden", "true");
  shown.prepend(mark, " ");
  return shown;
}

function render({ model, el }) {
  const values = {};
  const inputs = {};
  const asked = new Map();
  const newest = new Map();
  const root = { item: null, level: 0, kids: null, next: null, total: null };
  // Two views of one widget hear each other's answers: each counts from somewhere of its own.
  let request = Math.floor(Math.random() * 2 ** 50);
  let active = null; // the row with the tab stop
  let rows = [];
  let shown = null; // the key that is opened
  let drawn = ""; // what is drawn of it
  let typing, listing, opening; // timers
  let view = null; // of the grid
  let gone = false;

  el.classList.add("lw-explorer");
  el.dataset.lmSuppressShortcuts = "true"; // JupyterLab's keys are not for here
  const bar = made("form", "lw-bar");
  bar.setAttribute("role", "search");
  bar.setAttribute("aria-label", model.get("label"));
  const said = made("div", "lw-said");
  said.setAttribute("role", "status");
  const note = made("div", "lw-note");
  note.setAttribute("role", "alert");
  note.hidden = true;
  const panes = made("div", "lw-panes");
  const tree = made("ul", "lw-tree");
  tree.setAttribute("role", "tree");
  tree.setAttribute("aria-label", model.get("label"));
  const detail = made("section", "lw-detail");
  detail.setAttribute("aria-label", "Details");
  detail.tabIndex = 0;
  const parts = made("div", "lw-parts");
  const preview = made("div", "lw-preview");
  preview.hidden = true;
  const caption = made("p", "lw-caption");
  caption.setAttribute("role", "status");
  const place = made("div");
  preview.append(caption, place);
  detail.append(parts, preview);
  panes.append(tree, detail);
  el.append(bar, said, note, panes);
  panes.style.setProperty("--lw-height", `${model.get("height")}px`);

  function ask(content, lane, done, failed) {
    request += 1;
    asked.set(request, { lane, done, failed });
    newest.set(lane, request);
    const mine = request;
    setTimeout(() => {
      if (!gone && newest.get(lane) === mine && asked.has(mine)) tell({ message: "Still waiting: the kernel is busy, or gone" });
    }, PATIENCE);
    model.send({ ...content, request, values });
  }

  function heard(content) {
    const question = asked.get(content.request);
    if (!question) return;
    asked.delete(content.request);
    if (newest.get(question.lane) !== content.request) return;
    if (content.kind === "error") question.failed(content);
    else {
      if (note.dataset.lane === question.lane || !note.dataset.lane) note.hidden = true;
      question.done(content);
    }
  }

  function tell(problem, lane, again) {
    note.replaceChildren(problem.hint ? `${problem.message} — ${problem.hint} ` : `${problem.message} `);
    note.dataset.lane = lane ?? "";
    if (again) {
      const button = made("button", "lw-button", "Try again");
      button.type = "button";
      button.addEventListener("click", again);
      note.append(button);
    }
    note.hidden = false;
  }

  // The tree

  function load(node, count = PAGE, quiet = false) {
    const lane = `list ${node.item?.key ?? ""}`;
    if (!quiet) node.state = "loading";
    ask(
      { kind: "list", under: node.item?.key ?? null, after: null, count },
      lane,
      (content) => {
        const told = JSON.stringify([content.items, content.next, content.total]);
        if (told !== node.told || node.state !== "ready") {
          const before = new Map((node.kids ?? []).map((kid) => [kid.item.key, kid]));
          node.kids = content.items.map((item) => {
            const kid = before.get(item.key) ?? { open: item.opened, kids: null };
            return Object.assign(kid, { item, level: node.level + 1, parent: node });
          });
          node.told = told;
          listed(node, content);
        }
        if (node === root) about(content);
      },
      (problem) => {
        node.state = "error";
        if (node === root && !quiet) node.kids = [];
        if (node === root && root.again) listing = setTimeout(fresh, root.again * 1000);
        draw();
        tell(problem, lane, () => load(node, count));
      },
    );
    if (!quiet) draw();
  }

  function about(content) {
    // What is said of the whole, and when to look again.
    if (said.textContent !== content.said) said.textContent = content.said;
    suggest(content.suggested ?? {});
    clearTimeout(listing);
    root.again = content.again;
    if (content.again) listing = setTimeout(fresh, content.again * 1000);
  }

  function more(node) {
    const lane = `list ${node.item?.key ?? ""}`;
    node.state = "loading";
    ask(
      { kind: "list", under: node.item?.key ?? null, after: node.next, count: PAGE },
      lane,
      (content) => {
        const added = content.items.map((item) => ({ item, open: item.opened, kids: null, level: node.level + 1, parent: node }));
        node.kids.push(...added);
        if (active?.more === node) active = { node: added[0] };
        listed(node, content);
      },
      (problem) => {
        node.state = "ready";
        draw();
        tell(problem, lane);
      },
    );
    draw();
  }

  function listed(node, content) {
    Object.assign(node, { next: content.next, total: content.total, state: "ready" });
    for (const kid of node.kids) if (kid.item.group && kid.open && kid.kids === null) load(kid);
    draw();
  }

  function fresh() {
    // What runs is looked at again while somebody may be looking.
    clearTimeout(listing);
    if (gone) return;
    if (document.hidden || !el.isConnected) listing = setTimeout(fresh, 1000);
    else for (const node of [root, ...(root.kids ?? []).filter((kid) => kid.open)]) load(node, Math.min(MOST, Math.max(PAGE, node.kids?.length ?? 0)), true);
  }

  function visible(node, found = []) {
    (node.kids ?? []).forEach((kid, index) => {
      found.push({ node: kid, position: index + 1, size: node.total ?? (node.next ? -1 : node.kids.length) });
      if (kid.item.group && kid.open) visible(kid, found);
    });
    if (node.next) found.push({ more: node });
    if (node.state === "loading" && node.kids === null) found.push({ waiting: node });
    else if (node.kids?.length === 0 && node.state === "ready") found.push({ empty: node });
    return found;
  }

  const same = (one, other) => one && other && one.node === other.node && one.more === other.more;

  function draw() {
    const focused = tree.contains(document.activeElement);
    rows = visible(root);
    const stops = rows.filter((row) => row.node || row.more);
    active = stops.find((row) => same(row, active)) ?? stops.find((row) => active?.node && row.node?.item.key === active.node.item.key) ?? stops[0] ?? null;
    tree.replaceChildren(...rows.map(line));
    tree.setAttribute("aria-busy", root.state === "loading");
    el.dataset.state = root.state;
    if (focused) tree.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }

  function line(row) {
    const { node } = row;
    const level = node ? node.level : (row.more ?? row.waiting ?? row.empty).level + 1;
    const element = made("li", "lw-item");
    element.style.paddingInlineStart = `${(level - 1) * 14 + 6}px`;
    if (row.waiting || row.empty) {
      element.setAttribute("role", "none");
      element.append(made("span", "lw-faint", row.waiting ? "Loading …" : "Nothing here"));
      return element;
    }
    element.setAttribute("role", "treeitem");
    element.setAttribute("aria-level", level);
    element.tabIndex = same(row, active) ? 0 : -1;
    if (row.more) {
      const left = row.more.total === null ? "" : ` of ${(row.more.total - row.more.kids.length).toLocaleString("en")} left`;
      element.classList.add("lw-more");
      element.append(row.more.state === "loading" ? "Loading …" : `Show ${PAGE} more${left}`);
      return element;
    }
    const { item } = node;
    element.setAttribute("aria-posinset", row.position);
    element.setAttribute("aria-setsize", row.size);
    element.setAttribute("aria-selected", item.key === shown);
    element.dataset.key = item.key;
    const turn = made("span", "lw-turn", item.group ? (node.open ? "▾" : "▸") : "");
    turn.setAttribute("aria-hidden", "true");
    if (item.group) element.setAttribute("aria-expanded", Boolean(node.open));
    element.append(turn);
    if (item.status) element.append(word(item.status), " ");
    element.append(made("span", "lw-name", item.text), " ", made("span", "lw-faint", item.detail));
    element.title = [item.text, item.detail].filter(Boolean).join(" · ");
    return element;
  }

  function turn(node, open) {
    node.open = open;
    if (open && node.kids === null) load(node);
    else draw();
  }

  function go(row) {
    if (!row) return;
    active = row;
    draw();
    const element = tree.children[rows.findIndex((one) => same(one, row))];
    element?.focus({ preventScroll: true });
    element?.scrollIntoView({ block: "nearest" });
  }

  function choose(row) {
    active = row;
    if (row.more) {
      if (row.more.state !== "loading") more(row.more);
      return;
    }
    if (row.node.item.group) turn(row.node, !row.node.open);
    open(row.node.item.key);
  }

  tree.addEventListener("click", (event) => {
    const row = rows[[...tree.children].indexOf(event.target.closest("li"))];
    if (!row || row.waiting || row.empty) return;
    if (event.target.closest(".lw-turn") && row.node?.item.group) {
      active = row;
      turn(row.node, !row.node.open);
    } else choose(row);
    tree.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  });
  tree.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const stops = rows.filter((row) => row.node || row.more);
    const at = stops.findIndex((row) => same(row, active));
    const node = stops[at]?.node;
    const starts = (row) => row.node?.item.text.toLowerCase().startsWith(event.key.toLowerCase());
    if (event.key === "ArrowDown") go(stops[at + 1]);
    else if (event.key === "ArrowUp") go(stops[at - 1]);
    else if (event.key === "Home") go(stops[0]);
    else if (event.key === "End") go(stops.at(-1));
    else if (event.key === "ArrowRight" && node?.item.group) {
      if (!node.open) turn(node, true);
      else if (stops[at + 1]?.node?.parent === node) go(stops[at + 1]);
    } else if (event.key === "ArrowLeft" && node) {
      if (node.item.group && node.open) turn(node, false);
      else if (node.parent !== root) go(stops.find((row) => row.node === node.parent));
    } else if (event.key === "Enter" || event.key === " ") {
      if (stops[at]) choose(stops[at]);
    } else if (event.key.length === 1) go([...stops.slice(at + 1), ...stops.slice(0, at + 1)].find(starts));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  // What is opened

  function open(key, quietly = false) {
    clearTimeout(opening);
    if (!quietly) {
      shown = key;
      drawn = "";
      preview.hidden = true;
      newest.delete("act");
      detail.setAttribute("aria-busy", "true");
      parts.replaceChildren(made("p", "lw-faint", "Loading …"));
      for (const element of tree.children) if (element.dataset.key) element.setAttribute("aria-selected", element.dataset.key === key);
    }
    ask(
      { kind: "open", key },
      "open",
      (content) => {
        detail.setAttribute("aria-busy", "false");
        if (content.again) {
          const again = () => {
            if (gone || shown !== key) return;
            if (document.hidden || !el.isConnected) opening = setTimeout(again, 1000);
            else open(key, true);
          };
          opening = setTimeout(again, content.again * 1000);
        }
        const now = JSON.stringify([content.title, content.parts]);
        if (now === drawn) return;
        drawn = now;
        parts.replaceChildren(made("h3", "lw-title", content.title), ...content.parts.map((one) => part(one, key)));
        detail.setAttribute("aria-label", `Details of ${content.title}`);
        if (!quietly) {
          detail.scrollTop = 0;
          if (panes.clientWidth < NARROW) detail.scrollIntoView({ block: "nearest" });
        }
      },
      (problem) => {
        detail.setAttribute("aria-busy", "false");
        drawn = "";
        parts.replaceChildren(part({ kind: "problem", text: problem.message, hint: problem.hint ?? "" }));
      },
    );
  }

  function part(one, key) {
    if (one.kind === "facts") {
      const list = made("dl", "lw-facts");
      for (const [name, value] of one.rows) list.append(made("dt", "", name), made("dd", "", value));
      return list;
    }
    if (one.kind === "problem") {
      const box = made("p", "lw-problem", one.hint ? `${one.text} — ${one.hint}` : one.text);
      box.setAttribute("role", "alert");
      return box;
    }
    if (one.kind === "buttons") {
      const box = made("div", "lw-buttons");
      box.append(...one.buttons.map((button) => pressed(button, key)));
      return box;
    }
    const box = made("div", "lw-part");
    if (one.title) box.append(made("h4", "", one.title));
    if (one.kind === "text") {
      const shownText = made(one.code ? "pre" : "p", one.code ? "lw-code" : "lw-text", one.text);
      if (one.code) shownText.tabIndex = 0; // so that the keyboard can scroll it
      box.append(shownText);
    } else box.append(tabled(one));
    if (one.note) box.append(made("p", "lw-faint", one.note));
    return box;
  }

  function tabled(one) {
    const frame = made("div", "lw-scroll");
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", one.title);
    const table = made("table");
    const head = made("tr");
    for (const name of one.columns) {
      const cell = made("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    const top = made("thead");
    top.append(head);
    const body = made("tbody");
    for (const row of one.rows) {
      const line = made("tr");
      for (const value of row) {
        const cell = made("td");
        if (typeof value === "string") cell.textContent = value;
        else if (value.status !== undefined) cell.append(word(value.status));
        else cell.append(pressed({ label: value.text, open: value.open }));
        line.append(cell);
      }
      body.append(line);
    }
    table.append(top, body);
    frame.append(table);
    return frame;
  }

  function pressed(button, key) {
    const element = made("button", button.open === undefined ? "lw-button" : "lw-link", button.label);
    element.type = "button";
    element.addEventListener("click", () => {
      if (button.open !== undefined) {
        open(button.open);
        detail.focus({ preventScroll: true });
      } else if (button.set !== undefined) set(button.set);
      else act(button.act, key, element);
    });
    return element;
  }

  function act(name, key, button) {
    button.disabled = true;
    preview.hidden = false;
    place.hidden = true;
    caption.textContent = "Loading …";
    caption.classList.remove("lw-problem");
    const ended = (text, failed) => {
      button.disabled = false;
      caption.textContent = text;
      caption.classList.toggle("lw-problem", failed);
      place.hidden = failed;
      if (panes.clientWidth < NARROW) preview.scrollIntoView({ block: "nearest" });
      else detail.scrollTop += preview.getBoundingClientRect().top - detail.getBoundingClientRect().top;
    };
    ask(
      { kind: "act", act: name, key },
      "act",
      (content) => ended(content.said, false),
      (problem) => ended(problem.hint ? `${problem.message} — ${problem.hint}` : problem.message, true),
    );
  }

  async function gridded() {
    const grid = model.get("grid");
    if (!grid || view !== null) return;
    view = {};
    try {
      const rowsOf = await model.widget_manager.get_model(grid.replace("IPY_MODEL_", ""));
      view = await model.widget_manager.create_view(rowsOf);
      place.replaceChildren(view.el);
    } catch {
      place.replaceChildren(made("p", "lw-problem", "The rows cannot be shown here"));
    }
  }

  // The controls

  function control(one) {
    const label = made("label", `lw-control lw-${one.kind}`);
    const input = made("input");
    inputs[one.name] = input;
    if (one.kind === "check") {
      input.type = "checkbox";
      values[one.name] = false;
      label.append(input, made("span", "", one.name));
      input.addEventListener("change", () => set({ [one.name]: input.checked }));
    } else {
      input.type = "search";
      input.placeholder = one.placeholder;
      input.autocomplete = "off";
      input.spellcheck = false;
      values[one.name] = "";
      const choices = made("datalist");
      choices.id = `lw-${Math.random().toString(36).slice(2)}`;
      input.setAttribute("list", choices.id);
      input.choices = choices;
      label.append(made("span", "", one.name), input, choices);
      const now = () => {
        clearTimeout(typing);
        if (values[one.name] !== input.value) set({ [one.name]: input.value });
      };
      input.addEventListener("change", now);
      input.addEventListener("input", () => {
        clearTimeout(typing);
        if (one.live || input.value === "") typing = setTimeout(now, TYPING);
      });
    }
    return label;
  }

  function set(given) {
    for (const [name, value] of Object.entries(given)) {
      values[name] = value;
      const input = inputs[name];
      if (input.type === "checkbox") input.checked = value;
      else if (input.value !== value) input.value = value;
      input.closest("label").dataset.set = Boolean(value);
    }
    note.hidden = true;
    for (const kid of root.kids ?? []) if (kid.kids !== null && kid.open) load(kid);
    for (const kid of root.kids ?? []) if (!kid.open) kid.kids = null; // they are of the values before
    load(root);
    if (shown !== null) open(shown);
  }

  function suggest(given) {
    for (const [name, choices] of Object.entries(given)) {
      inputs[name]?.choices?.replaceChildren(
        ...choices.map((choice) => {
          const option = made("option");
          option.value = choice;
          return option;
        }),
      );
    }
  }

  bar.addEventListener("submit", (event) => event.preventDefault());
  bar.addEventListener("keydown", (event) => event.stopPropagation());
  bar.append(...model.get("controls").map(control));
  parts.append(made("p", "lw-faint", model.get("hint")));
  model.on("msg:custom", heard);
  model.on("change:grid", gridded);
  gridded();
  load(root);
  return () => {
    gone = true;
    for (const timer of [typing, listing, opening]) clearTimeout(timer);
    model.off("msg:custom", heard);
    model.off("change:grid", gridded);
    view?.remove?.();
  };
}

export default { render };
