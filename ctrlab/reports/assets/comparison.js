// A comparison of models, drawn from the JSON of `comparison_view`: the card of the chosen model, AUC against cost, parallel
// coordinates, the table, and latencies. The Compare page and the HTML report use this file as it is; it loads nothing.

const SVG = "http://www.w3.org/2000/svg";
const KINDS = { original: "Original", compressed: "Compressed", control: "Control", from_scratch: "From scratch" };
const LABEL_LENGTH = 26;
const TIMED_ROWS = 12;

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  return filled(made, attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// The text, cut with an ellipsis to a number of letters of common width; wide letters count twice.
function shortened(text, most = LABEL_LENGTH) {
  let [kept, length] = ["", 0];
  for (const letter of text) {
    length += letter.codePointAt(0) > 0x2e7f ? 2 : 1;
    if (length > most) return `${kept.trimEnd()}\u2026`;
    kept += letter;
  }
  return text;
}

// -- Numbers as text, as figures/text.py writes them

function threeDigits(value) {
  if (value === 0) return "0";
  const exponent = Number(value.toExponential(2).split("e")[1]);
  return value.toFixed(Math.min(Math.max(0, 2 - exponent), 6));
}

function scaled(value, units) {
  for (const [size, unit] of units) if (Math.abs(value) >= 0.9995 * size) return `${threeDigits(value / size)} ${unit}`;
  return Number.isInteger(value) ? String(value) : threeDigits(value);
}

function tickText(key, value) {
  if (key.startsWith("bytes")) return scaled(value, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]]).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
  if (key.includes("_ms_")) return `${Number(value.toPrecision(2))} ms`;
  if (key === "rank_share") return `${Math.round(100 * value)} %`;
  if (key === "auc_change") return (value > 0 ? "+" : value < 0 ? "\u2212" : "\u00b1") + Math.abs(value).toFixed(4);
  if (key === "auc" || key === "log_loss") return value.toFixed(4);
  return scaled(Number(value.toPrecision(3)), [[1e9, "G"], [1e6, "M"], [1e3, "k"]]).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
}

// -- Axes

function axisOf(values, log, low, high, share = 0.06) {
  const known = values.filter((value) => value !== null && Number.isFinite(value) && (!log || value > 0));
  const scale = log ? Math.log10 : (value) => value;
  let least = known.length ? Math.min(...known.map(scale)) : 0;
  let most = known.length ? Math.max(...known.map(scale)) : 1;
  const room = (most - least) * share || (log ? 0.1 : Math.abs(most) * 0.01 || 0.5);
  least -= room;
  most += room;
  const place = (value) => low + ((scale(value) - least) / (most - least)) * (high - low);
  const value = (position) => {
    const at = least + ((position - low) / (high - low)) * (most - least);
    return log ? 10 ** at : at;
  };
  return { place, value, least: log ? 10 ** least : least, most: log ? 10 ** most : most, log };
}

function ticksOf(axis, wanted) {
  if (axis.log) {
    for (const steps of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 5, 7]]) {
      const found = [];
      for (let power = Math.floor(Math.log10(axis.least)); 10 ** power <= axis.most; power++)
        for (const step of steps) if (step * 10 ** power >= axis.least && step * 10 ** power <= axis.most) found.push(step * 10 ** power);
      if (found.length >= Math.min(3, wanted)) return thinned(found, wanted);
    }
  }
  const rough = (axis.most - axis.least) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let tick = Math.ceil(axis.least / step) * step; tick <= axis.most; tick += step) found.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
  return found;
}

function thinned(values, wanted) {
  const every = Math.ceil(values.length / (wanted + 1));
  return values.filter((_, number) => number % every === 0);
}

function frontOf(rows, cost) {
  const measured = rows.filter((row) => row.values.auc !== null && row.values[cost] !== null);
  measured.sort((a, b) => a.values[cost] - b.values[cost] || b.values.auc - a.values.auc);
  let best = -Infinity;
  return measured.filter((row) => row.values.auc > best && ((best = row.values.auc), true));
}

function markOf(kind, x, y, size) {
  const common = { class: `mark ${kind}` };
  if (kind === "original") return drawn("circle", { ...common, cx: x, cy: y, r: size });
  if (kind === "compressed") return drawn("path", { ...common, d: `M${x} ${y - 1.3 * size}l${1.3 * size} ${1.3 * size}l${-1.3 * size} ${1.3 * size}l${-1.3 * size} ${-1.3 * size}z` });
  if (kind === "control") return drawn("rect", { ...common, x: x - size, y: y - size, width: 2 * size, height: 2 * size });
  return drawn("path", { ...common, d: `M${x} ${y - 1.2 * size}l${1.2 * size} ${2.1 * size}h${-2.4 * size}z` });
}

// -- The view

