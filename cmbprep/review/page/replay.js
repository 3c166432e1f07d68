"use strict";
/* What holds after a sequence of acts; the same rules as cmbprep/ratings/replay.py.
   Used where no server answers: the static page keeps its own acts. */
(function (cmb) {
  const SURENESS = ["definite", "possible", "undecided", "later", "rejected"];

  /* Split acts into those that hold and those that redo could bring back. */
  function holding(acts) {
    const done = [];
    let undone = [];
    for (const act of acts) {
      if (act.type === "undo") {
        if (done.length) undone.push(done.pop());
      } else if (act.type === "redo") {
        if (undone.length) done.push(undone.pop());
      } else {
        done.push(act);
        undone = [];
      }
    }
    return { done, undone };
  }

  /* Number of the next lesion that the reader makes; undone ones keep theirs. */
  function nextNew(acts) {
    const made = acts.flatMap((act) =>
      act.type === "split"
        ? act.lesions
        : act.type === "add" || act.type === "merge"
          ? [act.lesion]
          : [],
    );
    return made.length + 1;
  }

  /* Keys of the lesions that must be there for an act. */
  function named(act) {
    if (act.type === "merge") return act.lesions;
    const ofOne = ["verdict", "move", "zone", "split", "comment"].includes(act.type);
    return ofOne && act.lesion ? [act.lesion] : [];
  }

  function fresh(fields = {}) {
    return {
      verdict: "undecided",
      reason: null,
      region: null,
      zone: null,
      comment: "",
      centre_ijk: null,
      deleted_by: null,
      ...fields,
    };
  }

  /* State of a scan after the acts of a reader. `toVoxel` turns mm into voxels. */
  function replay(acts, items, scheme, toVoxel) {
    const { done, undone } = holding(acts);
    const reviewed = new ReviewState(items, scheme, toVoxel);
    for (const act of done) reviewed.apply(act);
    const { state } = reviewed;
    return { ...state, undo_depth: done.length, redo_depth: undone.length };
  }

  class ReviewState {
    constructor(items, scheme, toVoxel) {
      this.original = new Map(items.map((item) => [item.key, item]));
      this.scheme = scheme;
      this.toVoxel = toVoxel;
      this.state = {
        items: {},
        order: [],
        finished: false,
        scan: { siderosis: null, quality: null, findings: [], note: "" },
        comment: "",
      };
      for (const item of items) {
        if (item.kind === "listed") this.make(item.key, {});
      }
    }

    make(key, fields) {
      this.state.items[key] = fresh(fields);
      this.state.order.push(key);
      return this.state.items[key];
    }

    /* A candidate is taken up by the first act on it; only a verdict keeps the scan open. */
    touch(key) {
      return this.state.items[key] || this.make(key, { verdict: null });
    }

    place(ras) {
      return { centre_ras: ras, centre_ijk: this.toVoxel(ras), segmented: false, runs: [] };
    }

    /* What holds of a lesion: the reader's value, else that of the automatic result. */
    value(key, name) {
      return this.state.items[key][name] ?? this.original.get(key)?.[name] ?? null;
    }

    regionOf(key) {
      return { region: this.value(key, "region"), zone: this.value(key, "zone") };
    }

    /* Lesions that were replaced, or never made. */
    isGone(key) {
      const item = this.state.items[key];
      return item ? Boolean(item.deleted_by) : key[0] === "N";
    }

    /* An act of the type `scan` calls the method `scan`, and so on. One that does not fit changes
       nothing. */
    apply(act) {
      if (named(act).some((key) => this.isGone(key))) return;
      this.state.finished = false;
      this[act.type](act);
    }

    finish() {
      this.state.finished = true;
    }

    reopen() {}

    verdict({ lesion, verdict, reason }) {
      Object.assign(this.touch(lesion), { verdict, reason: reason ?? null });
    }

    add({ lesion, verdict, centre_ras: centre }) {
      this.make(lesion, { verdict, ...this.place(centre) });
    }

    move({ lesion, centre_ras: centre }) {
      Object.assign(this.touch(lesion), { region: null, zone: null, ...this.place(centre) });
    }

    merge({ lesion, lesions }) {
      const parts = lesions.map((key) => this.touch(key));
      const verdict = SURENESS.find((one) => parts.some((part) => part.verdict === one));
      const comments = parts.map((part) => part.comment).filter(Boolean);
      const centres = lesions.map((key) => this.value(key, "centre_ras"));
      const centre = [0, 1, 2].map(
        (axis) => centres.reduce((sum, one) => sum + one[axis], 0) / centres.length,
      );
      this.make(lesion, {
        verdict: verdict ?? "undecided",
        comment: [...new Set(comments)].join("; "),
        ...this.regionOf(lesions[0]),
        ...this.place(centre),
      });
      for (const part of parts) part.deleted_by = lesion;
    }

    split({ lesion, lesions, centres }) {
      const whole = this.touch(lesion);
      lesions.forEach((key, part) => {
        const { reason, comment } = whole;
        const verdict = whole.verdict ?? "undecided";
        const where = { ...this.regionOf(lesion), ...this.place(centres[part]) };
        this.make(key, { verdict, reason, comment, ...where });
      });
      whole.deleted_by = lesions[0];
    }

    zone({ lesion, region }) {
      const zone = this.scheme.regions.find((one) => one.name === region)?.zone ?? null;
      Object.assign(this.touch(lesion), { region, zone });
    }

    comment({ lesion, text }) {
      if (lesion) this.touch(lesion).comment = text;
      else this.state.comment = text;
    }

    scan({ siderosis, quality, findings, note }) {
      this.state.scan = { siderosis, quality, findings, note };
    }
  }

  /* Keys that keep a scan from being finished. */
  function openKeys(state) {
    return state.order.filter((key) => {
      const item = state.items[key];
      return !item.deleted_by && (item.verdict === "undecided" || item.verdict === "later");
    });
  }

  Object.assign(cmb, { replay, nextNew, openKeys });
})((window.cmb = window.cmb || {}));
