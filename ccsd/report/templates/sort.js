// A click on a heading sorts its table; numbers are sorted as numbers, and rows marked as totals stay at the bottom.
document.querySelectorAll("table.sortable").forEach((table) => {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.sort ?? cell.textContent.trim();
      };
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        const [u, v] = [Number(x), Number(y)];
        if (Number.isNaN(u) || Number.isNaN(v)) return x.localeCompare(y);
        return u - v;
      };
      const rows = [...body.rows];
      const totals = rows.filter((row) => row.classList.contains("total"));
      const others = rows.filter((row) => !row.classList.contains("total")).sort(compare);
      body.append(...(down ? others.reverse() : others), ...totals);
    });
  });
});
