"use strict";
// One state for the whole page: the runs that are switched off, and the colour scheme.
const panels = JSON.parse(document.getElementById("panels").textContent);
const off = new Set();
const root = document.documentElement;
const shown = runs => runs.length === 0 || runs[0] === "*" || runs.some(run => !off.has(run));
const css = name => getComputedStyle(root).getPropertyValue(name).trim();

function themed(layout) {
  const colors = { "font.color": css("--fg"), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
  for (const key of Object.keys(layout)) {
    if (!/^[xy]axis/.test(key)) continue;
    colors[key + ".gridcolor"] = css("--grid");
    colors[key + ".linecolor"] = css("--line");
    colors[key + ".tickcolor"] = css("--line");
  }
  return colors;
}

function scale(trace) {
  return [[0, css("--card")], [1, trace.meta.tint]];
}

async function draw(div) {
  if (div.dataset.drawn) return;
  div.dataset.drawn = "yes";
  await ready;
  const { data, layout } = panels[div.id];
  for (const trace of data) {
    trace.visible = shown(trace.meta.runs);
    if (trace.type === "heatmap") trace.colorscale = scale(trace);
  }
  layout.font = { size: 12, family: getComputedStyle(document.body).fontFamily };
  layout.hoverlabel = { namelength: -1 };
  await Plotly.newPlot(div, data, layout, { responsive: true, displayModeBar: false });
  div.on("plotly_afterplot", () => rescalable(div));
  await Plotly.relayout(div, themed(layout));
}

// Paper is narrower than most screens, and a drawing without a view box keeps its size in pixels.
function rescalable(div) {
  for (const svg of div.querySelectorAll("svg.main-svg"))
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
}

function repaint() {
  for (const div of document.querySelectorAll(".plot[data-drawn]")) {
    if (!div.data) continue;
    Plotly.relayout(div, themed(panels[div.id].layout));
    div.data.forEach((trace, n) => {
      if (trace.type === "heatmap") Plotly.restyle(div, { colorscale: [scale(trace)] }, [n]);
    });
  }
}

function apply() {
  for (const button of document.querySelectorAll("button[data-runs]"))
    button.setAttribute("aria-pressed", String(shown(button.dataset.runs.split(" "))));
  for (const part of document.querySelectorAll(".of-runs")) part.hidden = !shown(part.dataset.runs.split(" "));
  for (const div of document.querySelectorAll(".plot[data-drawn]"))
    if (div.data) Plotly.restyle(div, { visible: div.data.map(trace => shown(trace.meta.runs)) });
}

document.querySelectorAll("button[data-runs]").forEach(button => button.addEventListener("click", () => {
  const runs = button.dataset.runs.split(" ");
  const on = shown(runs);
  runs.forEach(run => (on ? off.add(run) : off.delete(run)));
  apply();
}));

const wish = matchMedia("(prefers-color-scheme: dark)");
function theme(name) {
  root.dataset.theme = name;
  document.getElementById("theme").textContent = name === "dark" ? "Light" : "Dark";
  repaint();
}
document.getElementById("theme").addEventListener("click", () => theme(root.dataset.theme === "dark" ? "light" : "dark"));
wish.addEventListener("change", () => theme(wish.matches ? "dark" : "light"));

// plotly.js lies in this file, packed; nothing is loaded from anywhere.
async function unpack() {
  const packed = document.getElementById("plotly").textContent.trim();
  const bytes = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}
const ready = unpack();
theme(wish.matches ? "dark" : "light");

const watch = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "400px" });
document.querySelectorAll(".plot").forEach(div => watch.observe(div));
window.drawAll = () => Promise.all([...document.querySelectorAll(".plot")].map(draw));
let before = "light";
addEventListener("beforeprint", () => { before = root.dataset.theme; theme("light"); window.drawAll(); });
addEventListener("afterprint", () => theme(before));
