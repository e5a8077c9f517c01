// The reader's choice: comparison, energy convention, codings and T.

const MOST_SWATCHES = 60;

const report = json("report");
const state = { sort: null, limit: PAGE, hidden: new Set(), open: new Set() };
let comparison; // the comparison shown

const convention = () => byId("convention").value;

function shownRows() {
  const query = byId("query").value.trim().toLowerCase();
  const steps = byId("steps").value;
  const { rows, encoders, steps: all } = comparison.table;
  const isShown = (encoder, at) =>
    !state.hidden.has(encoder) &&
    encoder.toLowerCase().includes(query) &&
    (steps === "" || String(all[at]) === steps);
  return new Set(rows.filter((_, at) => isShown(encoders[at], at)));
}

function choose(place) {
  comparison = json(`comparison-${place}`);
  state.sort = null;
  state.limit = PAGE;
  state.open.clear();
  byId("conditions").textContent = `${comparison.heading}; ${comparison.conditions}`;
  byId("notes").replaceChildren(...listItems(comparison.notes));
  const facts = comparison.provenance.map(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, value),
  ]);
  byId("provenance").replaceChildren(...facts.flat());
  const steps = [...new Set(comparison.table.steps)].sort((a, b) => a - b);
  const options = [["", "all"], ...steps.map((t) => [String(t), String(t)])];
  byId("steps").replaceChildren(
    ...options.map(([value, text]) => element("option", { value }, text)),
  );
  showSwatches();
  show();
}

function showSwatches() {
  const encoders = [...new Set(comparison.table.encoders)].sort();
  const press = (encoder) => (event) => {
    if (!state.hidden.delete(encoder)) state.hidden.add(encoder);
    event.currentTarget.setAttribute("aria-pressed", String(!state.hidden.has(encoder)));
    show();
  };
  const swatch = (encoder) => {
    const pressed = String(!state.hidden.has(encoder));
    const attributes = { type: "button", "aria-pressed": pressed, onclick: press(encoder) };
    return element("button", attributes, mark(encoder), encoder);
  };
  const all = (text, hide) => {
    const act = () => {
      state.hidden = new Set(hide ? encoders : []);
      const buttons = byId("swatches").querySelectorAll("[aria-pressed]");
      for (const button of buttons) button.setAttribute("aria-pressed", String(!hide));
      show();
    };
    return element("button", { type: "button", onclick: act }, text);
  };
  const more = encoders.length - MOST_SWATCHES;
  byId("swatches").replaceChildren(
    all("all", false),
    all("none", true),
    ...encoders.slice(0, MOST_SWATCHES).map(swatch),
    more > 0 ? `and ${more} more; filter them by name` : "",
  );
}

function show() {
  const rows = shownRows();
  showTable(rows);
  for (const name of plots.keys()) showFigure(name, rows);
  byId("energy").textContent = report.conventions[convention()];
  const all = comparison.table.rows.length;
  const thinned = comparison.thinned ? ` ${comparison.thinned}` : "";
  byId("status").textContent = `${rows.size} of ${all} rows shown.${thinned}`;
}
