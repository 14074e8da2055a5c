"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#333333"];
  const colour = (i) => colours[i % colours.length];
  const tip = document.getElementById("tip");

  // ---- numbers and ticks
  const short = (v) => {
    if (v === null || v === undefined) return "–";
    if (v === 0) return "0";
    const a = Math.abs(v);
    if (a >= 1e4 || a < 1e-3) return v.toExponential(1).replace(".0e", "e").replace("e+", "e");
    return String(+v.toPrecision(3));
  };
  const logTicks = (a, b) => {
    const out = [];
    const least = Math.floor(Math.log10(a)), most = Math.ceil(Math.log10(b));
    const steps = most - least > 3 ? [1] : [1, 2, 5];
    for (let e = least; e <= most; e++) for (const m of steps) {
      const v = m * 10 ** e;
      if (v >= a * 0.999 && v <= b * 1.001) out.push(v);
    }
    return out.length > 1 ? out : [a, b];
  };
  const linearTicks = (a, b) => {
    const raw = (b - a) / 5, unit = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw);
    const out = [];
    for (let v = Math.ceil(a / step) * step; v <= b + step * 1e-9; v += step) out.push(+v.toPrecision(12));
    return out;
  };
  const scale = (values, log, from, to, pad = 0.06) => {
    const seen = values.filter((v) => v !== null && (!log || v > 0));
    let a = Math.min(...seen), b = Math.max(...seen);
    if (log) {
      const room = Math.max((Math.log10(b) - Math.log10(a)) * pad, 0.08);
      a = 10 ** (Math.log10(a) - room); b = 10 ** (Math.log10(b) + room);
      const at = (v) => from + (to - from) * (Math.log10(v / a) / Math.log10(b / a));
      return Object.assign(at, { ticks: logTicks(a, b) });
    }
    const room = Math.max((b - a) * pad, Math.abs(b) * 1e-6, 1e-9);
    a -= room; b += room;
    const at = (v) => from + (to - from) * ((v - a) / (b - a));
    return Object.assign(at, { ticks: linearTicks(a, b) });
  };

  // ---- drawing
  const make = (name, attributes, parent, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    parent.appendChild(node);
    return node;
  };
  const told = (node, text) => {
    node.setAttribute("tabindex", "0");
    node.setAttribute("aria-label", text);
    const show = (x, y) => {
      tip.textContent = text;
      tip.hidden = false;
      const box = tip.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 4)) + "px";
      tip.style.top = (y + 16 + box.height > innerHeight ? y - box.height - 10 : y + 14) + "px";
    };
    node.addEventListener("pointermove", (e) => show(e.clientX, e.clientY));
    node.addEventListener("focus", () => { const r = node.getBoundingClientRect(); show(r.right, r.top); });
    for (const end of ["pointerleave", "blur"]) node.addEventListener(end, () => { tip.hidden = true; });
  };
  const H = 300, L = 56, R = 10, T = 10, B = 44;
  const frame = (svg, xs, ys, options) => {
    const W = svg.clientWidth || 300;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
    const x = scale(xs, options.xlog, L, W - R), y = scale(ys, options.ylog, H - B, T);
    for (const v of y.ticks) {
      make("line", { x1: L, x2: W - R, y1: y(v), y2: y(v), stroke: "#e6e9ed" }, svg);
      make("text", { x: L - 6, y: y(v) + 4, "text-anchor": "end" }, svg, short(v));
    }
    let last = -1e9;
    for (const v of x.ticks) {
      if (x(v) - last < 46) continue;
      last = x(v);
      make("line", { x1: x(v), x2: x(v), y1: H - B, y2: H - B + 4, stroke: "#9aa3ad" }, svg);
      make("text", { x: x(v), y: H - B + 18, "text-anchor": "middle" }, svg, short(v));
    }
    make("line", { x1: L, x2: W - R, y1: H - B, y2: H - B, stroke: "#9aa3ad" }, svg);
    make("text", { x: (L + W - R) / 2, y: H - 6, "text-anchor": "middle" }, svg, options.xlabel);
    return { x, y };
  };
  const line = (svg, points, attributes) =>
    points.length > 1 && make("polyline", { points: points.map((p) => p.join(",")).join(" "), fill: "none", "stroke-width": 1.6, ...attributes }, svg);
  const dot = (svg, x, y, c, text, r = 4.5) =>
    told(make("circle", { cx: x, cy: y, r, fill: c, "fill-opacity": 0.8, stroke: "#fff" }, svg), text);
  const percent = (v) => (100 * v).toFixed(1) + "%";
  const mixture = (w) => Object.entries(w).filter((e) => e[1] > 5e-4).sort((a, b) => b[1] - a[1]).map(([k, v]) => `${k} ${v.toFixed(3)}`).join(", ");

  const figures = {
    regret(svg) {
      const rounds = data.rounds.filter((r) => r.regret !== null);
      const floor = Math.min(data.tolerance || 1e-6, ...rounds.map((r) => r.regret).filter((v) => v > 0)) / 3;
      const at = (r) => Math.max(r.regret, floor);
      const { x, y } = frame(svg, rounds.map((r) => r.flops), [...rounds.map(at), data.tolerance || floor],
        { xlog: true, ylog: true, xlabel: "flops spent" });
      if (data.tolerance > 0) {
        const W = svg.viewBox.baseVal.width;
        make("line", { x1: L, x2: W - R, y1: y(data.tolerance), y2: y(data.tolerance), stroke: "#D55E00", "stroke-dasharray": "5 4" }, svg);
        make("text", { x: W - R, y: y(data.tolerance) - 5, "text-anchor": "end", style: "fill:#D55E00" }, svg, "tolerance");
      }
      line(svg, rounds.map((r) => [x(r.flops), y(at(r))]), { stroke: colour(0) });
      for (const r of rounds) dot(svg, x(r.flops), y(at(r)), colour(0), `round ${r.round}: ${short(r.regret)} nats expected\n${r.n_runs} runs, ${short(r.flops)} flops`);
    },
    weights(svg) {
      const rounds = data.rounds.filter((r) => r.weights);
      const ends = rounds.flatMap((r) => Object.values(r.interval || {}).flat());
      const { x, y } = frame(svg, rounds.map((r) => r.flops), [0, 1, ...ends], { xlog: true, ylog: false, xlabel: "flops spent" });
      data.sources.forEach((name, i) => {
        const shift = (i - (data.sources.length - 1) / 2) * 4;
        line(svg, rounds.map((r) => [x(r.flops) + shift, y(r.weights[name])]), { stroke: colour(i) });
        for (const r of rounds) {
          const band = (r.interval || {})[name], px = x(r.flops) + shift;
          if (band) make("line", { x1: px, x2: px, y1: y(band[0]), y2: y(band[1]), stroke: colour(i), "stroke-width": 3, "stroke-opacity": 0.35 }, svg);
          dot(svg, px, y(r.weights[name]), colour(i), `round ${r.round}: ${name} ${percent(r.weights[name])}` + (band ? `\n${percent(band[0])} to ${percent(band[1])}` : ""), 4);
        }
      });
    },
    losses(svg, domain) {
      const runs = data.runs.filter((r) => r.losses && r.losses[domain] !== undefined);
      if (!runs.length) return;
      const { x, y } = frame(svg, runs.map((r) => r.flops), runs.map((r) => r.losses[domain]), { xlog: true, ylog: false, xlabel: "flops of the run" });
      for (const r of runs) dot(svg, x(r.flops), y(r.losses[domain]), colour(r.round), `${r.id}\nround ${r.round}, ${domain} ${r.losses[domain].toFixed(4)}\n${mixture(r.weights)}`);
    },
    fit(svg, domain) {
      const points = data.fitted[domain] || [];
      if (!points.length) return;
      const off = points.map((p) => 100 * (p.observed / p.predicted - 1));
      const { x, y } = frame(svg, points.map((p) => p.predicted), [0, ...off], { xlog: false, ylog: false, xlabel: "fitted loss, nats per token" });
      const W = svg.viewBox.baseVal.width;
      make("line", { x1: L, x2: W - R, y1: y(0), y2: y(0), stroke: "#9aa3ad" }, svg);
      points.forEach((p, i) => dot(svg, x(p.predicted), y(off[i]), colour(1), `${p.name}\nfitted ${p.predicted.toFixed(4)}, observed ${p.observed.toFixed(4)} (${off[i].toFixed(2)}%)\n${mixture(p.weights)}`));
    },
  };

  const chosen = () => (document.getElementById("domain") || {}).value;
  const draw = () => {
    for (const svg of document.querySelectorAll("svg[data-figure]")) figures[svg.dataset.figure](svg, chosen());
    document.documentElement.dataset.drawn = document.querySelectorAll("svg[data-figure] circle").length;
  };
  const select = document.getElementById("domain");
  if (select) select.addEventListener("change", draw);
  addEventListener("resize", draw);
  draw();

  // ---- tables that sort when a heading is pressed
  for (const table of document.querySelectorAll("table.sortable"))
    table.querySelectorAll("th button").forEach((button, column) => button.addEventListener("click", () => {
      const heading = button.parentNode, down = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach((th) => th.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => { const v = row.cells[column].dataset.value; return v === undefined ? row.cells[column].textContent : +v; };
      const rows = [...table.tBodies[0].rows].sort((a, b) => { const p = key(a), q = key(b); return (p < q ? -1 : p > q ? 1 : 0) * (down ? -1 : 1); });
      table.tBodies[0].append(...rows);
    }));
})();
