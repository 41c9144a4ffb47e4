"use strict";
// Makes charts live where the reader comes to them. The page is whole without it.
(() => {
  const NARROW = 600;  // px; below, panels stand one above the other
  const inflated = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  };
  let loading = null;
  const load = () => (loading ??= inflated(document.getElementById("vega").textContent).then((code) => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: code }));
  }));

  const rows = (series) => series.flatMap((one) => {  // the inverse of `vega.packed`
    const lists = Object.entries(one).filter(([, values]) => Array.isArray(values));
    if (!lists.length) return [one];
    return lists[0][1].map((_, n) => ({ ...one, ...Object.fromEntries(lists.map(([name, values]) => [name, values[n]])) }));
  });

  // One column as wide as the card; axes that a neighbour wrote out are written again.
  const stack = (node, width) => {
    if (Array.isArray(node)) return node.map((part) => stack(part, width));
    if (node === null || typeof node !== "object") return node;
    const { hconcat, ...rest } = node;
    const made = Object.fromEntries(Object.entries(rest).map(([name, part]) => [name, name === "datasets" ? part : stack(part, width)]));
    if (hconcat) made.vconcat = stack(hconcat, width);
    if ("columns" in made) made.columns = made.concat || made.facet ? 1 : 2;  // of panels, or of a legend
    if ("width" in made && "height" in made) made.width = width;
    if (made.axis?.labels === false) made.axis = (({ labels, ticks, title, ...axis }) => axis)(made.axis);
    return made;
  };

  const draw = async (chart) => {
    const narrow = chart.clientWidth < NARROW;
    if (chart.dataset.drawn === String(narrow)) return;
    chart.dataset.drawn = narrow;
    await load();
    const spec = JSON.parse(chart.querySelector("script").textContent);
    for (const name in spec.datasets) spec.datasets[name] = rows(spec.datasets[name]);
    const live = chart.querySelector(".live") ?? chart.appendChild(Object.assign(document.createElement("div"), { className: "live" }));
    const tooltip = { theme: "page", disableDefaultStyle: true };
    const look = { mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false, tooltip };
    await vegaEmbed(live, narrow ? stack(spec, chart.clientWidth - 90) : spec, look);
    chart.classList.add("drawn");
  };

  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) draw(target);
  }, { rootMargin: "400px" });
  const charts = document.querySelectorAll(".chart");
  charts.forEach((chart) => near.observe(chart));
  addEventListener("resize", () => document.querySelectorAll(".chart.drawn").forEach(draw));
})();
