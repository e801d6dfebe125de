"use strict";
/* Draws the report of `content`, whose ids, texts and names come from strangers: they enter the page
   as textContent, and Plotly, which reads a little HTML, through `plain`. */

const content = JSON.parse(document.getElementById("content").textContent);
const count = content.ids.length;
const kinds = Object.keys(content.kinds);
const columns = Object.keys(content.columns);
const chosen = {
  kind: kinds.at(-1), map: "PCA", layer: Math.floor(content.layers.length / 2), pool: content.pools.length - 1,
  color: columns[0] ?? "", order: "similar together", document: 0,
};

// Okabe and Ito's colors, which people with any kind of color blindness tell apart.
const COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a900", "#7f6bd1"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross"];
const MOST_GROUPS = COLORS.length * SYMBOLS.length;
const CATEGORIES = { type: "category" };

/* What Plotly shows as it is. */
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
/* Ids of one corpus often begin alike, and differ at their ends. */
const brief = (id, most) => (id.length > most ? `${id.slice(0, Math.ceil(most / 2) - 1)}…${id.slice(-Math.floor(most / 2))}` : id);
const number = (value, digits = 4) => (Number.isFinite(value) ? value.toFixed(digits) : "none");
/* Of raw vectors most cosines begin with nines. */
const cosineText = (value) => number(value, value > 0.99 && value < 1 ? 6 : 4);
/* Arrays: float32, or rounded to 65535 steps, and NaN. */
const bytes = (data) => Uint8Array.from(atob(data), (one) => one.charCodeAt(0)).buffer;
const numbers = (packed) =>
  typeof packed === "string"
    ? Array.from(new Float32Array(bytes(packed)))
    : Array.from(new Uint16Array(bytes(packed.data)), (one) => (one === 65535 ? NaN : packed.low + packed.step * one));
const range = (length) => Array.from({ length }, (_, at) => at);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const colorOf = (kind) => css(kind.replace("raw - centered", "difference"));
const at = () => chosen.layer * content.pools.length + chosen.pool;
const rowName = () => [content.layers[chosen.layer], content.pools[chosen.pool]].filter(Boolean).join(", ");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/* Lines of at most `width` characters, as Plotly's hover labels do not wrap. */
function wrapped(text, width) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const pieces = word.match(new RegExp(`.{1,${width}}`, "gsu")) ?? [];
    for (const piece of pieces) {
      if (lines.at(-1) && lines.at(-1).length + piece.length >= width) lines.push("");
      lines[lines.length - 1] += (lines.at(-1) ? " " : "") + piece;
    }
  }
  return lines;
}

function about(document) {
  const known = columns.map((name) => `${name}: ${content.columns[name][document] ?? ""}`);
  const text = content.texts[document] ?? "";
  const lines = [...known.map((one) => cut(one, 44)), ...wrapped(text, 44)].filter(Boolean);
  return [`<b>${plain(brief(content.ids[document], 44))}</b>`, ...lines.map(plain)].join("<br>");
}

/* The documents of each value of the column that colors them, or one group with a color scale. */
function groups() {
  const values = content.columns[chosen.color];
  if (!values) return [{ name: "", color: css("raw"), symbol: "circle", documents: range(count) }];
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  if (counts.size > 12 && values.every((value) => value === null || typeof value === "number")) {
    return [{ name: "", values, symbol: "circle", documents: range(count) }];
  }
  const largest = [...counts].sort((a, b) => b[1] - a[1]).slice(0, MOST_GROUPS).map(([value]) => value);
  const named = largest.sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
  const found = named.map((value, place) => ({
    name: value === null ? "(none)" : String(value),
    color: COLORS[place % COLORS.length],
    symbol: SYMBOLS[Math.floor(place / COLORS.length)],
    documents: range(count).filter((one) => values[one] === value),
  }));
  const others = range(count).filter((one) => !named.includes(values[one]));
  if (others.length) found.push({ name: "others", color: css("other"), symbol: "x", documents: others });
  return found;
}

