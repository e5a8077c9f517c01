// Fill the page and connect its controls.

byId("comparison").append(
  ...report.headings.map((text, value) => element("option", { value }, text)),
);
byId("comparison").addEventListener("change", (event) => choose(event.target.value));
for (const id of ["convention", "steps"]) byId(id).addEventListener("change", show);
byId("query").addEventListener("input", () => {
  state.limit = PAGE;
  show();
});
byId("controls").addEventListener("submit", (event) => event.preventDefault());
for (const media of [matchMedia("(prefers-color-scheme: dark)"), narrow]) {
  media.addEventListener("change", show);
}
makeFigures();
choose(0);
document.addEventListener("DOMContentLoaded", () => {
  watchFigures();
  document.documentElement.dataset.ready = "yes";
});
