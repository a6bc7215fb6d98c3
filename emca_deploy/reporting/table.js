"use strict";
(function () {
  const table = document.getElementById("cells");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const status = document.getElementById("table-status");
  const say = (text) => { status.textContent = text; };

  const value = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === undefined ? row.cells[column].textContent.trim() : text === "" ? null : Number(text);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));

  function sort(column, way) {
    const sign = way === "ascending" ? 1 : -1;
    const keyed = rows.map((row, index) => ({ row, index, key: value(row, column) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.index - b.index;
      return sign * compare(a.key, b.key) || a.index - b.index;
    });
    body.append(...keyed.map((each) => each.row));
    heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", way);
      else head.removeAttribute("aria-sort");
    });
    say("Sorted by " + heads[column].textContent.trim() + ", " + way + ".");
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      sort(column, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
    });
  });

  const filter = document.getElementById("filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const cells = Array.from(row.cells).filter((cell) => !cell.classList.contains("reason")); // it names other cells
      const text = cells.map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    say(shown + " of " + rows.length + " rows.");
  });

  function csv() {
    const data = document.getElementById("csv").href.split(",")[1];
    const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
    const lines = new TextDecoder().decode(bytes).trimEnd().split("\n");
    const visible = Array.from(body.rows).filter((row) => !row.hidden);
    return [lines[0], ...visible.map((row) => lines[1 + Number(row.dataset.line)])].join("\n") + "\n";
  }

  async function copy() {
    const text = csv();
    const count = text.split("\n").length - 2;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const copied = document.execCommand("copy");
      area.remove();
      if (!copied) return say("The browser does not allow copying: use the link to the CSV file.");
    }
    say(count + " rows copied as CSV.");
  }
  document.getElementById("copy").addEventListener("click", copy);

  function reveal(hash) {
    const target = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link) reveal(link.getAttribute("href"));
  });
  reveal(location.hash);
  window.addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details.against")) each.open = true;
  });

  document.getElementById("tools").hidden = false;
})();