/* Plotly's part: each figure is drawn anew when a choice, the width or the colors change. */
function draw(name, traces, layout) {
  const axis = (given) => ({
    gridcolor: css("line"), zerolinecolor: css("line"), linecolor: css("line"), automargin: true, ...given,
  });
  const text = css("text");
  return Plotly.react(name, traces, {
    height: 360, margin: { l: 50, r: 12, t: innerWidth > 800 ? 30 : 12, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", font: { color: text, size: 12, family: "system-ui, DejaVu Sans, sans-serif" },
    hoverlabel: { align: "left", bgcolor: css("raised"), bordercolor: css("line"), font: { color: text }, namelength: -1 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, hovermode: "closest",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("other"), activecolor: text },
    ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
  }, { displaylogo: false, displayModeBar: innerWidth > 800, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] });
}

const below = (title, y) => ({
  title: { text: title, side: "top" }, orientation: "h", y, yanchor: "top", thickness: 10, len: 0.9, outlinewidth: 0,
});
/* Red and blue around zero, which is the color of the page. */
const diverging = () => [[0, "#2166ac"], [0.25, "#6aaed6"], [0.5, css("raised")], [0.75, "#f08a62"], [1, "#b2182b"]];

function drawMap() {
  const row = content.kinds[chosen.kind][at()];
  const points = numbers(chosen.map === "PCA" ? row.map : row.umap);
  const of = (documents, axis) => documents.map((one) => points[2 * one + axis]);
  const wide = document.getElementById("map").clientWidth > 600;
  const labeled = wide && count <= 40;
  // Names of points at one height stand above and below in turn.
  const heights = range(count).sort((a, b) => points[2 * a + 1] - points[2 * b + 1]);
  const traces = groups().map((group) => ({
    type: "scatter", mode: labeled ? "markers+text" : "markers", name: plain(cut(group.name, 30)),
    x: of(group.documents, 0), y: of(group.documents, 1), customdata: group.documents,
    text: labeled ? group.documents.map((one) => plain(brief(content.ids[one], 24))) : undefined,
    textposition: group.documents.map((one) => (heights.indexOf(one) % 2 ? "top center" : "bottom center")),
    textfont: { color: css("soft"), size: 11 },
    hovertext: group.documents.map(about), hoverinfo: "text",
    marker: {
      size: count > 400 ? 6 : 10, symbol: group.symbol, color: group.values ?? group.color,
      ...(group.values && { colorscale: "Viridis", colorbar: below(plain(chosen.color), -0.1), showscale: true }),
    },
  }));
  traces.push({
    type: "scatter", mode: "markers", x: of([chosen.document], 0), y: of([chosen.document], 1), hoverinfo: "skip",
    showlegend: false, marker: { size: 18, symbol: "circle-open", color: css("text"), line: { width: 2 } },
  });
  const title = (axis) =>
    chosen.map === "PCA" ? `component ${axis + 1}, ${number(100 * numbers(row.shares)[axis], 0)}% of the variance` : "";
  const ticks = { zeroline: false, showticklabels: false };
  return draw("map", traces, {
    height: (wide ? 480 : 400) + 12 * Math.min(traces.length, 10), showlegend: traces.length > 2,
    legend: { orientation: "h", y: -0.12, yanchor: "top", x: 0 },
    xaxis: { ...ticks, title: { text: title(0) } }, yaxis: { ...ticks, title: { text: title(1) } },
  });
}

