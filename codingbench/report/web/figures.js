// The figures. Python makes each one; this script applies the colours of the page and the filter.
// A figure is drawn when it is scrolled near the screen.

const plots = new Map(); // name of a drawing -> {drawing, figure, plot, notes, numbers, save, isNear}

function makeFigures() {
  const sections = new Map();
  for (const drawing of report.drawings) {
    if (!sections.has(drawing.section)) {
      const id = `section-${sections.size}`;
      const section = element("section", { "aria-labelledby": id });
      const grid = element("div", { class: "plots" });
      section.append(element("h2", { id }, drawing.section), grid);
      byId("figures").append(section);
      sections.set(drawing.section, grid);
    }
    const place = makeFigure(drawing);
    sections.get(drawing.section).append(place.figure);
    plots.set(drawing.name, place);
  }
}

// Start drawing. Plotly's script comes last in the page, so that the leaderboard appears first.
function watchFigures() {
  const draw = (name) => {
    const place = plots.get(name);
    if (place.isNear) return;
    place.isNear = true;
    showFigure(name, shownRows());
  };
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) draw(target.dataset.name);
    },
    { rootMargin: "600px" },
  );
  for (const { figure } of plots.values()) near.observe(figure);
  addEventListener("beforeprint", () => [...plots.keys()].forEach(draw));
}

function makeFigure(drawing) {
  const plot = element("div", { class: "plot", role: "img", id: `plot-${drawing.name}` });
  const numbers = element("details", {}, element("summary", {}, "Numbers"));
  const notes = element("ul");
  const save = (format) => {
    const act = () => download(drawing.name, format);
    return element("button", { type: "button", onclick: act }, `Save as ${format.toUpperCase()}`);
  };
  const saving = element("p", {}, save("svg"), " ", save("png"));
  const figure = element(
    "figure",
    { "data-name": drawing.name, class: drawing.is_alone ? "alone" : undefined },
    element("h3", {}, drawing.title),
    plot,
    element("figcaption", {}, drawing.caption),
    notes,
    numbers,
    saving,
  );
  numbers.addEventListener("toggle", () => showNumbers(drawing.name, shownRows()));
  return { drawing, figure, plot, notes, numbers, save: saving, isNear: false };
}

function chosenFigure(name) {
  const { variants, missing } = comparison.figures[name];
  return (variants[convention()] ?? variants[""]) || { figure: null, notes: [missing] };
}

function showFigure(name, rows) {
  const place = plots.get(name);
  const { figure, notes } = chosenFigure(name);
  place.notes.replaceChildren(...listItems(notes));
  for (const part of [place.plot, place.numbers, place.save]) part.hidden = !figure;
  if (!figure) {
    if (place.plot.data) Plotly.purge(place.plot);
    return;
  }
  const data = picked(figure, rows);
  place.plot.setAttribute("aria-label", described(place.drawing, data));
  if (place.isNear) {
    const layout = themed(figure.layout, data, place.drawing);
    Plotly.react(place.plot, data, layout, { responsive: true, displayModeBar: false });
  }
  showNumbers(name, rows);
}

const POINTS = ["x", "y", "text", "hovertext", "customdata"];
const LINES = ["y", "z", "hovertext", "customdata"]; // of a heat map

function picked(figure, rows) {
  const traces = figure.data.map((trace) => {
    const kept = (trace.customdata ?? []).map((row) => rows.has(row));
    if (kept.every(Boolean)) return trace;
    const some = (list) => (Array.isArray(list) ? list.filter((_, at) => kept[at]) : list);
    const copy = { ...trace };
    for (const name of trace.type === "heatmap" ? LINES : POINTS) copy[name] = some(trace[name]);
    for (const name of ["marker", "error_x", "error_y"]) {
      if (!trace[name]) continue;
      const parts = Object.entries(trace[name]).map(([part, value]) => [part, some(value)]);
      copy[name] = Object.fromEntries(parts);
    }
    return copy;
  });
  return traces.filter((trace) => !trace.customdata || trace.customdata.length);
}

const narrow = matchMedia("(max-width: 36rem)");

function themed(layout, data, drawing) {
  const colours = getComputedStyle(document.documentElement);
  const [ink, grid, panel] = ["ink", "line", "panel"].map((c) => colours.getPropertyValue(`--${c}`));
  const isCoarse = matchMedia("(pointer: coarse)").matches; // dragging must scroll the page there
  const axis = (own) => ({ ...own, gridcolor: grid, linecolor: grid, tickcolor: grid });
  const names = narrow.matches && layout.yaxis.type === "category" ? shortNames(data) : {};
  return {
    ...layout,
    height: heightOf(layout, data),
    paper_bgcolor: "rgba(0,0,0,0)",
    font: { ...layout.font, color: ink },
    hoverlabel: { ...layout.hoverlabel, bgcolor: panel, font: { color: ink }, bordercolor: ink },
    showlegend: drawing.has_own_legend,
    dragmode: isCoarse ? false : "zoom",
    xaxis: { ...axis(layout.xaxis), title: folded(layout.xaxis.title) },
    yaxis: { ...axis(layout.yaxis), ...names },
    uirevision: `${comparison.heading} ${convention()}`, // keeps the zoom when a filter changes
  };
}

// A title in two lines on a narrow screen.
function folded(title) {
  return narrow.matches ? { ...title, text: title.text.replace(" (", "<br>(") } : title;
}

// The height of a figure with one line per row depends on the number of rows.
function heightOf(layout, data) {
  const { base, line } = layout.meta ?? {};
  const lines = Math.max(0, ...data.map((trace) => trace.customdata?.length ?? 0));
  return line ? base + line * lines : layout.height;
}

// Names shortened to their beginning and end, to leave room for the figure on a narrow screen.
function shortNames(data) {
  const names = [...new Set(data.flatMap((trace) => trace.y))];
  const short = (name) => (name.length > 22 ? `${name.slice(0, 8)}…${name.slice(-13)}` : name);
  return { tickvals: names, ticktext: names.map((name) => encoded(short(decoded(name)))) };
}

// Save the figure as for print: on white and with a legend.
function download(name, format) {
  const { figure } = chosenFigure(name);
  const data = picked(figure, shownRows());
  const size = { width: 900, height: heightOf(figure.layout, data) };
  const layout = { ...figure.layout, ...size };
  const scale = format === "png" ? 2 : 1;
  Plotly.downloadImage({ data, layout }, { ...size, format, scale, filename: name });
}
