// Tables of models: sorting the front's, and that of the rejected ones.

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
      const by = (r) => r.cells[column].dataset.sort;
      rows.sort((a, b) => {
        const p = by(a), q = by(b);
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