function drawNeighbors() {
  const marks = new Map();
  for (const group of groups()) for (const one of group.documents) marks.set(one, group);
  const named = (one) => {
    const label = element("span", { title: content.ids[one] }, brief(content.ids[one], 48));
    const { name, color, symbol } = marks.get(one);
    if (name) label.prepend(element("i", { class: `mark ${symbol}`, style: `background:${color}`, title: name }));
    return label;
  };
  const lists = kinds.map((kind) => {
    const row = content.kinds[kind][at()];
    const near = numbers(row.nearest);
    const alike = numbers(row.nearness);
    const most = near.length / count;
    // A vector of zeros has no cosine, and so no neighbors.
    const there = range(most).filter((place) => Number.isFinite(alike[chosen.document * most + place]));
    const items = there.map((place) => {
      const one = near[chosen.document * most + place];
      return element("li", {}, element("button", { onclick: () => choose("document", one) },
        named(one), element("span", {}, cosineText(alike[chosen.document * most + place]))));
    });
    return element("div", {}, element("h3", {}, kind), items.length || !most ? element("ol", { class: kind }, ...items) : element("p", {}, "none: a vector of zeros has no cosine"));
  });
  const select = element("select", { "aria-label": "Document", onchange: (event) => choose("document", +event.target.value) },
    ...content.ids.map((id, one) => element("option", { value: one, ...(one === chosen.document && { selected: "" }) }, brief(id, 60))));
  const parts = [select];
  if (content.texts[chosen.document]) parts.push(element("blockquote", {}, content.texts[chosen.document]));
  const labels = content.labels[chosen.color];
  const shares = labels && kinds.map((kind) => `${kind} ${number(100 * numbers(labels.agreement[kind])[at()], 0)}%`);
  parts.push(element("div", { class: "neighbors" }, ...lists), element("p", { id: "agreement" }, labels
    ? `Nearest neighbor with the same ${chosen.color}: ${shares.join(", ")}; by chance ${number(100 * labels.chance, 0)}%.` : ""));
  document.getElementById("neighbors").replaceChildren(...parts);
}

/* The order of the heatmaps: numbers among the documents that they show. */
function order() {
  if (chosen.order === "similar together") return content.order;
  const own = content.shown.map((_, place) => place);
  if (chosen.order === "corpus order") return own;
  const grouped = groups().flatMap((group) => group.documents);
  return own.sort((a, b) => grouped.indexOf(content.shown[a]) - grouped.indexOf(content.shown[b]));
}

function drawCosines(kind) {
  const upper = numbers(content.kinds[kind][at()].cosines);
  const total = content.shown.length;
  const cosine = (i, j) => (i === j ? 1 : upper[Math.min(i, j) * (2 * total - Math.min(i, j) - 1) / 2 + Math.abs(i - j) - 1]);
  const places = order();
  const cells = places.map((i) => places.map((j) => cosine(i, j)));
  const lowest = Math.min(...cells.flat().filter(Number.isFinite));
  const names = places.map((one) => String(content.shown[one]));
  const width = document.getElementById(`cosines_${kind}`).clientWidth;
  const ids = (most) => places.map((one) => plain(brief(content.ids[content.shown[one]], most)));
  const pairs = ids(40);
  const ticks = {
    ...CATEGORIES, showgrid: false, ticks: "", tickvals: names, ticktext: ids(16),
    showticklabels: total <= 40 && width > 500, tickfont: { size: 10 },
  };
  return draw(`cosines_${kind}`, [{
    type: "heatmap", x: names, y: names, z: cells, text: cells.map((row, i) =>
      row.map((value, j) => `${pairs[i]}<br>${pairs[j]}<br>cosine ${cosineText(value)}`)),
    hoverinfo: "text", zmin: lowest < 0 ? -1 : lowest < 1 - 1e-7 ? lowest : 0, zmax: 1,
    // A color for each cosine there is: raw ones are all near 1, and would be one color.
    colorscale: lowest < 0 ? diverging() : "Viridis", colorbar: below("cosine", ticks.showticklabels ? -0.2 : -0.03),
  }], {
    height: Math.min(width, 560) + (ticks.showticklabels ? 90 : 60),
    xaxis: { ...ticks, tickangle: -60, constrain: "domain" },
    yaxis: { ...ticks, autorange: "reversed", scaleanchor: "x", constrain: "domain" },
  });
}

function drawPairs(kind) {
  const { bars, edges } = content.kinds[kind][at()].pairs;
  const width = (edges[1] - edges[0]) / bars.length;
  const middles = bars.map((_, place) => edges[0] + width * (place + 0.5));
  return draw(`pairs_${kind}`, [{
    type: "bar", x: middles, y: bars, width, marker: { color: colorOf(kind) },
    hovertemplate: "cosine %{x:.4f}: %{y:,} pairs<extra></extra>",
  }], { height: 280, bargap: 0, xaxis: { title: { text: "cosine" } }, yaxis: { title: { text: "pairs" } } });
}

