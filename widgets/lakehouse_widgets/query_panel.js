// The page's side of query_panel.py: an editor, what runs it and stops it, and what was asked before.

function made(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function button(className, text, label) {
  const element = made("button", className, text);
  element.type = "button";
  if (label) element.title = label;
  return element;
}

// The editor's scripts come from the kernel, once for all panels of a page.
const KEY = Symbol.for("lakehouse.editor");

async function run(scripts) {
  for (const script of scripts) {
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    await new Promise((done, failed) => {
      const element = made("script");
      element.src = url;
      element.onload = done;
      element.onerror = () => failed(new Error("the page does not let the editor run"));
      document.head.append(element);
    }).finally(() => URL.revokeObjectURL(url));
  }
  return window.ace;
}

function render({ model, el }) {
  el.classList.add("lw-panel");
  el.dataset.lmSuppressShortcuts = "true"; // JupyterLab's keys are not for what stands in here
  const place = made("div", "lw-sql");
  const plain = made("textarea", "lw-plain");
  plain.setAttribute("aria-label", "SQL");
  plain.spellcheck = false;
  plain.rows = 5;
  plain.value = model.get("sql");
  place.append(plain);
  const bar = made("div", "lw-bar");
  const go = button("lw-button lw-go", "Run", "Run (Ctrl+Enter or Shift+Enter)");
  const past = button("lw-button", "History", "What was asked of this lake");
  const seen = { rows: button("lw-button", "Rows"), chart: button("lw-button", "Chart") };
  const meter = made("progress", "lw-meter");
  meter.max = 100;
  meter.setAttribute("aria-label", "How far the query is");
  const said = made("span", "lw-said");
  said.setAttribute("role", "status");
  bar.append(go, meter, said, past, seen.rows, seen.chart);
  const note = made("pre", "lw-note");
  note.setAttribute("role", "alert");
  const list = made("div", "lw-past");
  list.hidden = true;
  const form = made("form", "lw-form");
  form.hidden = true;
  el.append(place, bar, note, list, form);

  let ace = null; // the editor, once its scripts are here
  let gone = false;
  let request = 0;
  const asked = new Map();
  const text = () => (ace ? ace.getValue() : plain.value);
  const write = (sql) => {
    if (ace) ace.setValue(sql, 1);
    else plain.value = sql;
    (ace ?? plain).focus();
  };

  function start() {
    if (model.get("state") === "idle") {
      model.set("sql", text()); // when it comes back, what was typed since stays
      model.send({ kind: "run", sql: text() });
    } else model.send({ kind: "cancel" });
  }

  const completer = {
    getCompletions(_editor, session, position, _prefix, give) {
      const sql = session.getValue();
      const index = session.doc.positionToIndex(position);
      request += 1;
      asked.clear(); // who waits for an older answer has typed on
      asked.set(request, ({ start: first, items }) => {
        const begin = session.doc.indexToPosition([...sql].slice(0, first).join("").length);
        give(null, items.map((one, at) => ({
          caption: one.text, value: one.text, meta: one.kind, score: items.length - at, begin, completer,
        })));
      });
      model.send({ kind: "complete", request, sql, cursor: [...sql.slice(0, index)].length });
    },
    insertMatch(editor, one) {
      editor.session.replace({ start: one.begin, end: editor.getCursorPosition() }, one.value);
    },
  };

  function edit(library) {
    if (!library?.edit || gone || ace) return;
    const tools = library.require("ace/ext/language_tools");
    const host = made("div", "lw-ace");
    const sql = plain.value;
    const focused = document.activeElement === plain;
    place.replaceChildren(host);
    tools.setCompleters([]); // only what the kernel knows, and no words of the text
    ace = library.edit(host, {
      mode: "ace/mode/sql", value: sql, minLines: 4, maxLines: 24, fontSize: 13, tabSize: 2, useWorker: false,
      showPrintMargin: false, highlightActiveLine: false, highlightGutterLine: false, enableBasicAutocompletion: [completer],
      enableKeyboardAccessibility: true, newLineMode: "unix",
    });
    ace.completers = [completer];
    ace.textInput.getElement().setAttribute("aria-label", "SQL");
    ace.clearSelection();
    ace.commands.addCommand({ name: "run", bindKey: { win: "Ctrl-Enter|Shift-Enter", mac: "Command-Enter|Ctrl-Enter|Shift-Enter" }, exec: start });
    const indent = ace.commands.commands.indent;
    ace.commands.addCommand({
      ...indent,
      exec(editor) {
        const { row, column } = editor.getCursorPosition();
        const typed = /[\w.$"\u00A2-\uFFFF]/.test(editor.session.getLine(row).charAt(column - 1));
        if (typed && editor.selection.isEmpty()) editor.execCommand("startAutocomplete");
        else indent.exec(editor);
      },
    });
    if (focused) ace.focus();
    el.dataset.editor = "ace";
  }

  function heard(content, buffers) {
    if (content.kind === "code") {
      globalThis[KEY] ??= run(buffers);
      globalThis[KEY].then(edit).catch(() => delete globalThis[KEY]); // the plain text field stays
    } else if (content.kind === "complete") {
      asked.get(content.request)?.(content);
      asked.delete(content.request);
    } else if (content.kind === "history") remember(content.queries);
  }

  function remember(queries) {
    list.replaceChildren();
    const search = made("input");
    search.placeholder = "Search what was asked";
    search.setAttribute("aria-label", "Search what was asked");
    search.addEventListener("change", () => model.send({ kind: "history", text: search.value }));
    list.append(search);
    if (!queries.length) list.append(made("div", "lw-none", "Nothing"));
    for (const one of queries) {
      const row = button("lw-query");
      const when = new Date(one.when).toLocaleString();
      const rows = one.rows === null ? "" : `, ${one.rows.toLocaleString("en")} rows`;
      row.dataset.status = one.status;
      row.append(made("code", "", one.sql), made("small", "", `${when}: ${one.status} in ${one.seconds.toFixed(2)} s${rows}`));
      row.addEventListener("click", () => {
        list.hidden = true;
        write(one.sql);
      });
      list.append(row);
    }
    list.hidden = false;
  }

  function choice(label, values, none) {
    const select = made("select");
    select.setAttribute("aria-label", label);
    select.append(...(none ? [new Option(none, "")] : []), ...values.map((value) => new Option(value, value)));
    return select;
  }

  function columns() {
    const names = model.get("columns").map((one) => one.name);
    const chart = choice("Kind of chart", model.get("kinds"));
    const [x, y, color] = [choice("x", names), choice("y", names, "count of rows"), choice("Color", names, "one color")];
    const aggregate = choice("Aggregate", model.get("aggregates"), "sum");
    form.replaceChildren(chart, x, y, aggregate, color, made("button", "lw-button", "Draw"));
    form.onsubmit = (event) => {
      event.preventDefault();
      const asked = { kind: "chart", chart: chart.value, x: x.value, y: y.value || null };
      model.send({ ...asked, color: color.value || null, aggregate: aggregate.value || null });
    };
    seen.chart.disabled = seen.rows.disabled = names.length === 0;
  }

  function state() {
    const [now, percent] = [model.get("state"), model.get("progress")];
    el.dataset.state = now;
    go.textContent = now === "idle" ? "Run" : "Cancel";
    go.disabled = now === "cancelling";
    meter.hidden = now === "idle";
    if (percent < 0) meter.removeAttribute("value");
    else meter.value = percent;
    const { kind, text: told, hint } = model.get("note");
    const word = { idle: kind === "done" ? told : "", running: `${model.get("seconds").toFixed(1)} s`, cancelling: "stopping …" };
    said.textContent = word[now];
    note.hidden = kind !== "error";
    note.textContent = kind === "error" ? told + (hint ? `\n${hint}` : "") : "";
  }

  function view() {
    for (const [name, one] of Object.entries(seen)) one.setAttribute("aria-pressed", model.get("view") === name);
  }

  go.addEventListener("click", start);
  plain.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey || event.shiftKey)) return;
    event.preventDefault();
    start();
  });
  past.addEventListener("click", () => {
    if (!list.hidden) list.hidden = true;
    else model.send({ kind: "history", text: "" });
  });
  seen.rows.addEventListener("click", () => {
    form.hidden = true;
    model.send({ kind: "rows" });
  });
  seen.chart.addEventListener("click", () => {
    form.hidden = !form.hidden;
    if (!form.hidden) form.firstChild?.focus();
  });
  const other = () => {
    if (model.get("sql") !== text()) write(model.get("sql"));
  };
  const watch = new ResizeObserver(() => ace?.resize());
  watch.observe(place);
  model.on("msg:custom", heard);
  model.on("change:columns", columns);
  model.on("change:view", view);
  model.on("change:sql", other);
  for (const name of ["state", "progress", "seconds", "note"]) model.on(`change:${name}`, state);
  columns();
  state();
  view();
  if (globalThis[KEY]) globalThis[KEY].then(edit);
  else model.send({ kind: "code" });
  return () => {
    gone = true;
    watch.disconnect();
    model.off("msg:custom", heard);
    model.off("change:columns", columns);
    model.off("change:view", view);
    model.off("change:sql", other);
    for (const name of ["state", "progress", "seconds", "note"]) model.off(`change:${name}`, state);
    ace?.destroy();
  };
}

export default { render };
