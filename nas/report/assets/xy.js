// Draws a chart with two axes: points with intervals, lines, rules.

const MANY = 40; // marks from which on they are smaller

function drawXY(host, chart, state) {
  const marks = chart.marks.filter((m) => !state.hidden.has(m.toggle));
  const xs = along(chart, marks, "x"), ys = along(chart, marks, "y");
  if (!xs.length || !ys.length) { missing(host, "Nothing to show."); return { items: [], notes: [] }; }
  const kind = state.scale === "axis" ? chart.x.scale : state.scale;
  const margin = marks.some((m) => m.kind === "points") ? 0.06 : 0.02;
  const f = frame(host, chart, {
    x: reach(chart.same ? xs.concat(ys) : xs, kind, margin),
    y: reach(chart.same ? xs.concat(ys) : ys, chart.y.scale, 0.06),
    role: marks.some((m) => m.kind === "points" && !m.crowd) ? "group" : "img",
  });
  const walk = [], notes = [];
  let labels = 0;
  f.size = marks.filter((m) => m.kind === "points" && !m.crowd).reduce((n, m) => n + m.x.length, 0) > MANY ? 0.72 : 1;
  for (const m of marks) {
    if (m.kind === "rule") labels += drawRule(f, m, labels);
    else if (m.kind === "line") drawLine(f, m, chart);
    else if (m.crowd) {
      const outside = drawCrowd(f, m, chart);
      if (outside) notes.push(outside + (outside === 1 ? " mark" : " marks") + " of “" + m.name +
        "” " + (outside === 1 ? "lies" : "lie") + " outside the axes.");
    } else m.x.forEach((x, i) => walk.push([x, drawPoint(f, m, i)]));
  }
  walkable(walk.sort((a, b) => a[0] - b[0]).map((w) => w[1]));
  const named = new Map();
  for (const m of marks.slice().reverse()) if (m.name && !named.has(m.name)) named.set(m.name, m);
  // One name says no more than the title of the axis.
  const items = named.size > 1 ? [...named].map(([name, m]) => [(svg) => key(svg, m), name]) : [];
  return { items, notes };
}

// Every value that an axis must show; as along() in nas/report/charts/spec.py.
function along(chart, marks, axis) {
  const out = [...chart[axis].shows];
  for (const m of marks) {
    if (m.kind === "rule") { if (m.along === axis && m.reached) out.push(m.at); continue; }
    if (axis === "y" && m.reach) { out.push(...m.reach); continue; }
    for (const v of m[axis]) out.push(v);
    const span = axis === "x" ? m.across : m.upwards;
    if (span) for (const v of span.low.concat(span.high)) out.push(v);
  }
  return out.filter(known);
}

function frame(host, chart, options) {
  clear(host);
  const width = Math.max(260, host.clientWidth || 700);
  const height = chart.low ? 260 : Math.min(420, Math.max(260, width * 0.55));
  const m = { left: chart.y.numbered ? 58 : 24, right: 14, top: 12, bottom: 44 };
  const svg = s(host, "svg", {
    width, height, viewBox: "0 0 " + width + " " + height, role: options.role, "aria-label": chart.description,
  });
  const x = scale(options.x.domain, [m.left, width - m.right], options.x.log);
  const y = scale(options.y.domain, [height - m.bottom, m.top], options.y.log);
  const g = s(svg, "g", { "aria-hidden": "true" });
  for (const v of chart.x.numbered ? ticks(options.x.domain, Math.max(2, width / 95), options.x.log) : []) {
    s(g, "line", { x1: x(v), x2: x(v), y1: m.top, y2: height - m.bottom, class: "gridline" });
    s(g, "text", { x: x(v), y: height - m.bottom + 17, "text-anchor": "middle", class: "muted" }, figure(chart.x, v));
  }
  for (const v of chart.y.numbered ? ticks(options.y.domain, height / 60, options.y.log) : []) {
    s(g, "line", { x1: m.left, x2: width - m.right, y1: y(v), y2: y(v), class: "gridline" });
    s(g, "text", { x: m.left - 7, y: y(v) + 4, "text-anchor": "end", class: "muted" }, figure(chart.y, v));
  }
  s(g, "path", { d: "M" + m.left + " " + m.top + "V" + (height - m.bottom) + "H" + (width - m.right), class: "axis" });
  s(g, "text", { x: (m.left + width - m.right) / 2, y: height - 6, "text-anchor": "middle", class: "title" }, label(chart.x));
  s(g, "text", {
    x: -(m.top + height - m.bottom) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle", class: "title",
  }, label(chart.y));
  const inside = (v, domain) => v >= domain[0] && v <= domain[1];
  return {
    svg, x, y, width, height, m,
    inside: (a, b) => inside(a, options.x.domain) && inside(b, options.y.domain),
    clampX: (v) => x(Math.min(options.x.domain[1], Math.max(options.x.domain[0], v))),
    clampY: (v) => y(Math.min(options.y.domain[1], Math.max(options.y.domain[0], v))),
  };
}