/* A strip for each pool, a cell for each layer; a click chooses both. */
async function drawStrip(name) {
  const labels = content.labels[chosen.color];
  const figure = document.getElementById(name);
  figure.closest(".panels").hidden = !labels?.auc;
  if (!labels?.auc) return;
  const values = numbers(labels[name]);
  const layers = content.layers.length ? content.layers.map((one) => one.replace("layer ", "")) : ["all"];
  const cells = content.pools.map((_, pool) => layers.map((_, layer) => values[layer * content.pools.length + pool]));
  const finite = values.filter(Number.isFinite);
  const first = !figure.data;
  await draw(name, [{
    type: "heatmap", x: layers, y: content.pools.map(plain), z: cells, xgap: 2, ygap: 2, showscale: false,
    text: cells.map((row) => row.map((value) => number(value, 2))), texttemplate: layers.length > 16 ? "" : "%{text}",
    hovertemplate: "%{y}, layer %{x}: %{text}<extra></extra>", colorscale: "Cividis",
    zmin: name === "auc" ? 0.5 : 0, zmax: name === "auc" ? 1 : Math.max(1, ...finite),
  }], {
    height: 90 + 34 * content.pools.length, xaxis: { ...CATEGORIES, showgrid: false, title: { text: "layer" } },
    yaxis: { ...CATEGORIES, showgrid: false, autorange: "reversed" },
  });
  if (!first) return;
  figure.on("plotly_click", ({ points: [{ pointNumber: [pool, layer] }] }) => {
    Object.assign(chosen, { layer, pool });
    render();
  });
}

function drawNorms() {
  const { pools, layers } = content;
  const rows = layers.length ? range(layers.length).map((one) => one * pools.length + chosen.pool) : range(pools.length);
  const names = layers.length ? layers.map((one) => one.replace("layer ", "")) : pools;
  const traces = Object.entries(content.norms).map(([kind, packed]) => {
    const all = numbers(packed);
    const of = (which) => rows.map((row) => all[which * (all.length / 3) + row]);
    const [least, median, most] = [of(0), of(1), of(2)];
    return {
      type: "scatter", mode: layers.length ? "lines+markers" : "markers", name: kind, x: names.map(plain), y: median,
      marker: { color: colorOf(kind), size: 8 }, line: { dash: kind === "raw - centered" ? "dot" : "solid" },
      error_y: {
        type: "data", symmetric: false, array: most.map((one, place) => one - median[place]),
        arrayminus: median.map((one, place) => one - least[place]), visible: count > 1,
      },
      hovertemplate: `%{x}: %{y:.4g}<extra>${kind}</extra>`,
    };
  });
  return draw("norms", traces, {
    scattermode: layers.length ? "overlay" : "group", xaxis: { ...CATEGORIES, title: { text: layers.length ? "layer" : "" } },
    yaxis: { title: { text: "L2 norm" }, rangemode: "tozero" },
  });
}

function drawOutliers() {
  const { dimensions, ...parts } = content.outliers[at()];
  return draw("outliers", Object.entries(parts).map(([kind, part]) => ({
    type: "bar", name: kind, x: dimensions.map(String), y: numbers(part), marker: { color: colorOf(kind) },
    hovertemplate: `dimension %{x}: %{y:.2f}%<extra>${kind}</extra>`,
  })), {
    barmode: "group", xaxis: { ...CATEGORIES, title: { text: "dimension" } },
    yaxis: { title: { text: "% of the squared norm" } },
  });
}

function drawCurves() {
  return draw("curves", content.curves.pools.map((pool, place) => {
    const weights = numbers(content.curves.weights[place]);
    const single = weights.filter((one) => one > 0).length === 1;
    return {
      type: "scatter", name: plain(pool), mode: single ? "markers" : "lines", x: weights.map((_, token) => token + 1),
      y: weights.map((one) => (one > 0 ? one : null)), line: { color: COLORS[place % COLORS.length] }, marker: { size: 9 },
      hovertemplate: "token %{x}: %{y:.3g}",
    };
  }), { xaxis: { title: { text: "token" } }, yaxis: { title: { text: "weight" }, type: "log", exponentformat: "power" } });
}

