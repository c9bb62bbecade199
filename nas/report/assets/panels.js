// A place of the page: its controls, the drawing that they choose, its legend and notes.

const DRAW = { xy: drawXY, bars: drawBars, parallel: drawParallel, layers: drawLayers };
const SCALES = [["axis", "automatic"], ["log", "logarithmic"], ["linear", "linear"]];
const OF_MODEL = ["layers", "classes"];

const panels = new Map();
for (const [name, { choices, drawings }] of Object.entries(D.panels)) panels.set(name, panel(name, decode(choices), drawings));

function panel(name, choices, drawings) {
  const byKey = new Map(drawings.map(([k, drawing]) => [JSON.stringify(k), drawing]));
  const state = { chosen: choices.map((c) => (c.options.length ? c.options[0][0] : "")), hidden: new Set(), scale: "axis" };
  const part = (suffix) => $(name + "-" + suffix);
  const controls = part("controls");
  let shown = null;

  function draw(model) {
    const found = byKey.get(JSON.stringify(OF_MODEL.includes(name) ? [model] : state.chosen));
    shown = decode(found);
    for (const suffix of ["legend", "note"]) if (part(suffix)) clear(part(suffix));
    if (part("part")) part("part").hidden = found === undefined;
    if (typeof shown !== "object") { missing(part("chart"), shown || "Not recorded."); return; }
    const { items, notes } = DRAW[shown.kind](part("chart"), shown, state);
    if (part("legend")) legend(part("legend"), items);
    if (part("note")) part("note").textContent = shown.notes.concat(notes).join(" ");
    paintSelection();
  }
  function control() {
    choices.forEach((choice, i) => {
      if (choice.options.length > 1) choose(controls, choice.label, choice.options, state.chosen[i], (v) => { state.chosen[i] = v; draw(); });
    });
    const charts = [...byKey.values()].map(decode).filter((c) => c.kind === "xy");
    if (charts.some((c) => c.x.offered)) choose(controls, "Axis", SCALES, state.scale, (v) => { state.scale = v; draw(); });
    for (const toggle of new Set(charts.flatMap((c) => c.marks.map((m) => m.toggle)))) {
      if (toggle) check(controls, toggle, true, (on) => { state.hidden[on ? "delete" : "add"](toggle); draw(); });
    }
  }
  if (controls) control();
  return { draw };
}
