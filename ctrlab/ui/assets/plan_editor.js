// The plan editor of the Compress page: figures, a dial and a slider a layer. Streamlit calls the default function at the first
// drawing and whenever the data change; what the editor holds meanwhile is kept by its parent element.
//
// The ranks here are ahead of the server's. A report carries all ranks, the number of the last change that others made (undo, a
// preset) and a serial number. The server ignores reports that are based on an older change than its last by others; the editor
// ignores plans that the server sent before it had the editor's last report.

const EDITORS = new WeakMap();
const KEY_PAUSE = 180; // ms without a key before ranks that keys moved are reported
const FOLDED_FROM = 5; // tables
const MINUS = "\u2212";
const NONE = "\u2013";

export default function (component) {
  const editor = EDITORS.get(component.parentElement) || new Editor(component.parentElement);
  EDITORS.set(component.parentElement, editor);
  editor.receive(component);
  return () => editor.leave();
}

// ---- numbers as figures/text.py writes them

function threeDigits(number) {
  if (number === 0) return "0";
  const exponent = Number(number.toExponential(2).split("e")[1]);
  return number.toFixed(Math.min(Math.max(0, 2 - exponent), 6));
}

function scaled(number, steps, plain) {
  const step = steps.find(([size]) => Math.abs(number) >= 0.9995 * size);
  return step ? `${threeDigits(number / step[0])} ${step[1]}` : plain(number);
}

const count = (number) => scaled(number, [[1e9, "G"], [1e6, "M"], [1e3, "k"]], (few) => String(few));
const size = (bytes) => scaled(bytes, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]], (few) => `${few} B`);
const times = (factor) => (factor < 9.95 ? `${factor.toFixed(1)}x` : `${factor.toFixed(0)}x`);

function percent(share) {
  const value = 100 * share;
  if (value === 0 || share >= 1) return `${value.toFixed(0)} %`;
  if (value < 0.01) return "< 0.01 %";
  if (value > 99.9) return `${(Math.floor(value * 100) / 100).toFixed(2)} %`;
  return `${value.toFixed(value < 1 ? 2 : 1)} %`;
}

function difference(value) {
  const text = Math.abs(value).toFixed(4);
  if (Number(text) === 0) return "0.0000";
  return `${value < 0 ? MINUS : "+"}${text}`;
}

// How much smaller: a factor, or a share where the factor would read 1.0x.
function smaller(factor) {
  if (times(factor) !== "1.0x") return times(factor);
  return `${(100 * Math.max(0, 1 - 1 / factor)).toFixed(0)} %`;
}

// ---- ranks as the address has them: "2x26.64.64"

function encoded(ranks) {
  const runs = [];
  for (const rank of ranks) {
    if (runs.length && runs[runs.length - 1][0] === rank) runs[runs.length - 1][1] += 1;
    else runs.push([rank, 1]);
  }
  return runs.map(([rank, length]) => (length === 1 ? `${rank}` : `${rank}x${length}`)).join(".");
}

function decoded(text) {
  return text.split(".").flatMap((run) => {
    const [rank, length] = run.split("x").map(Number);
    return Array(length || 1).fill(rank);
  });
}

// ---- elements

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

class Editor {
  constructor(root) {
    this.root = root;
    this.client = Math.random().toString(36).slice(2);
    this.serial = 0;
    this.others = -1;
    this.filter = "";
    this.order = "model";
    this.opened = new Set();
    this.frame = null;
    this.timer = null;
    // Rows out of sight are painted when they come into sight.
    this.rowOf = new WeakMap();
    this.sight = new IntersectionObserver((changes) => {
      for (const change of changes) this.rowOf.get(change.target).inSight = change.isIntersecting;
      this.schedule();
    }, { rootMargin: "300px" });
    this.body = element("div", { class: "editor" });
    root.append(this.body);
  }

  leave() {
    this.flush();
    clearTimeout(this.asking);
    cancelAnimationFrame(this.frame);
    this.sight.disconnect();
    this.body.remove();
    EDITORS.delete(this.root);
  }

