"use strict";
// Makes charts live where the reader comes to them. The page is whole without it.
(() => {
  const inflated = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  };
  let loaded = null;
  const load = () => loaded ??= inflated(document.getElementById("vega").textContent).then((code) => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: code }));
  });
  const rows = (columns) => {
    const [names, lists] = [Object.keys(columns), Object.values(columns)];
    return (lists[0] ?? []).map((_, n) => Object.fromEntries(names.map((name, place) => [name, lists[place][n]])));
  };

  // One column of panels, `width` px each; axes that a neighbour wrote out are written again.
  const stack = (node, width) => {
    if (Array.isArray(node)) return node.map((part) => stack(part, width));
    if (node === null || typeof node !== "object") return node;
    const made = Object.fromEntries(Object.entries(node).map(([name, part]) => [name, name === "datasets" ? part : stack(part, width)]));
    if (made.columns) made.columns = made.concat ? 1 : Math.min(2, made.columns);  // of panels, or of a legend
    if (made.height && made.width) Object.assign(made, { width, height: made.height === made.width ? width : made.height });
    if (made.axis?.labels === false) for (const name of ["labels", "ticks", "title"]) delete made.axis[name];
    return made;
  };

  const part = (chart, name) => chart.querySelector(`.${name}`)
    ?? chart.insertBefore(Object.assign(document.createElement("div"), { className: name }), chart.querySelector(".still"));
  const render = async (chart) => {
    const room = chart.clientWidth - 16;
    if (room < 0) return;  // folded away
    const narrow = room < Math.min(600, 0.8 * chart.querySelector(".still").getAttribute("width"));
    const drawn = narrow ? `${room}` : "wide";
    if (chart.dataset.drawn === drawn) return;
    chart.dataset.drawn = drawn;
    await load();
    const spec = JSON.parse(chart.querySelector("script").textContent);
    const packed = JSON.parse(await inflated(spec.usermeta.rows));
    spec.datasets = Object.fromEntries(Object.entries(packed).map(([name, columns]) => [name, rows(columns)]));
    const bind = part(chart, "choices"), live = part(chart, "live");
    const tooltip = { theme: "page", disableDefaultStyle: true };
    const look = { mode: "vega-lite", renderer: "svg", ast: true, actions: false, defaultStyle: false, logLevel: 1, bind, tooltip };
    const show = (width) => (bind.replaceChildren(), vegaEmbed(live, width ? stack(spec, width) : spec, look));
    await show(narrow && room - 70);
    const over = live.querySelector("svg").getAttribute("width") - room;
    if (narrow && over > 0) await show(Math.max(110, room - 70 - over));
    chart.classList.add("drawn");
  };

  let queue = Promise.resolve();  // one after the other: the last width that a chart is drawn for is the one it has
  const draw = (chart) => { queue = queue.then(() => render(chart)).catch(console.error); };
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) draw(target);
  }, { rootMargin: "400px" });
  document.querySelectorAll(".chart").forEach((chart) => near.observe(chart));
  addEventListener("beforeprint", () => document.querySelectorAll("#verdicts > details").forEach((part) => { part.open = true; }));
  addEventListener("resize", () => document.querySelectorAll(".chart.drawn").forEach(draw));
})();
