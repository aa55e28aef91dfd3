// Tables of the report: a click on a column's head sorts, a word in the box filters. Without scripts the page is whole,
// only neither of these.
"use strict";
(function () {
  const order = new Intl.Collator("en", { numeric: true }).compare; // b64 before b128
  const value = (row, i) => row.cells[i].textContent.trim();
  const key = (text) => {
    const number = parseFloat(text);
    return Number.isNaN(number) ? text : number;
  };

  function sortBy(table, i, head) {
    const down = head.getAttribute("aria-sort") !== "descending" && (head.classList.contains("n") || head.hasAttribute("aria-sort"));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, key: head.classList.contains("n") ? key(value(row, i)) : value(row, i) }));
    const missing = (k) => k === "" || k === "\u2013";
    rows.sort((a, b) => {
      if (missing(a.key) || missing(b.key)) return missing(a.key) - missing(b.key); // last, up or down
      const less = typeof a.key === "number" && typeof b.key === "number" ? a.key - b.key : order(String(a.key), String(b.key));
      return down ? -less : less;
    });
    table.tBodies[0].append(...rows.map((entry) => entry.row));
  }

  function makeSortable(table) {
    Array.from(table.tHead.rows[0].cells).forEach((head, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sortBy(table, i, head));
    });
  }

  function makeFilter(table, box) {
    const tools = document.createElement("div"), input = document.createElement("input"), count = document.createElement("span");
    const rows = Array.from(table.tBodies[0].rows), texts = rows.map((row) => row.textContent.toLowerCase());
    tools.className = "tools";
    input.type = "search";
    input.placeholder = "filter: words, -without";
    input.setAttribute("aria-label", "filter the rows of this table");
    count.setAttribute("aria-live", "polite");
    tools.append(input, count);
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter((word) => word && word !== "-");
      let shown = 0;
      rows.forEach((row, i) => {
        const fits = words.every((word) => (word[0] === "-" ? !texts[i].includes(word.slice(1)) : texts[i].includes(word)));
        row.hidden = !fits;
        shown += fits && !(table.classList.contains("nopeers") && row.classList.contains("peer"));
      });
      count.textContent = shown === rows.length ? rows.length + " rows" : shown + " of " + rows.length + " rows";
    };
    if (table.querySelector("tr.peer") && table.querySelector("tbody tr:not(.peer)")) {
      const label = document.createElement("label"), check = document.createElement("input");
      check.type = "checkbox";
      check.checked = true;
      check.addEventListener("change", () => {
        table.classList.toggle("nopeers", !check.checked);
        apply();
      });
      label.append(check, " peers");
      tools.append(label);
    }
    input.addEventListener("input", apply);
    apply();
    box.before(tools);
  }

  for (const table of document.querySelectorAll("table.data")) {
    makeSortable(table);
    if (table.tBodies[0].rows.length > 8) makeFilter(table, table.parentElement);
  }
})();
