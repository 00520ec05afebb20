"use strict";
function start(page) {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const views = new Map(), seen = new Set();

  // Colors: as set in the system, or as the reader chose.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const themes = ["auto", "light", "dark"];
  let theme = "auto";
  try { theme = themes.includes(localStorage.hydraprune) ? localStorage.hydraprune : "auto"; } catch { /* no storage */ }
  const isDark = () => theme === "dark" || (theme === "auto" && system.matches);
  const configs = () => page.themes[isDark() ? "dark" : "light"];
  const config = () => configs()[0];
  function paint() {
    document.documentElement.classList.toggle("dark", isDark());
    const button = document.getElementById("theme");
    button.textContent = theme[0].toUpperCase() + theme.slice(1);
    const shown = { auto: "as set in the system", light: "light", dark: "dark" }[theme];
    button.setAttribute("aria-label", `Colors: ${shown}. Press to change`);
    const colors = config().range.category;
    for (const mark of all("[data-swatch]")) mark.style.background = colors[Number(mark.dataset.swatch) % colors.length];
  }

  // The chosen filters. If nothing of a kind is chosen, all of it is shown.
  const form = document.getElementById("filters");
  const kinds = ["task", "model", "pattern"];
  const chosen = () => Object.fromEntries(kinds.map((kind) => [kind, new Set(
    form ? all(`input[name="${kind}"]:checked`, form).map((input) => input.value) : [],
  )]));
  // Dense models belong to every pattern.
  const passes = (wanted, row) => kinds.every(
    (kind) => !wanted[kind].size || !row[kind] || row[kind] === "dense" || wanted[kind].has(row[kind]),
  );

  // What is shown of a comparison: a metric, and a workload of its benches.
  const measures = ["metric", "workload"];
  const measureOf = (figure, kind) => figure.closest("section").querySelector(`select[data-${kind}]`)?.value;
  function rowsOf(figure) {
    const wanted = chosen(), shown = measures.map((kind) => [kind, measureOf(figure, kind)]);
    const measured = (row) => shown.every(([kind, value]) => !(kind in row) || !value || row[kind] === value);
    const { rows, dense } = page.figures[figure.dataset.figure];
    return { rows: rows.filter((row) => passes(wanted, row) && measured(row)), dense: dense.filter(measured) };
  }

  function embed(figure, place, config) {
    const { spec, shape } = page.figures[figure.dataset.figure];
    const full = { ...structuredClone(spec), datasets: { ...spec.datasets, ...rowsOf(figure) } };
    // A config with a legend shows only the labels of the data.
    const drawn = new Set(full.datasets.rows.map((row) => (row.pattern === "dense" ? "dense" : row.label)));
    for (const { encoding } of config.legend.disable ? [] : full.layer ?? []) {
      for (const channel of [encoding?.color, encoding?.strokeDash]) {
        if (channel?.field === "hue") channel.legend = { values: channel.scale.domain.filter((name) => drawn.has(name)) };
      }
    }
    if (shape) full.height = Math.round(place.clientWidth * shape);
    // A row per name: Vega-Lite's heights by step do not work with the width of the container.
    if (spec.height.step) full.height = spec.height.step * new Set(full.datasets.rows.map((row) => row.name ?? row.role)).size;
    const renderer = shape ? "canvas" : "svg";
    return vegaEmbed(place, full, { mode: "vega-lite", actions: false, renderer, config, tooltip: { theme: "page" } });
  }
  async function draw(figure) {
    drop(figure);
    note(figure);
    const plot = figure.querySelector(".plot");
    // In an inner element: Vega overwrites the role and label of the element that it draws in.
    const place = plot.firstElementChild ?? plot.appendChild(document.createElement("div"));
    if (!plot.hidden) views.set(figure, await embed(figure, place, config()));
    // The reserved room stays if the figure nearly fills it, so that nothing below moves.
    if (place.offsetHeight < plot.offsetHeight - 12) plot.removeAttribute("style");
    figure.dataset.drawn = "true";
  }
  function drop(figure) {
    views.get(figure)?.finalize();
    views.delete(figure);
  }
  // A downloaded image has its own background and legend.
  async function image(figure, kind) {
    const place = document.createElement("div"), background = getComputedStyle(figure).backgroundColor;
    Object.assign(place.style, { position: "absolute", left: "-9999px", width: `${figure.clientWidth - 36}px` });
    document.body.append(place);
    const embedded = await embed(figure, place, { ...configs()[1], background, padding: 12 });
    const url = await embedded.view.toImageURL(kind, 2);
    embedded.finalize();
    place.remove();
    return url;
  }
  function note(figure) {
    const measure = figure.querySelector(".measure"), { rows } = rowsOf(figure);
    if (measure) measure.textContent = measures.map((kind) => rows[0]?.[kind]).filter(Boolean).join(", ");
    figure.querySelector(".plot").hidden = !rows.length;
    figure.querySelector(".none").hidden = rows.length > 0;
    const details = figure.querySelector("details");
    if (details.open) tabulate(details);
  }
  async function refresh(figure) {
    if (!seen.has(figure)) return note(figure);
    if (!figure.clientWidth) return forget(figure);
    note(figure);
    if (figure.querySelector(".plot").hidden) return drop(figure);
    const view = views.get(figure)?.view, data = rowsOf(figure);
    if (!view || page.figures[figure.dataset.figure].spec.height.step) return draw(figure);
    await view.data("rows", data.rows).resize().runAsync();
    if (page.figures[figure.dataset.figure].dense.length) await view.data("dense", data.dense).runAsync();
  }
  // A hidden figure has no width to be drawn in: it is drawn again when it comes into view.
  function forget(figure) {
    drop(figure);
    seen.delete(figure);
    delete figure.dataset.drawn;
    near.observe(figure);
  }

  // Figures are drawn when they come near the viewport, so that a page with many comparisons opens fast.
  const margin = 600; // pixels
  function show(figure) {
    near.unobserve(figure);
    seen.add(figure);
    draw(figure);
  }
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) show(target);
  }, { rootMargin: `${margin}px` });
  const figures = all("[data-figure]");

  // The filters are kept in the URL, which a frame without an address of its own does not have.
  const remember = (hash) => { try { history.replaceState(null, "", hash); } catch { /* no URL */ } };
  function filter(event) {
    const wanted = chosen();
    for (const element of all("tr[data-task], section[data-task], figure[data-pattern]")) {
      element.hidden = !passes(wanted, element.dataset);
    }
    const runs = all("#runs tbody tr"), some = kinds.some((kind) => wanted[kind].size);
    if (form) {
      form.querySelector("[type=reset]").hidden = !some;
      document.getElementById("shown").textContent = some ? `${runs.filter((row) => !row.hidden).length} of ${runs.length} runs` : "";
      const words = new URLSearchParams(kinds.flatMap((kind) => [...wanted[kind]].map((value) => [kind, value])));
      if (event) remember(some ? `#${words}` : "#");
    }
    figures.forEach(refresh);
  }
  if (form) {
    const words = new URLSearchParams(location.hash.slice(1));
    for (const input of all("input", form)) input.checked = words.getAll(input.name).includes(input.value);
    form.addEventListener("change", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => setTimeout(() => filter(event)));
  }
  for (const select of all("select[data-metric], select[data-workload]")) {
    select.addEventListener("change", () => all("[data-figure]", select.closest("section")).forEach(refresh));
  }

  // Downloads.
  function csv(rows) {
    const names = [...new Set(rows.flatMap(Object.keys))];
    const field = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(field).join(",")).join("\n") + "\n";
  }
  function save(name, url) {
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
  }
  const saveText = (name, text) => {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    save(name, url);
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  document.addEventListener("click", async ({ target }) => {
    const button = target.closest?.("[data-save], [data-table]");
    if (!button) return;
    if (button.dataset.table) {
      const wanted = chosen();
      return saveText(`${button.dataset.table}.csv`, csv(page.tables[button.dataset.table].filter((row) => passes(wanted, row))));
    }
    const figure = button.closest("figure"), kind = button.dataset.save, name = `${figure.id}.${kind}`;
    if (kind === "csv") return saveText(name, csv(rowsOf(figure).rows));
    return save(name, await image(figure, kind));
  });

  // The data of a figure as a table.
  function tabulate(details) {
    const { rows } = rowsOf(details.closest("figure")), table = document.createElement("table");
    const names = [...new Set(rows.flatMap(Object.keys))].filter((name) => !["cell", "place", "whole", "level"].includes(name));
    const line = (values, cell, section) => {
      const row = section.insertRow();
      for (const value of values) {
        const element = document.createElement(cell);
        const plain = typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(5) : value;
        element.textContent = plain ?? "-";
        row.append(element);
      }
    };
    line(names, "th", table.createTHead());
    const body = table.createTBody();
    for (const row of rows) line(names.map((name) => row[name]), "td", body);
    details.querySelector(".scroll").replaceChildren(table);
  }
  for (const details of all("details")) details.addEventListener("toggle", () => details.open && tabulate(details));

  // Tables sorted by a column.
  for (const button of all(".sortable thead button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), column = [...head.parentNode.children].indexOf(head);
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th", head.parentNode)) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = head.closest("table").tBodies[0];
      const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
      const order = (a, b) => (a !== "" && b !== "" && !isNaN(a) && !isNaN(b) ? a - b : a.localeCompare(b));
      body.append(...[...body.rows].sort((a, b) => order(key(a), key(b)) * (down ? -1 : 1)));
    });
  }

  document.getElementById("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.hydraprune = theme; } catch { /* no storage */ }
    restyle();
  });
  const restyle = () => { paint(); seen.forEach(draw); };
  system.addEventListener("change", restyle);
  addEventListener("beforeprint", () => {
    figures.filter((figure) => figure.clientWidth && !seen.has(figure)).forEach(show);
  });

  paint();
  filter();
  for (const figure of figures) {
    // The observer waits for a frame, and a browser that only takes a screenshot may make none.
    const { top, width } = figure.getBoundingClientRect();
    if (width && top < innerHeight + margin) show(figure); else near.observe(figure);
  }
}

// A large page is packed: its contents are made first.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
(() => {
  const { type, textContent } = document.getElementById("data");
  if (type === "application/json") return start(JSON.parse(textContent));
  return unpack(textContent).then(({ main, page }) => {
    document.querySelector("main").innerHTML = main;
    start(page);
  });
})();