function drawCounts() {
  const counts = numbers(content.counts);
  return draw("counts", [{
    type: "scatter", mode: "lines", x: counts.map((_, distance) => distance), y: counts, fill: "tozeroy",
    line: { color: css("raw") }, hovertemplate: "distance %{x}: %{y:,} documents<extra></extra>",
  }], { xaxis: { title: { text: "distance from the end, in tokens" } }, yaxis: { title: { text: "documents" } } });
}

const headings = { auc: "AUC", separation: "separation" };

/* The sections: their figures by name, and a caption that may depend on the choices. */
const perKind = (name, one) => Object.fromEntries(kinds.map((kind) => [`${name}_${kind}`, () => one(kind)]));
const part = content.shown.length < count ? ` ${content.shown.length} of the ${count} documents are shown.` : "";
const sections = [
  Object.values(content.labels).some((one) => one.auc) && {
    title: "Labels by layer", panels: { auc: () => drawStrip("auc"), separation: () => drawStrip("separation") },
    caption: () => (content.labels[chosen.color]?.auc
      ? `How well documents that were held out separate by ${chosen.color}, along the difference of means: AUC (0.5 is chance) and the`
        + " distance of the means in standard deviations. Click a cell to choose its layer and pool."
      : `Choose a color that names groups of four documents or more: ${Object.keys(content.labels).filter((one) => content.labels[one].auc).join(", ")}.`),
  },
  count > 1 && {
    title: "Cosines between documents", panels: perKind("cosines", drawCosines),
    caption: () => `${rowName()}. Hover over a cell to see its pair. Each panel has its own colors.${part}`,
    choices: () => [choice("Order", "order", ["similar together", "corpus order", ...(chosen.color ? [`by ${chosen.color}`] : [])])],
  },
  count > 1 && {
    title: "Cosines of all pairs", panels: perKind("pairs", drawPairs),
    caption: () => `${rowName()}. ` + kinds.map((kind) => [kind, content.kinds[kind][at()].pairs])
      .map(([kind, { count: pairs, median }]) => `${kind}: ${pairs.toLocaleString("en")} pairs, median ${cosineText(median)}.`).join(" "),
  },
  {
    title: "Norms", panels: { norms: drawNorms },
    caption: () => "Points: the median over the documents. Bars: from the smallest to the largest.",
  },
  {
    title: "Outlier dimensions", panels: { outliers: drawOutliers },
    caption: () => `${rowName()}. The dimensions with the largest part of the raw vectors' squared norm, over all documents.`,
  },
  content.curves && {
    title: "Weights of the pools", panels: { curves: drawCurves },
    caption: () => `The weight of each token of ${content.ids[0]}.`,
  },
  content.counts && {
    title: "Documents behind each position of the mean", panels: { counts: drawCounts },
    caption: () => "The mean is noisy at distances that few documents reach.",
  },
].filter(Boolean);

/* A switch: buttons, or a list if there are many. Options are values, or pairs of value and name. */
function choice(label, name, options) {
  const pairs = options.map((one) => (Array.isArray(one) ? one : [one, one]));
  const control = pairs.length <= 8
    ? element("div", { class: "group" }, ...pairs.map(([value, text]) =>
      element("button", { "aria-pressed": chosen[name] === value, onclick: () => choose(name, value) }, text)))
    : element("select", { "aria-label": label, onchange: (event) => choose(name, pairs[event.target.selectedIndex][0]) },
      ...pairs.map(([value, text]) => element("option", chosen[name] === value ? { selected: "" } : {}, text)));
  return element("fieldset", { "data-choice": name }, element("legend", {}, label), control);
}

function choose(name, value) {
  chosen[name] = value;
  if (name === "color" && chosen.order.startsWith("by ")) chosen.order = "similar together";
  return render();
}

const section = (title, ...children) => element("section", { class: "wide" }, element("h2", {}, title), ...children);

