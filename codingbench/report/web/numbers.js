// Figures as text and tables, for screen readers and for copying numbers.

const MOST_NUMBERS = 400; // maximum number of table lines

function described(drawing, data) {
  const names = data.filter((trace) => trace.customdata).map((trace) => decoded(trace.name ?? ""));
  const listed = names.filter(Boolean).slice(0, 12).join("; ");
  const more = names.length > 12 ? ` and ${names.length - 12} more` : "";
  const of = listed ? ` It shows ${listed}${more}.` : "";
  return `${drawing.title}.${of} The numbers are in the table below the figure.`;
}

function showNumbers(name, rows) {
  const { numbers } = plots.get(name);
  const { figure } = chosenFigure(name);
  const [summary] = numbers.children;
  if (!numbers.open || !figure) return;
  const lines = figure.data[0]?.type === "heatmap" ? mapLines(figure, rows) : pointLines(figure, rows);
  const more = lines.length - 1 - MOST_NUMBERS;
  const [head, ...body] = lines.slice(0, MOST_NUMBERS + 1).map((cells, at) =>
    element("tr", {}, ...cells.map((cell, first) => numberCell(cell, at === 0, first === 0))),
  );
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  const region = { class: "scroll", role: "region", tabindex: 0 };
  region["aria-label"] = `Numbers: ${plots.get(name).drawing.title}`;
  const note = more > 0 ? [element("p", {}, `${more} more lines; filter the codings to see them`)] : [];
  numbers.replaceChildren(summary, element("div", region, table), ...note);
}

function numberCell(text, isHead, isFirst) {
  const shown = text === null || text === undefined ? "—" : String(text);
  if (isHead) return element("th", { scope: "col", class: isFirst ? "text" : undefined }, shown);
  return isFirst ? element("th", { scope: "row" }, shown) : element("td", {}, shown);
}

function mapLines(figure, rows) {
  const [map] = picked(figure, rows);
  if (!map) return [["coding"]];
  const places = map.x.filter((at) => map.meta[at]);
  const body = map.y.map((label, at) => [decoded(label), ...places.map((p) => map.z[at][p])]);
  return [["coding", ...places.map((at) => map.meta[at])], ...body];
}

function pointLines(figure, rows) {
  const { xaxis, yaxis } = figure.layout;
  const body = picked(figure, rows).flatMap((trace) =>
    trace.x.map((x, at) => [decoded(trace.name), decoded(x), decoded(trace.y[at])]),
  );
  const titles = [xaxis, yaxis].map((axis) => decoded(axis.title.text) || "coding");
  return [["line", ...titles], ...body];
}
