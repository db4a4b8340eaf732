// The charts of a node's page, drawn by uPlot from the JSON at the data-url of #charts, anew each data-every seconds.
// Times are UTC, as on the whole page. Colours are the theme's, and follow it when it is switched.
"use strict";

(() => {
  const root = document.getElementById("charts");
  const HEIGHT = 150;
  const drawn = new Map(); // name: {plot, labels}
  let figures = null;

  const colour = (name) => {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    root.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };

  const clock = (at, day) => {
    const text = new Date(at * 1000).toISOString();
    return day ? text.slice(5, 16).replace("T", " ") : text.slice(11, 19);
  };

  const figure = (value) => (value == null ? "-" : value.toLocaleString("en", { maximumFractionDigits: 2 }));

  const options = (box, lines) => {
    const axis = { stroke: colour("--ops-text-quiet"), grid: { stroke: colour("--ops-grid-line"), width: 1 } };
    const ticks = { ...axis, ticks: { show: false }, font: "11px sans-serif" };
    return {
      width: box.clientWidth,
      height: HEIGHT,
      cursor: { sync: { key: "node" }, drag: { x: false, y: false } },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "UTC"), // where ticks fall
      scales: { x: { time: true }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : 1] } },
      axes: [
        { ...ticks, size: 24, space: 60, values: (_, splits) => splits.map((at) => clock(at).slice(0, 5)) },
        { ...ticks, size: 52, space: 30, values: (_, splits) => splits.map(figure) },
      ],
      series: [
        { label: "UTC", value: (_, at) => (at == null ? "-" : clock(at, true)) },
        ...lines.map((line, index) => ({
          label: line.label,
          stroke: colour(`--ops-series-${(index % 6) + 1}`),
          width: 1.5,
          points: { show: false },
          value: (_, value) => (value == null ? "-" : `${figure(value)} ${box.dataset.unit}`.trim()),
        })),
      ],
    };
  };

  const draw = (box) => {
    const lines = figures.charts[box.dataset.chart];
    const data = [figures.at, ...lines.map((line) => line.values)];
    const labels = lines.map((line) => line.label).join();
    const before = drawn.get(box);
    if (before && before.labels === labels) {
      before.plot.setData(data);
      return;
    }
    if (before) before.plot.destroy();
    drawn.set(box, { labels, plot: new uPlot(options(box, lines), data, box) });
  };

  const boxes = () => root.querySelectorAll("[data-chart]");

  const drawAnew = () => {
    for (const { plot } of drawn.values()) plot.destroy();
    drawn.clear();
    if (figures) boxes().forEach(draw);
  };

  const load = async () => {
    if (document.hidden) return;
    const answer = await fetch(root.dataset.url, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer || !answer.ok || answer.redirected) return; // live.js says that the manager does not answer
    figures = await answer.json();
    boxes().forEach(draw);
  };

  document.addEventListener("visibilitychange", load);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAnew);
  new MutationObserver(drawAnew).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  new ResizeObserver(() => {
    for (const [box, { plot }] of drawn) plot.setSize({ width: box.clientWidth, height: HEIGHT });
  }).observe(root);
  setInterval(load, root.dataset.every * 1000);
  load();
})();
