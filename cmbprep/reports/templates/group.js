"use strict";
// The scans of a cohort: unpacked once; search, filters and brush choose rows for table, plots and map.
(function (cmb) {
  const PAGE_ROWS = 50;
  const collator = new Intl.Collator("en", { numeric: true });

  cmb.element = function (tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  /* Content of a packed element: gzip in base64. */
  cmb.unpackBytes = async function (id) {
    if (!window.DecompressionStream) throw new Error("this browser is too old: use one from 2023 or later");
    const text = atob(document.getElementById(id).textContent.trim());
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(plain).arrayBuffer();
  };
  cmb.unpackJson = async (id) => JSON.parse(new TextDecoder().decode(await cmb.unpackBytes(id)));

  /* Rows, and which of them are chosen. A change sends "change". */
  class Scans extends EventTarget {
    constructor(content) {
      super();
      Object.assign(this, content);
      this.count = this.data.scan.length;
      this.rating = "definite";
      this.grouping = "site";
      this.words = [];
      this.choices = {};
      this.brush = null;
      this.texts = null;
      this.rows = Uint32Array.from({ length: this.count }, (_, at) => at);
    }

    values(column) {
      return this.data[column.name.replace("{rating}", this.rating)];
    }

    /* What the search looks at, in small letters. */
    text(row) {
      this.texts ??= Array.from({ length: this.count }, (_, at) => this.describe(at));
      return this.texts[row];
    }

    describe(row) {
      const parts = [this.data.scan[row], this.data.reason[row] ?? ""];
      for (const column of this.columns) {
        if (column.kind === "text") parts.push(this.values(column)[row] ?? "");
      }
      for (const labels of Object.values(this.groups)) parts.push(labels[row]);
      return parts.join(" \u0001 ").toLowerCase();
    }

    get filtered() {
      return this.words.length > 0 || this.brush !== null || Object.values(this.choices).some(Boolean);
    }

    /* The only person among the chosen rows; null for none or several. */
    get person() {
      if (!this.filtered || !this.rows.length) return null;
      const first = this.data.participant_id[this.rows[0]];
      for (const row of this.rows) if (this.data.participant_id[row] !== first) return null;
      return first;
    }

    search(text) {
      this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
      this.choose();
    }

    /* Narrow to a value of a column; an empty value takes the limit away. */
    limit(name, value) {
      this.choices[name] = value;
      this.choose();
    }

    setBrush(rows) {
      this.brush = rows && rows.length ? new Set(rows) : null;
      this.choose();
    }

    set(changes) {
      const rated = "rating" in changes && changes.rating !== this.rating;
      Object.assign(this, changes);
      if (rated) this.texts = null;
      this.choose();
    }

    choose() {
      const limits = Object.entries(this.choices).filter(([, value]) => value);
      const columns = limits.map(([name, value]) => {
        const values = name in this.groups ? this.groups[name] : this.data[name.replace("{rating}", this.rating)];
        return [values, value];
      });
      // A whole name means that person alone, not everybody whose name begins so.
      const exact = this.words.length === 1 && this.people().has(this.words[0]) ? this.words[0] : null;
      const found = [];
      for (let row = 0; row < this.count; row++) {
        if (this.brush && !this.brush.has(row)) continue;
        if (exact && this.data.participant_id[row].toLowerCase() !== exact) continue;
        if (!columns.every(([values, value]) => (values[row] ?? "n/a") === value)) continue;
        if (!exact && this.words.length && !this.words.every((word) => this.text(row).includes(word))) continue;
        found.push(row);
      }
      this.rows = Uint32Array.from(found);
      this.dispatchEvent(new Event("change"));
    }

    people() {
      this.names ??= new Set(this.data.participant_id.map((name) => name.toLowerCase()));
      return this.names;
    }
  }

  /* One page of the chosen rows of a source at a time; the heads sort. A source has rows, values of
     a column, and sends "change". */
  class PagedTable {
    constructor(table, pager, source, columns) {
      Object.assign(this, { table, pager, source, columns });
      this.sort = { column: null, up: true };
      this.page = 0;
      this.ranks = new Map();
      this.head();
      this.body = table.tBodies[0];
      this.info = pager.querySelector(".pager-info");
      this.buttons = [...pager.querySelectorAll("button")];
      this.buttons.forEach((button) => button.addEventListener("click", () => this.turn(button.dataset.turn)));
      source.addEventListener("change", () => {
        this.page = 0;
        this.draw();
      });
      this.draw();
    }

    /* Headings; those of columns that belong together stand under one. */
    head() {
      const [over, row] = [cmb.element("tr"), cmb.element("tr")];
      for (const column of this.columns) {
        const button = cmb.element("button", { type: "button" }, column.title);
        const cell = cmb.element("th", { scope: "col", class: column.kind, "aria-sort": "none" }, button);
        button.addEventListener("click", () => this.sortBy(column));
        column.cell = cell;
        row.append(cell);
        const last = over.lastElementChild;
        if (column.over && last?.textContent === column.over) last.colSpan += 1;
        else if (column.over) over.append(cmb.element("th", { scope: "colgroup", class: "over" }, column.over));
        else over.append(cmb.element("td"));
      }
      const several = this.columns.some((column) => column.over);
      this.table.tHead.replaceChildren(...(several ? [over, row] : [row]));
    }

    sortBy(column) {
      const same = this.sort.column === column;
      this.sort = { column, up: same ? !this.sort.up : column.kind === "text" };
      for (const other of this.columns) other.cell.setAttribute("aria-sort", "none");
      column.cell.setAttribute("aria-sort", this.sort.up ? "ascending" : "descending");
      this.page = 0;
      this.draw();
    }

    /* Place of each row in the order of a column, computed once. */
    rank(column) {
      const values = this.source.values(column);
      if (!this.ranks.has(values)) {
        const order = Array.from(values.keys());
        const text = column.kind === "text";
        const known = order.filter((row) => values[row] !== null && values[row] !== undefined);
        known.sort((a, b) => (text ? collator.compare(values[a], values[b]) : values[a] - values[b]) || a - b);
        const ranks = new Float64Array(values.length).fill(NaN);
        let rank = -1;
        known.forEach((row, at) => {
          if (!at || values[row] !== values[known[at - 1]]) rank += 1;
          ranks[row] = rank;
        });
        this.ranks.set(values, ranks);
      }
      return this.ranks.get(values);
    }

    ordered() {
      const { rows } = this.source;
      if (!this.sort.column) return rows;
      const ranks = this.rank(this.sort.column);
      const sign = this.sort.up ? 1 : -1;
      // Missing values are last, whichever way.
      return Array.from(rows).sort((a, b) => {
        const [x, y] = [ranks[a], ranks[b]];
        if (x !== x || y !== y) return (x !== x) - (y !== y) || a - b;
        return sign * (x - y) || a - b;
      });
    }

    turn(direction) {
      const last = Math.max(0, Math.ceil(this.source.rows.length / PAGE_ROWS) - 1);
      const pages = { first: 0, back: this.page - 1, on: this.page + 1, last };
      this.page = Math.min(last, Math.max(0, pages[direction]));
      this.draw();
    }

    draw() {
      const rows = this.ordered();
      const from = this.page * PAGE_ROWS;
      const shown = rows.slice(from, from + PAGE_ROWS);
      this.body.replaceChildren(...Array.from(shown, (row) => this.row(row)));
      const end = from + shown.length;
      this.info.textContent = shown.length ? `Rows ${from + 1} to ${end} of ${rows.length}` : "No row";
      const last = end >= rows.length;
      for (const button of this.buttons) {
        button.disabled = ["first", "back"].includes(button.dataset.turn) ? this.page === 0 : last;
      }
    }

  }
  cmb.PagedTable = PagedTable;

  class ScanTable extends PagedTable {
    constructor(table, pager, scans) {
      const columns = [{ name: "scan", title: "Scan", kind: "text" }, ...scans.columns];
      // A column without a value says nothing, nor does the source where all rows have the same.
      const said = columns.filter((column) => {
        const values = new Set(scans.values(column));
        values.delete(null);
        return values.size > (column.name === "source" ? 1 : 0);
      });
      super(table, pager, scans, said);
    }

    row(row) {
      const scans = this.source;
      const made = cmb.element("tr");
      const status = scans.data.status[row];
      if (status === "failed" || status === "incomplete") made.className = "bad";
      for (const column of this.columns) {
        const value = scans.values(column)[row];
        const cell = cmb.element(column.name === "scan" ? "th" : "td", { class: column.kind });
        if (column.name === "scan") {
          cell.scope = "row";
          const address = scans.reports[row];
          cell.append(address ? cmb.element("a", { href: address }, value) : value);
        } else {
          cell.textContent = value ?? "n/a";
          if (column.name === "status" && scans.data.reason[row]) cell.title = scans.data.reason[row];
        }
        made.append(cell);
      }
      return made;
    }
  }

  /* Search box, choices and what they have found. */
  function connectControls(scans) {
    const box = document.getElementById("search");
    const found = document.getElementById("found");
    const clear = document.getElementById("clear");
    const selects = [...document.querySelectorAll("select[data-limit]")];
    for (const select of selects) {
      const name = select.dataset.limit;
      const values = name in scans.groups ? scans.groups[name] : scans.data[name.replace("{rating}", "any")];
      const known = [...new Set(values.map((value) => value ?? "n/a"))].sort(collator.compare);
      if (known.length < 2) select.closest("label").hidden = true;
      select.append(...known.map((value) => cmb.element("option", { value }, value)));
      select.addEventListener("change", () => scans.limit(name, select.value));
    }
    box.addEventListener("input", () => scans.search(box.value));
    clear.addEventListener("click", () => {
      box.value = "";
      selects.forEach((select) => (select.value = ""));
      Object.assign(scans, { choices: {}, words: [], brush: null });
      cmb.clearBrush?.();
      scans.choose();
      box.focus();
    });
    for (const choice of document.querySelectorAll("select[data-set]")) {
      choice.addEventListener("change", () => scans.set({ [choice.dataset.set]: choice.value }));
    }
    const show = () => {
      clear.hidden = !scans.filtered;
      found.textContent = sentence(scans);
      markGroups(scans);
      for (const node of document.querySelectorAll("[data-rated]")) node.hidden = node.dataset.rated !== scans.rating;
    };
    scans.addEventListener("change", show);
    show();
  }

  function sentence(scans) {
    const rows = scans.rows.length;
    if (!scans.filtered) return `${scans.count} rows`;
    if (!rows) return "No row has all of this";
    const person = scans.person;
    if (!person) return `${rows} of ${scans.count} rows, marked in all plots`;
    const first = scans.rows[0];
    const counts = Array.from(scans.rows, (row) => scans.values({ name: "n_{rating}" })[row] ?? "n/a");
    const word = scans.rating === "definite" ? "definite" : "definite or possible";
    return `${person}: ${rows} ${rows === 1 ? "row" : "rows"}, ${scans.groups.site[first]}; ${word} microbleeds: ${counts.join(", ")}`;
  }

  /* Mark the groups that the only chosen person belongs to. */
  function markGroups(scans) {
    const person = scans.person !== null;
    for (const row of document.querySelectorAll("tr[data-group]")) {
      const labels = scans.groups[row.dataset.by];
      const here = person && Array.from(scans.rows).some((at) => labels[at] === row.dataset.group);
      row.classList.toggle("here", here);
    }
  }

  cmb.openReport = function (rows) {
    const address = rows.length ? cmb.scans.reports[rows[0]] : null;
    if (address) window.open(address, "_blank", "noopener");
    else document.getElementById("found").textContent = `There is no report of ${cmb.scans.data.scan[rows[0]]}`;
  };

  /* Choose which table of an outcome or a rating is seen. */
  function connectViews() {
    for (const select of document.querySelectorAll("select[data-views]")) {
      const views = document.querySelectorAll(`[data-view-of="${select.dataset.views}"]`);
      const show = () => views.forEach((view) => (view.hidden = view.dataset.view !== select.value));
      select.addEventListener("change", show);
      show();
    }
  }

  cmb.startGroup = async function () {
    connectViews();
    const content = await cmb.unpackJson("rows");
    cmb.scans = new Scans(content);
    new ScanTable(document.getElementById("table-scans"), document.getElementById("pager"), cmb.scans);
    connectControls(cmb.scans);
    document.body.dataset.ready = "table";
    // The texts for the search are made before the first word is typed.
    (window.requestIdleCallback ?? setTimeout)(() => cmb.scans.text(0));
    return cmb.scans;
  };
  cmb.groupReady = cmb.startGroup().catch((error) => {
    const box = document.getElementById("found");
    box.setAttribute("role", "alert");
    box.textContent = `The rows cannot be shown: ${error.message}. They are in group_cmb.tsv.`;
    throw error;
  });
})((window.cmb = window.cmb || {}));