  // ---- from the server

  receive(component) {
    this.component = component;
    this.data = component.data;
    const settings = this.data.settings !== this.settingsText;
    const stops = settings || this.data.stops !== this.stopsText;
    if (settings) this.readSettings();
    this.readPlan();
    if (stops) this.readStops();
    if (settings) this.draw();
    else if (stops) this.drawDial();
    this.paint();
    this.ask();
  }

  // Ask again for what the server does not know yet, ever less often.
  ask() {
    clearTimeout(this.asking);
    const { waiting, pending } = this.data;
    this.times = waiting || pending ? (this.times || 0) + 1 : 0;
    if (this.times === 0) return;
    const again = () => {
      this.asked = (this.asked || 0) + 1;
      this.component.setTriggerValue("asked", this.asked);
      this.asking = setTimeout(again, 10000); // in case no answer comes
    };
    this.asking = setTimeout(again, Math.min(60 * 1.6 ** this.times, 3000));
  }

  readSettings() {
    this.settingsText = this.data.settings;
    this.settings = JSON.parse(this.data.settings);
    this.terms = this.settings.terms;
    // Number of each layer of the plan among the compressible ones.
    this.numbers = this.settings.layers.map((layer) => layer.number);
    this.widths = this.numbers.map((number) => this.terms.layers[number].width);
  }

  readPlan() {
    const { plan, others, seen } = this.data;
    const byOthers = others > this.others;
    const acknowledged = this.serial === 0 || (seen && seen[0] === this.client && seen[1] === this.serial);
    if (!byOthers && (!acknowledged || this.timer !== null || this.moved)) return;
    if (byOthers) this.forget();
    this.others = others;
    this.ranks = decoded(plan);
  }

  readStops() {
    this.stopsText = this.data.stops;
    const plans = JSON.parse(this.data.stops).map(decoded);
    const stops = plans.map((ranks) => ({ ranks, factor: this.factor(this.predict(ranks)) }));
    stops.sort((a, b) => a.factor - b.factor);
    this.stops = stops.filter((stop, place) => place === 0 || stop.factor > stops[place - 1].factor * 1.0005);
  }

  // ---- to the server

  report() {
    this.forget();
    this.times = 0;
    if (encoded(this.ranks) === this.data.plan && this.serial === 0) return;
    this.serial += 1;
    const value = { base: this.others, client: this.client, serial: this.serial, plan: encoded(this.ranks) };
    this.component.setTriggerValue("moved", value);
    this.paint();
  }

  forget() {
    clearTimeout(this.timer);
    this.timer = null;
    this.moved = false;
  }

  flush() {
    if (this.moved) this.report();
  }

  // Ranks moved by a pointer are reported when it is released, by keys after a short pause or when the focus leaves.
  move(ranks, byPointer) {
    this.ranks = ranks;
    this.moved = true;
    clearTimeout(this.timer);
    this.timer = byPointer ? null : setTimeout(() => this.report(), KEY_PAUSE);
    this.schedule();
  }

  // ---- numbers

  predict(ranks) {
    const chosen = this.terms.layers.map((layer) => layer.width);
    ranks.forEach((rank, place) => { chosen[this.numbers[place]] = rank; });
    return predictPlan(this.terms, chosen);
  }

  factor(prediction) {
    return bytesOf(this.terms.original) / Math.max(bytesOf(prediction.serving), 1);
  }

  nearestStop(factor) {
    const away = this.stops.map((stop) => Math.abs(Math.log(stop.factor / factor)));
    return away.indexOf(Math.min(...away));
  }

  // The rank that a layer is shown with: in a shared basis the one that all tables have.
  shown(place, prediction) {
    const layer = this.terms.layers[this.numbers[place]];
    if (this.terms.shared && layer.table) return prediction.ranks[this.numbers[place]] || layer.width;
    return this.ranks[place];
  }

  // ---- drawing

