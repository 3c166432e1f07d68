"use strict";
// Pairs of visits: the table shows those of the scans that search, filters and brush choose.
(function (cmb) {
  class Pairs extends EventTarget {
    constructor(content, scans) {
      super();
      Object.assign(this, content, { scans });
      this.count = this.first.length;
      scans.addEventListener("change", () => this.choose());
      this.find();
    }

    values(column) {
      return this.data[column.name];
    }

    /* A pair is chosen with one of its scans; one without a scan in the rows, with its participant. */
    find() {
      const { scans } = this;
      const all = Array.from({ length: this.count }, (_, at) => at);
      if (!scans.filtered) {
        this.rows = all;
        return;
      }
      const chosen = new Set(scans.rows);
      const people = new Set(Array.from(scans.rows, (row) => scans.data.participant_id[row]));
      this.rows = all.filter((at) => {
        const own = [this.first[at], this.second[at]].filter((row) => row !== null);
        return own.length ? own.some((row) => chosen.has(row)) : people.has(this.data.participant_id[at]);
      });
    }

    choose() {
      this.find();
      this.dispatchEvent(new Event("change"));
    }
  }

  class PairTable extends cmb.PagedTable {
    row(at) {
      const pairs = this.source;
      const made = cmb.element("tr");
      for (const column of this.columns) {
        const value = pairs.values(column)[at];
        const first = column.name === "participant_id";
        const long = value?.length > 28 ? " long" : "";
        const cell = cmb.element(first ? "th" : "td", { class: column.kind + long });
        if (first) {
          cell.scope = "row";
          const address = pairs.scans.reports[pairs.second[at] ?? pairs.first[at]];
          cell.append(address ? cmb.element("a", { href: address }, value) : value);
        } else {
          // What was listed is told where the number is not known.
          const listed = column.listed && pairs.data[column.listed][at];
          cell.textContent = value ?? (listed ? `n/a, ${listed} listed` : "n/a");
        }
        made.append(cell);
      }
      return made;
    }
  }

  cmb.startPairs = async function () {
    const scans = await cmb.groupReady;
    cmb.pairs = new Pairs(await cmb.unpackJson("pairs"), scans);
    const [table, pager] = ["table-pairs", "pager-pairs"].map((id) => document.getElementById(id));
    new PairTable(table, pager, cmb.pairs, cmb.pairs.columns);
    table.dataset.ready = "";
  };
  cmb.startPairs().catch((error) => {
    console.error(error);
    const note = cmb.element("p", { class: "stop" }, `The pairs cannot be shown: ${error.message}`);
    document.getElementById("pager-pairs").replaceChildren(note);
  });
})((window.cmb = window.cmb || {}));
