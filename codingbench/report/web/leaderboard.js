// The leaderboard: sortable, 100 rows at a time; each row shows the command that reproduces it.

const PAGE = 100; // rows added at a time

function ordered(rows) {
  const { rows: all, columns } = comparison.table;
  const places = [...all.keys()].filter((at) => rows.has(all[at]));
  if (!state.sort) return places;
  const isShown = (c) => c.field === state.sort.field && isOf(c, convention());
  const { values } = columns.find(isShown);
  const sign = state.sort.descending ? -1 : 1;
  const compare = (a, b) => {
    const [x, y] = [values[a], values[b]];
    if (x === null || y === null) return (x === null) - (y === null); // unknown values last
    return sign * (x < y ? -1 : Number(x > y));
  };
  return places.sort(compare);
}

const isOf = (column, name) => !column.convention || column.convention === name;

function sortBy(column) {
  const isSame = state.sort?.field === column.field;
  const descending = isSame ? !state.sort.descending : column.high_first;
  state.sort = { field: column.field, descending };
  show();
  byId("rows").querySelector(`[data-field="${column.field}"]`).focus();
}

function showTable(rows) {
  const columns = comparison.table.columns.filter((column) => isOf(column, convention()));
  const places = ordered(rows);
  const table = byId("rows");
  table.caption.textContent = `${comparison.heading}: ${places.length} rows`;
  table.tHead.replaceChildren(element("tr", {}, ...columns.map(heading)));
  const lines = places.slice(0, state.limit).map((at) => line(columns, at));
  table.tBodies[0].replaceChildren(...lines.flat());
  const more = places.length - state.limit;
  const add = () => {
    state.limit += PAGE;
    showTable(shownRows());
    byId("more").querySelector("button")?.focus();
  };
  const button = () =>
    element("button", { type: "button", onclick: add }, `show ${Math.min(PAGE, more)} more`);
  byId("more").replaceChildren(...(more > 0 ? [`${more} more rows `, button()] : []));
}

function heading(column) {
  const isSorted = state.sort?.field === column.field;
  const attributes = { scope: "col", class: column.is_number ? undefined : "text" };
  if (isSorted) attributes["aria-sort"] = state.sort.descending ? "descending" : "ascending";
  const press = { type: "button", "data-field": column.field, onclick: () => sortBy(column) };
  return element("th", attributes, element("button", press, column.heading));
}

function line(columns, at) {
  const row = comparison.table.rows[at];
  const isOpen = state.open.has(row);
  const press = () => {
    if (!state.open.delete(row)) state.open.add(row);
    showTable(shownRows());
    byId("rows").querySelector(`[data-row="${row}"]`).focus();
  };
  const cells = columns.map((column) => {
    const text = column.texts[at];
    if (column.field === "encoder") {
      const name = element("span", {}, ...folding(text));
      const expanded = { type: "button", "aria-expanded": String(isOpen), onclick: press };
      const button = element("button", { ...expanded, "data-row": row }, mark(text), name);
      return element("th", { scope: "row" }, button);
    }
    const kinds = [column.is_number ? "" : "text", column.best.includes(row) ? "best" : ""];
    return element("td", { class: kinds.join(" ").trim() || undefined }, text);
  });
  const own = element("tr", {}, ...cells);
  return isOpen ? [own, details(columns.length, at)] : [own];
}

function details(width, at) {
  const { commands, keys } = comparison.reproducing[at];
  const text = element("div", {}, "To reproduce this row:");
  text.append(...commands.map((command) => element("pre", { tabindex: 0 }, ...options(command))));
  text.append(element("ul", {}, ...listItems(comparison.remarks)));
  text.append(`Cells: ${keys.join(", ")}`);
  return element("tr", { class: "details" }, element("td", { colspan: width }, text));
}

// A command with line-break opportunities between its options.
function options(command) {
  const words = command.split(/ (?=--)/);
  return words.flatMap((word, at) => [at ? " " : "", element("span", {}, word)]);
}
