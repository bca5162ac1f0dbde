"use strict";
// Without this script a page shows everything; with it tables are folded, sorted and filtered, and images enlarged.
const NUM_ROWS_TO_FILTER = 12;

function rowsOf(body) {
  // A part goes where the row above it goes.
  const groups = [];
  for (const row of body.rows) {
    if (row.classList.contains("heading")) continue;
    if (row.classList.contains("part") && groups.length) groups.at(-1).push(row);
    else groups.push([row]);
  }
  return groups;
}

function keyOf(row, column) {
  const text = row.cells[column] ? row.cells[column].textContent.trim() : "";
  const number = text.replace(/,/g, "").match(/^[-+–]?\d+(\.\d+)?/);
  return number ? parseFloat(number[0].replace("–", "-")) : text.toLowerCase();
}

function compare(first, second) {
  if (typeof first === typeof second) return first < second ? -1 : first > second ? 1 : 0;
  return typeof first === "number" ? -1 : 1;
}

function makeSortable(table) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    if (!title.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title.textContent;
    title.replaceChildren(button);
    button.addEventListener("click", () => {
      const isUp = title.getAttribute("aria-sort") !== "ascending";
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      for (const body of table.tBodies) {
        const groups = rowsOf(body);
        groups.sort((a, b) => (isUp ? 1 : -1) * compare(keyOf(a[0], column), keyOf(b[0], column)));
        groups.flat().forEach((row) => body.append(row));
      }
    });
  });
}

function makeFoldable(body) {
  const heading = body.querySelector("tr.heading td");
  if (!heading) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = heading.textContent;
  heading.replaceChildren(button);
  const show = (isShown) => {
    button.setAttribute("aria-expanded", isShown);
    rowsOf(body).flat().forEach((row) => { row.hidden = !isShown; });
  };
  button.addEventListener("click", () => show(button.getAttribute("aria-expanded") !== "true"));
  show(!body.classList.contains("folded"));
}

function makeFilterable(table) {
  const groups = [...table.tBodies].flatMap(rowsOf);
  if (groups.length < NUM_ROWS_TO_FILTER) return;
  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "filter rows";
  input.setAttribute("aria-label", "filter rows");
  table.parentElement.before(input);
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of groups.flat()) {
      row.classList.toggle("filtered", !row.textContent.toLowerCase().includes(wanted));
    }
  });
}

function makeEnlargeable(images) {
  const dialog = document.createElement("dialog");
  const large = document.createElement("img");
  dialog.append(large);
  document.body.append(dialog);
  dialog.addEventListener("click", () => dialog.close());
  for (const image of images) {
    image.tabIndex = 0;
    image.title = "full size";
    const open = () => {
      large.src = image.src;
      large.alt = image.alt;
      dialog.showModal();
    };
    image.addEventListener("click", open);
    image.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
  }
}

for (const table of document.querySelectorAll(".table table")) {
  if (!table.closest("article")) makeSortable(table);
  if (!table.closest("article")) makeFilterable(table);
  for (const body of table.tBodies) makeFoldable(body);
}
makeEnlargeable(document.querySelectorAll("main img"));
