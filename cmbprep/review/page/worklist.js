"use strict";
/* The work list: one row per scan, with filters and progress. */
(function (cmb) {
  const { h } = cmb;
  const STATUS = { unread: ["○", "unread"], partly: ["◐", "partly read"], done: ["●", "done"] };
  const STORED = "cmbprep-review-filter";
  /* column -> [title, text of a row, kind]; columns without any value are left out. */
  const COLUMNS = {
    name: ["Scan", (row) => row.name, "text"],
    status: ["Status", (row) => STATUS[row.status].join(" "), "text"],
    flags: ["Check", (row) => remarks(row).join("; ") || null, "text"],
    definite: ["Definite", (row) => row.n_definite, "number"],
    possible: ["Possible", (row) => row.n_possible, "number"],
    candidates: ["Candidates", (row) => row.n_candidates, "number"],
    reviewed: ["Reviewed", (row) => row.n_reviewed, "number"],
    sequence: ["Sequence", (row) => row.protocol?.sequence, "text"],
    field: ["Field (T)", (row) => row.protocol?.field_T, "number"],
    te: ["TE (ms)", (row) => milliseconds(row.protocol?.te_s), "number"],
    slice: ["Slice (mm)", (row) => rounded(row.protocol?.slice_mm), "number"],
  };

  function rounded(value) {
    return value === null || value === undefined ? null : String(Math.round(value * 100) / 100);
  }

  function milliseconds(seconds) {
    const all = [seconds].flat().filter((value) => value !== null && value !== undefined);
    return all.length ? all.map((value) => rounded(value * 1000)).join(", ") : null;
  }

  function remarks(row) {
    return [
      ...(row.stale ? ["review of an older result"] : []),
      ...(row.disagreement ? ["readers disagree"] : []),
      ...(row.flags || []),
    ];
  }

  class WorkList {
    constructor(root, open) {
      this.root = root;
      this.open = open;
      this.rows = [];
      this.filter = { ...cmb.NO_FILTER, ...this.storedFilter() };
    }

    storedFilter() {
      try {
        const { list, ...filter } = JSON.parse(sessionStorage.getItem(STORED) || "{}");
        return list ? { ...filter, list: new Set(list) } : filter;
      } catch {
        return {};
      }
    }

    setFilter(changes) {
      Object.assign(this.filter, changes);
      const list = this.filter.list && [...this.filter.list];
      try {
        sessionStorage.setItem(STORED, JSON.stringify({ ...this.filter, list }));
      } catch {
        /* the filter holds until the page is closed */
      }
      this.refresh();
    }

    shown() {
      return cmb.selectRows(this.rows, this.filter);
    }

    next(id = null) {
      return cmb.nextUnread(this.shown(), id);
    }

    setRows(rows, blinded) {
      this.rows = rows;
      this.blinded = blinded;
      this.columns = Object.keys(COLUMNS).filter(
        (column) =>
          column === "name" ||
          rows.some((row) => ![null, undefined].includes(COLUMNS[column][1](row))),
      );
      this.build();
    }

    build() {
      this.progress = h("div", { class: "progress" });
      this.body = h("tbody");
      this.heads = this.columns.map((column) =>
        h(
          "th",
          { scope: "col", class: COLUMNS[column][2] },
          h(
            "button",
            { type: "button", on: { click: () => this.sortBy(column) } },
            COLUMNS[column][0],
          ),
        ),
      );
      this.count = h("p", { class: "quiet", role: "status" });
      this.root.replaceChildren(
        h("h1", {}, "Work list"),
        this.progress,
        this.filters(),
        this.count,
        h(
          "div",
          { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scans" },
          h(
            "table",
            { class: "worklist" },
            h("caption", { class: "hidden" }, "Scans to read"),
            h("thead", {}, h("tr", {}, ...this.heads)),
            this.body,
          ),
        ),
      );
      this.refresh();
    }

    filters() {
      const { filter } = this;
      const change = (name) => (value) => this.setFilter({ [name]: value });
      this.search = h("input", {
        type: "search",
        placeholder: "name or flag",
        value: filter.search,
        on: { input: () => this.setFilter({ search: this.search.value }) },
      });
      const number = (label, name, shown) => {
        const box = h("input", { type: "number", min: 0, step: 1, value: shown });
        box.addEventListener("input", () =>
          this.setFilter({ [name]: Math.max(0, Number(box.value)) }),
        );
        return h("label", { class: "field short" }, h("span", {}, label), box);
      };
      return h(
        "form",
        {
          class: "filters",
          "aria-label": "Filters",
          on: { submit: (event) => event.preventDefault() },
        },
        h("label", { class: "field" }, h("span", {}, "Search (/)"), this.search),
        cmb.select(
          "Status",
          [
            ["", "any status"],
            ["unread", "unread"],
            ["partly", "partly read"],
            ["done", "done"],
          ],
          filter.status,
          change("status"),
        ),
        cmb.select("Show", this.choices(), filter.only, change("only")),
        number("Random sample", "sample", filter.sample || ""),
        number("Seed", "seed", filter.seed),
        this.listField(),
        h("button", { type: "button", on: { click: () => this.clear() } }, "Clear filters"),
        h(
          "button",
          { type: "button", class: "primary", on: { click: () => this.openNext() } },
          "Next unread ",
          h("kbd", { "data-key": "nextUnread" }),
        ),
      );
    }

    /* What can be shown alone; the counts of the machine are not for a blinded reader. */
    choices() {
      const choices = [["", "all scans"]];
      if (!this.blinded)
        choices.push(["positive", "positive scans"], ["doubtful", "doubtful scans"]);
      if (this.rows.some((row) => typeof row.disagreement === "boolean")) {
        choices.push(["disagreement", "readers disagree"]);
      }
      choices.push(["flagged", "scans to check"]);
      return choices;
    }

    listField() {
      const file = h("input", {
        type: "file",
        accept: ".txt,.tsv,.csv,text/plain",
        on: {
          change: async () =>
            file.files[0] && this.setFilter({ list: cmb.parseList(await file.files[0].text()) }),
        },
      });
      return h("label", { class: "field" }, h("span", {}, "Scans of a list (one per line)"), file);
    }

    clear() {
      const { sort, descending } = this.filter;
      this.setFilter({ ...cmb.NO_FILTER, sort, descending });
      this.build();
    }

    openNext() {
      const id = this.next();
      if (id) this.open(id);
      else cmb.announce("No unread scan among those shown");
    }

    sortBy(column) {
      const again = this.filter.sort === column;
      this.setFilter({ sort: column, descending: again && !this.filter.descending });
    }

    refresh() {
      const rows = this.shown();
      this.heads.forEach((head, at) => {
        const sorted = this.columns[at] === this.filter.sort;
        head.setAttribute(
          "aria-sort",
          sorted ? (this.filter.descending ? "descending" : "ascending") : "none",
        );
      });
      this.body.replaceChildren(...rows.map((row) => this.row(row)));
      const list = this.filter.list ? `; list of ${this.filter.list.size} names` : "";
      this.count.textContent = `${rows.length} of ${this.rows.length} scans shown${list}`;
      this.showProgress();
    }

    row(row) {
      const cells = this.columns.slice(1).map((column) => {
        const [, text, kind] = COLUMNS[column];
        return h(
          "td",
          { class: `${kind} column-${column}` },
          text(row) === null || text(row) === undefined ? "" : String(text(row)),
        );
      });
      // A long name may break after each of its parts.
      const parts = row.name.split(/(?<=_)/).flatMap((part) => [part, h("wbr")]);
      const link = h("a", { href: `#scan=${encodeURIComponent(row.id)}` }, ...parts);
      return h(
        "tr",
        { class: `status-${row.status}`, "data-id": row.id },
        h("th", { scope: "row" }, link),
        ...cells,
      );
    }

    showProgress() {
      const done = this.rows.filter((row) => row.status === "done").length;
      const partly = this.rows.filter((row) => row.status === "partly").length;
      const text = `${done} of ${this.rows.length} scans done, ${partly} partly read`;
      const bar = h("progress", {
        max: Math.max(1, this.rows.length),
        value: done,
        "aria-label": text,
      });
      this.progress.replaceChildren(bar, h("span", {}, text));
    }

    /* Keys of the list: "/" to search, arrows between scans. Returns whether a key was taken. */
    key(event) {
      if (event.key === "/") this.search.focus();
      else if (event.key === "ArrowDown" || event.key === "ArrowUp")
        this.moveFocus(event.key === "ArrowDown" ? 1 : -1);
      else return false;
      return true;
    }

    moveFocus(step) {
      const links = [...this.body.querySelectorAll("a")];
      const at = links.indexOf(document.activeElement);
      links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + step))]?.focus();
    }
  }

  Object.assign(cmb, { WorkList, remarks });
})((window.cmb = window.cmb || {}));
