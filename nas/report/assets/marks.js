// Scales, ticks, and how marks of each role look.

function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (known(v)) { if (v < low) low = v; if (v > high) high = v; }
  if (low > high) return null;
  if (low === high) { const d = Math.abs(low) * 0.05 || 0.5; low -= d; high += d; }
  return [low, high];
}
function scale(domain, range, log) {
  const f = log ? Math.log : (v) => v;
  const a = f(domain[0]), b = f(domain[1]);
  const map = (v) => range[0] + ((f(v) - a) / (b - a)) * (range[1] - range[0]);
  map.domain = domain;
  return map;
}
// The range of an axis that shows these values, with a margin in units of the scale.
const WIDE = 6; // as in nas/report/charts/spec.py
function reach(values, kind, margin) {
  const [low, high] = extent(values);
  const log = low > 0 && (kind === "log" || (kind === "auto" && high / low > WIDE));
  if (log) {
    const factor = Math.pow(high / low, margin);
    return { log, domain: [low / factor, high * factor] };
  }
  const pad = (high - low) * margin;
  return { log, domain: [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad] };
}
function ticks(domain, count, log) {
  const [low, high] = domain;
  const out = [];
  if (log) {
    for (const steps of [[1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8]]) {
      out.length = 0;
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
        for (const m of steps) {
          const v = m * Math.pow(10, e);
          if (v >= low * 0.999 && v <= high * 1.001) out.push(v);
        }
      }
      if (out.length >= 3) break;
    }
    while (out.length > count + 2) {
      for (let i = out.length - 2; i > 0; i -= 2) out.splice(i, 1);
    }
    if (out.length >= 2) return out;
    out.length = 0;
  }
  const raw = (high - low) / Math.max(1, count);
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((v) => v >= raw * 0.999);
  for (let v = Math.ceil(low / step) * step; v <= high + step * 1e-6; v += step) {
    out.push(Math.abs(v) < step * 1e-9 ? 0 : Number(v.toPrecision(12)));
  }
  return out;
}
function path(points) {
  return points.map((p, i) => (i ? "L" : "M") + p[0].toFixed(2) + " " + p[1].toFixed(2)).join("");
}

function look(role) {
  const found = D.roles[role];
  return "role-" + role + (found.hollow ? " hollow" : "") + (found.dashed ? " dashed" : "");
}
function symbol(g, role, x, y, size) {
  const to = "translate(" + x + " " + y + ")" + (size ? " scale(" + size + ")" : "");
  return s(g, "path", { d: D.shapes[D.roles[role].symbol], transform: to, class: "mark" });
}
// What the legend shows of a mark.
function key(svg, mark) {
  if (mark.kind === "points" && mark.crowd) s(svg, "circle", { cx: 11, cy: 7, r: 2.5, class: "dot " + look(mark.role) });
  else if (mark.kind === "points") symbol(s(svg, "g", { class: "point " + look(mark.role) }), mark.role, 11, 7);
  else s(svg, "line", { x1: 0, x2: 22, y1: 7, y2: 7, class: (mark.kind === "rule" ? "rule " : "line ") + look(mark.role) });
}
function legend(node, items) {
  clear(node);
  for (const [draw, text] of items) {
    const item = el(node, "span");
    draw(s(item, "svg", { width: 22, height: 14, "aria-hidden": "true" }));
    el(item, "span", {}, text);
  }
}

// Marks that stand for a model select it. Others are only read.
function standsFor(node, id, text) {
  const chosen = typeof id === "string" && byId.has(id);
  node.setAttribute("role", chosen ? "button" : "img");
  node.setAttribute("aria-label", text.replace(/\n/g, ", "));
  if (typeof id === "string") node.setAttribute("data-row", id);
  if (chosen) node.addEventListener("click", () => select(id));
  tell(node, text);
}
// One stop for the Tab key, arrow keys inside: charts may have many points.
function walkable(walk) {
  walk.forEach((g, i) => {
    g.addEventListener("keydown", (e) => {
      let to = null;
      if (e.key === "ArrowRight" || e.key === "ArrowUp") to = walk[Math.min(i + 1, walk.length - 1)];
      else if (e.key === "ArrowLeft" || e.key === "ArrowDown") to = walk[Math.max(i - 1, 0)];
      else if (e.key === "Home") to = walk[0];
      else if (e.key === "End") to = walk[walk.length - 1];
      else if (e.key === "Enter" || e.key === " ") {
        e.preventDefault();
        if (byId.has(g.dataset.row)) select(g.dataset.row);
        return;
      }
      if (to) {
        e.preventDefault();
        for (const n of walk) n.setAttribute("tabindex", -1);
        to.setAttribute("tabindex", 0);
        to.focus();
      }
    });
  });
  const start = walk.find((g) => g.dataset.row === selected) || walk[0];
  if (start) start.setAttribute("tabindex", 0);
}
