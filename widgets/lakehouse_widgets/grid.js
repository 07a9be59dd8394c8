// The page's side of grid.py: draws the rows in sight, asks the kernel for those it has not, and for nothing else.

const PAGE = 100; // rows asked for at once
const KEPT = 60; // pages kept
const ROW = 24; // pixels, as in grid.css
const TALLEST = 8_000_000; // pixels; browsers draw nothing behind some 16 million
const NUMBER = /^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL.*|DOUBLE|FLOAT)$/;

function made(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function render({ model, el }) {
  const pages = new Map();
  let sort = [];
  let filter = [];
  let request = 0;
  let oldest = 1; // the first request of the view that is shown; answers to earlier ones are stale
  let asked = null; // the page under way
  let askedAt = 0;
  let total = null;
  let top = 0; // the first row in sight
  let current = { row: 0, column: 0 };
  let anchor = { ...current };
  let columns = [];
  let widths = null;
  let ours = false; // a scroll that we made

  el.classList.add("lw-grid");
  const bar = made("div", "lw-bar");
  const count = made("span", "lw-count", "…");
  count.setAttribute("role", "status");
  const jump = made("input", "lw-jump");
  jump.placeholder = "Go to row";
  jump.setAttribute("aria-label", "Go to row");
  jump.inputMode = "numeric";
  const chosen = made("span", "lw-chosen");
  const add = made("button", "lw-button", "Filter");
  add.type = "button";
  const save = made("button", "lw-button", "CSV");
  save.type = "button";
  save.title = "Save the rows shown as CSV";
  bar.append(count, chosen, jump, add, save);
  const form = made("form", "lw-form");
  form.hidden = true;
  const [which, how, what] = [made("select"), made("select"), made("input")];
  which.setAttribute("aria-label", "Column");
  how.setAttribute("aria-label", "Operator");
  what.setAttribute("aria-label", "Value");
  form.append(which, how, what, made("button", "lw-button", "Apply"));
  const note = made("div", "lw-note");
  note.setAttribute("role", "alert");
  note.hidden = true;
  const scroller = made("div", "lw-scroller");
  scroller.tabIndex = 0;
  scroller.setAttribute("role", "grid");
  scroller.setAttribute("aria-label", "Rows of the result");
  const space = made("div", "lw-space");
  const table = made("div", "lw-table");
  const head = made("div", "lw-row lw-head");
  head.setAttribute("role", "row");
  const body = made("div");
  body.setAttribute("role", "presentation");
  table.append(head, body);
  space.append(table);
  scroller.append(space);
  el.append(bar, form, note, scroller);

  const visible = () => Math.max(1, Math.floor((scroller.clientHeight - 40) / ROW));
  const lastTop = () => Math.max(0, (total ?? 0) - visible());
  const tall = () => Math.min(TALLEST, (total ?? 0) * ROW);

  function row(index) {
    const page = pages.get(Math.floor(index / PAGE));
    return page ? page[index % PAGE] : undefined;
  }

  function need() {
    const wanted = [Math.floor(top / PAGE), Math.floor(Math.min(top + visible(), Math.max(0, (total ?? 1) - 1)) / PAGE)];
    const missing = wanted.find((page) => !pages.has(page));
    if (missing === undefined || missing === asked) return;
    asked = missing;
    request += 1;
    askedAt = performance.now();
    model.send({ kind: "rows", request, first: missing * PAGE, count: PAGE, sort, filter });
  }

  function again() {
    // Another order or choice: what is held is not of it.
    pages.clear();
    asked = null;
    oldest = request + 1;
    total = null;
    top = 0;
    current = { row: 0, column: current.column };
    anchor = { ...current };
    note.hidden = true;
    count.textContent = "…";
    el.dataset.state = "loading";
    heading();
    draw();
    need();
  }

  function heading() {
    head.replaceChildren();
    columns.forEach((column, index) => {
      const cell = made("button", "lw-cell lw-name");
      cell.type = "button";
      cell.setAttribute("role", "columnheader");
      cell.style.width = `${widths[index]}px`;
      const by = sort.find((one) => one.column === column.name);
      const arrow = by ? (by.direction === "asc" ? " ▲" : " ▼") : "";
      cell.setAttribute("aria-sort", by ? `${by.direction}ending` : "none");
      cell.append(made("span", "", column.name + arrow), made("small", "", column.type.toLowerCase()));
      cell.title = `${column.name} ${column.type}: order by it; with Shift, after the others`;
      if (NUMBER.test(column.type)) cell.classList.add("lw-number");
      cell.addEventListener("click", (event) => {
        const next = by ? (by.direction === "asc" ? "desc" : null) : "asc";
        const others = event.shiftKey ? sort.filter((one) => one !== by) : [];
        sort = next ? [...others, { column: column.name, direction: next }] : others;
        again();
      });
      head.append(cell);
    });
    table.style.width = `${widths.reduce((a, b) => a + b, 0)}px`;
    scroller.setAttribute("aria-colcount", columns.length);
    chosen.replaceChildren();
    filter.forEach((one) => {
      const chip = made("button", "lw-chip", `${one.column} ${one.operator} ${one.value ?? ""} ✕`);
      chip.type = "button";
      chip.setAttribute("aria-label", `Remove the filter ${one.column} ${one.operator} ${one.value ?? ""}`);
      chip.addEventListener("click", () => {
        filter = filter.filter((other) => other !== one);
        again();
      });
      chosen.append(chip);
    });
  }

  function fitted() {
    // Wide enough for the name and the values of the first page; then the columns stand still.
    const page = pages.values().next().value ?? [];
    return columns.map((column, index) => {
      const longest = Math.max(column.name.length + 3, column.type.length, ...page.slice(0, 50).map((r) => (r[index] ?? "NULL").length));
      return Math.min(360, Math.max(64, Math.round(longest * 7.6) + 20));
    });
  }

  function picked(index, column) {
    const [r0, r1] = [Math.min(anchor.row, current.row), Math.max(anchor.row, current.row)];
    const [c0, c1] = [Math.min(anchor.column, current.column), Math.max(anchor.column, current.column)];
    return index >= r0 && index <= r1 && column >= c0 && column <= c1;
  }

  function draw() {
    const shown = Math.min(visible() + 1, Math.max(0, (total ?? 0) - top));
    const lines = [];
    for (let i = 0; i < shown; i += 1) {
      const index = top + i;
      const values = row(index);
      const line = made("div", "lw-row");
      line.setAttribute("role", "row");
      line.setAttribute("aria-rowindex", index + 2);
      columns.forEach((column, at) => {
        const value = values?.[at];
        const cell = made("div", "lw-cell", values ? (value ?? "NULL") : "·");
        cell.setAttribute("role", "gridcell");
        cell.style.width = `${widths[at]}px`;
        if (!values) cell.classList.add("lw-waiting");
        else if (value === null) cell.classList.add("lw-null");
        if (NUMBER.test(column.type)) cell.classList.add("lw-number");
        if (picked(index, at)) cell.classList.add("lw-picked");
        cell.dataset.row = index;
        cell.dataset.column = at;
        line.append(cell);
      });
      lines.push(line);
    }
    if (total === 0) lines.push(made("div", "lw-empty", filter.length ? "No row meets the filters" : "No rows"));
    body.replaceChildren(...lines);
    el.dataset.top = top;
  }

  function sized() {
    space.style.height = `${tall() + 44}px`;
    scroller.setAttribute("aria-rowcount", (total ?? 0) + 1);
    count.textContent = `${(total ?? 0).toLocaleString("en")} ${total === 1 ? "row" : "rows"}, snapshot ${model.get("snapshot")}`;
  }

  function place() {
    // The scroll bar follows the row; a row of very many is less than one of its pixels.
    const room = scroller.scrollHeight - scroller.clientHeight;
    const at = lastTop() ? Math.round((top / lastTop()) * room) : 0;
    if (Math.abs(scroller.scrollTop - at) >= 1) {
      ours = true;
      scroller.scrollTop = at;
    }
  }

  function go(index) {
    top = Math.min(lastTop(), Math.max(0, Math.round(index)));
    place();
    draw();
    need();
  }

  function see() {
    if (current.row < top) go(current.row);
    else if (current.row >= top + visible()) go(current.row - visible() + 1);
    else draw();
  }

  function tell(message, hint) {
    note.textContent = hint ? `${message} — ${hint}` : message;
    note.hidden = false;
  }

  function heard(content, buffers) {
    if (content.request !== null && content.request < oldest) return;
    if (content.kind === "error") {
      asked = null;
      if (el.dataset.state === "loading") {
        total = total ?? 0;
        count.textContent = "";
        el.dataset.state = "error";
      }
      tell(content.message, content.hint);
      return;
    }
    if (content.kind === "export") {
      const link = made("a");
      link.href = URL.createObjectURL(new Blob([buffers[0]], { type: "text/csv" }));
      link.download = "rows.csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      return;
    }
    if (content.kind !== "rows") return;
    const first = total === null;
    total = content.total;
    const page = content.first / PAGE;
    pages.delete(page);
    pages.set(page, content.rows);
    while (pages.size > KEPT) pages.delete(pages.keys().next().value);
    if (asked === page) asked = null;
    el.dataset.state = "ready";
    el.dataset.latency = Math.round(performance.now() - askedAt);
    if (first) {
      if (widths === null || pages.size === 1) widths = fitted();
      heading();
      sized();
      place();
    }
    draw();
    need();
  }

  scroller.addEventListener("scroll", () => {
    if (ours) {
      ours = false;
      return;
    }
    const room = scroller.scrollHeight - scroller.clientHeight;
    const next = room > 0 ? Math.round((scroller.scrollTop / room) * lastTop()) : 0;
    if (next !== top) {
      top = next;
      draw();
      need();
    }
  });
  scroller.addEventListener(
    "wheel",
    (event) => {
      // Where a pixel of the bar is many rows, the wheel still goes by a few.
      if (tall() < TALLEST || event.ctrlKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      event.preventDefault();
      go(top + Math.sign(event.deltaY) * Math.max(1, Math.round(Math.abs(event.deltaY) / ROW)));
    },
    { passive: false },
  );
  scroller.addEventListener("keydown", (event) => {
    if (event.target !== scroller) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "c") {
      copy();
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    const end = Math.max(0, (total ?? 1) - 1);
    const next = { ...current };
    if (event.key === "ArrowDown") next.row += 1;
    else if (event.key === "ArrowUp") next.row -= 1;
    else if (event.key === "ArrowLeft") next.column -= 1;
    else if (event.key === "ArrowRight") next.column += 1;
    else if (event.key === "PageDown") next.row += visible();
    else if (event.key === "PageUp") next.row -= visible();
    else if (event.key === "Home") next.row = 0;
    else if (event.key === "End") next.row = end;
    else return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab has the arrows too
    current = { row: Math.min(end, Math.max(0, next.row)), column: Math.min(columns.length - 1, Math.max(0, next.column)) };
    if (!event.shiftKey) anchor = { ...current };
    see();
  });
  body.addEventListener("mousedown", (event) => {
    const cell = event.target.closest(".lw-cell");
    if (!cell) return;
    current = { row: Number(cell.dataset.row), column: Number(cell.dataset.column) };
    if (!event.shiftKey) anchor = { ...current };
    scroller.focus({ preventScroll: true });
    draw();
    event.preventDefault();
  });

  function copy() {
    const lines = [];
    const [r0, r1] = [Math.min(anchor.row, current.row), Math.max(anchor.row, current.row)];
    const [c0, c1] = [Math.min(anchor.column, current.column), Math.max(anchor.column, current.column)];
    for (let index = r0; index <= r1; index += 1) {
      const values = row(index);
      if (!values) return tell("not all of these rows are here", "save them as CSV");
      lines.push(values.slice(c0, c1 + 1).map((value) => (value ?? "").replace(/[\t\r\n]+/g, " ")).join("\t"));
    }
    const text = lines.join("\n");
    el.dataset.copied = text;
    navigator.clipboard?.writeText(text).catch(() => tell("the browser does not let this page copy"));
  }

  jump.addEventListener("change", () => {
    const wanted = Number(jump.value.replace(/[,\s_]/g, ""));
    if (!Number.isInteger(wanted) || wanted < 1) return tell(`'${jump.value}' is not the number of a row`);
    note.hidden = true;
    current = { row: Math.min(wanted, total ?? 1) - 1, column: current.column };
    anchor = { ...current };
    go(current.row);
  });
  for (const control of [jump, what, which, how]) control.addEventListener("keydown", (event) => event.stopPropagation());
  add.addEventListener("click", () => {
    form.hidden = !form.hidden;
    if (!form.hidden) which.focus();
  });
  add.setAttribute("aria-label", "Add a filter");
  how.addEventListener("change", () => {
    what.hidden = how.value.startsWith("is ");
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const value = how.value.startsWith("is ") ? null : what.value;
    filter = [...filter, { column: which.value, operator: how.value, value }];
    form.hidden = true;
    what.value = "";
    again();
  });
  save.addEventListener("click", () => {
    request += 1;
    model.send({ kind: "export", request, sort, filter });
  });

  function begin() {
    columns = model.get("columns");
    widths = columns.map((column) => Math.max(64, column.name.length * 8 + 30));
    sort = [];
    filter = [];
    scroller.style.height = `${model.get("height")}px`;
    which.replaceChildren(...columns.map((column) => made("option", "", column.name)));
    how.replaceChildren(...model.get("operators").map((operator) => made("option", "", operator)));
    again();
  }

  model.on("msg:custom", heard);
  model.on("change:version", begin);
  const watch = new ResizeObserver(() => {
    if (total !== null) go(top);
  });
  watch.observe(scroller);
  begin();
  return () => {
    watch.disconnect();
    model.off("msg:custom", heard);
    model.off("change:version", begin);
  };
}

export default { render };