function drawRule(f, m, labels) {
  const [left, right, top, bottom] = [f.m.left, f.width - f.m.right, f.m.top, f.height - f.m.bottom];
  const across = { class: "rule " + look(m.role) };
  if (m.along === "equal") {
    const low = Math.max(f.x.domain[0], f.y.domain[0]), high = Math.min(f.x.domain[1], f.y.domain[1]);
    s(f.svg, "line", { x1: f.x(low), y1: f.y(low), x2: f.x(high), y2: f.y(high), ...across });
    return 0;
  }
  const scaled = m.along === "x" ? f.x : f.y;
  if (m.at < scaled.domain[0] || m.at > scaled.domain[1]) return 0;
  const at = scaled(m.at);
  if (m.along === "y") s(f.svg, "line", { x1: left, x2: right, y1: at, y2: at, ...across });
  else s(f.svg, "line", { x1: at, x2: at, y1: top, y2: bottom, ...across });
  if (!m.label) return 0;
  const flip = m.along === "x" && at > f.width * 0.6;
  s(f.svg, "text", {
    x: m.along === "y" ? left + 5 : at + (flip ? -5 : 5), y: m.along === "y" ? at - 5 : bottom - 8 - 15 * labels,
    "text-anchor": flip ? "end" : "start", class: "rule-text " + look(m.role),
  }, m.label);
  return m.along === "x" ? 1 : 0;
}

function drawLine(f, m, chart) {
  let points = m.x.map((x, i) => [f.x(x), f.y(m.y[i])]);
  if (m.stepped) points = points.flatMap((p, i) => (i ? [[p[0], points[i - 1][1]], p] : [p]));
  s(f.svg, "path", { d: path(points), class: (m.thin ? "line thin " : "line ") + look(m.role) });
  if (!m.marked) return;
  m.x.forEach((x, i) => {
    const c = s(f.svg, "circle", { cx: f.x(x), cy: f.y(m.y[i]), r: 3, class: "knot " + look(m.role) });
    tell(c, m.texts[i] || m.name + " " + withUnit(chart.y, m.y[i]) + " at " + withUnit(chart.x, x));
  });
}

function drawCrowd(f, m, chart) {
  const layer = s(f.svg, "g", { "aria-hidden": "true", class: look(m.role) });
  let outside = 0;
  m.x.forEach((x, i) => {
    if (!f.inside(x, m.y[i])) { outside++; return; }
    const c = s(layer, "circle", { cx: f.x(x).toFixed(1), cy: f.y(m.y[i]).toFixed(1), r: 2.2, class: "dot" });
    s(c, "title", {}, m.texts[i] + "\n" + chart.x.title + " " + withUnit(chart.x, x));
  });
  return outside;
}

function drawPoint(f, m, i) {
  const g = s(f.svg, "g", { class: "point " + look(m.role) + (m.doubted[i] ? " doubted" : ""), tabindex: -1 });
  const x = f.x(m.x[i]), y = f.y(m.y[i]);
  const a = m.across, u = m.upwards;
  if (a && known(a.low[i]) && known(a.high[i])) {
    const low = f.clampX(a.low[i]), high = f.clampX(a.high[i]);
    s(g, "path", { d: "M" + low + " " + y + "H" + high + "M" + low + " " + (y - 3) + "v6M" + high + " " + (y - 3) + "v6", class: "error" });
  }
  if (u && known(u.low[i]) && known(u.high[i])) {
    const low = f.clampY(u.low[i]), high = f.clampY(u.high[i]);
    s(g, "path", { d: "M" + x + " " + low + "V" + high + "M" + (x - 3) + " " + low + "h6M" + (x - 3) + " " + high + "h6", class: "error" });
  }
  s(g, "circle", { cx: x, cy: y, r: 10, class: "ring" });
  symbol(g, m.role, x, y, f.size);
  if (m.doubted[i]) s(g, "text", { x: x + 8, y: y - 8, class: "bad" }, "⚠");
  if (m.labels[i]) s(g, "text", { x: x + 9, y: y + 4 }, m.labels[i]);
  standsFor(g, m.ids[i], m.texts[i] || m.name);
  return g;
}