  draw() {
    const before = this.body.contains(this.body.getRootNode().activeElement) ? this.body.getRootNode().activeElement : null;
    const focused = before && before.getAttribute("aria-label");
    this.dial = element("div", { class: "dial" });
    this.drawDial();
    this.body.replaceChildren(this.drawSummary(), this.dial, this.drawTools(), ...this.drawGroups());
    if (focused) this.body.querySelector(`[aria-label="${CSS.escape(focused)}"]`)?.focus();
  }

  drawSummary() {
    this.figures = {};
    const figure = (name, label, wide = "") => {
      const [value, note] = [element("b"), element("small")];
      this.figures[name] = { value, note };
      return element("div", { class: `figure ${wide}` }, value, element("span", {}, label), note);
    };
    this.verdict = element("em");
    const auc = figure("auc", "AUC now", "auc");
    auc.append(this.verdict);
    this.spoken = element("p", { class: "spoken", role: "status" });
    return element("section", { class: "summary", "aria-label": "This plan" },
      figure("factor", "smaller", "main"), figure("parameters", "parameters"), figure("bytes", "size"), figure("macs", "MACs per row"),
      figure("lost", this.settings.held ? "variance lost" : "variance lost *"), figure("predicted", "AUC predicted", "predicted"), auc,
      this.spoken);
  }

  drawDial() {
    const last = this.stops.length - 1;
    this.dialValue = element("output");
    this.dialInput = this.range({ max: last, min: 0, label: "Times smaller", class: "turn" }, (at, byPointer) =>
      this.move([...this.stops[at].ranks], byPointer));
    this.dialInput.disabled = last < 1;
    const marks = element("div", { class: "marks", "aria-hidden": "true" }, ...this.marks());
    this.dial.replaceChildren(
      element("div", { class: "dial-head" }, element("strong", {}, "Times smaller"), this.dialValue),
      this.dialInput, marks, element("p", { class: "hint" }, this.data.walk));
    this.dialPainted = null;
  }

  marks() {
    const last = this.stops.length - 1;
    const wanted = [1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200, 500, 1000];
    const found = [];
    for (const factor of wanted.filter((one) => one <= this.stops[last].factor && one >= this.stops[0].factor * 0.99)) {
      const share = this.nearestStop(factor) / Math.max(last, 1);
      if (!found.length || share - found[found.length - 1].share > 0.07) found.push({ factor, share });
    }
    return found.map(({ factor, share }) => element("span", { style: `--at:${share.toFixed(4)}` }, `${factor}x`));
  }

  drawTools() {
    const filter = element("input", { type: "search", placeholder: "Filter by name", "aria-label": "Filter layers by name",
      oninput: (event) => { this.filter = event.target.value.trim().toLowerCase(); this.drawRows(); } });
    filter.value = this.filter;
    const orders = { model: "In the model's order", saving: "Largest saving first", lost: "Most variance lost first", name: "By name" };
    const order = element("select", { "aria-label": "Order of the layers",
      onchange: (event) => { this.order = event.target.value; this.drawRows(); } },
      ...Object.entries(orders).map(([value, title]) => element("option", { value, selected: value === this.order }, title)));
    this.found = element("span", { class: "found", role: "status" });
    return element("div", { class: "tools" }, element("strong", {}, "Rank of each layer"), filter, order, this.found,
      element("span", { class: "legend" }, element("i", { class: "tick" }), "keeps 99 % of the variance",
        element("i", { class: "hatch" }), "stays dense, from break-even on"));
  }

