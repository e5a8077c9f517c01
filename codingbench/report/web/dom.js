"use strict";
// Helpers to build elements. Names come from untrusted results: they become text nodes, never HTML.

const SVG = "http://www.w3.org/2000/svg";
const SYMBOLS = {
  circle: "M21 8a5 5 0 1 1-10 0a5 5 0 1 1 10 0Z",
  square: "M11.5 3.5h9v9h-9Z",
  diamond: "M16 2l6 6l-6 6l-6-6Z",
  "triangle-up": "M16 2.5l6 10h-12Z",
  "triangle-down": "M16 13.5l6-10h-12Z",
  x: "M11 5l2-2l3 3l3-3l2 2l-3 3l3 3l-2 2l-3-3l-3 3l-2-2l3-3Z",
  star: "M16 1.5l1.7 4.3l4.6.3l-3.6 2.9l1.2 4.5l-3.9-2.5l-3.9 2.5l1.2-4.5l-3.6-2.9l4.6-.3Z",
  cross: "M14 2.5h4v3.5h3.5v4h-3.5v3.5h-4v-3.5h-3.5v-4h3.5Z",
};
const DASHES = { solid: "", dash: "7 4", dot: "2 3", dashdot: "7 3 2 3" };

const byId = (id) => document.getElementById(id);
const json = (id) => JSON.parse(byId(id).textContent);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function mark(encoder) {
  const style = report.styles[encoder];
  const svg = document.createElementNS(SVG, "svg");
  const draw = (tag, attributes) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    svg.append(made);
  };
  svg.setAttribute("viewBox", "0 0 32 16");
  svg.setAttribute("class", "mark");
  svg.setAttribute("aria-hidden", "true");
  const line = { stroke: style.colour, "stroke-width": 2, "stroke-dasharray": DASHES[style.dash] };
  draw("path", { d: "M0 8h32", ...line });
  draw("path", { d: SYMBOLS[style.symbol], fill: style.colour });
  return svg;
}

// A name with line-break opportunities between its parts.
function folding(name) {
  const parts = name.split(/(?<=[,_=])|(?=\[)/);
  return parts.flatMap((part, at) => (at ? [document.createElement("wbr"), part] : [part]));
}

function listItems(texts) {
  return texts.map((text) => element("li", {}, text));
}

// Plotly interprets some HTML in its texts, so Python has escaped them.
const ESCAPES = [["&", "&amp;"], ["<", "&lt;"], [">", "&gt;"]];
const encoded = (text) => ESCAPES.reduce((t, [raw, safe]) => t.replaceAll(raw, safe), text);
const decoded = (text) => ESCAPES.reduceRight((t, [raw, safe]) => t.replaceAll(safe, raw), String(text));
