// Draws bars, category by category, and rows as lines through parallel axes.

function drawBars(host, chart) {
  clear(host);
  const width = Math.max(240, host.clientWidth || 600), row = 22, many = chart.series.length;
  const left = Math.min(width * 0.42, 12 + 7 * Math.max(...chart.categories.map((c) => c.length)));
  const right = Math.max(10, ...chart.series.flatMap((q) => q.labels.map((text) => 12 + 7 * text.length)));
  const most = chart.whole || Math.max(1e-12, ...chart.series.flatMap((q) => [...q.values, ...q.lines].filter(known).map(Math.abs)));
  const unit = (width - left - right) / most;
  const long = (v) => Math.max(0, Math.min(width - left - right, unit * v));
  const height = chart.categories.length * many * row + 8;
  const svg = s(host, "svg", { width, height, viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": chart.description });
  const letters = Math.floor((left - 8) / 6.4);
  chart.categories.forEach((name, i) => {
    const text = name.length > letters ? name.slice(0, letters - 1) + "…" : name;
    s(svg, "text", { x: left - 6, y: i * many * row + 17, "text-anchor": "end" }, text);
    chart.series.forEach((q, j) => {
      const y = (i * many + j) * row + 4, g = s(svg, "g", { class: look(q.role) }), v = q.values[i];
      s(g, "rect", { x: 0, y: y - 2, width, height: row, fill: "transparent" });
      if (known(v)) s(g, "rect", { x: left, y, width: Math.max(1, long(v)), height: row - 6, class: q.pale[i] ? "bar pale" : "bar" });
      const line = q.lines[i];
      if (known(line)) s(g, "line", { x1: left + long(line), x2: left + long(line), y1: y - 2, y2: y + row - 4, class: "across " + look(q.line_role) });
      s(g, "text", { x: left + Math.max(long(v || 0), long(line || 0)) + 6, y: y + 13, class: "muted" }, q.labels[i]);
      if (q.texts[i]) tell(g, q.texts[i]);
    });
  });
  const items = many > 1 ? chart.series.map((q) => [(p) => s(s(p, "g", { class: look(q.role) }), "rect", { width: 18, height: 13, class: "bar" }), q.name]) : [];
  return { items, notes: [] };
}

function drawParallel(host, chart) {
  clear(host);
  const axes = chart.dimensions.map((d) => ({ ...d.axis, values: d.values }));
  const outer = host.clientWidth || 700;
  const width = Math.max(outer, axes.length * 74), height = 300, top = 46, bottom = 24, side = 40;
  const scroll = el(host, "div", { class: "scroll", tabindex: 0, role: "region", "aria-label": chart.title });
  const svg = s(scroll, "svg", { width, height, viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": chart.description });
  axes.forEach((a, i) => {
    a.at = side + (i * (width - 2 * side)) / (axes.length - 1);
    const r = reach(a.values, a.scale, 0);
    a.to = scale(r.domain, [height - bottom, top], r.log);
  });
  const lines = s(svg, "g", { class: look(chart.role) }), best = s(svg, "g", { class: look(chart.marked_role) });
  chart.marked.forEach((on, i) => {
    const points = axes.filter((a) => known(a.values[i])).map((a) => [a.at, a.to(a.values[i])]);
    if (points.length < 2) return;
    const p = s(on ? best : lines, "path", { d: path(points), class: on ? "parallel marked" : "parallel" });
    if (!on) return;
    p.setAttribute("data-row", chart.ids[i]);
    p.addEventListener("click", () => select(chart.ids[i]));
    tell(p, chart.texts[i]);
  });
  axes.forEach((a, i) => {
    const last = i === axes.length - 1;
    s(svg, "line", { x1: a.at, x2: a.at, y1: top, y2: height - bottom, stroke: "var(--text)", opacity: 0.5 });
    const ends = a.format === "percent" ? (v) => (100 * v).toFixed(1) + " %" : (v) => trim(v, 3);
    s(svg, "text", { x: a.at, y: top - 6, "text-anchor": "middle", class: "muted" }, ends(a.to.domain[1]));
    s(svg, "text", { x: a.at, y: height - bottom + 15, "text-anchor": "middle", class: "muted" }, ends(a.to.domain[0]));
    s(svg, "text", {
      x: a.at, y: i % 2 ? 28 : 13, "text-anchor": i === 0 ? "start" : last ? "end" : "middle",
      dx: i === 0 ? -side + 2 : last ? side - 2 : 0,
    }, a.title);
  });
  const line = (role, width) => (p) => s(p, "line", { x1: 0, x2: 22, y1: 7, y2: 7, class: "line " + look(role), "stroke-width": width });
  const items = [[line(chart.role, 1), chart.name], [line(chart.marked_role, 2), chart.marked_name]];
  items.push([(p) => s(p, "line", { x1: 0, x2: 22, y1: 7, y2: 7, stroke: "var(--select)", "stroke-width": 3.5 }), "selected model"]);
  return { items, notes: [] };
}