  drawGroups() {
    const places = this.numbers.map((_, place) => place);
    const isTable = (place) => this.terms.layers[this.numbers[place]].table;
    this.groups = [
      { title: "All MLP layers", places: places.filter((place) => !isTable(place)), noun: ["layer", "layers"] },
      { title: "All tables", places: places.filter(isTable), noun: ["table", "tables"], alone: this.terms.shared },
    ].filter((group) => group.places.length);
    for (const group of this.groups) {
      group.head = group.places.length > 1 || group.alone ? this.groupRow(group) : null;
      group.list = element("div", { class: "rows" });
      group.toggle = group.title === "All tables" && group.places.length >= FOLDED_FROM ? this.toggle(group) : null;
    }
    this.drawRows();
    return this.groups.map((group) =>
      element("div", { class: "group" }, ...[group.head?.row, group.alone ? null : group.toggle, group.alone ? null : group.list].filter(Boolean)));
  }

  toggle(group) {
    return element("button", { type: "button", class: "fold", "aria-expanded": String(this.opened.has(group.title)),
      onclick: (event) => {
        if (!this.opened.delete(group.title)) this.opened.add(group.title);
        event.target.setAttribute("aria-expanded", String(this.opened.has(group.title)));
        this.drawRows();
      } }, `Each of the ${group.places.length} tables`);
  }

  // The rows of the layers that the filter lets through, in the chosen order; those of a folded group are not made.
  drawRows() {
    const prediction = this.predict(this.ranks);
    let shown = 0;
    for (const group of this.groups) {
      const open = !group.toggle || this.opened.has(group.title) || this.filter;
      const places = open && !group.alone ? this.sorted(group.places, prediction) : [];
      group.rows = places.map((place) => (group.made ||= {})[place] ||= this.layerRow(place));
      group.list.replaceChildren(...group.rows.map((row) => row.row));
      shown += group.rows.length;
    }
    const total = this.numbers.length;
    if (!this.filter) write(this.found, "");
    else write(this.found, shown ? `${shown} of ${total} layers` : "No layer has this in its name.");
    this.paint();
  }

  sorted(places, prediction) {
    const name = (place) => this.terms.layers[this.numbers[place]].name;
    const found = places.filter((place) => name(place).toLowerCase().includes(this.filter));
    const saving = (place) => this.terms.layers[this.numbers[place]].parameters - this.parameters(place, prediction);
    const lost = (place) => prediction.lost?.[this.numbers[place]] ?? 0;
    if (this.order === "saving") found.sort((a, b) => saving(b) - saving(a));
    if (this.order === "lost") found.sort((a, b) => lost(b) - lost(a));
    if (this.order === "name") found.sort((a, b) => name(a).localeCompare(name(b)));
    return found;
  }

  range({ min, max, label, ...more }, moved) {
    let byPointer = false;
    return element("input", { type: "range", min, max, step: 1, "aria-label": label, ...more,
      onpointerdown: () => { byPointer = true; },
      onkeydown: () => { byPointer = false; },
      oninput: (event) => moved(Number(event.target.value), byPointer),
      onchange: () => { if (byPointer) this.flush(); byPointer = false; },
      onblur: () => this.flush() });
  }

  row(name, note, label, width, moved) {
    const title = element("small", {}, note);
    const parts = { note: title, lost: element("span"), bar: element("i", { class: "lost" }), parameters: element("span") };
    const facts = [element("span", { class: "variance" }, parts.lost, parts.bar), parts.parameters];
    const head = element("div", { class: "name" }, element("span", { title: name }, name), title);
    if (width === 1) {
      parts.row = element("div", { class: "row" }, head, element("small", { class: "single" }, "one-dimensional"), ...facts);
      return parts;
    }
    const set = (rank, byPointer) => { parts.fault = null; moved(rank, byPointer); };
    parts.range = this.range({ min: 1, max: width, label }, set);
    parts.number = element("input", { type: "number", min: 1, max: width, step: 1, "aria-label": `${label}, typed`,
      onchange: (event) => this.typed(event.target, parts, width, set), onblur: () => this.flush() });
    parts.row = element("div", { class: "row" }, head, parts.range, parts.number, ...facts);
    return parts;
  }

  typed(input, parts, width, moved) {
    const rank = Number(input.value);
    if (input.value !== "" && Number.isInteger(rank) && rank >= 1 && rank <= width) {
      moved(rank, false);
      return;
    }
    parts.fault = `A rank is 1 to ${width}.`;
    input.value = parts.range.value;
    this.paint();
  }

