(function () {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const drawn = [];

  function numbers(figure) {
    const { unit, low, step, series, places } = figure.dataset;
    const columns = series.split("|").map((text) => text.split(" ").map((each) => Number(low) + Number(unit) * Number(each)));
    return [places ? places.split(" ").map(Number) : columns[0].map((_, index) => index * Number(step)), ...columns];
  }

  function series(count, label) {
    const value = (_, number) => (number == null ? "-" : number.toPrecision(4));
    const line = (name, variable) => ({ label: name, stroke: () => colour(variable), width: 1, value });
    const columns = count === 1 ? [line("value", "--keep")]
      : [line("lowest", "--muted"), line("median", "--keep"), line("highest", "--muted")];
    return [{ label, value: (_, number) => (number == null ? "-" : String(number)) }, ...columns];
  }

  function move(plot, grow, shift) {
    const { min, max } = plot.scales.x, all = plot.data[0], least = all[0], most = all[all.length - 1];
    const half = Math.min((max - min) / 2 * grow, (most - least) / 2);
    const middle = Math.min(Math.max((min + max) / 2 + shift * (max - min), least + half), most - half);
    plot.setScale("x", { min: middle - half, max: middle + half });
  }

  function button(words, action) {
    const found = document.createElement("button");
    found.type = "button";
    found.textContent = words;
    found.addEventListener("click", action);
    return found;
  }

  function open(figure, opener) {
    const values = numbers(figure), box = document.createElement("div"), keys = document.createElement("div");
    const axis = { stroke: () => colour("--fg"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { stroke: () => colour("--line"), width: 1 } };
    box.className = "zoomed";
    keys.className = "tools";
    figure.insertBefore(box, figure.querySelector("figcaption"));
    figure.classList.add("open");
    opener.remove();
    const size = () => ({ width: Math.max(box.clientWidth, 240), height: 260 });
    const plot = new uPlot({
      ...size(), scales: { x: { time: false } }, series: series(values.length - 1, figure.dataset.label),
      axes: [axis, { ...axis, size: 60 }], cursor: { y: false },
    }, values, box);
    const actions = [["Zoom in", 0.5, 0], ["Zoom out", 2, 0], ["Earlier", 1, -0.25], ["Later", 1, 0.25], ["All", Infinity, 0]];
    keys.append(...actions.map(([words, grow, shift]) => button(words, () => move(plot, grow, shift))));
    box.append(keys);
    keys.firstChild.focus();
    new ResizeObserver(() => plot.setSize(size())).observe(figure);
    drawn.push(plot);
    figure.plot = plot;
  }

  for (const figure of document.querySelectorAll("figure.zoom")) {
    const opener = button("Zoom", () => open(figure, opener));
    opener.className = "opener";
    figure.insertBefore(opener, figure.querySelector("figcaption"));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((plot) => plot.redraw(false, true)));
})();
