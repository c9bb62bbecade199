// Draws everything once, and again when the width changes.

function wanted() {
  const match = /^#m=(.+)$/.exec(location.hash);
  if (!match) return null;
  try { return decodeURIComponent(match[1]); } catch (e) { if (e instanceof URIError) return null; throw e; }
}
function drawCharts() {
  for (const [name, one] of panels) if (!OF_MODEL.includes(name)) one.draw();
}
const front = models.filter((m) => m.kind === "front");
const first = byId.get(wanted()) || front.find((m) => m.knee) || front[0] || models[0];
if (first) selected = first.id;
if (models.length) modelControls();
sortable();
rejected();
drawCharts();
if (first) select(first.id, true);
else missing($("layers-chart"), "No model was recorded.");
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
  if (width === drawn) return;
  drawn = width;
  drawCharts();
  if (selected) drawModel();
}).observe(document.documentElement);
document.documentElement.setAttribute("data-ready", "true");