  layerRow(place) {
    const { name } = this.terms.layers[this.numbers[place]];
    const parts = this.row(name.replace(/^embedding\./, ""), this.settings.layers[place].shape, `Rank of ${name}`, this.widths[place],
      (rank, byPointer) => this.move(this.ranks.with(place, rank), byPointer));
    const layer = this.terms.layers[this.numbers[place]];
    parts.place = place;
    this.rowOf.set(parts.row, parts);
    this.sight.observe(parts.row);
    const last = Math.max(layer.width - 1, 1);
    parts.row.style.setProperty("--edge", ((Math.min(layer.break_even, layer.width) - 1) / last).toFixed(4));
    parts.row.style.setProperty("--tick", ((this.settings.layers[place].tick - 1) / last).toFixed(4));
    return parts;
  }

  groupRow(group) {
    const width = Math.max(...group.places.map((place) => this.widths[place]));
    const label = `Rank of ${group.title[0].toLowerCase()}${group.title.slice(1)}`;
    const parts = this.row(group.title, "", label, width, (rank, byPointer) => {
      const ranks = [...this.ranks];
      for (const place of group.places) ranks[place] = Math.min(rank, this.widths[place]);
      this.move(ranks, byPointer);
    });
    parts.row.classList.add("whole");
    return parts;
  }

  // ---- painting: everything that the ranks change, once a frame

  schedule() {
    if (this.frame === null) this.frame = requestAnimationFrame(() => { this.frame = null; this.paint(); });
  }

  paint() {
    if (!this.groups) return;
    const prediction = this.predict(this.ranks);
    this.paintFigures(prediction);
    this.paintDial(prediction);
    const worst = Math.max(0.05, ...(prediction.lost || []).filter((share) => share !== null));
    for (const group of this.groups) {
      if (group.head) this.paintGroup(group, prediction, worst);
      for (const row of group.rows) if (row.inSight || !row.painted) this.paintLayer(row, prediction, worst);
    }
  }

  paintFigures(prediction) {
    const before = this.terms.original;
    const after = prediction.serving;
    const put = (name, value, note) => { write(this.figures[name].value, value); write(this.figures[name].note, note); };
    put("factor", smaller(this.factor(prediction)), `${this.settings.form}`);
    put("parameters", count(parametersOf(after)), `of ${count(parametersOf(before))}`);
    put("bytes", size(bytesOf(after)), `of ${size(bytesOf(before))}`);
    put("macs", count(after[4]), `of ${count(before[4])}`);
    put("lost", prediction.lost ? percent(prediction.lostTotal) : NONE, prediction.lost ? "mean of the layers" : "not predicted");
    put("predicted", prediction.auc === null ? NONE : prediction.auc.toFixed(4),
      prediction.auc === null ? this.data.unpredicted : `log loss ${prediction.logLoss.toFixed(4)}`);
    this.paintMeasured();
    const text = `${smaller(this.factor(prediction))} smaller, ${count(parametersOf(after))} parameters, ${size(bytesOf(after))}`;
    if (!this.moved) write(this.spoken, text);
  }

  paintMeasured() {
    const current = !this.moved && this.data.measured && encoded(this.ranks) === this.data.plan;
    const measured = this.measured = this.data.measured || this.measured;
    const { value, note } = this.figures.auc;
    value.parentElement.classList.toggle("old", !current);
    if (!measured) {
      write(value, NONE);
      write(note, this.data.note);
      write(this.verdict, "");
      return;
    }
    const change = measured.auc_change;
    write(value, measured.auc.toFixed(4));
    write(note, current
      ? `${difference(change[0])} (95 % ${difference(change[1])} to ${difference(change[2])}) from ${measured.original_auc.toFixed(4)}, `
        + `log loss ${measured.log_loss.toFixed(4)} (${difference(measured.log_loss_change)}), ${measured.rows}`
      : this.moved ? "of the plan before; measured on release" : this.data.note || "of the plan before; measuring");
    const verdict = change[1] <= 0 && change[2] >= 0 ? "inside the noise" : change[2] < 0 ? "measurable loss" : "measurable gain";
    write(this.verdict, current ? verdict : "");
    this.verdict.className = change[2] < 0 ? "loss" : change[1] > 0 ? "gain" : "noise";
  }

