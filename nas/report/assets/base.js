// The page's data, and what makes elements. Text of the run reaches the page through textContent
// and setAttribute only, never as markup.
const D = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg"; // a name, not an address: nothing is loaded
const MISSING = "not recorded";

const $ = (id) => document.getElementById(id);
const known = (v) => typeof v === "number" && isFinite(v);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function fill(node, parent, attributes, text) {
  for (const key in attributes || {}) node.setAttribute(key, attributes[key]);
  if (text !== undefined && text !== null) node.textContent = String(text);
  if (parent) parent.appendChild(node);
  return node;
}
function el(parent, name, attributes, text) {
  return fill(document.createElement(name), parent, attributes, text);
}
function s(parent, name, attributes, text) {
  return fill(document.createElementNS(SVG, name), parent, attributes, text);
}
function clear(node) { while (node.firstChild) node.removeChild(node.firstChild); }
function missing(host, text) { clear(host); el(host, "p", { class: "note" }, text); }

// A chart as JSON has it, see nas/report/charts/encode.py: columns that charts share are written
// once, and rows of one kind name their fields once.
const named = (names, row) => Object.fromEntries(names.map((name, i) => [name, row[i]]));
function decode(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(decode);
  if ("$" in value) return D.columns[value.$];
  if ("rows" in value && "of" in value) return value.rows.map((row) => named(decode(value.of), row));
  if ("row" in value && "of" in value) return named(decode(value.of), value.row.map(decode));
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, decode(one)]));
}

// --------------------------------------------------------------------- figures
function trim(v, digits) {
  if (!known(v)) return MISSING;
  if (v !== 0 && (Math.abs(v) >= 1e6 || Math.abs(v) < 1e-3)) return v.toExponential(2);
  if (Math.abs(v) >= 1000) return Math.round(v).toLocaleString("en");
  return String(Number(v.toPrecision(digits || 4)));
}
function count(v) {
  if (!known(v)) return MISSING;
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"]]) if (Math.abs(v) >= size) return trim(v / size, 3) + unit;
  return trim(v);
}
function score(v) {
  if (!known(v)) return MISSING;
  return D.metric.percent ? (100 * v).toFixed(2) + " %" : trim(v) + (D.metric.unit ? " " + D.metric.unit : "");
}
const ms = (v) => (known(v) ? trim(v) + " ms" : MISSING);
function interval(low, high, unit) {
  return known(low) && known(high)
    ? "95 % interval " + trim(low) + "–" + trim(high) + (unit || "")
    : "interval not recorded";
}
const runtime = (name) => (D.devices.find((d) => d.name === name) || { runtime: "runtime not recorded" }).runtime;
// A figure along an axis, whose label has the unit; and with its unit, where it stands alone.
function figure(axis, v, digits) {
  return axis.format === "percent" ? trim(100 * v, digits) : axis.format === "count" ? count(v) : trim(v, digits);
}
function withUnit(axis, v) { return figure(axis, v) + (axis.unit ? " " + axis.unit : ""); }
function label(axis) {
  return axis.title + (axis.unit ? ", " + axis.unit : "") + (axis.note ? " (" + axis.note + ")" : "");
}

// -------------------------------------------------------------------- controls
function choose(parent, text, options, value, change) {
  const wrap = el(parent, "label", {}, text + " ");
  const list = el(wrap, "select");
  for (const [key, words] of options) {
    const option = el(list, "option", { value: key }, words);
    if (key === value) option.selected = true;
  }
  list.addEventListener("change", () => change(list.value));
  return list;
}
function check(parent, text, value, change) {
  const wrap = el(parent, "label", {});
  const box = el(wrap, "input", { type: "checkbox" });
  box.checked = value;
  el(wrap, "span", {}, text);
  box.addEventListener("change", () => change(box.checked));
  return box;
}
function table(parent, heads, rows) {
  const t = el(parent, "table");
  const tr = el(el(t, "thead"), "tr");
  for (const h of heads) el(tr, "th", { scope: "col" }, h);
  const body = el(t, "tbody");
  for (const r of rows) {
    const line = el(body, "tr");
    for (const c of r) {
      const td = el(line, "td");
      if (c instanceof Node) td.appendChild(c); else td.textContent = c === null || c === undefined ? MISSING : String(c);
    }
  }
  return t;
}

// --------------------------------------------------------------------- tooltip
const tip = $("tip");
function tell(node, text) {
  const show = () => {
    tip.textContent = text;
    tip.hidden = false;
    const box = node.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left + box.width / 2 - tip.offsetWidth / 2,
      document.documentElement.clientWidth - tip.offsetWidth - 8));
    let top = box.top - tip.offsetHeight - 8;
    if (top < 50) top = box.bottom + 8;
    tip.style.left = left + window.scrollX + "px";
    tip.style.top = top + window.scrollY + "px";
  };
  const hide = () => { tip.hidden = true; };
  node.addEventListener("mouseenter", show);
  node.addEventListener("mouseleave", hide);
  node.addEventListener("focus", show);
  node.addEventListener("blur", hide);
}
document.addEventListener("keydown", (e) => { if (e.key === "Escape") tip.hidden = true; });
