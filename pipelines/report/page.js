"use strict";
// Values of marks by pointer and keyboard, and figures of chosen matrices. The page is whole without it.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const PANEL = { width: 250, height: 230, left: 62, top: 62, gap: 24, bottom: 74 };
  const SHAPES = {  // in a square from -1 to 1
    circle: "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
    square: "M-.9,-.9H.9V.9H-.9Z",
    diamond: "M0,-1.25L1,0L0,1.25L-1,0Z",
    cross: "M-1,-.35H-.35V-1H.35V-.35H1V.35H.35V1H-.35V.35H-1Z",
    "triangle-up": "M0,-1.1L1.1,.9H-1.1Z",
  };
  const short = (value) => {
    const text = value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(2) : value.toPrecision(3);
    return text.includes("e+") ? value.toFixed(0) : text.replace(/e-(\d)$/, "e-0$1");
  };

  // --- values ---------------------------------------------------------------------------------------------------
  const box = document.createElement("div");
  box.id = "value";
  box.setAttribute("role", "status");
  document.body.append(box);
  let current = null;

  const centre = (mark) => {
    const { left, top, width, height } = mark.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  };
  const marksOf = (card) => [...card.querySelectorAll("svg:not([hidden]) [data-told]")];
  const hide = () => {
    current?.classList.remove("now");
    current = null;
    box.classList.remove("shown");
  };
  const show = (mark) => {
    if (mark === current) return;
    hide();
    current = mark;
    mark.classList.add("now");
    const [x, y] = centre(mark);  // marks that lie on each other are told together
    const same = marksOf(mark.closest(".card")).filter((other) => {
      const [a, b] = centre(other);
      return other !== mark && Math.hypot(a - x, b - y) < 2;
    });
    box.textContent = [mark, ...same].map((one) => one.dataset.told).join("\n");
    box.classList.add("shown");
    const { left, top, width } = mark.getBoundingClientRect();
    const { offsetWidth, offsetHeight } = box;
    const room = document.documentElement.clientWidth - offsetWidth - 4;
    const above = top - offsetHeight - 10;
    box.style.left = `${scrollX + Math.max(4, Math.min(left + width / 2 - offsetWidth / 2, room))}px`;
    box.style.top = `${scrollY + (above > 0 ? above : top + 24)}px`;
  };
  const nearest = (marks, x, y, within) => {
    let best = null;
    for (const mark of marks) {
      const { left, right, top, bottom } = mark.getBoundingClientRect();
      const away = Math.hypot(Math.max(left - x, 0, x - right), Math.max(top - y, 0, y - bottom));
      if (away < within) [best, within] = [mark, away];
    }
    return best;
  };
  const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

  const stepped = (marks, key) => {
    const place = marks.indexOf(current);
    if (key in STEPS) return marks[place < 0 ? 0 : Math.max(0, Math.min(marks.length - 1, place + STEPS[key]))];
    if (place < 0) return marks[0];
    const [x, y] = centre(current);
    const sign = key === "ArrowDown" ? 1 : -1;  // the next mark above or below, at the same place along the axis
    const others = marks.map((mark) => [mark, ...centre(mark)]);
    const there = others.filter(([mark, a, b]) => mark !== current && Math.abs(a - x) < 2 && sign * (b - y) > 0);
    return there.sort((one, two) => sign * (one[2] - two[2]))[0]?.[0] ?? current;
  };

  for (const card of document.querySelectorAll(".card")) {
    if (!card.querySelector("[data-told]")) continue;
    card.setAttribute("role", "application");
    card.setAttribute("aria-label", `${card.getAttribute("aria-label")}. Arrow keys read its values.`);
    let marks = null;
    card.addEventListener("pointerenter", () => { marks = marksOf(card); });
    card.addEventListener("pointermove", (event) => {
      const found = nearest(marks ??= marksOf(card), event.clientX, event.clientY, 24);
      if (found) show(found); else hide();
    });
    card.addEventListener("pointerleave", hide);
    card.addEventListener("blur", hide);
    card.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return hide();
      if (!(event.key in STEPS) && event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
      event.preventDefault();
      const mark = stepped(marksOf(card), event.key);
      if (!mark) return;
      mark.scrollIntoView({ block: "nearest", inline: "nearest" });
      show(mark);
    });
  }

  // --- choices --------------------------------------------------------------------------------------------------
  const at = (x, xs, ys) => {
    const next = xs.findIndex((place) => place >= x);
    if (next <= 0 || xs[next] === x) return ys[Math.max(next, 0)];
    const share = (x - xs[next - 1]) / (xs[next] - xs[next - 1]);
    return ys[next - 1] + share * (ys[next] - ys[next - 1]);
  };

  // Seeds of one arm at the places of any, as far as each reaches: [x, mean, lowest, highest].
  const pooled = (runs) => {
    const first = Math.max(...runs.map(([xs]) => xs[0]));
    const last = Math.min(...runs.map(([xs]) => xs[xs.length - 1]));
    const places = [...new Set(runs.flatMap(([xs]) => xs))].filter((x) => x >= first && x <= last).sort((a, b) => a - b);
    return places.map((x) => {
      const values = runs.map(([xs, ys]) => at(x, xs, ys));
      return [x, values.reduce((a, b) => a + b) / values.length, Math.min(...values), Math.max(...values)];
    });
  };

  const lines = (data, key) => {
    const found = new Map();
    for (const [arm, view, , isNull, places, values] of data.series[key] ?? []) {
      const name = `${isNull} ${view} ${arm}`;
      if (!found.has(name)) found.set(name, { arm: data.arms[arm], view, isNull, runs: [] });
      if (values.length) found.get(name).runs.push([data.places[places], values]);
    }
    return [...found.values()].filter((line) => line.runs.length)
      .map((line) => ({ ...line, points: pooled(line.runs) })).filter((line) => line.points.length);
  };

  const ticks = (low, high, log) => {
    if (log) {
      const powers = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) powers.push(power);
      const digits = powers.length > 3 ? [1] : [1, 2, 5];
      const found = powers.flatMap((power) => digits.map((digit) => digit * 10 ** power));
      return found.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    }
    const rough = (high - low || Math.abs(high) || 1) / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((digit) => digit * power).find((size) => size >= rough);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) found.push(n * step);
    return found;
  };

  const drawn = (data, key, alt) => {
    const svg = document.createElementNS(SVG, "svg");
    const add = (parent, name, attributes, text) => {
      const made = document.createElementNS(SVG, name);
      for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
      if (text !== undefined) made.textContent = text;
      parent.append(made);
      return made;
    };
    const found = lines(data, key);
    const views = data.views.map((_, view) => view).filter((view) => found.some((line) => line.view === view));
    const width = PANEL.left + views.length * (PANEL.width + PANEL.gap);
    const height = PANEL.top + PANEL.height + PANEL.bottom;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("style", `--width:${width}px`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", alt);
    svg.setAttribute("class", "chosen");
    const floor = data.floors[key];
    const values = found.flatMap((line) => line.points.flatMap(([, , low, high]) => [low, high]));
    if (floor !== undefined) values.push(floor);
    let [low, high] = data.domain ?? [Math.min(...values), Math.max(...values)];
    if (data.log) [low, high] = [low / 1.2, high * 1.2];
    else if (!data.domain) [low, high] = [Math.min(low, 0), Math.max(high, 0) * 1.05];
    const scale = data.log ? Math.log10 : (value) => value;
    const up = (value) => PANEL.height * (1 - (scale(value) - scale(low)) / (scale(high) - scale(low) || 1));
    const ends = data.progress ? [0, 100] : [1, Math.max(2, ...found.flatMap((line) => line.points.map(([x]) => x)))];
    const bend = data.progress ? Math.sqrt : (value) => value;
    const along = (x) => (PANEL.width * (bend(x) - bend(ends[0]))) / (bend(ends[1]) - bend(ends[0]));
    const text = { "font-size": 15, fill: "var(--ink)" };

    let right = PANEL.left;
    for (const arm of data.arms.filter((one) => found.some((line) => line.arm === one))) {
      const entry = add(svg, "g", { transform: `translate(${right},16)` });
      add(entry, "path", { d: SHAPES[arm.shape] ?? SHAPES.circle, transform: "translate(6,-5)scale(6)", fill: arm.color });
      add(entry, "text", { x: 18, ...text }, arm.label);
      right += 34 + 8.6 * arm.label.length;
    }
    for (const [column, view] of views.entries()) {
      const left = PANEL.left + column * (PANEL.width + PANEL.gap);
      const panel = add(svg, "g", { transform: `translate(${left},${PANEL.top})` });
      add(panel, "text", { x: PANEL.width / 2, y: -12, "text-anchor": "middle", ...text }, data.views[view]);
      for (const tick of ticks(low, high, data.log)) {
        add(panel, "path", { d: `M0,${up(tick)}H${PANEL.width}`, stroke: "var(--line)" });
        if (!column) {
          const word = { x: -6, y: up(tick) + 5, "text-anchor": "end", ...text, "font-size": 14 };
          add(panel, "text", word, String(Number(tick.toPrecision(6))));
        }
      }
      const shares = data.progress ? [0, 5, 10, 25, 50, 100] : ticks(...ends, false);
      for (const tick of shares) {
        const place = { x: along(tick), y: PANEL.height + 18, "text-anchor": "middle" };
        add(panel, "path", { d: `M${along(tick)},0V${PANEL.height}`, stroke: "var(--line)" });
        add(panel, "text", { ...place, ...text, "font-size": 14 }, String(tick));
      }
      add(panel, "text", { x: PANEL.width / 2, y: PANEL.height + 40, "text-anchor": "middle", ...text }, data.along);
      if (floor !== undefined) {
        add(panel, "path", { d: `M0,${up(floor)}H${PANEL.width}`, stroke: "var(--quiet)", "stroke-dasharray": "1 3" });
        const word = { x: PANEL.width, y: up(floor) - 5, "text-anchor": "end", "font-size": 13, fill: "var(--quiet)" };
        add(panel, "text", word, "chance");
      }
      const mine = found.filter((line) => line.view === view).reverse();
      for (const { arm, isNull, points } of mine) {
        const path = points.map(([x, mean], n) => `${n ? "L" : "M"}${along(x)},${up(mean)}`).join("");
        const dash = isNull ? "4 3" : arm.dash.join(" ");
        if (!isNull) {
          const back = [...points].reverse();
          const band = points.map(([x, , , top], n) => `${n ? "L" : "M"}${along(x)},${up(top)}`).join("")
            + back.map(([x, , bottom]) => `L${along(x)},${up(bottom)}`).join("");
          add(panel, "path", { d: `${band}Z`, fill: arm.color, opacity: 0.18 });
        }
        const look = { fill: "none", stroke: arm.color, "stroke-width": isNull ? 1.4 : 2.2, "stroke-dasharray": dash };
        add(panel, "path", { d: path, ...look });
      }
      for (const { arm, isNull, points } of mine) {
        for (const [x, mean, least, most] of isNull ? [] : points) {
          const range = least === most ? "" : ` [${short(least)} to ${short(most)}]`;
          const place = data.progress ? `${Number(x.toPrecision(3))} % of the run` : `index ${x}`;
          const look = { d: SHAPES[arm.shape] ?? SHAPES.circle, fill: arm.color, opacity: data.progress ? 1 : 0 };
          const mark = add(panel, "path", { ...look, transform: `translate(${along(x)},${up(mean)})scale(3)` });
          mark.dataset.told = `${arm.label}, ${data.views[view].split(" ")[0]}, ${place}: ${short(mean)}${range}`;
        }
      }
    }
    if (found.some((line) => line.isNull)) {
      const under = add(svg, "g", { transform: `translate(${PANEL.left},${height - 8})` });
      add(under, "path", { d: "M0,-5H30", stroke: "var(--ink)", "stroke-width": 1.4, "stroke-dasharray": "4 3" });
      add(under, "text", { x: 36, ...text }, "null: final update, rescaled and rounded");
    }
    const middle = PANEL.top + PANEL.height / 2;
    const title = { "text-anchor": "middle", transform: `translate(14,${middle})rotate(-90)`, ...text };
    add(svg, "text", title, data.title);
    return svg;
  };

  for (const form of document.querySelectorAll("form.choices")) {
    const name = form.dataset.for;
    const data = JSON.parse(document.getElementById(`${name}-data`).textContent);
    const card = document.querySelector(`#${name} .card`);
    const whole = card.querySelector("svg");
    const first = new FormData(form);
    const said = form.querySelector("output");
    form.hidden = false;
    form.addEventListener("change", () => {
      hide();
      const chosen = [...new FormData(form)];
      card.querySelector("svg.chosen")?.remove();
      const same = chosen.every(([field, value]) => first.get(field) === value);
      const key = chosen.map(([, value]) => value).join("|");
      const there = same || lines(data, key).length > 0;
      whole.toggleAttribute("hidden", !same);
      const words = chosen.map(([field, value]) => `${field} ${value}`).join(", ");
      if (!same && there) card.append(drawn(data, key, `${whole.getAttribute("aria-label")} Chosen: ${words}.`));
      said.textContent = same ? "" : there ? `Shown: ${words}.` : `No matrix has a value for ${words}.`;
    });
  }
})();
