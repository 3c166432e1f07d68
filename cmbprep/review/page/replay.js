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
    const made = acts.flatMap((act) => act.type === "split" ? act.lesions
      : act.type === "add" || act.type === "merge" ? [act.lesion] : []);
    return made.length + 1;
  }

  function fresh(fields = {}) {
    return {
      verdict: "undecided", reason: null, region: null, zone: null, comment: "",
      centre_ijk: null, deleted_by: null, ...fields,
    };
  }

  /* State of a scan after the acts of a reader. `toVoxel` turns mm into voxels. */
  function replay(acts, items, scheme, toVoxel) {
    const { done, undone } = holding(acts);
    const state = {
      items: {}, order: [], finished: false, undo_depth: done.length, redo_depth: undone.length,
      scan: { siderosis: null, quality: null, findings: [], note: "" }, comment: "",
    };
    const listed = items.filter((item) => item.kind === "listed");
    for (const item of listed) state.items[item.key] = fresh();
    state.order = listed.map((item) => item.key);
    const original = new Map(items.map((item) => [item.key, item]));
    for (const act of done) apply(act, state, original, scheme, toVoxel);
    return state;
  }

  function apply(act, state, original, scheme, toVoxel) {
    const touch = (key) => {
      if (!state.items[key]) {
        // A candidate without a verdict does not keep the scan from being finished.
        state.items[key] = fresh({ verdict: null });
        state.order.push(key);
      }
      return state.items[key];
    };
    const place = (ras) => ({ centre_ras: ras, centre_ijk: toVoxel(ras), segmented: false, runs: [] });
    const regionOf = (key) => state.items[key].region ?? original.get(key)?.region ?? null;
    const zoneOf = (key) => state.items[key].zone ?? original.get(key)?.zone ?? null;
    const centreOf = (key) => state.items[key].centre_ras ?? original.get(key)?.centre_ras;
    const make = (key, fields) => {
      state.items[key] = fresh(fields);
      state.order.push(key);
    };
    state.finished = act.type === "finish";
    switch (act.type) {
      case "verdict":
        Object.assign(touch(act.lesion), { verdict: act.verdict, reason: act.reason ?? null });
        break;
      case "add":
        make(act.lesion, { verdict: act.verdict, ...place(act.centre_ras) });
        break;
      case "move":
        Object.assign(touch(act.lesion), place(act.centre_ras));
        break;
      case "merge": {
        const parts = act.lesions.map(touch);
        const verdict = SURENESS.find((one) => parts.some((part) => part.verdict === one));
        const centre = [0, 1, 2].map((axis) => act.lesions.reduce(
          (sum, key) => sum + centreOf(key)[axis] / act.lesions.length, 0));
        make(act.lesion, {
          verdict, region: regionOf(act.lesions[0]), zone: zoneOf(act.lesions[0]), ...place(centre),
        });
        for (const part of parts) part.deleted_by = act.lesion;
        break;
      }
      case "split": {
        const whole = touch(act.lesion);
        act.lesions.forEach((key, part) => make(key, {
          verdict: whole.verdict, reason: whole.reason, region: regionOf(act.lesion),
          zone: zoneOf(act.lesion), ...place(act.centres[part]),
        }));
        whole.deleted_by = act.lesions[0];
        break;
      }
      case "zone": {
        const region = scheme.regions.find((one) => one.name === act.region);
        Object.assign(touch(act.lesion), { region: act.region, zone: region?.zone ?? null });
        break;
      }
      case "comment":
        if (act.lesion) touch(act.lesion).comment = act.text;
        else state.comment = act.text;
        break;
      case "scan":
        Object.assign(state.scan, {
          siderosis: act.siderosis, quality: act.quality, findings: act.findings, note: act.note,
        });
        break;
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
})(window.cmb = window.cmb || {});
