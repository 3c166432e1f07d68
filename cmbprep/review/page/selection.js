"use strict";
/* Which scans of the work list are shown, and in which order. No DOM. */
(function (cmb) {
  const NO_FILTER = {
    search: "",
    status: "",
    only: "",
    sample: 0,
    seed: 0,
    list: null,
    sort: "name",
    descending: false,
  };
  const SORTED_BY = {
    name: (row) => row.name,
    status: (row) => ["unread", "partly", "done"].indexOf(row.status),
    definite: (row) => row.n_definite,
    possible: (row) => row.n_possible,
    candidates: (row) => row.n_candidates,
    reviewed: (row) => row.n_reviewed,
    sequence: (row) => row.protocol?.sequence,
    field: (row) => row.protocol?.field_T,
    te: (row) => row.protocol?.te_s,
    slice: (row) => row.protocol?.slice_mm,
    flags: (row) => row.flags?.length,
  };
  const ONLY = {
    positive: (row) => (row.n_definite || 0) + (row.n_possible || 0) > 0,
    doubtful: (row) => row.doubtful ?? row.n_possible > 0,
    disagreement: (row) => row.disagreement === true,
    flagged: (row) => row.stale || row.flags?.length > 0,
  };

  /* 32-bit FNV-1a hash, so that a sample depends on the seed and not on the order of the rows. */
  function hash(text) {
    let value = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(text)) {
      value = Math.imul(value ^ byte, 0x01000193) >>> 0;
    }
    return value;
  }

  /* Names of `count` scans drawn at random; the same seed draws the same scans. */
  function sample(names, count, seed) {
    const drawn = names.map((name) => [hash(`${seed}:${name}`), name]);
    drawn.sort((one, other) => one[0] - other[0] || (one[1] < other[1] ? -1 : 1));
    return new Set(drawn.slice(0, count).map(([, name]) => name));
  }

  /* Names of a list: one per line, the first word of each; text after "#" is a remark. */
  function parseList(text) {
    const words = text.split(/\r?\n/).map(
      (line) =>
        line
          .replace(/#.*/, "")
          .trim()
          .split(/[\s,;]+/)[0],
    );
    return new Set(words.filter(Boolean));
  }

  function isListed(row, list) {
    const names = [
      row.id,
      row.name,
      row.participant,
      [row.participant, row.session].filter(Boolean).join("_"),
    ];
    return names.some((name) => name && list.has(name));
  }

  function selectRows(rows, filter) {
    const words = filter.search.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = rows;
    if (filter.list) kept = kept.filter((row) => isListed(row, filter.list));
    if (ONLY[filter.only]) kept = kept.filter(ONLY[filter.only]);
    if (filter.sample > 0) {
      // The sample is drawn before the reader's progress is looked at, so that it stays the same.
      const names = sample(
        kept.map((row) => row.name),
        filter.sample,
        filter.seed,
      );
      kept = kept.filter((row) => names.has(row.name));
    }
    if (filter.status) kept = kept.filter((row) => row.status === filter.status);
    kept = kept.filter((row) => {
      const text = [
        row.name,
        row.participant,
        row.session,
        row.protocol?.sequence,
        ...(row.flags || []),
      ]
        .join(" ")
        .toLowerCase();
      return words.every((word) => text.includes(word));
    });
    return sortRows(kept, filter.sort, filter.descending);
  }

  /* Sorted rows; unknown values come last either way. */
  function sortRows(rows, column, descending) {
    const value = SORTED_BY[column] || SORTED_BY.name;
    const compare = (one, other) => {
      const [a, b] = [value(one), value(other)];
      const [noA, noB] = [a === null || a === undefined, b === null || b === undefined];
      if (noA || noB) return noA - noB;
      const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
      return descending ? -order : order;
    };
    return [...rows].sort(
      (one, other) =>
        compare(one, other) || one.name.localeCompare(other.name, "en", { numeric: true }),
    );
  }

  /* Id of the first scan after `id` that is not done; the search begins again at the top. */
  function nextUnread(rows, id = null) {
    const from = rows.findIndex((row) => row.id === id) + 1;
    const turned = [...rows.slice(from), ...rows.slice(0, from)];
    return turned.find((row) => row.status !== "done" && row.id !== id)?.id ?? null;
  }

  Object.assign(cmb, { NO_FILTER, sample, parseList, selectRows, sortRows, nextUnread });
})((window.cmb = window.cmb || {}));
