// Draws a network layer by layer, with the same as a table below it.

const colour = (bits) => D.bits[bits] || D.bits.other;
const bitsText = (bits) => (bits === 32 ? "float" : known(bits) ? bits + " bit" : MISSING);
const bitsLetter = (bits) => (bits === 32 ? "f" : known(bits) ? bits : "?");
const onBits = (bits) => "in-bar" + (bits === 16 ? " light" : "");
const weightsText = (l) => bitsText(l.weight_bits) + (l.weight_format ? " " + l.weight_format : "") +
  (l.sparsity && l.sparsity !== "dense" ? ", " + l.sparsity + " sparse" : "");
const kernelText = (l) => l.kernel + "×" + l.kernel;
function layerText(l) {
  const depthwise = l.groups > 1 && l.groups === l.in_channels ? "depthwise " : "";
  const kind = l.kind === "linear" ? "linear" : depthwise + kernelText(l) + " convolution" + (l.stride > 1 ? ", stride " + l.stride : "");
  return l.name + "\n" + kind + "\nchannels " + l.in_channels + " → " + l.out_channels + "\nfeature size " + l.in_size + " → " + l.out_size +
    "\nweights " + weightsText(l) + ", input activations " + bitsText(l.activation_bits) +
    (l.activation && l.activation !== "none" ? "\nthen " + l.activation : "");
}

function drawLayers(host, chart) {
  clear(host);
  const layers = chart.blocks.flatMap((b) => b.layers);
  const width = Math.max(280, Math.min(720, host.clientWidth || 600));
  const narrow = width < 520;
  const row = 20, head = 21, gap = 7, arcs = 22, chip = 24;
  const left = arcs + 4 + chip + 2;
  const names = Math.max(78, 8 + 6.6 * Math.max(...layers.map((l) => (l.role || "").length)));
  const bar = width - left - (narrow ? 172 : 212 + names) - 8;
  const most = Math.max(...layers.map((l) => l.out_channels || 1));
  const height = 30 + chart.blocks.length * (head + gap) + row * layers.length;
  const svg = s(host, "svg", { width, height, viewBox: "0 0 " + width + " " + height, role: "img", "aria-label": chart.description });
  s(svg, "text", { x: arcs, y: 14, class: "muted" }, "input " + (chart.input_shape.length ? chart.input_shape.join(" × ") : MISSING));
  let y = 24;
  for (const b of chart.blocks) {
    const top = y;
    const first = b.layers[0], last = b.layers[b.layers.length - 1];
    let title = b.name + (b.kind && b.kind !== b.name ? " · " + b.kind : "");
    if (first && !narrow) title += "  " + first.in_channels + " → " + last.out_channels + " channels";
    s(svg, "text", { x: arcs, y: y + 14, "font-weight": 600 }, title);
    if (b.residual) s(svg, "text", { x: width, y: y + 14, class: "muted", "text-anchor": "end" }, "+ residual");
    y += head;
    const start = y;
    for (const l of b.layers) {
      const g = s(svg, "g"), middle = arcs + 4 + (chip - 3) / 2;
      s(g, "rect", { x: 0, y, width, height: row, fill: "transparent" });
      s(g, "rect", { x: arcs + 4, y: y + 1, width: chip - 3, height: row - 3, rx: 8, fill: colour(l.activation_bits) });
      s(g, "text", { x: middle, y: y + 14, "text-anchor": "middle", class: onBits(l.activation_bits) }, bitsLetter(l.activation_bits));
      const w = Math.max(18, bar * Math.sqrt((l.out_channels || 1) / most));
      s(g, "rect", { x: left, y: y + 1, width: w, height: row - 3, fill: colour(l.weight_bits) });
      s(g, "rect", { x: left, y: y + 1, width: w, height: row - 3, class: "layer-outline" });
      s(g, "text", { x: left + 5, y: y + 14, class: onBits(l.weight_bits) }, bitsLetter(l.weight_bits));
      const kind = l.kind === "linear" ? "linear" : kernelText(l) + (l.stride > 1 ? " s" + l.stride : "");
      const tx = left + bar + 8;
      if (narrow) {
        s(g, "text", { x: tx, y: y + 14, style: "font-size:11px" }, (l.role || "").slice(0, 10) + " " + kind + " " + l.out_channels + "ch @" + l.out_size);
      } else {
        s(g, "text", { x: tx, y: y + 14 }, l.role);
        s(g, "text", { x: tx + names, y: y + 14 }, kind);
        s(g, "text", { x: tx + names + 56, y: y + 14 }, l.in_channels + " → " + l.out_channels);
        s(g, "text", { x: tx + names + 142, y: y + 14, class: "muted" }, l.in_size === l.out_size ? l.out_size + "²" : l.in_size + "² → " + l.out_size + "²");
      }
      tell(g, layerText(l));
      y += row;
    }
    if (b.residual && b.layers.length) {
      const a = start + 2, z = y - 3, bend = Math.min(18, (z - a) / 2);
      s(svg, "path", { d: "M" + arcs + " " + a + "C2 " + a + " 2 " + a + " 2 " + (a + bend) + "V" + (z - bend) + "C2 " + z + " 2 " + z + " " + (arcs - 3) + " " + z, class: "arc" });
      s(svg, "path", { d: "M" + (arcs + 1) + " " + z + "l-7 -4v8z", fill: "currentColor", opacity: 0.6 });
    }
    s(svg, "line", { x1: arcs, x2: width, y1: top, y2: top, class: "gridline" });
    y += gap;
  }
  const details = el(host, "details");
  el(details, "summary", {}, "The " + layers.length + " layers as a table");
  const wrap = el(details, "div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Layers" });
  table(wrap, ["Layer", "Kind", "Kernel", "Stride", "Channels", "Size", "Weight bits", "Activation bits"],
    layers.map((l) => [l.name, l.kind === "linear" ? "linear" : l.groups > 1 ? "depthwise or grouped" : "convolution", l.kernel, l.stride,
      l.in_channels + " → " + l.out_channels, l.in_size + " → " + l.out_size, weightsText(l), bitsText(l.activation_bits)]));
  const present = [...new Set(layers.flatMap((l) => [l.weight_bits, l.activation_bits]))].filter(known).sort((a, b) => a - b);
  const items = present.map((b) => [(q) => s(q, "rect", { width: 18, height: 13, fill: colour(b) }), bitsText(b)]);
  items.push([(q) => s(q, "rect", { width: 18, height: 13, rx: 7, class: "layer-outline" }), "rounded: bits of the input activations"]);
  items.push([(q) => s(q, "rect", { width: 20, height: 13, class: "layer-outline" }), "bar: output channels (root scale), coloured by weight bits"]);
  return { items, notes: [] };
}