function build() {
  document.getElementById("size").textContent = content.size;
  document.getElementById("facts").append(...Object.entries(content.facts).map(([name, fact]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, fact))));
  const main = document.getElementById("main");
  if (count > 1) {
    main.append(element("div", { class: "first wide" },
      section("Map", element("p", { id: "map_caption" }), element("div", { id: "map" })),
      section("Nearest neighbors", element("p", { id: "neighbors_caption" }), element("div", { id: "neighbors" }))));
  }
  for (const { title, panels } of sections) {
    const figures = Object.keys(panels).map((name) =>
      element("div", {}, ...(Object.keys(panels).length > 1 ? [element("h3", {}, headings[name] ?? name.split("_")[1])] : []), element("div", { id: name })));
    const made = section(title, element("div", { class: "caption" }), element("div", { class: "panels" }, ...figures));
    if (figures.length === 1) made.classList.remove("wide");
    main.append(made);
  }
  if (content.shaded) {
    const { pool, cut: shortened, words } = content.shaded;
    const text = element("div", { class: "text" });
    for (const [word, weight] of words) {
      text.append(element("span", { style: `background:rgba(230,159,0,${weight})` }, word), " ");
    }
    main.append(section("The text, by weight", element("p", {},
      `${shortened ? "The end of " : ""}${content.ids[0]}, each word shaded by the weight of its tokens in ${pool}. The start`
      + " of a token is estimated from its place among the characters, because the tokenizer is on the server."), text));
  }
  if (content.missing.length) main.append(section("Not in this report", element("p", {}, content.missing.join(" "))));
  const stamp = Object.entries(content.stamp);
  if (stamp.length) {
    main.append(section("Stamp", element("p", {}, "Everything that the vectors depend on beside the document."),
      element("table", {}, ...stamp.map(([name, value]) => element("tr", {}, element("th", {}, name),
        element("td", {}, typeof value === "string" ? value : JSON.stringify(value)))))));
  }
}

async function render() {
  const named = (list) => list.map((name, place) => [place, name]);
  const maps = content.kinds[kinds[0]][0].umap ? ["PCA", "UMAP"] : [];
  const switches = [
    ["Vectors", "kind", count > 1 ? kinds : []], ["Map", "map", maps], ["Layer", "layer", named(content.layers)],
    ["Pool", "pool", named(content.pools)], ["Color", "color", count > 1 && columns.length ? ["", ...columns] : []],
  ];
  document.getElementById("choices").replaceChildren(...switches.filter(([, , options]) => options.length > 1)
    .map(([label, name, options]) => choice(label, name, name === "color" ? options.map((one) => [one, one || "none"]) : options)));
  const drawn = [];
  if (count > 1) {
    document.getElementById("map_caption").textContent = 
      `${chosen.map} of ${chosen.kind} vectors scaled to length 1, ${rowName()}. Hover over a point to read, click to choose it.`;
    document.getElementById("neighbors_caption").textContent = `By cosine, ${rowName()}.`;
    drawNeighbors();
    drawn.push(drawMap());
  }
  const captions = document.querySelectorAll(".caption");
  sections.forEach(({ panels, caption, choices }, place) => {
    captions[place].replaceChildren(element("p", {}, caption()), ...(choices?.() ?? []));
    drawn.push(...Object.values(panels).map((one) => one()));
  });
  await Promise.all(drawn);
}

/* Each figure as a PNG under its name, for `write_pictures`. */
async function pictures(width, height) {
  const found = {};
  for (const figure of document.querySelectorAll(".js-plotly-plot")) {
    const title = figure.closest("section").querySelector("h2").textContent;
    const kind = figure.closest("div:has(> h3)")?.querySelector("h3").textContent ?? "";
    const layout = { ...figure.layout, title: { text: plain([title, kind].filter(Boolean).join(", ")) }, paper_bgcolor: css("ground"), margin: { l: 70, r: 20, t: 70, b: 60 } };
    found[figure.id] = await Plotly.toImage({ data: figure.data, layout }, { format: "png", width, height, scale: 2 });
  }
  return found;
}

build();
const ready = render().then(() => {
  document.getElementById("map")?.on("plotly_click", ({ points }) => {
    if (points[0].customdata !== undefined) choose("document", points[0].customdata);
  });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
let width = innerWidth;
addEventListener("resize", () => {
  // A phone's bars come and go with scrolling: its height alone draws nothing anew.
  if (innerWidth !== width) render();
  width = innerWidth;
});