class Comparison {
  constructor(root, data, on = {}) {
    this.root = root;
    this.on = on;
    this.state = { sort: "", down: false, shown: null, cost: data.costs[0], runtime: "torch", batch: data.batches.at(-1), text: "", kinds: null, limits: {} };
    this.hovered = "";
    this.box = node("div", { class: "comparison" });
    root.append(this.box);
    this.take(data);
    this.readView(data.view || "");
    this.build();
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.box);
  }

  take(data) {
    this.data = data;
    this.byId = new Map(data.rows.map((row) => [row.id, row]));
    this.columns = new Map(data.columns.map((column) => [column.key, column]));
    if (!this.byId.has(this.chosen)) this.chosen = data.chosen;
    if (!data.costs.includes(this.state.cost)) this.state.cost = data.costs[0];
  }

  update(data) {
    const same = JSON.stringify(data.rows) === JSON.stringify(this.data.rows) && data.baseline === this.data.baseline;
    if (same) return;
    this.take(data);
    this.box.replaceChildren();
    this.build();
  }

  close() {
    this.observer.disconnect();
    this.box.remove();
  }

  // What the address keeps: order, columns, axes, filter and limits.
  readView(text) {
    const given = new URLSearchParams(text);
    const sort = given.get("sort") || "";
    const key = sort.replace(/^-/, "");
    if (this.columns.has(key) || key === "name") Object.assign(this.state, { sort: key, down: sort.startsWith("-") });
    if (given.has("columns")) this.state.shown = new Set(given.get("columns").split(",").filter((name) => this.columns.has(name)));
    if (this.data.costs.includes(given.get("cost"))) this.state.cost = given.get("cost");
    if (given.get("runtime") in this.data.runtimes) this.state.runtime = given.get("runtime");
    if (this.data.batches.includes(Number(given.get("batch")))) this.state.batch = Number(given.get("batch"));
    this.state.text = given.get("text") || "";
    if (given.has("kinds")) this.state.kinds = new Set(given.get("kinds").split(","));
    for (const axis of this.data.axes) {
      const ends = (given.get(`in.${axis}`) || "").split("..").map(Number);
      if (ends.length === 2 && ends.every(Number.isFinite)) this.state.limits[axis] = ends;
    }
  }

  view() {
    const { state } = this;
    const kept = new URLSearchParams();
    if (state.sort) kept.set("sort", (state.down ? "-" : "") + state.sort);
    if (state.shown) kept.set("columns", [...state.shown].join(","));
    if (state.cost !== this.data.costs[0]) kept.set("cost", state.cost);
    if (state.runtime !== "torch") kept.set("runtime", state.runtime);
    if (state.batch !== this.data.batches.at(-1)) kept.set("batch", state.batch);
    if (state.text) kept.set("text", state.text);
    if (state.kinds) kept.set("kinds", [...state.kinds].join(","));
    for (const [axis, ends] of Object.entries(state.limits)) kept.set(`in.${axis}`, ends.map((end) => Number(end.toPrecision(6))).join(".."));
    return kept.toString();
  }

  report() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.on.view?.(this.view()), 500);
  }

  build() {
    this.card = node("section", { class: "card", "aria-label": "The chosen model" });
    this.scatter = node("figure", { class: "scatter" });
    this.parallel = node("figure", { class: "parallel" });
    this.timings = node("figure", { class: "timings" });
    this.table = node("table");
    this.tableBox = node("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Comparison of the models" }, this.table);
    this.bar = node("div", { class: "bar" });
    const charts = this.data.rows.length > 1 ? [node("div", { class: "charts" }, this.scatter, this.parallel)] : [];
    this.box.append(this.card, ...charts, this.bar, this.tableBox, this.timings);
    this.buildBar();
    this.buildTable();
    this.drawCard();
    this.apply();
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth;
    if (!width || width === this.width) return;
    this.width = width;
    this.drawCharts();
    this.fitHead();
  }

  // The baseline's row stays below the head, however high that is.
  fitHead() {
    this.table.style.setProperty("--head", `${this.table.tHead.offsetHeight - 1}px`);
  }

  drawCharts() {
    this.drawScatter();
    this.drawParallel();
    this.drawTimings();
    this.mark();
  }

  // -- Filter and order

  passes(row) {
    const { text, kinds, limits } = this.state;
    if (kinds && !kinds.has(row.kind)) return false;
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const searched = `${row.name} ${row.texts.method || ""} ${row.texts.ranks || ""} ${row.texts.note || ""}`.toLowerCase();
    if (!words.every((word) => searched.includes(word))) return false;
    return Object.entries(limits).every(([key, [low, high]]) => row.values[key] !== null && row.values[key] >= low && row.values[key] <= high);
  }

  apply() {
    this.passing = new Set(this.data.rows.filter((row) => this.passes(row)).map((row) => row.id));
    const total = this.data.rows.length;
    this.count.textContent = this.passing.size === total ? `${total} ${total === 1 ? "model" : "models"}` : `${this.passing.size} of ${total} models`;
    this.reset.hidden = !(this.state.text || this.state.kinds || Object.keys(this.state.limits).length);
    for (const [id, line] of this.lines) line.hidden = !this.passing.has(id) && id !== this.data.baseline;
    this.empty.hidden = this.passing.size > 0;
    this.mark();
    this.drawTimings();
  }

  ordered() {
    const { sort, down } = this.state;
    const rows = [...this.data.rows];
    if (!sort) return rows;
    const column = this.columns.get(sort);
    const by = column ? column.sort : sort;
    const numeric = rows.some((row) => typeof row.values[by] === "number");
    const value = numeric ? (row) => row.values[by] : (row) => (sort === "name" ? row.name : row.texts[by]);
    const compared = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, undefined, { numeric: true });
    rows.sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === null || left === "" || left === undefined) return right === null || right === "" || right === undefined ? 0 : 1;
      if (right === null || right === "" || right === undefined) return -1;
      return down ? compared(right, left) : compared(left, right);
    });
    return rows;
  }

  order() {
    const baseline = this.lines.get(this.data.baseline);
    this.body.append(...(baseline ? [baseline] : []), ...this.ordered().filter((row) => row.id !== this.data.baseline).map((row) => this.lines.get(row.id)));
    for (const head of this.table.querySelectorAll("th[data-key]")) {
      const sorted = head.dataset.key === this.state.sort;
      head.setAttribute("aria-sort", sorted ? (this.state.down ? "descending" : "ascending") : "none");
    }
    this.drawTimings();
  }

  sortBy(key) {
    const better = this.columns.get(key)?.better || 0;
    if (this.state.sort !== key) Object.assign(this.state, { sort: key, down: better > 0 });
    else this.state.down = !this.state.down;
    this.order();
    this.report();
  }

  choose(id) {
    this.chosen = id;
    this.drawCard();
    this.drawTimings();
    this.mark();
    this.on.choose?.(id);
  }

  hover(id) {
    if (this.hovered === id) return;
    this.hovered = id;
    this.mark();
  }

  // Classes of rows, points and lines for what is chosen, hovered and filtered out.
  mark() {
    for (const [kind, marks] of Object.entries({ line: this.lines, point: this.points, path: this.paths })) {
      for (const [id, mark] of marks || []) {
        mark.classList.toggle("chosen", id === this.chosen);
        mark.classList.toggle("hovered", id === this.hovered);
        if (kind !== "line") mark.classList.toggle("faint", !this.passing.has(id));
        if (kind === "line") mark.setAttribute("aria-selected", id === this.chosen);
      }
    }
    for (const id of [this.chosen, this.hovered]) for (const marks of [this.points, this.paths]) marks?.get(id)?.parentNode?.append(marks.get(id));
    this.label();
  }

  // -- The bar above the table

  buildBar() {
    this.count = node("span", { class: "count", role: "status" });
    this.reset = node("button", { type: "button", onclick: () => this.clear() }, "Show all");
    const search = node("input", { type: "search", placeholder: "Filter by name, method, ranks", "aria-label": "Filter the models", value: this.state.text });
    search.addEventListener("input", () => this.filter({ text: search.value }));
    this.search = search;
    this.bar.append(search, this.count, this.reset, node("span", { class: "space" }), ...[this.kindMenu(), this.limitMenu()].filter(Boolean), this.columnMenu(), this.exportMenu());
  }

  filter(change) {
    Object.assign(this.state, change);
    this.apply();
    this.report();
  }

  clear() {
    this.search.value = "";
    for (const input of this.bar.querySelectorAll(".kinds input")) input.checked = true;
    this.filter({ text: "", kinds: null, limits: {} });
    this.drawBrushes();
  }

  menu(title, name, ...content) {
    const menu = node("details", { class: `menu ${name}` }, node("summary", {}, title), node("div", { class: "panel" }, ...content));
    menu.addEventListener("toggle", () => menu.open && this.closeMenus(menu));
    menu.addEventListener("keydown", (event) => event.key === "Escape" && ((menu.open = false), menu.firstChild.focus()));
    menu.addEventListener("focusout", (event) => event.relatedTarget && !menu.contains(event.relatedTarget) && (menu.open = false));
    return menu;
  }

  closeMenus(but) {
    for (const menu of this.bar.querySelectorAll("details")) if (menu !== but) menu.open = false;
  }

  kindMenu() {
    const kinds = Object.keys(KINDS).filter((kind) => this.data.rows.some((row) => row.kind === kind));
    if (kinds.length < 2) return null;
    const boxes = kinds.map((kind) => {
      const box = node("input", { type: "checkbox", checked: !this.state.kinds || this.state.kinds.has(kind) });
      box.addEventListener("change", () => {
        const wanted = kinds.filter((_, number) => boxes[number].control.checked);
        this.filter({ kinds: wanted.length === kinds.length ? null : new Set(wanted) });
      });
      const label = node("label", {}, box, ` ${KINDS[kind]}`);
      return label;
    });
    return this.menu("Kinds", "kinds", ...boxes);
  }

  limitMenu() {
    if (this.data.rows.length < 2) return null;
    this.limitInputs = new Map();
    const lines = this.data.axes.map((key) => {
      const inputs = ["from", "to"].map((end) => node("input", { type: "number", step: "any", "aria-label": `${this.title(key)}, ${end}`, placeholder: end }));
      this.limitInputs.set(key, inputs);
      for (const input of inputs) input.addEventListener("change", () => this.limitBy(key, inputs));
      return node("label", { class: "limit" }, node("span", {}, this.title(key)), ...inputs);
    });
    return this.menu("Limits", "limits", node("p", {}, "Or drag along an axis of the chart."), ...lines);
  }

  limitBy(key, inputs) {
    const [low, high] = inputs.map((input) => (input.value === "" ? null : Number(input.value)));
    if (low === null && high === null) delete this.state.limits[key];
    else this.state.limits[key] = [low ?? -1e300, high ?? 1e300];
    this.filter({});
    this.drawBrushes();
  }

  title(key) {
    return this.columns.get(key)?.title || key;
  }

  columnMenu() {
    const boxes = this.data.columns.map((column) => {
      const box = node("input", { type: "checkbox", checked: this.isShown(column) });
      box.addEventListener("change", () => {
        const shown = new Set(this.data.columns.filter((other) => this.isShown(other)).map((other) => other.key));
        shown[box.checked ? "add" : "delete"](column.key);
        this.state.shown = shown;
        this.buildTable();
        this.apply();
        this.fitHead();
        this.report();
      });
      return node("label", {}, box, ` ${column.title}`);
    });
    return this.menu("Columns", "columns", ...boxes);
  }

  exportMenu() {
    const button = (label, write) => node("button", { type: "button", onclick: () => { write(); this.closeMenus(); } }, label);
    return this.menu(
      "Save", "export", node("p", {}, "The table as it is shown"),
      button("CSV", () => saveText(this.asCsv(), "comparison.csv", "text/csv")),
      button("Markdown", () => saveText(this.asMarkdown(), "comparison.md", "text/markdown")),
      button("LaTeX", () => saveText(this.asLatex(), "comparison.tex", "text/x-tex")),
      ...(this.data.rows.length > 1 ? [node("p", {}, "Figures")] : []),
      ...(this.data.rows.length > 1
        ? [["AUC against cost", () => this.scatter, "auc-against-cost"], ["Parallel coordinates", () => this.parallel, "parallel-coordinates"], ["Latency", () => this.timings, "latency"]].flatMap(
            ([label, figure, name]) => [button(`${label}, SVG`, () => saveSvg(figure(), `${name}.svg`)), button(`${label}, PNG`, () => savePng(figure(), `${name}.png`))],
          )
        : []),
    );
  }

  // -- The table

  isShown(column) {
    return this.state.shown ? this.state.shown.has(column.key) : column.shown;
  }

  shownColumns() {
    return this.data.columns.filter((column) => this.isShown(column));
  }

  buildTable() {
    const columns = this.shownColumns();
    const head = (key, title, help) =>
      node("th", { scope: "col", "data-key": key, "aria-sort": "none", class: this.columns.get(key)?.text === false ? "number" : "" },
        node("button", { type: "button", title: help || "", onclick: () => this.sortBy(key) }, title));
    this.span = changeSpan(this.data.rows);
    this.lines = new Map(this.data.rows.map((row) => [row.id, this.line(row, columns)]));
    this.body = node("tbody");
    this.empty = node("caption", { class: "empty", hidden: true }, "No model passes the filter. Widen it, or choose Show all.");
    this.best = this.bestOf(columns);
    this.table.replaceChildren(this.empty, node("thead", {}, node("tr", {}, head("name", "Model"), ...columns.map((column) => head(column.key, column.title, column.help)))), this.body);
    this.order();
  }

  bestOf(columns) {
    for (const column of columns.filter((one) => one.better)) {
      const known = this.data.rows.filter((row) => row.values[column.key] !== null);
      const values = known.map((row) => column.better * row.values[column.key]);
      const most = Math.max(...values);
      if (known.length < 2 || Math.min(...values) === most) continue;
      for (const row of known) if (column.better * row.values[column.key] === most) this.lines.get(row.id).querySelector(`[data-cell="${column.key}"]`).classList.add("best");
    }
  }

  line(row, columns) {
    const name = node("button", { type: "button", class: "name", title: row.name }, node("span", { class: `dot ${row.kind}` }), node("span", {}, row.star ? "\u2605 " : "", row.name));
    const pinned = row.id === this.data.baseline;
    const cells = columns.map((column) =>
      node("td", { "data-cell": column.key, class: column.text ? "text" : "number" }, ...(column.key === "auc_change" ? this.changeCell(row, pinned) : [column.text ? node("span", { class: "clip", title: row.texts[column.key] }, row.texts[column.key]) : row.texts[column.key]])));
    const line = node("tr", { class: pinned ? "baseline" : "", "data-id": row.id }, node("th", { scope: "row" }, name, pinned ? node("small", {}, "baseline") : null), ...cells);
    line.addEventListener("click", () => this.choose(row.id));
    line.addEventListener("pointerenter", () => this.hover(row.id));
    line.addEventListener("pointerleave", () => this.hover(""));
    return line;
  }

  changeCell(row, pinned) {
    if (pinned || !row.change) return [node("span", { class: "change" }, pinned ? "\u2013" : row.texts.auc_change), node("span", { class: "nobar" })];
    const told = node("span", { class: "told" }, ` 95 % ${row.change.map((end) => tickText("auc_change", end)).join(" to ")}`);
    return [node("span", { class: "change" }, row.texts.auc_change), told, changeBar(row.values.auc_change, row.change, this.span, 110, 18)];
  }

  // -- The card of the chosen model

  drawCard() {
    const row = this.byId.get(this.chosen);
    this.card.replaceChildren();
    if (!row) return;
    const baseline = this.byId.get(this.data.baseline);
    const head = node("h3", {}, node("span", { class: `dot ${row.kind}` }), row.star ? "\u2605 " : "", row.name);
    if (!baseline || row === baseline) {
      const facts = [row.texts.auc && row.texts.auc !== "\u2013" ? `AUC ${row.texts.auc}` : "AUC not measured", row.texts.bytes, row.texts.parameters && `${row.texts.parameters} parameters`].filter(Boolean);
      this.card.append(head, node("p", {}, `${facts.join(", ")}.${row === baseline && this.data.rows.length > 1 ? " The others are compared with it; choose one in the table or the chart." : ""}`));
      return;
    }
    const figure = (value, label, extra) => node("div", { class: "figure" }, node("strong", {}, value), node("span", {}, label), extra || null);
    const { card } = row;
    const bar = row.change ? changeBar(row.values.auc_change, row.change, changeSpan([row]), 200, 26) : null;
    this.card.append(
      head,
      node("div", { class: "figures" },
        figure(card.smaller, `${row.texts.bytes} against ${baseline.texts.bytes}`),
        figure(card.change ? `AUC ${card.change}` : "AUC \u2013", row.change ? `95 % ${tickText("auc_change", row.change[0])} to ${tickText("auc_change", row.change[1])}, ${card.certainty}` : card.certainty || "not measured on the same rows", bar),
        figure(card.faster || "Speed \u2013", card.speed)),
      node("p", {}, `Against ${baseline.name}: ${card.sentence}`));
  }

  // -- AUC against cost

  drawScatter() {
    const width = this.scatter.clientWidth;
    if (!width || this.data.rows.length < 2) return;
    const { cost } = this.state;
    const rows = this.data.rows.filter((row) => row.values.auc !== null && row.values[cost] !== null);
    const [height, left, right, top, bottom] = [330, 76, 14, 14, 44];
    const log = this.columns.get(cost).log;
    const x = axisOf(rows.map((row) => row.values[cost]), log, left, width - right);
    const y = axisOf(rows.map((row) => row.values.auc), false, height - bottom, top, 0.12);
    const picture = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `AUC against ${this.title(cost).toLowerCase()} of ${rows.length} models` });
    for (const tick of ticksOf(y, 5)) picture.append(drawn("path", { class: "grid", d: `M${left} ${y.place(tick)}H${width - right}` }), drawn("text", { class: "tick", x: left - 6, y: y.place(tick) + 4, "text-anchor": "end" }, tick.toFixed(4)));
    for (const tick of ticksOf(x, Math.max(2, Math.floor((width - left) / 90)))) picture.append(drawn("path", { class: "grid", d: `M${x.place(tick)} ${top}V${height - bottom}` }), drawn("text", { class: "tick", x: x.place(tick), y: height - bottom + 17, "text-anchor": "middle" }, tickText(cost, tick)));
    picture.append(drawn("text", { class: "axis", x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, this.title(cost)));
    picture.append(drawn("text", { class: "axis", x: 14, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(top + height - bottom) / 2})` }, "AUC"));
    const front = frontOf(rows, cost);
    this.front = new Set(front.map((row) => row.id));
    if (front.length > 1) picture.append(drawn("path", { class: "front", d: front.map((row, number) => (number ? `H${x.place(row.values[cost])}V${y.place(row.values.auc)}` : `M${x.place(row.values[cost])} ${y.place(row.values.auc)}`)).join("") }));
    const baseline = this.byId.get(this.data.baseline);
    if (baseline && baseline.values.auc !== null) picture.append(drawn("path", { class: "zero", d: `M${left} ${y.place(baseline.values.auc)}H${width - right}` }));
    const clip = (value) => Math.min(height - bottom, Math.max(top, value));
    this.points = new Map();
    this.places = new Map();
    const layer = drawn("g");
    for (const row of rows) {
      const [px, py] = [x.place(row.values[cost]), y.place(row.values.auc)];
      const paired = baseline && baseline.values.auc !== null;
      const ends = row.id === this.data.baseline ? null : row.change && paired ? row.change.map((end) => baseline.values.auc + end) : row.interval;
      const bar = ends ? drawn("path", { class: `error ${row.kind}`, d: `M${px} ${clip(y.place(ends[0]))}V${clip(y.place(ends[1]))}` }) : null;
      const point = drawn("g", { class: `point${this.front.has(row.id) ? " onfront" : ""}` }, drawn("title", {}, `${row.name}\nAUC ${row.texts.auc}${row.texts.auc_change ? ` (${row.texts.auc_change})` : ""}\n${row.texts[cost]}`), bar, drawn("circle", { class: "target", cx: px, cy: py, r: 10 }), markOf(row.kind, px, py, 4.6));
      point.addEventListener("click", () => this.choose(row.id));
      point.addEventListener("pointerenter", () => this.hover(row.id));
      point.addEventListener("pointerleave", () => this.hover(""));
      this.points.set(row.id, point);
      this.places.set(row.id, [px, py]);
      layer.append(point);
    }
    this.labels = drawn("g", { class: "labels" });
    picture.append(layer, this.labels);
    this.frame = { width, left, right, top, bottom: height - bottom };
    const choice = this.select("Cost", this.data.costs.map((key) => [key, this.title(key)]), cost, (key) => {
      this.state.cost = key;
      this.drawScatter();
      this.mark();
      this.report();
    });
    const note = front.length ? `${front.length === 1 ? "One model is" : `${front.length} of ${rows.length} models are`} on the front: none is both cheaper and better. Bars: 95 % of the change from the baseline.` : "No model has been measured yet.";
    this.scatter.replaceChildren(node("div", { class: "head" }, node("h4", {}, "AUC against cost"), choice), picture, node("figcaption", {}, note));
  }

  select(label, options, value, changed) {
    const box = node("select", { "aria-label": label }, ...options.map(([key, title]) => node("option", { value: key, selected: String(key) === String(value) }, title)));
    box.addEventListener("change", () => changed(box.value));
    return box;
  }

  // Names of the hovered, the chosen and the front's models, where they do not overprint.
  label() {
    if (!this.labels) return;
    this.labels.replaceChildren();
    const taken = [...this.places].filter(([id]) => this.front.has(id)).map(([, [x, y]]) => [x - 6, y - 6, x + 6, y + 6]);
    const wanted = [...new Set([this.hovered, this.chosen, this.data.baseline, ...this.front])].filter((id) => this.places.has(id));
    for (const id of wanted) {
      const forced = id === this.hovered || id === this.chosen;
      if (!forced && !this.passing.has(id)) continue;
      const [x, y] = this.places.get(id);
      const text = drawn("text", { class: id === this.hovered ? "hovered" : id === this.chosen ? "chosen" : "" }, shortened(this.byId.get(id).name));
      this.labels.append(text);
      const length = text.getComputedTextLength() || 7 * shortened(this.byId.get(id).name).length;
      const spots = [[9, -7], [-9 - length, -7], [9, 16], [-9 - length, 16], [-length / 2, -12], [-length / 2, 22]].map(([dx, dy]) => [x + dx, y + dy]);
      const free = spots.find(([sx, sy]) => sx >= this.frame.left && sx + length <= this.frame.width - 2 && sy > this.frame.top && sy < this.frame.bottom - 2 && !taken.some(([a, b, c, d]) => sx < c && sx + length > a && sy - 12 < d && sy + 3 > b));
      const [sx, sy] = free || [Math.min(Math.max(this.frame.left, x + 9), this.frame.width - length - 2), Math.max(this.frame.top + 12, y - 9)];
      if (!free && !forced) { text.remove(); continue; }
      text.setAttribute("x", sx);
      text.setAttribute("y", sy);
      taken.push([sx, sy - 12, sx + length, sy + 3]);
    }
  }

  // -- Parallel coordinates

  drawParallel() {
    const width = this.parallel.clientWidth;
    if (!width || this.data.rows.length < 2) return;
    const [height, top, bottom, side] = [330, 46, 30, 58];
    const keys = this.data.axes.filter((key) => new Set(this.data.rows.map((row) => row.values[key]).filter((value) => value !== null)).size > 1);
    const gap = keys.length > 1 ? (width - 2 * side) / (keys.length - 1) : 0;
    this.axes = new Map(keys.map((key, number) => [key, { x: side + number * gap, ...axisOf(this.data.rows.map((row) => row.values[key]), this.columns.get(key).log, height - bottom, top, 0.03) }]));
    const picture = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Parallel coordinates of ${this.data.rows.length} models: ${keys.map((key) => this.title(key)).join(", ")}` });
    const layer = drawn("g");
    this.paths = new Map();
    for (const row of this.data.rows) {
      let open = false;
      const steps = keys.map((key) => {
        const value = row.values[key] ?? (key === "auc_change" && row.id === this.data.baseline ? 0 : null);
        if (value === null) return ((open = false), "");
        const at = `${this.axes.get(key).x} ${this.axes.get(key).place(value)}`;
        const step = `${open ? "L" : "M"}${at}`;
        open = true;
        return step;
      });
      const path = drawn("path", { class: `path ${row.kind}`, d: steps.join("") || "M0 0" }, drawn("title", {}, row.name));
      path.addEventListener("click", () => this.choose(row.id));
      path.addEventListener("pointerenter", () => this.hover(row.id));
      path.addEventListener("pointerleave", () => this.hover(""));
      this.paths.set(row.id, path);
      layer.append(path);
    }
    picture.append(layer);
    this.brushes = new Map();
    keys.forEach((key, number) => picture.append(this.axisOfBrush(key, number, keys.length, top, height - bottom, picture)));
    this.parallel.replaceChildren(
      node("div", { class: "head" }, node("h4", {}, "All settings and results at once")), picture,
      node("figcaption", {}, "Drag along an axis to keep the models within; a click on it removes the limit. A line is a model; click it to choose it."));
    this.drawBrushes();
  }

  axisOfBrush(key, number, total, top, bottom, picture) {
    const axis = this.axes.get(key);
    const anchor = number === 0 ? "start" : number === total - 1 ? "end" : "middle";
    const shift = number === 0 ? -50 : number === total - 1 ? 54 : 0;
    const group = drawn("g", { class: "axisgroup" }, drawn("path", { class: "rule", d: `M${axis.x} ${top}V${bottom}` }));
    const ticks = key === "bits" ? [...new Set(this.data.rows.map((row) => row.values.bits).filter((value) => value !== null))] : ticksOf(axis, 5);
    const inside = number < total - 1;
    for (const tick of ticks) group.append(drawn("path", { class: "rule", d: `M${axis.x} ${axis.place(tick)}h${inside ? 4 : -4}` }), drawn("text", { class: "tick halo", x: axis.x + (inside ? -6 : 6), y: axis.place(tick) + 4, "text-anchor": inside ? "end" : "start" }, tickText(key, tick)));
    const [first, ...rest] = this.title(key).split(", ");
    group.append(drawn("text", { class: "axis", x: axis.x + shift, y: rest.length ? 16 : 30, "text-anchor": anchor }, first));
    if (rest.length) group.append(drawn("text", { class: "axis small", x: axis.x + shift, y: 31, "text-anchor": anchor }, rest.join(", ")));
    const brush = drawn("rect", { class: "brush", x: axis.x - 8, width: 16, y: top, height: 0, visibility: "hidden" });
    const handle = drawn("rect", { class: "handle", x: axis.x - 16, width: 32, y: top, height: bottom - top });
    this.brushes.set(key, brush);
    const at = (event) => Math.min(bottom, Math.max(top, ((event.clientY - picture.getBoundingClientRect().top) * picture.viewBox.baseVal.height) / picture.getBoundingClientRect().height));
    let from = null;
    handle.addEventListener("pointerdown", (event) => { from = at(event); handle.setPointerCapture(event.pointerId); event.preventDefault(); });
    handle.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const ends = [axis.value(from), axis.value(at(event))].sort((a, b) => a - b);
      if (Math.abs(at(event) - from) > 3) { this.state.limits[key] = ends; this.apply(); this.drawBrushes(); }
    });
    handle.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(at(event) - from) <= 3) { delete this.state.limits[key]; this.apply(); this.drawBrushes(); }
      from = null;
      this.report();
    });
    group.append(brush, handle);
    return group;
  }

  drawBrushes() {
    for (const [key, brush] of this.brushes || []) {
      const ends = this.state.limits[key];
      brush.setAttribute("visibility", ends ? "visible" : "hidden");
      const inputs = this.limitInputs?.get(key);
      inputs?.forEach((input, number) => (input.value = ends && Math.abs(ends[number]) < 1e299 ? Number(ends[number].toPrecision(4)) : ""));
      if (!ends) continue;
      const axis = this.axes.get(key);
      const [low, high] = ends.map((end) => axis.place(Math.min(axis.most, Math.max(axis.least, end))));
      brush.setAttribute("y", high);
      brush.setAttribute("height", Math.max(2, low - high));
    }
  }

  // -- Latency: a dot at the median, a line to the 99th percentile

  drawTimings() {
    const width = this.timings.clientWidth;
    if (!width || !this.passing) return;
    const { runtime, batch } = this.state;
    const keys = [`${runtime}_p50_ms_${batch}`, `${runtime}_p99_ms_${batch}`];
    const timed = this.ordered().filter((row) => (this.passing.has(row.id) || row.id === this.data.baseline) && keys.every((key) => row.values[key] !== null && row.values[key] !== undefined));
    const first = [this.data.baseline, this.chosen].map((id) => timed.find((row) => row.id === id)).filter(Boolean);
    const rows = [...new Set([...first, ...timed])].slice(0, TIMED_ROWS);
    const selects = [
      this.select("Runtime", Object.entries(this.data.runtimes), runtime, (key) => { this.state.runtime = key; this.drawTimings(); this.report(); }),
      this.select("Batch size", this.data.batches.map((size) => [size, `Batch ${size}`]), batch, (key) => { this.state.batch = Number(key); this.drawTimings(); this.report(); }),
    ];
    const head = node("div", { class: "head" }, node("h4", {}, "Time of a call, median to 99th percentile"), ...selects);
    if (!rows.length) { this.timings.replaceChildren(head, node("figcaption", {}, "No model has been timed like this yet.")); return; }
    const [step, top, bottom, right] = [24, 6, 40, 70];
    const left = Math.min(250, width * 0.36);
    const height = top + step * rows.length + bottom;
    const x = axisOf(rows.flatMap((row) => keys.map((key) => row.values[key])), true, left, width - right);
    const picture = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Time of a call of ${rows.length} models` });
    for (const tick of ticksOf(x, Math.max(2, Math.floor((width - left) / 110)))) picture.append(drawn("path", { class: "grid", d: `M${x.place(tick)} ${top}V${height - bottom}` }), drawn("text", { class: "tick", x: x.place(tick), y: height - bottom + 17, "text-anchor": "middle" }, tickText(keys[0], tick)));
    rows.forEach((row, number) => {
      const y = top + step * (number + 0.5);
      const [p50, p99] = keys.map((key) => x.place(row.values[key]));
      const name = shortened(row.name, Math.max(6, Math.floor((left - 14) / 8.4)));
      picture.append(
        drawn("g", { class: row.id === this.chosen ? "timed chosen" : "timed" }, drawn("title", {}, `${row.name}: p50 ${row.texts[keys[0]]}, p99 ${row.texts[keys[1]]}`),
          drawn("text", { class: "name", x: left - 10, y: y + 4, "text-anchor": "end" }, name),
          drawn("path", { class: `error ${row.kind}`, d: `M${p50} ${y}H${p99}M${p99} ${y - 4}V${y + 4}` }), markOf(row.kind, p50, y, 4.6),
          drawn("text", { class: "tick", x: p99 + 8, y: y + 4 }, row.texts[keys[0]])));
    });
    const note = timed.length > rows.length ? `The first ${rows.length} of ${timed.length} timed models, in the order of the table.` : "Input arrays in, predictions out; the label is the median.";
    this.timings.replaceChildren(head, picture, node("figcaption", {}, note));
  }

  // -- What is shown, as text

  shownTable() {
    const columns = this.shownColumns();
    const rows = this.ordered().filter((row) => this.passing.has(row.id) || row.id === this.data.baseline);
    const heads = ["Model", ...columns.flatMap((column) => (column.key === "auc_change" ? [column.title, "low", "high"] : [column.title]))];
    const cells = (row, value) => [row.name, ...columns.flatMap((column) => (column.key === "auc_change" ? [value(row, column), ...(row.change || ["", ""]).map((end) => (end === "" ? "" : value === exact ? String(end) : tickText("auc_change", end)))] : [value(row, column)]))];
    return { heads, rows, cells };
  }

  asCsv() {
    const { heads, rows, cells } = this.shownTable();
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    return [heads, ...rows.map((row) => cells(row, exact))].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  }

  asMarkdown() {
    const { heads, rows, cells } = this.shownTable();
    const line = (texts) => `| ${texts.map((text) => text.replaceAll("\\", "\\\\").replaceAll("|", "\\|")).join(" | ")} |`;
    return [line(heads), line(heads.map(() => "---")), ...rows.map((row) => line(cells(row, shownText)))].join("\n") + "\n";
  }

  asLatex() {
    const { heads, rows, cells } = this.shownTable();
    const line = (texts) => `${texts.map(latexText).join(" & ")} \\\\`;
    return [`\\begin{tabular}{l${"r".repeat(heads.length - 1)}}`, "\\toprule", line(heads), "\\midrule", ...rows.map((row) => line(cells(row, shownText))), "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }
}

function exact(row, column) {
  return column.text ? row.texts[column.key] : row.values[column.key] === null ? "" : String(row.values[column.key]);
}

function shownText(row, column) {
  return row.texts[column.key];
}

function latexText(text) {
  const marks = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\u2212": "$-$", "\u00b1": "$\\pm$", "\u2013": "--" };
  return [...text].map((letter) => marks[letter] || ("&%$#_{}".includes(letter) ? `\\${letter}` : letter)).join("");
}

// Half the width of the axis on which changes of AUC are drawn: eight times the median half-width of the intervals, so that one bad
// model does not hide the rest. What lies outside is drawn as an arrow.
function changeSpan(rows) {
  const changes = rows.map((row) => row.change).filter(Boolean);
  if (!changes.length) return 0.002;
  const widths = changes.map(([low, high]) => (high - low) / 2).sort((a, b) => a - b);
  const most = Math.max(...changes.flat().map(Math.abs));
  return Math.max(0.0005, Math.min(1.05 * most, 8 * widths[Math.floor(widths.length / 2)]));
}

function changeBar(value, [low, high], span, width, height) {
  const place = (change) => Math.min(width - 3, Math.max(3, width / 2 + (change / span) * (width / 2 - 3)));
  const middle = height / 2;
  const tone = low > 0 ? "gain" : high < 0 ? "loss" : "noise";
  const outside = [high < -span && `M7 ${middle - 4}l-5 4l5 4`, low > span && `M${width - 7} ${middle - 4}l5 4l-5 4`].filter(Boolean);
  return drawn("svg", { class: `changebar ${tone}`, width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
    drawn("path", { class: "zero", d: `M${width / 2} 0V${height}` }),
    outside.length ? drawn("path", { class: "ends", d: outside[0] }) : drawn("path", { class: "ends", d: `M${place(low)} ${middle}H${place(high)}` }),
    outside.length ? null : drawn("circle", { class: "dot", cx: place(value), cy: middle, r: 3.2 }));
}

// -- Files

function save(url, name) {
  const link = node("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

function saveText(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  save(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const DRAWN = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "opacity", "font-family", "font-size", "font-weight", "visibility", "paint-order"];

// The picture with the colours it has on the page, as text of a file of its own.
function svgText(figure) {
  const shown = figure.querySelector("svg:not(.changebar)");
  const copy = shown.cloneNode(true);
  const originals = [shown, ...shown.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((part, number) => {
    const style = getComputedStyle(originals[number]);
    for (const name of DRAWN) part.style.setProperty(name, style.getPropertyValue(name));
  });
  let behind = figure;
  while (behind && ["rgba(0, 0, 0, 0)", "transparent"].includes(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement || behind.getRootNode().host;
  copy.setAttribute("xmlns", SVG);
  copy.style.background = behind ? getComputedStyle(behind).backgroundColor : "white";
  return new XMLSerializer().serializeToString(copy);
}

function saveSvg(figure, name) {
  saveText(svgText(figure), name, "image/svg+xml");
}

function savePng(figure, name) {
  const shown = figure.querySelector("svg:not(.changebar)");
  const image = new Image();
  image.onload = () => {
    const canvas = node("canvas", { width: 2 * shown.clientWidth, height: 2 * shown.clientHeight });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    save(canvas.toDataURL("image/png"), name);
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(figure))}`;
}
