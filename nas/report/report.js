"use strict";
// Draws the charts of the report from the JSON in #data. No library, no network. Text of
// the run reaches the page through textContent and setAttribute only, never as markup.
(function () {
  const D = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg"; // a name, not an address: nothing is loaded
  const MISSING = "not recorded";
  // Okabe and Ito's palette, with the bits written beside every colour.
  const BITS = {
    1: "#CC79A7", 2: "#D55E00", 3: "#E69F00", 4: "#F0E442", 5: "#A6D854", 6: "#009E73",
    7: "#5FC9B0", 8: "#56B4E9", 16: "#0072B2", 32: "#999999",
  };
  const $ = (id) => document.getElementById(id);
  const models = D.models;
  for (const m of models) {
    for (const b of m.plan ? m.plan.blocks : []) {
      b.layers = b.layers.map((row) => Object.fromEntries(D.layer_fields.map((field, i) => [field, row[i]])));
    }
  }
  const byId = new Map();
  for (const m of models) if (!byId.has(m.id)) byId.set(m.id, m);
  const front = models.filter((m) => m.kind === "front");
  const percent = D.metric.percent;
  let selected = null;

  // ------------------------------------------------------------------ helpers
  function el(parent, name, attributes, text) {
    const node = document.createElement(name);
    for (const key in attributes || {}) node.setAttribute(key, attributes[key]);
    if (text !== undefined && text !== null) node.textContent = String(text);
    if (parent) parent.appendChild(node);
    return node;
  }
  function s(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes || {}) node.setAttribute(key, attributes[key]);
    if (text !== undefined && text !== null) node.textContent = String(text);
    if (parent) parent.appendChild(node);
    return node;
  }
  function clear(node) { while (node.firstChild) node.removeChild(node.firstChild); }
  const known = (v) => typeof v === "number" && isFinite(v);
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
  function tally(words) {
    const count = new Map();
    for (const w of words) count.set(w, (count.get(w) || 0) + 1);
    return [...count].map(([w, n]) => n + " " + w).join(", ");
  }
  function score(v) {
    if (!known(v)) return MISSING;
    return percent ? (100 * v).toFixed(2) + " %" : trim(v) + (D.metric.unit ? " " + D.metric.unit : "");
  }
  const ms = (v) => (known(v) ? trim(v) + " ms" : MISSING);
  function interval(low, high, unit) {
    return known(low) && known(high)
      ? "95 % interval " + trim(low) + "–" + trim(high) + (unit || "")
      : "interval not recorded";
  }
  // Whether a device's latencies are measured, or estimated by a simulator.
  function source(name) {
    const m = D.models.find((model) => model.devices[name]);
    return (m && m.devices[name].source) || "measured";
  }
  function runtime(name) {
    const d = D.devices.find((x) => x.name === name);
    if (!d || !d.runtime) return "runtime not recorded";
    return d.runtime + (d.version ? " " + d.version : "");
  }
  function missing(id, text) { const p = $(id); clear(p); el(p, "p", { class: "note" }, text); }
  function choose(parent, label, options, value, change) {
    const wrap = el(parent, "label", {}, label + " ");
    const list = el(wrap, "select");
    for (const [key, text] of options) {
      const option = el(list, "option", { value: key }, text);
      if (key === value) option.selected = true;
    }
    list.addEventListener("change", () => change(list.value));
    return list;
  }
  function check(parent, label, value, change) {
    const wrap = el(parent, "label", {});
    const box = el(wrap, "input", { type: "checkbox" });
    box.checked = value;
    el(wrap, "span", {}, label);
    box.addEventListener("change", () => change(box.checked));
    return box;
  }
  function legend(id, items) {
    const node = $(id);
    clear(node);
    for (const [draw, text] of items) {
      const item = el(node, "span");
      const svg = s(item, "svg", { width: 22, height: 14, "aria-hidden": "true" });
      draw(svg);
      el(item, "span", {}, text);
    }
  }

  // ------------------------------------------------------------------ tooltip
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

  // ------------------------------------------------------------------- scales
  function extent(values, pad) {
    const list = values.filter(known);
    if (!list.length) return null;
    let low = Infinity, high = -Infinity;
    for (const v of list) { if (v < low) low = v; if (v > high) high = v; }
    if (low === high) { const d = Math.abs(low) * 0.05 || 0.5; low -= d; high += d; }
    const span = (high - low) * (pad || 0);
    return [low - span, high + span];
  }
  function scale(domain, range, log) {
    const f = log ? Math.log : (v) => v;
    const a = f(domain[0]), b = f(domain[1]);
    const map = (v) => range[0] + ((f(v) - a) / (b - a)) * (range[1] - range[0]);
    map.domain = domain;
    map.log = log;
    return map;
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
  function frame(id, options) {
    const host = $(id);
    clear(host);
    const width = Math.max(260, host.clientWidth || 700);
    const height = options.height || Math.min(420, Math.max(260, width * 0.55));
    const m = Object.assign({ left: 58, right: 14, top: 12, bottom: 44 }, options.margin || {});
    const svg = s(host, "svg", {
      width, height, viewBox: "0 0 " + width + " " + height, role: options.role || "img",
      "aria-label": options.label,
    });
    const x = scale(options.x, [m.left, width - m.right], options.xlog);
    const y = scale(options.y, [height - m.bottom, m.top], options.ylog);
    const g = s(svg, "g", { "aria-hidden": "true" });
    for (const v of ticks(options.x, Math.max(2, width / 95), options.xlog)) {
      s(g, "line", { x1: x(v), x2: x(v), y1: m.top, y2: height - m.bottom, class: "gridline" });
      s(g, "text", { x: x(v), y: height - m.bottom + 17, "text-anchor": "middle", class: "muted" },
        (options.xformat || trim)(v));
    }
    for (const v of ticks(options.y, height / 60, options.ylog)) {
      s(g, "line", { x1: m.left, x2: width - m.right, y1: y(v), y2: y(v), class: "gridline" });
      s(g, "text", { x: m.left - 7, y: y(v) + 4, "text-anchor": "end", class: "muted" },
        (options.yformat || trim)(v));
    }
    s(g, "path", {
      d: "M" + m.left + " " + m.top + "V" + (height - m.bottom) + "H" + (width - m.right), class: "axis",
    });
    s(g, "text", { x: (m.left + width - m.right) / 2, y: height - 6, "text-anchor": "middle", class: "title" },
      options.xtitle);
    s(g, "text", {
      x: -(m.top + height - m.bottom) / 2, y: 13, transform: "rotate(-90)", "text-anchor": "middle",
      class: "title",
    }, options.ytitle);
    return { svg, x, y, width, height, m };
  }
  function path(points) {
    return points.map((p, i) => (i ? "L" : "M") + p[0].toFixed(2) + " " + p[1].toFixed(2)).join("");
  }

  // -------------------------------------------------------------- front chart
  const costs = [];
  for (const d of D.devices) {
    costs.push({
      key: "latency_ms[" + d.name + "]", label: "latency on " + d.name + ", ms (" + runtime(d.name) + ")",
      device: d.name,
      of: (m) => (m.devices[d.name] ? m.devices[d.name].ms : null),
      low: (m) => (m.devices[d.name] ? m.devices[d.name].low : null),
      high: (m) => (m.devices[d.name] ? m.devices[d.name].high : null),
    });
  }
  for (const [key, label] of [
    ["weights_kib", "weights, KiB"], ["size_kib", "model file, KiB"], ["macs", "MACs"],
    ["bops", "bit operations"], ["parameters", "parameters"],
    ["weight_bits_mean", "mean weight bits"], ["activation_bits_mean", "mean activation bits"],
  ]) {
    const of = (m) => (key === "size_kib" ? m.size_kib : m.costs[key]);
    if (models.some((m) => known(of(m)))) costs.push({ key, label, of });
  }
  const view = { cost: costs.length ? costs[0].key : null, split: "test", log: null, dots: true, family: true };
  if (!front.some((m) => known(m.test))) view.split = "validation";

  function valueOf(m) {
    if (view.split === "test" && m.kind === "front") return m.test;
    return m.validation;
  }
  function describe(m) {
    const lines = [m.id + (m.knee ? " (knee)" : "") + (m.kind === "rejected" ? " – rejected" : "")];
    if (m.kind === "rejected" && m.why) lines.push("why: " + m.why);
    if (m.kind === "front" && !m.pareto) lines.push("beaten by " + m.beaten_by[0] + " by the final figures");
    if (m.kind === "front") lines.push("test " + D.metric.name + " " + score(m.test));
    lines.push("validation " + D.metric.name + " " + score(m.validation));
    for (const name in m.devices) {
      const d = m.devices[name];
      lines.push(name + ": " + ms(d.ms) + " " + (d.source || "measured") + " (" + interval(d.low, d.high) + ")");
      if (d.valid === false) lines.push("⚠ invalid measurement: " + (d.reasons.join("; ") || "reason not recorded"));
      if (known(d.predicted)) lines.push("predicted " + ms(d.predicted));
    }
    if (known(m.costs.weights_kib)) lines.push(trim(m.costs.weights_kib) + " KiB of weights");
    if (m.feasible === false) lines.push("over a budget");
    return lines.join("\n");
  }
  function mark(g, m, x, y) {
    s(g, "circle", { cx: x, cy: y, r: 10, class: "ring" });
    if (m.knee) {
      s(g, "path", { d: "M" + x + " " + (y - 7) + "l7 7l-7 7l-7 -7z", class: "mark" });
    } else {
      s(g, "circle", { cx: x, cy: y, r: m.kind === "front" ? 5 : 4.5, class: "mark" });
    }
  }
  // One stop for the Tab key, arrow keys inside: charts may have many points.
  function walkable(walk, isStart, enter) {
    walk.forEach((g, i) => {
      g.addEventListener("keydown", (e) => {
        let to = null;
        if (e.key === "ArrowRight" || e.key === "ArrowUp") to = walk[Math.min(i + 1, walk.length - 1)];
        else if (e.key === "ArrowLeft" || e.key === "ArrowDown") to = walk[Math.max(i - 1, 0)];
        else if (e.key === "Home") to = walk[0];
        else if (e.key === "End") to = walk[walk.length - 1];
        else if (e.key === "Enter" || e.key === " ") { e.preventDefault(); enter(g); return; }
        if (to) {
          e.preventDefault();
          for (const n of walk) n.setAttribute("tabindex", -1);
          to.setAttribute("tabindex", 0);
          to.focus();
        }
      });
    });
    const start = walk.find(isStart) || walk[0];
    if (start) start.setAttribute("tabindex", 0);
  }
  // With three objectives a member of the front may be beaten in the two that are drawn; the
  // line goes through those that are not.
  function unbeaten(steps, x, y) {
    const sign = D.metric.higher ? 1 : -1, out = [];
    for (const m of steps.slice().sort((a, b) => x(a) - x(b) || sign * (y(b) - y(a)))) {
      if (!out.length || sign * (y(m) - y(out[out.length - 1])) > 0) out.push(m);
    }
    return out;
  }
  function familyValue(m) { return view.split === "test" ? m.test : m.validation; }
  function triangle(g, x, y) {
    s(g, "path", { d: "M" + x + " " + (y - 5.5) + "l5.5 9.5h-11z", class: "mark" });
  }
  function drawFront() {
    const cost = costs.find((c) => c.key === view.cost);
    const shown = cost ? models.filter((m) => known(cost.of(m)) && known(valueOf(m))) : [];
    if (!shown.length) {
      missing("front-chart", "No verified model with both a value of the metric and this cost was recorded.");
      clear($("front-legend"));
      return;
    }
    const E = D.evaluations;
    const dotX = E.metrics[cost.key];
    const dots = [];
    if (view.dots && dotX) {
      for (let i = 0; i < dotX.length; i++) {
        if (known(dotX[i]) && known(E.accuracy[i])) dots.push(i);
      }
    }
    const xs = [], ys = [];
    for (const m of shown) {
      xs.push(cost.of(m));
      if (cost.low) xs.push(cost.low(m), cost.high(m));
      ys.push(valueOf(m));
      if (view.split === "test" && m.kind === "front") ys.push(m.test_low, m.test_high);
    }
    const family = view.family ? (D.family || []).filter((m) => known(cost.of(m)) && known(familyValue(m))) : [];
    for (const m of family) { xs.push(cost.of(m)); ys.push(familyValue(m)); }
    // The axis follows the verified models; far-off evaluations may fall outside and are counted.
    for (const i of dots) xs.push(dotX[i]);
    const sorted = dots.map((i) => E.accuracy[i]).sort((a, b) => a - b);
    const cut = D.metric.higher ? sorted.slice(Math.floor(sorted.length * 0.1)) : sorted.slice(0, Math.ceil(sorted.length * 0.9));
    for (const v of cut) ys.push(v);
    const bounds = D.budgets.filter((b) => b.metric === cost.key && known(b.bound));
    for (const b of bounds) xs.push(b.bound);
    const raw = extent(xs, 0);
    const positive = raw[0] > 0;
    const log = positive && (view.log === null ? raw[1] / raw[0] > 6 : view.log);
    const xd = log ? [raw[0] / 1.12, raw[1] * 1.12] : extent(xs, 0.05);
    if (!log && raw[0] >= 0 && xd[0] < 0) xd[0] = 0;
    const yd = extent(ys, 0.06);
    const yname = (view.split === "test" ? "test " : "validation ") + D.metric.name;
    const f = frame("front-chart", {
      x: xd, y: yd, xlog: log, xtitle: cost.label, ytitle: yname + (percent ? ", %" : ""), role: "group", xformat: ["macs", "bops", "parameters"].includes(cost.key) ? count : trim,
      label: "Front: " + yname + " against " + cost.label + ". Use the arrow keys to go from model to model.",
      yformat: percent ? (v) => trim(100 * v) : trim,
    });
    const plot = f.svg;
    let outside = 0;
    const layer = s(plot, "g", { "aria-hidden": "true" });
    for (const i of dots) {
      if (E.accuracy[i] < yd[0] || E.accuracy[i] > yd[1]) { outside++; continue; }
      const c = s(layer, "circle", { cx: f.x(dotX[i]).toFixed(1), cy: f.y(E.accuracy[i]).toFixed(1), r: 2.2, class: "dot" });
      s(c, "title", {}, "evaluation " + E.number[i] + ": " + E.id[i] + "\nvalidation " + D.metric.name + " " + score(E.accuracy[i]) + "\n" + cost.key + " " +
        trim(dotX[i]) + (E.sources[cost.key] ? " (" + E.sources[cost.key][i] + ")" : "") + (E.feasible[i] === false ? "\nover a budget" : ""));
    }
    let used = 0;
    for (const b of bounds) {
      s(plot, "line", { x1: f.x(b.bound), x2: f.x(b.bound), y1: f.m.top, y2: f.height - f.m.bottom, class: "budget" });
      const right = f.x(b.bound) > f.width * 0.6;
      s(plot, "text", {
        x: f.x(b.bound) + (right ? -5 : 5), y: f.height - f.m.bottom - 8 - 15 * used++,
        "text-anchor": right ? "end" : "start", class: "budget-text",
      }, "budget " + (b.upper ? "≤ " : "≥ ") + trim(b.bound));
    }
    for (const b of D.budgets) {
      if (b.name === D.metric.name && known(b.bound) && b.bound > yd[0] && b.bound < yd[1]) {
        s(plot, "line", { x1: f.m.left, x2: f.width - f.m.right, y1: f.y(b.bound), y2: f.y(b.bound), class: "budget" });
      }
    }
    const steps = shown.filter((m) => m.kind === "front").sort((a, b) => cost.of(a) - cost.of(b));
    s(plot, "path", { d: path(unbeaten(steps.filter((m) => m.pareto), cost.of, valueOf).map((m) => [f.x(cost.of(m)), f.y(valueOf(m))])), class: "frontline" });
    if (family.length) {
      const made = s(plot, "g", { class: "family" });
      s(made, "path", { d: path(unbeaten(family, cost.of, familyValue).map((m) => [f.x(cost.of(m)), f.y(familyValue(m))])), class: "familyline" });
      for (const m of family) {
        const g = s(made, "g", {});
        triangle(g, f.x(cost.of(m)), f.y(familyValue(m)));
        s(g, "title", {}, m.id + "\ntest " + D.metric.name + " " + score(m.test) + "\nvalidation " + D.metric.name + " " + score(m.validation) +
          "\n" + cost.label + " " + trim(cost.of(m)) + (m.seeds > 1 ? "\nmean of " + m.seeds + " trainings" : ""));
      }
    }
    const order = [...shown.filter((m) => m.kind !== "front").sort((a, b) => cost.of(a) - cost.of(b)), ...steps];
    const nodes = [];
    for (const m of order) {
      const found = cost.device ? m.devices[cost.device] : null;
      const invalid = found && found.valid === false;
      const g = s(plot, "g", {
        class: "point " + m.kind + (m.knee ? " knee" : "") + (m.kind === "front" && !m.pareto ? " beaten" : "") + (invalid ? " invalid" : ""),
        tabindex: -1, role: "button", "data-model": m.id, "aria-label": describe(m).replace(/\n/g, ", "),
      });
      const x = f.x(cost.of(m)), y = f.y(valueOf(m));
      if (cost.low && known(cost.low(m)) && known(cost.high(m))) {
        const a = f.x(cost.low(m)), b = f.x(cost.high(m));
        s(g, "path", { d: "M" + a + " " + y + "H" + b + "M" + a + " " + (y - 3) + "v6M" + b + " " + (y - 3) + "v6", class: "error" });
      }
      if (view.split === "test" && m.kind === "front" && known(m.test_low)) {
        const a = f.y(m.test_low), b = f.y(m.test_high);
        s(g, "path", { d: "M" + x + " " + a + "V" + b + "M" + (x - 3) + " " + a + "h6M" + (x - 3) + " " + b + "h6", class: "error" });
      }
      mark(g, m, x, y);
      if (invalid) s(g, "text", { x: x + 8, y: y - 8, class: "bad" }, "⚠");
      tell(g, describe(m));
      g.addEventListener("click", () => select(m.id));
      nodes.push(g);
    }
    const byCost = (a, b) => cost.of(byId.get(a.dataset.model)) - cost.of(byId.get(b.dataset.model));
    walkable(nodes.slice().sort(byCost), (g) => g.dataset.model === selected, (g) => select(g.dataset.model));
    const items = [];
    const key = (c, knee) => (svg) => {
      const g = s(svg, "g", { class: "point " + c + (knee ? " knee" : "") });
      mark(g, { knee, kind: c.split(" ")[0] }, 11, 7);
    };
    if (steps.length) items.push([key("front"), "on the front (" + yname + ")"]);
    if (steps.some((m) => !m.pareto)) items.push([key("front beaten"), "on the front by validation, beaten by the final figures"]);
    if (steps.some((m) => m.knee)) items.push([key("front", true), "knee of the front"]);
    if (order.length > steps.length) items.push([key("rejected"), "verified and rejected (validation " + D.metric.name + ")"]);
    if (family.length) items.push([(svg) => triangle(s(svg, "g", { class: "family" }), 11, 8), "made by hand, 8 bits, trained in the same time (" + yname + ")"]);
    if (dots.length) items.push([(svg) => s(svg, "circle", { cx: 11, cy: 7, r: 2.5, class: "dot" }), "search evaluation (validation " + D.metric.name + ")"]);
    if (bounds.length) items.push([(svg) => s(svg, "line", { x1: 0, x2: 22, y1: 7, y2: 7, class: "budget" }), "budget"]);
    legend("front-legend", items);
    const notes = [];
    if (cost.device) {
      notes.push("Latencies of filled and hollow marks were " + source(cost.device) + " on " + cost.device + " with " + runtime(cost.device) + "; horizontal bars are their 95 % intervals.");
      if (dots.length && E.sources[cost.key]) {
        notes.push("Latencies of the small dots: " + tally(dots.map((i) => E.sources[cost.key][i])) + ".");
      }
      if (order.some((m) => m.devices[cost.device] && m.devices[cost.device].valid === false)) {
        notes.push("⚠ marks an invalid measurement; its reason is in the table.");
      }
    }
    if (view.split === "test" && steps.some((m) => known(m.test_low))) {
      notes.push("Vertical bars are 95 % intervals of the test accuracy for the number of test images (Wilson).");
    }
    if (E.number.length < E.total) notes.push("Showing " + E.number.length + " of " + E.total + " evaluations.");
    if (outside) notes.push(outside + " evaluations of poor " + D.metric.name + " lie outside the axis.");
    $("front-note").textContent = notes.join(" ");
    paintSelection();
  }
  function frontControls() {
    const c = $("front-controls");
    if (costs.length > 1) {
      choose(c, "Cost", costs.map((k) => [k.key, k.label]), view.cost, (v) => { view.cost = v; drawFront(); });
    }
    if (front.some((m) => known(m.test)) && front.some((m) => known(m.validation))) {
      choose(c, D.metric.name.charAt(0).toUpperCase() + D.metric.name.slice(1) + " on the", [["test", "test split"], ["validation", "validation split (used by the search)"]],
        view.split, (v) => { view.split = v; drawFront(); });
    }
    choose(c, "Axis", [["auto", "automatic"], ["log", "logarithmic"], ["linear", "linear"]], "auto",
      (v) => { view.log = v === "auto" ? null : v === "log"; drawFront(); });
    if (D.evaluations.number.length) check(c, "show search evaluations", true, (v) => { view.dots = v; drawFront(); });
    if ((D.family || []).length) check(c, "show networks made by hand", true, (v) => { view.family = v; drawFront(); });
  }

  // ---------------------------------------------------------- selected model
  function select(id, quiet) {
    if (!byId.has(id)) return;
    selected = id;
    const m = byId.get(id);
    $("model-id").textContent = id + (m.kind === "rejected" ? " (rejected)" : "");
    const list = document.querySelector("#model-controls select");
    if (list) list.value = id;
    drawModel(m);
    drawFacts(m);
    drawClasses(m);
    paintSelection();
    if (!quiet) {
      $("model-status").textContent = "Showing model " + id;
      history.replaceState(null, "", "#m=" + encodeURIComponent(id));
    }
  }
  function paintSelection() {
    const line = $("front-selected");
    clear(line);
    if (selected) {
      const m = byId.get(selected);
      el(line, "span", {}, "Selected: ");
      el(line, "a", { href: "#model" }, m.id);
      el(line, "span", {}, " – " + describe(m).split("\n").slice(1).join("; ") + ".");
    }
    for (const n of document.querySelectorAll(".point[data-model]")) {
      n.classList.toggle("selected", n.dataset.model === selected);
      n.setAttribute("aria-pressed", n.dataset.model === selected);
    }
    for (const n of document.querySelectorAll("tr[data-row]")) n.classList.toggle("selected", n.dataset.row === selected);
    for (const n of document.querySelectorAll(".parallel[data-model]")) n.classList.toggle("selected", n.dataset.model === selected);
  }
  function modelControls() {
    const c = $("model-controls");
    choose(c, "Show", models.map((m) => [m.id, m.id + (m.knee ? " (knee)" : "") + (m.kind === "rejected" ? " (rejected)" : "")]),
      selected, (v) => select(v));
    const step = (by) => {
      const i = models.findIndex((m) => m.id === selected);
      select(models[(i + by + models.length) % models.length].id);
    };
    el(c, "button", { type: "button" }, "◀ previous").addEventListener("click", () => step(-1));
    el(c, "button", { type: "button" }, "next ▶").addEventListener("click", () => step(1));
  }
  const colour = (bits) => BITS[bits] || "#bbbbbb";
  const bitsText = (bits) => (bits === 32 ? "float" : known(bits) ? bits + " bit" : MISSING);
  const weightsText = (l) => bitsText(l.weight_bits) + (l.weight_format ? " " + l.weight_format : "");
  function layerTitle(l) {
    const conv = l.kind === "linear" ? "linear" : (l.groups > 1 && l.groups === l.in_channels ? "depthwise " : "") + l.kernel + "×" + l.kernel + " convolution" + (l.stride > 1 ? ", stride " + l.stride : "");
    return l.name + "\n" + conv + "\nchannels " + l.in_channels + " → " + l.out_channels + "\nfeature size " + l.in_size + " → " + l.out_size +
      "\nweights " + weightsText(l) + ", input activations " + bitsText(l.activation_bits) +
      (l.activation && l.activation !== "none" ? "\nthen " + l.activation : "");
  }
  function drawModel(m) {
    const host = $("model-drawing");
    clear(host);
    clear($("bits-legend"));
    if (!m.plan) { el(host, "p", { class: "note" }, m.plan_left_out ? "The layers of this rejected model were left out to keep the page small; they are in results.json." : "The layers of this model were not recorded."); return; }
    const blocks = m.plan.blocks;
    const layers = blocks.flatMap((b) => b.layers);
    const width = Math.max(280, Math.min(720, host.clientWidth || 600));
    const narrow = width < 520;
    const row = 20, head = 21, gap = 7, arcs = 22, chip = 24;
    const textWidth = narrow ? 172 : 290;
    const left = arcs + 4 + chip + 2;
    const bar = width - left - textWidth - 8;
    const most = Math.max(...layers.map((l) => l.out_channels || 1));
    let height = 30;
    for (const b of blocks) height += head + gap + row * b.layers.length;
    const svg = s(host, "svg", { width, height, viewBox: "0 0 " + width + " " + height, role: "img",
      "aria-label": "Layers of " + m.id + " from input to output; the table below it says the same" });
    const shape = m.plan.input_shape;
    s(svg, "text", { x: arcs, y: 14, class: "muted" }, "input " + (shape ? shape.join(" × ") : MISSING));
    let y = 24;
    for (const b of blocks) {
      const top = y;
      const first = b.layers[0], last = b.layers[b.layers.length - 1];
      let label = b.name + (b.kind && b.kind !== b.name ? " · " + b.kind : "");
      if (first && last) label += narrow ? "" : "  " + first.in_channels + " → " + last.out_channels + " channels";
      s(svg, "text", { x: arcs, y: y + 14, "font-weight": 600 }, label);
      if (b.residual) s(svg, "text", { x: width, y: y + 14, class: "muted", "text-anchor": "end" }, "+ residual");
      y += head;
      const start = y;
      for (const l of b.layers) {
        const g = s(svg, "g");
        s(g, "rect", { x: 0, y, width, height: row, fill: "transparent" });
        s(g, "rect", { x: arcs + 4, y: y + 1, width: chip - 3, height: row - 3, rx: 8, fill: colour(l.activation_bits) });
        s(g, "text", { x: arcs + 4 + (chip - 3) / 2, y: y + 14, "text-anchor": "middle", class: "in-bar" + (l.activation_bits === 16 ? " light" : "") },
          l.activation_bits === 32 ? "f" : known(l.activation_bits) ? l.activation_bits : "?");
        const w = Math.max(18, bar * Math.sqrt((l.out_channels || 1) / most));
        s(g, "rect", { x: left, y: y + 1, width: w, height: row - 3, fill: colour(l.weight_bits) });
        s(g, "rect", { x: left, y: y + 1, width: w, height: row - 3, class: "layer-outline" });
        s(g, "text", { x: left + 5, y: y + 14, class: "in-bar" + (l.weight_bits === 16 ? " light" : "") },
          l.weight_bits === 32 ? "f" : known(l.weight_bits) ? l.weight_bits : "?");
        const kind = l.kind === "linear" ? "linear" : l.kernel + "×" + l.kernel + (l.stride > 1 ? " s" + l.stride : "");
        const tx = left + bar + 8;
        if (narrow) {
          s(g, "text", { x: tx, y: y + 14, style: "font-size:11px" }, (l.role || "").slice(0, 10) + " " + kind + " " + l.out_channels + "ch @" + l.out_size);
        } else {
          s(g, "text", { x: tx, y: y + 14 }, l.role);
          s(g, "text", { x: tx + 78, y: y + 14 }, kind);
          s(g, "text", { x: tx + 134, y: y + 14 }, l.in_channels + " → " + l.out_channels);
          s(g, "text", { x: tx + 220, y: y + 14, class: "muted" }, l.in_size === l.out_size ? l.out_size + "²" : l.in_size + "² → " + l.out_size + "²");
        }
        tell(g, layerTitle(l));
        y += row;
      }
      if (b.residual && b.layers.length) {
        const a = start + 2, z = y - 3, x = arcs;
        s(svg, "path", { d: "M" + x + " " + a + "C2 " + a + " 2 " + a + " 2 " + (a + Math.min(18, (z - a) / 2)) + "V" + (z - Math.min(18, (z - a) / 2)) + "C2 " + z + " 2 " + z + " " + (x - 3) + " " + z, class: "arc" });
        s(svg, "path", { d: "M" + (x + 1) + " " + z + "l-7 -4v8z", fill: "currentColor", opacity: 0.6 });
      }
      s(svg, "line", { x1: arcs, x2: width, y1: top, y2: top, class: "gridline" });
      y += gap;
    }
    const present = [...new Set(layers.flatMap((l) => [l.weight_bits, l.activation_bits]))].filter(known).sort((a, b) => a - b);
    const items = present.map((b) => [(q) => s(q, "rect", { width: 18, height: 13, fill: colour(b) }), bitsText(b)]);
    items.push([(q) => s(q, "rect", { width: 18, height: 13, rx: 7, class: "layer-outline" }), "rounded: bits of the input activations"]);
    items.push([(q) => s(q, "rect", { width: 20, height: 13, class: "layer-outline" }), "bar: output channels (root scale), coloured by weight bits"]);
    legend("bits-legend", items);
    const details = el(host, "details");
    el(details, "summary", {}, "The " + layers.length + " layers as a table");
    const wrap = el(details, "div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Layers" });
    table(wrap, ["Layer", "Kind", "Kernel", "Stride", "Channels", "Size", "Weight bits", "Activation bits"],
      layers.map((l) => [l.name, l.kind === "linear" ? "linear" : l.groups > 1 ? "depthwise or grouped" : "convolution", l.kernel, l.stride,
        l.in_channels + " → " + l.out_channels, l.in_size + " → " + l.out_size, weightsText(l), bitsText(l.activation_bits)]));
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
  function drawFacts(m) {
    const host = $("model-facts");
    clear(host);
    el(host, "h3", {}, "Figures");
    const dl = el(host, "dl");
    const fact = (name, text, bad) => {
      const d = el(dl, "div");
      el(d, "dt", {}, name);
      return el(d, "dd", bad ? { class: "bad" } : {}, text);
    };
    if (m.kind === "rejected") fact("Rejected", m.why || "reason not recorded", true);
    else fact("Test " + D.metric.name, score(m.test) + (known(m.test_low) ? " (95 % interval " + score(m.test_low) + " – " + score(m.test_high) + ")" : ""));
    fact("Validation " + D.metric.name, score(m.validation));
    for (const name in m.devices) {
      const d = m.devices[name];
      fact((d.source === "estimated" ? "Estimated" : "Measured") + " latency, " + name, ms(d.ms) + ", " + interval(d.low, d.high, " ms") + "; " + runtime(name));
      if (d.valid === false) fact("⚠ Invalid measurement", d.reasons.join("; ") || "reason not recorded", true);
      else if (d.valid !== true) fact("Validity", MISSING);
      if (d.busy) fact("While it was measured", "the machine was busy, so the fastest of the samples that had a core stand for the latency");
      fact("Predicted latency, " + name, known(d.predicted) ? ms(d.predicted) + ", " + interval(d.predicted_low, d.predicted_high, " ms") : MISSING);
    }
    fact("Weights", known(m.costs.weights_kib) ? trim(m.costs.weights_kib) + " KiB" : MISSING);
    fact("Model file", known(m.size_kib) ? trim(m.size_kib) + " KiB" : MISSING);
    fact("Mean bits", "weights " + trim(m.costs.weight_bits_mean, 3) + ", activations " + trim(m.costs.activation_bits_mean, 3));
    fact("MACs", count(m.costs.macs) + (known(m.costs.parameters) ? "; " + count(m.costs.parameters) + " parameters" : ""));
    const p = m.parity;
    const told = [];
    if (p && known(p.agreement)) told.push((100 * p.agreement).toFixed(2) + " % of predictions agree");
    if (p && known(p.accuracy_difference)) told.push(D.metric.name + " differs by " + (percent ? (100 * p.accuracy_difference).toFixed(2) + " points" : score(p.accuracy_difference)));
    fact("Exported file against the trained network", told.join(", ") || MISSING);
    fact("Within every budget", m.feasible === true ? "yes" : m.feasible === false ? "no" : MISSING, m.feasible === false);
    const box = fact("Architecture", m.arch ? null : MISSING);
    if (m.arch) {
      const more = el(box, "details");
      el(more, "summary", {}, "in full");
      el(more, "code", { class: "arch" }, m.arch);
    }
  }
  function drawClasses(m) {
    const host = $("model-classes");
    clear(host);
    const names = m.per_class ? Object.keys(m.per_class) : [];
    // Of a task without classes there is nothing to tell apart.
    if (!names.length && !D.metric.classes) return;
    el(host, "h3", {}, D.metric.name.charAt(0).toUpperCase() + D.metric.name.slice(1) + " by " + D.metric.each);
    if (!names.length) { el(host, "p", { class: "note" }, "Not recorded."); return; }
    const turn = D.metric.higher ? 1 : -1;
    const order = names.length > 20 ? names.sort((a, b) => turn * (m.per_class[a] - m.per_class[b])).slice(0, 20) : names;
    if (names.length > 20) el(host, "p", { class: "note" }, "The 20 worst of " + names.length + ".");
    // A share fills its bar at 1; other metrics are drawn against the largest.
    const whole = percent ? 1 : Math.max(1e-12, ...order.map((n) => Math.abs(m.per_class[n] || 0)));
    const width = Math.max(240, host.clientWidth || 380), row = 20;
    const longest = Math.max(...order.map((n) => n.length));
    const left = Math.min(width * 0.4, 14 + 7 * longest), right = 58;
    const svg = s(host, "svg", { width, height: order.length * row + 6, viewBox: "0 0 " + width + " " + (order.length * row + 6), role: "img",
      "aria-label": order.map((n) => n + " " + score(m.per_class[n])).join(", ") });
    order.forEach((n, i) => {
      const v = m.per_class[n];
      const text = n.length > 22 ? n.slice(0, 21) + "…" : n;
      s(svg, "text", { x: left - 6, y: i * row + 15, "text-anchor": "end" }, text);
      s(svg, "rect", { x: left, y: i * row + 3, width: known(v) ? Math.max(1, (width - left - right) * Math.max(0, Math.min(1, v / whole))) : 0, height: row - 6, class: "bar" });
      s(svg, "text", { x: width - right + 6, y: i * row + 15 }, known(v) ? score(v) : "–");
    });
  }

  // ------------------------------------------------------------------- tables
  function sortable() {
    const t = $("front-table");
    if (!t) return;
    const heads = [...t.tHead.rows[0].cells];
    heads.forEach((th, column) => {
      const text = th.textContent;
      th.textContent = "";
      const button = el(th, "button", { type: "button" }, text);
      const sign = el(button, "span", { "aria-hidden": "true" }, "");
      button.addEventListener("click", () => {
        const up = th.getAttribute("aria-sort") !== "ascending";
        for (const other of heads) {
          other.removeAttribute("aria-sort");
          other.querySelector("span").textContent = "";
        }
        th.setAttribute("aria-sort", up ? "ascending" : "descending");
        sign.textContent = up ? " ▲" : " ▼";
        const rows = [...t.tBodies[0].rows];
        const key = (r) => r.cells[column].dataset.sort;
        rows.sort((a, b) => {
          const p = key(a), q = key(b);
          if (!p || !q) return (p ? 0 : 1) - (q ? 0 : 1);
          const n = Number(p) - Number(q);
          return (isNaN(n) ? String(p).localeCompare(String(q)) : n) * (up ? 1 : -1);
        });
        for (const r of rows) t.tBodies[0].appendChild(r);
      });
    });
    for (const r of t.tBodies[0].rows) {
      r.addEventListener("click", (e) => { if (!e.target.closest("a")) select(r.dataset.row); });
    }
  }
  function rejected() {
    const list = models.filter((m) => m.kind === "rejected");
    if (!list.length) return;
    $("rejected-part").hidden = false;
    $("rejected-part").querySelector("summary").textContent = "Verified and rejected (" + list.length + ")";
    table($("rejected-table"),
      ["Model", "Why", "Validation " + D.metric.name, ...D.devices.map((d) => "Latency on " + d.name), "Weights, KiB"],
      list.map((m) => {
        const a = el(null, "a", { href: "#m=" + encodeURIComponent(m.id), "data-model": m.id }, m.id);
        return [a, m.why || MISSING, score(m.validation),
          ...D.devices.map((d) => {
            const f = m.devices[d.name];
            return f ? ms(f.ms) + " (" + interval(f.low, f.high) + ")" + (f.valid === false ? " ⚠ invalid: " + (f.reasons.join("; ") || "reason not recorded") : "") : MISSING;
          }), trim(m.costs.weights_kib)];
      }));
  }

  // ------------------------------------------------------ predicted / measured
  let fitDevice = D.devices.length ? D.devices[0].name : null;
  function drawLatency() {
    const rows = D.samples.filter((r) => r.device === fitDevice && r.ms > 0 && r.predicted > 0);
    clear($("latency-legend"));
    $("latency-note").textContent = "";
    if (!rows.length) {
      missing("latency-chart", "No pair of predicted and measured latency was recorded" + (fitDevice ? " for " + fitDevice : "") + ".");
      return;
    }
    const all = rows.flatMap((r) => [r.ms, r.predicted, r.low, r.high]).filter((v) => v > 0);
    const e = extent(all, 0);
    const d = [e[0] / 1.1, e[1] * 1.1];
    const f = frame("latency-chart", {
      x: d, y: d, xlog: true, ylog: true, xtitle: source(fitDevice) + " latency on " + fitDevice + ", ms (" + runtime(fitDevice) + ")",
      ytitle: "predicted, ms", role: "group", label: "Predicted against " + source(fitDevice) + " latency on " + fitDevice + ". Use the arrow keys to go from point to point.",
    });
    s(f.svg, "line", { x1: f.x(d[0]), y1: f.y(d[0]), x2: f.x(d[1]), y2: f.y(d[1]), class: "diagonal" });
    const clamp = (v) => Math.min(d[1], Math.max(d[0], v));
    const points = [];
    for (const r of rows.slice().sort((a, b) => a.ms - b.ms)) {
      const x = f.x(r.ms), y = f.y(r.predicted);
      const bad = r.valid === false;
      const g = s(f.svg, "g", { class: "point " + (bad ? "rejected invalid" : r.held_out ? "front" : "other"), tabindex: -1, "data-sample": r.id });
      let line = "";
      if (r.predicted_low > 0 && known(r.predicted_high)) line += "M" + x + " " + f.y(clamp(r.predicted_low)) + "V" + f.y(clamp(r.predicted_high));
      if (r.low > 0 && known(r.high)) line += "M" + f.x(clamp(r.low)) + " " + y + "H" + f.x(clamp(r.high));
      if (line) s(g, "path", { d: line, class: "error" });
      s(g, "circle", { cx: x, cy: y, r: 8, class: "ring" });
      s(g, "circle", { cx: x, cy: y, r: 3.5, class: "mark" });
      const text = r.id + (r.held_out ? " (verified model)" : "") + "\n" + source(fitDevice) + " " + ms(r.ms) + ", " + interval(r.low, r.high) + (bad ? " ⚠ invalid" : "") + "\npredicted " + ms(r.predicted) + ", " + interval(r.predicted_low, r.predicted_high);
      g.setAttribute("role", byId.has(r.id) ? "button" : "img");
      g.setAttribute("aria-label", text.replace(/\n/g, ", "));
      tell(g, text);
      if (byId.has(r.id)) g.addEventListener("click", () => select(r.id));
      points.push(g);
    }
    walkable(points, () => false, (g) => { if (byId.has(g.dataset.sample)) select(g.dataset.sample); });
    const items = [[(q) => s(s(q, "g", { class: "point front" }), "circle", { cx: 11, cy: 7, r: 4, class: "mark" }), "verified model"]];
    if (rows.some((r) => !r.held_out)) items.push([(q) => s(s(q, "g", { class: "point other" }), "circle", { cx: 11, cy: 7, r: 4, class: "mark" }), "other sample, perhaps fitted on"]);
    if (rows.some((r) => r.valid === false)) items.push([(q) => s(s(q, "g", { class: "point rejected" }), "circle", { cx: 11, cy: 7, r: 4, class: "mark" }), "invalid measurement"]);
    items.push([(q) => s(q, "line", { x1: 0, x2: 22, y1: 12, y2: 2, class: "diagonal" }), "predicted = measured"]);
    legend("latency-legend", items);
    const write = (fit) => fit.n + " valid pair" + (fit.n === 1 ? "" : "s") + ", mean error " + (100 * fit.mape).toFixed(1) + " %, rank correlation " +
      (known(fit.spearman) ? fit.spearman.toFixed(3) : "undefined") +
      (known(fit.inside) ? ", " + (100 * fit.inside).toFixed(0) + " % inside the predicted 95 % interval" : ", predicted intervals not recorded") + ".";
    const fit = D.latency_fit[fitDevice], notes = [];
    if (fit && fit.held_out) notes.push("Verified models, measured after the predictor was fitted: " + write(fit.held_out));
    if (fit && fit.others) notes.push("Other samples, which the predictor may have been fitted on: " + write(fit.others));
    notes.push("Bars are 95 % intervals of either value.");
    $("latency-note").textContent = notes.join(" ");
  }

  // ------------------------------------------------------------------- search
  function drawLine(id, note, series, options) {
    const points = series.flatMap((q) => q.points);
    if (!points.length) { missing(id, options.missing || "Not recorded."); return; }
    const f = frame(id, {
      x: extent(points.map((p) => p[0]), 0.02), y: options.y || extent(points.map((p) => p[1]), 0.06), height: 260,
      xtitle: options.xtitle, ytitle: options.ytitle, label: options.label,
    });
    for (const q of series) {
      let pts = q.points;
      if (options.steps) {
        pts = [];
        q.points.forEach((p, i) => { if (i) pts.push([p[0], q.points[i - 1][1]]); pts.push(p); });
      }
      s(f.svg, "path", { d: path(pts.map((p) => [f.x(p[0]), f.y(p[1])])), class: "line " + (q.style || "") });
      if (q.points.length <= 40) {
        for (const p of q.points) {
          const c = s(f.svg, "circle", { cx: f.x(p[0]), cy: f.y(p[1]), r: 3, fill: q.style ? "var(--rejected)" : "var(--front)" });
          tell(c, (q.name ? q.name + " " : "") + trim(p[1]) + " at " + trim(p[0]));
        }
      }
    }
    if (note) $(note).textContent = options.note || "";
  }
  function drawSearch() {
    const hv = D.hypervolume && D.hypervolume.values ? D.hypervolume : { values: [] };
    drawLine("hypervolume-chart", "hypervolume-note",
      [{ points: hv.values.filter((v) => known(v.evaluations) && known(v.value)).map((v) => [v.evaluations, v.value]) }],
      { xtitle: "real evaluations", ytitle: "hypervolume", steps: true, label: "Hypervolume over evaluations",
        note: hv.goals && hv.reference ? "Volume dominated in " + hv.goals.join(", ") + "; reference point " + hv.reference.map((v, i) => trim(hv.goals[i] === D.metric.name && D.metric.higher ? -v : v)).join(", ") + "." : "Reference point not recorded." });
    const a = D.accuracy_predictor;
    const pick = (k) => a.filter((r) => known(r[k])).map((r) => [known(r.points) ? r.points : r.round, r[k]]);
    const tau = pick("kendall_tau"), rmse = pick("rmse");
    clear($("predictor-legend"));
    drawLine("predictor-chart", "predictor-note", [{ points: tau, name: "Kendall tau" }],
      { xtitle: "evaluated architectures", ytitle: "Kendall tau", y: extent([...tau.map((p) => p[1]), 1], 0.04), label: "Rank correlation of the accuracy predictor",
        note: rmse.length ? "Root mean square error at the end: " + (percent ? (100 * rmse[rmse.length - 1][1]).toFixed(2) + " points." : trim(rmse[rmse.length - 1][1])) : "Error not recorded." });
    drawLine("training-chart", "training-note", [{ points: D.training.filter((r) => known(r.step) && known(r.loss)).map((r) => [r.step, r.loss]) }],
      { xtitle: "step", ytitle: "loss", label: "Training loss of the supernet" });
  }

  // --------------------------------------------------------------- importance
  const targets = Object.keys(D.importance);
  let target = targets[0], level = "families";
  const KINDS = { w: "w (weight bits)", a: "a (activation bits)" };
  function drawImportance() {
    const rows = target ? D.importance[target][level].filter((r) => level === "families" || r.explained > 0).slice(0, 15) : [];
    const host = $("importance-chart");
    if (!rows.length) { missing("importance-chart", "The choices of the evaluations were not recorded, or none explains the metric."); $("importance-note").textContent = ""; return; }
    clear(host);
    const width = Math.max(260, host.clientWidth || 600), row = 22;
    const word = (r) => (level === "families" && KINDS[r.choice]) || r.choice;
    const longest = Math.max(...rows.map((r) => word(r).length));
    const left = Math.min(width * 0.42, 12 + 7 * longest), right = 52;
    const top = Math.max(...rows.map((r) => Math.max(r.explained, r.chance)), 0.05);
    const svg = s(host, "svg", { width, height: rows.length * row + 8, viewBox: "0 0 " + width + " " + (rows.length * row + 8), role: "img",
      "aria-label": "Share of the variance of " + target + ": " + rows.map((r) => word(r) + " " + (100 * r.explained).toFixed(0) + " %").join(", ") });
    rows.forEach((r, i) => {
      const g = s(svg, "g"), y = i * row + 4, w = (width - left - right) / top;
      s(g, "rect", { x: 0, y: y - 2, width, height: row, fill: "transparent" });
      s(g, "text", { x: left - 6, y: y + 13, "text-anchor": "end" }, word(r));
      s(g, "rect", { x: left, y, width: Math.max(1, w * r.explained), height: row - 6, class: "bar", opacity: r.explained > r.chance ? 1 : 0.35 });
      s(g, "line", { x1: left + w * r.chance, x2: left + w * r.chance, y1: y - 2, y2: y + row - 4, stroke: "var(--rejected)", "stroke-width": 2 });
      s(g, "text", { x: left + Math.max(w * r.explained, w * r.chance) + 6, y: y + 13, class: "muted" }, (100 * r.explained).toFixed(1) + " %");
      tell(g, word(r) + " explains " + (100 * r.explained).toFixed(1) + " % (chance: up to " + (100 * r.chance).toFixed(1) + " %)\nover " + r.active + " architectures\nmean of " + target + ":\n" +
        r.levels.map((l) => l[0] + ": " + (target === D.metric.name ? score(l[2]) : trim(l[2])) + " (" + l[1] + ")").join("\n"));
    });
    $("importance-note").textContent = "Share of the variance of " + target + " among the evaluated architectures that each " + (level === "families" ? "kind of choice (by its mean over the layers)" : "choice") + " explains alone (epsilon squared). " +
      "The line across a bar is what chance reaches in 5 % of shuffles; paler bars stay under it, and of choices without effect about one in twenty passes it. The search visits good regions more often, so this describes the evaluated architectures, not the whole space." +
      (D.evaluations.sources[target] ? " Latencies are " + tally(D.evaluations.sources[target]) + "." : "");
  }

  // ------------------------------------------------------ parallel coordinates
  function drawParallel() {
    const E = D.evaluations;
    const axes = [];
    for (const name in E.choices) axes.push({ name, values: E.choices[name] });
    for (const name of ["weight_bits_mean", "activation_bits_mean", "weights_kib"]) if (E.metrics[name]) axes.push({ name, values: E.metrics[name], log: name === "weights_kib" });
    for (const d of D.devices) { const n = "latency_ms[" + d.name + "]"; if (E.metrics[n]) axes.push({ name: n, values: E.metrics[n], log: true }); }
    axes.push({ name: D.metric.name, values: E.accuracy, score: true });
    const usable = axes.filter((a) => a.values.some(known));
    clear($("parallel-legend"));
    if (usable.length < 2 || !E.number.length) { missing("parallel-chart", "The evaluations were not recorded."); return; }
    const host = $("parallel-chart");
    clear(host);
    const outer = host.clientWidth || 700;
    const width = Math.max(outer, usable.length * 74), height = 300, top = 46, bottom = 24, side = 40;
    const scroll = el(host, "div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Parallel coordinates" });
    const svg = s(scroll, "svg", { width, height, viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": "One line an evaluation, through " + usable.map((a) => a.name).join(", ") });
    usable.forEach((a, i) => {
      a.x = side + (i * (width - 2 * side)) / (usable.length - 1);
      const e = extent(a.values, 0);
      a.log = a.log && e[0] > 0;
      a.y = scale(e, [height - bottom, top], a.log);
    });
    const ids = new Set(front.map((m) => m.id));
    const lines = s(svg, "g"), best = s(svg, "g"), seen = new Set();
    for (let i = 0; i < E.number.length; i++) {
      const pts = usable.filter((a) => known(a.values[i])).map((a) => [a.x, a.y(a.values[i])]);
      if (pts.length < 2) continue;
      const on = ids.has(E.id[i]) && !seen.has(E.id[i]);
      const p = s(on ? best : lines, "path", { d: path(pts), class: "parallel" + (on ? " front" : "") });
      if (on) {
        seen.add(E.id[i]);
        p.setAttribute("data-model", E.id[i]);
        p.addEventListener("click", () => select(E.id[i]));
        tell(p, describe(byId.get(E.id[i])));
      }
    }
    usable.forEach((a, i) => {
      s(svg, "line", { x1: a.x, x2: a.x, y1: top, y2: height - bottom, stroke: "var(--text)", opacity: 0.5 });
      const write = a.score ? (v) => (percent ? (100 * v).toFixed(1) + " %" : trim(v)) : (v) => trim(v, 3);
      s(svg, "text", { x: a.x, y: top - 6, "text-anchor": "middle", class: "muted" }, write(a.y.domain[1]));
      s(svg, "text", { x: a.x, y: height - bottom + 15, "text-anchor": "middle", class: "muted" }, write(a.y.domain[0]));
      s(svg, "text", { x: a.x, y: i % 2 ? 28 : 13, "text-anchor": i === 0 ? "start" : i === usable.length - 1 ? "end" : "middle", dx: i === 0 ? -side + 2 : i === usable.length - 1 ? side - 2 : 0 }, a.name);
    });
    legend("parallel-legend", [
      [(q) => s(q, "line", { x1: 0, x2: 22, y1: 7, y2: 7, stroke: "var(--dot)" }), "evaluation"],
      [(q) => s(q, "line", { x1: 0, x2: 22, y1: 7, y2: 7, stroke: "var(--front)", "stroke-width": 2 }), "on the front"],
      [(q) => s(q, "line", { x1: 0, x2: 22, y1: 7, y2: 7, stroke: "var(--select)", "stroke-width": 3.5 }), "selected model"],
    ]);
    const latency = Object.keys(E.sources).map((k) => k + ": " + tally(E.sources[k]));
    $("parallel-note").textContent = D.metric.name + " is of the validation split. " + (latency.length ? "Latencies are " + latency.join("; ") + "." : "");
    paintSelection();
  }

  // -------------------------------------------------------------------- start
  function wanted() {
    const match = /^#m=(.+)$/.exec(location.hash);
    if (!match) return null;
    try { return decodeURIComponent(match[1]); } catch (e) { if (e instanceof URIError) return null; throw e; }
  }
  function drawCharts() {
    drawFront(); drawLatency(); drawSearch(); drawImportance(); drawParallel();
    if (selected) { drawModel(byId.get(selected)); drawClasses(byId.get(selected)); }
  }
  const knee = front.find((m) => m.knee);
  const first = byId.get(wanted()) || knee || front[0] || models[0];
  if (first) selected = first.id;
  frontControls();
  if (models.length) modelControls();
  if (D.devices.length > 1) choose($("latency-controls"), "Device", D.devices.map((d) => [d.name, d.name]), fitDevice, (v) => { fitDevice = v; drawLatency(); });
  if (targets.length > 1) choose($("importance-controls"), "Metric", targets.map((t) => [t, t]), target, (v) => { target = v; drawImportance(); });
  if (targets.length) choose($("importance-controls"), "By", [["families", "kind of choice"], ["choices", "single choice"]], level, (v) => { level = v; drawImportance(); });
  sortable();
  rejected();
  drawCharts();
  if (first) select(first.id, true);
  else missing("model-drawing", "No model was recorded.");
  document.addEventListener("click", (e) => {
    const a = e.target.closest ? e.target.closest("a[data-model]") : null;
    if (a && byId.has(a.dataset.model)) {
      e.preventDefault();
      select(a.dataset.model);
      $("model").scrollIntoView();
    }
  });
  window.addEventListener("hashchange", () => { const id = wanted(); if (id) select(id); });
  // An observer is called before the new width is painted, so charts never overflow.
  let drawn = document.documentElement.clientWidth;
  new ResizeObserver(() => {
    const width = document.documentElement.clientWidth;
    if (width !== drawn) { drawn = width; drawCharts(); }
  }).observe(document.documentElement);
  document.documentElement.setAttribute("data-ready", "true");
})();
