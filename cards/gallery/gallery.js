"use strict";
(() => {
  const root = document.documentElement;
  const wanted = () => matchMedia("(prefers-color-scheme: dark)").matches;
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* a file may keep nothing */ }
  root.classList.toggle("dark", kept ? kept === "dark" : wanted());
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.classList.toggle("dark");
    try { localStorage.setItem("theme", dark ? "dark" : "light"); } catch { /* as above */ }
    if (globalThis.Plotly && document.getElementById("points")) draw();
  });

  for (const block of document.querySelectorAll("pre")) {
    const text = block.innerText, button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        const range = document.createRange();
        range.selectNodeContents(block.querySelector("code") || block);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    block.append(button);
  }

  const points = document.getElementById("points");
  if (!points) return;
  const rows = JSON.parse(points.textContent);

  const table = new dataTables.default("#models", {
    paging: rows.length > 100, info: true, order: [], layout: { topEnd: "search" },
  });
  const names = [...document.querySelectorAll("#models thead th")].map((head) => head.dataset.name);
  for (const select of document.querySelectorAll("#filters select")) {
    select.addEventListener("change", () => {
      const column = table.column(names.indexOf(select.dataset.column));
      column.search((cell) => !select.value || plainText(cell) === select.value).draw();
    });
  }

  function plainText(cell) {
    const holder = document.createElement("textarea");  // holds text, and runs nothing
    holder.innerHTML = cell;
    return holder.value;
  }

  // Plotly reads some tags in texts.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const colours = () => root.classList.contains("dark")
    ? ["#56b4e9", "#ff8b4d", "#2fd0a0", "#f0a3cd", "#b79df0", "#e0c060", "#e6edf3", "#ffc14d", "#b0b0b0", "#ff7a66", "#86d386"]
    : ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b4c9a", "#8c6d1f", "#1c2733", "#e69f00", "#7f7f7f", "#a5391f", "#3b7d3b"];
  const axes = {
    stream_bytes: ["bytes per image", (row) => row.stream_bytes],
    bits: ["encoder bits × bytes per image", (row) => row.encoder_bits * row.stream_bytes],
    macs: ["device MACs × bytes per image", (row) => row.device_macs * row.stream_bytes],
    device_ms: ["device latency, ms", (row) => row.device_ms],
  };
  const data = document.getElementById("data"), axis = document.getElementById("axis");
  const sets = new Map(rows.map((row) => [row.data_sha256, `${row.images} images of ${row.data}/, ${row.data_sha256.slice(0, 8)}`]));
  for (const [digest, label] of sets) data.append(new Option(label, digest));
  data.addEventListener("change", draw);
  axis.addEventListener("change", draw);

  function hover(row) {
    const said = [
      `<b>${plain(row.model)}</b>`, `${(100 * row.score).toFixed(2)}% ${plain(row.metric_name)}`,
      `${Math.round(row.stream_bytes).toLocaleString("en")} bytes`,
      `${row.encoder_bits.toLocaleString("en")} encoder bits`, `${row.device_macs.toLocaleString("en")} device MACs`,
    ];
    if (row.device_ms !== null) said.push(`${row.device_ms} ms, ${plain(row.machine)}`);
    if (row.coding) said.push(plain(row.coding));
    return said.join("<br>");
  }

  let isSeen = false, solidInView = () => {};
  function draw() {
    const chosen = rows.filter((row) => row.data_sha256 === data.value);
    const style = getComputedStyle(root), ink = style.getPropertyValue("--ink").trim();
    const grid = style.getPropertyValue("--line").trim();
    const [label, of] = axes[axis.value];
    const series = new Map();
    for (const row of chosen) {
      const name = row.series + (row.coding ? `, ${row.coding}` : "");
      if (!series.has(name)) series.set(name, []);
      series.get(name).push(row);
    }
    const palette = colours(), flat = [], solid = [];
    let number = 0;
    for (const [name, same] of series) {
      const color = palette[number++ % palette.length];
      const shown = same.filter((row) => of(row) > 0).sort((a, b) => of(a) - of(b));
      const common = { name: plain(name), legendgroup: plain(name), hovertemplate: "%{text}<extra></extra>" };
      flat.push({ ...common, type: "scatter", mode: "lines+markers", x: shown.map(of), y: shown.map((row) => 100 * row.score),
        text: shown.map(hover), customdata: shown.map((row) => row.page), line: { color }, marker: { size: 9, symbol: number % 8 } });
      const held = same.filter((row) => row.encoder_bits > 0);
      if (held.length) solid.push({ ...common, type: "scatter3d", mode: "lines+markers", x: held.map((row) => row.stream_bytes),
        y: held.map((row) => row.encoder_bits), z: held.map((row) => 100 * row.score), text: held.map(hover), line: { color }, marker: { size: 4, color } });
    }
    const metric = chosen.length ? plain(chosen[0].metric_name) : "";
    const line = { gridcolor: grid, zerolinecolor: grid, linecolor: grid };
    const common = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink }, margin: { t: 20, r: 10, l: 60, b: 50 },
      legend: { orientation: "h", y: -0.2 }, showlegend: innerWidth > 700, hovermode: "closest" };
    const options = { responsive: true, displaylogo: false, showLink: false };
    Plotly.react("tradeoff", flat, { ...common, xaxis: { ...line, type: "log", title: { text: label } },
      yaxis: { ...line, title: { text: `${metric}, %` } } }, options).then((plot) => {
      plot.removeAllListeners("plotly_click");
      plot.on("plotly_click", (event) => { const page = event.points[0].customdata; if (page) location.href = page; });
    });
    // Only once it is seen: three dimensions take a while.
    solidInView = () => Plotly.react("three", solid, { ...common, scene: {
      xaxis: { ...line, type: "log", title: { text: "bytes" } }, yaxis: { ...line, type: "log", title: { text: "encoder bits" } },
      zaxis: { ...line, title: { text: `${metric}, %` } } } }, options);
    if (isSeen) solidInView();
  }
  draw();
  new IntersectionObserver((seen, watcher) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    watcher.disconnect();
    isSeen = true;
    solidInView();
  }).observe(document.getElementById("three"));
})();