  paintDial(prediction) {
    const factor = this.factor(prediction);
    const at = this.nearestStop(factor);
    if (this.dialPainted === factor) return;
    this.dialPainted = factor;
    write(this.dialValue, `${smaller(factor)} smaller`);
    if (Math.abs(Number(this.dialInput.value) - at) > 0 && this.stops[this.dialInput.value]?.factor !== factor) this.dialInput.value = at;
    this.dialInput.setAttribute("aria-valuetext", `${smaller(factor)} smaller`);
  }

  paintGroup(group, prediction, worst) {
    const ranks = group.places.map((place) => this.shown(place, prediction)).sort((a, b) => a - b);
    const [low, high] = [ranks[0], ranks[ranks.length - 1]];
    const number = group.places.length;
    write(group.head.note, low === high ? `${number} ${group.noun[number === 1 ? 0 : 1]}` : `ranks ${low} to ${high}`);
    this.setRank(group.head, ranks[Math.floor(ranks.length / 2)]);
    const numbers = group.places.map((place) => this.numbers[place]);
    const reduced = numbers.filter((one) => prediction.ranks[one]);
    const lost = numbers.reduce((sum, one) => sum + (prediction.lost?.[one] ?? 0), 0) / number;
    this.paintFacts(group.head, {
      lost: this.unpredicted(reduced, prediction) || `${percent(lost)} lost`, share: lost / worst,
      after: group.places.reduce((sum, place) => sum + this.parameters(place, prediction), 0),
      before: numbers.reduce((sum, one) => sum + this.terms.layers[one].parameters, 0),
    });
  }

  paintLayer(row, prediction, worst) {
    const number = this.numbers[row.place];
    const layer = this.terms.layers[number];
    row.painted = true;
    this.setRank(row, this.shown(row.place, prediction));
    const lost = prediction.lost?.[number] ?? 0;
    const dense = !prediction.ranks[number];
    this.paintFacts(row, {
      lost: dense ? `dense from ${Math.ceil(layer.break_even)}` : this.unpredicted([number], prediction) || `${percent(lost)} lost`,
      share: dense ? 0 : lost / worst, after: this.parameters(row.place, prediction), before: layer.parameters,
    });
  }

  setRank(row, rank) {
    if (!row.range) return;
    if (Number(row.range.value) !== rank) row.range.value = rank;
    const typing = row.number === row.number.getRootNode().activeElement && this.moved;
    if (!typing && row.number.value !== String(rank)) row.number.value = rank;
  }

  paintFacts(row, { lost, share, after, before }) {
    write(row.lost, row.fault || lost);
    row.lost.classList.toggle("fault", Boolean(row.fault));
    row.bar.style.setProperty("--share", Math.min(share, 1).toFixed(3));
    write(row.parameters, `${count(after)} of ${count(before)}`);
  }

  // Why no variance is predicted for these layers, which are reduced; "" where it is.
  unpredicted(numbers, prediction) {
    if (!numbers.length) return "";
    if (numbers.some((number) => this.terms.layers[number].table) && !this.terms.keeps_latents) return "size of rank";
    return prediction.lost ? "" : "not predicted";
  }

  parameters(place, prediction) {
    const number = this.numbers[place];
    const layer = this.terms.layers[number];
    const rank = prediction.ranks[number];
    if (!rank) return layer.parameters;
    if (layer.table) return parametersOf(reducedTable(this.terms, layer, rank));
    return rank * (layer.inputs + layer.width) + rank + layer.width;
  }
}
