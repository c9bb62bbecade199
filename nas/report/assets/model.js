// The chosen model: its marks stand out everywhere, and its figures are told.

const models = D.models;
const told = D.told.flatMap(decode);
const byId = new Map();
models.forEach((m, i) => {
  m.told = told[i];
  m.costs = decode(m.costs);
  m.devices = Object.fromEntries(Object.entries(m.devices).map(([name, one]) => [name, decode(one)]));
  if (!byId.has(m.id)) byId.set(m.id, m);
});
let selected = null;

function select(id, quiet) {
  if (!byId.has(id)) return;
  selected = id;
  const m = byId.get(id);
  $("model-id").textContent = id + (m.kind === "rejected" ? " (rejected)" : "");
  const list = document.querySelector("#model-controls select");
  if (list) list.value = id;
  drawFacts(m);
  drawModel();
  paintSelection();
  if (!quiet) {
    $("model-status").textContent = "Showing model " + id;
    history.replaceState(null, "", "#m=" + encodeURIComponent(id));
  }
}
function drawModel() {
  for (const name of OF_MODEL) if (panels.has(name)) panels.get(name).draw(selected);
}
function paintSelection() {
  const line = $("front-selected");
  clear(line);
  if (selected) {
    const m = byId.get(selected);
    el(line, "span", {}, "Selected: ");
    el(line, "a", { href: "#model" }, m.id);
    el(line, "span", {}, " – " + m.told.split("\n").slice(1).join("; ") + ".");
  }
  for (const n of document.querySelectorAll("[data-row]")) {
    n.classList.toggle("selected", n.dataset.row === selected);
    if (n.getAttribute("role") === "button") n.setAttribute("aria-pressed", n.dataset.row === selected);
  }
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
  if (known(m.class_loss)) fact("Most lost by a class against float", (100 * m.class_loss).toFixed(2) + " points, on the validation images");
  for (const name in m.devices) {
    const d = m.devices[name];
    fact((d.source === "estimated" ? "Estimated" : "Measured") + " latency, " + name, ms(d.ms) + ", " + interval(d.low, d.high, " ms") + "; " + runtime(name));
    if (d.valid === false) fact("⚠ Invalid measurement", d.reasons.join("; ") || "reason not recorded", true);
    else if (d.valid !== true) fact("Validity", MISSING);
    if (d.busy) fact("While it was measured", "the machine was busy, so the fastest of the samples that had a core stand for the latency");
    fact("Predicted latency, " + name, known(d.predicted) ? ms(d.predicted) + ", " + interval(d.predicted_low, d.predicted_high, " ms") : MISSING);
  }
  fact("Weights", known(m.costs.weights_kib) ? trim(m.costs.weights_kib) + " KiB" : MISSING);
  if (known(m.costs.sparse_weights_kib)) fact("Weights in sparse storage", trim(m.costs.sparse_weights_kib) + " KiB, estimated; the file stores zeros like other codes");
  fact("Model file", known(m.size_kib) ? trim(m.size_kib) + " KiB" : MISSING);
  if (known(m.costs.training_memory_kib)) fact("Memory of a training step", trim(m.costs.training_memory_kib) + " KiB at once");
  fact("Mean bits", "weights " + trim(m.costs.weight_bits_mean, 3) + ", activations " + trim(m.costs.activation_bits_mean, 3));
  fact("MACs", count(m.costs.macs) + (known(m.costs.parameters) ? "; " + count(m.costs.parameters) + " parameters" : ""));
  const p = m.parity;
  const told = [];
  if (p && known(p.agreement)) told.push((100 * p.agreement).toFixed(2) + " % of predictions agree");
  if (p && known(p.accuracy_difference)) told.push(D.metric.name + " differs by " + (D.metric.percent ? (100 * p.accuracy_difference).toFixed(2) + " points" : score(p.accuracy_difference)));
  fact("Exported file against the trained network", told.join(", ") || MISSING);
  fact("Within every budget", m.feasible === true ? "yes" : m.feasible === false ? "no" : MISSING, m.feasible === false);
  const box = fact("Architecture", m.arch ? null : MISSING);
  if (m.arch) {
    const more = el(box, "details");
    el(more, "summary", {}, "in full");
    el(more, "code", { class: "arch" }, m.arch);
  }
}
