"use strict";
/* The lesions of a scan as the reader sees them: automatic result and acts together. No DOM. */
(function (cmb) {
  const VERDICTS = {
    definite: { sign: "✓", text: "definite", colour: "#3fd07f" },
    possible: { sign: "?", text: "possible", colour: "#ffb000" },
    rejected: { sign: "✗", text: "rejected", colour: "#c58cff" },
    undecided: { sign: "·", text: "undecided", colour: "#56c8ff" },
    later: { sign: "…", text: "later", colour: "#ff8fb1" },
  };
  const REASONS = {
    vein: "vein",
    calcification: "calcification",
    sulcus: "sulcus or flow void",
    artefact: "artefact",
    other: "other",
  };
  const FINDINGS = {
    haemorrhage: "Intracerebral haemorrhage",
    infarct: "Infarct",
    cavernoma: "Cavernoma",
    malformation: "Vascular malformation",
    tumour: "Tumour",
    surgery: "After surgery",
    other: "Other finding",
  };

  /* One lesion: the fields of the automatic result under those of the reader. */
  function mergeItem(item, state) {
    const merged = { verdict: "undecided", ...item };
    for (const [name, value] of Object.entries(state || {})) {
      if (value !== null && value !== undefined) merged[name] = value;
    }
    return merged;
  }

  /* Lesions in reading order: listed, added, then candidates where they are shown. */
  function readingOrder(scan, state, showCandidates) {
    const original = new Map(scan.items.map((item) => [item.key, item]));
    const kind = (key) => (key.startsWith("N") ? "added" : "candidate");
    const keys = [...state.order];
    if (showCandidates) {
      const taken = new Set(keys);
      keys.push(...scan.items.filter((item) => !taken.has(item.key)).map((item) => item.key));
    }
    return keys
      .map((key) => mergeItem(original.get(key) || { key, kind: kind(key) }, state.items[key]))
      .filter((item) => !item.deleted_by);
  }

  /* Key `steps` places after a key; stops at the ends. */
  function neighbour(items, key, steps) {
    const at = items.findIndex((item) => item.key === key);
    if (at < 0) return items[0]?.key ?? null;
    return items[Math.min(items.length - 1, Math.max(0, at + steps))].key;
  }

  const isOpen = (item) => item.verdict === "undecided" || item.verdict === "later";

  /* Next lesion without a verdict after a key; null where all are decided. */
  function nextOpen(items, key) {
    const from = items.findIndex((item) => item.key === key) + 1;
    const turned = [...items.slice(from), ...items.slice(0, from)];
    return turned.find(isOpen)?.key ?? null;
  }

  /* Lesions that an act has changed, by comparing the states before and after. */
  function changedKeys(before, after) {
    const keys = new Set([...Object.keys(before.items), ...Object.keys(after.items)]);
    return [...keys].filter(
      (key) => JSON.stringify(before.items[key]) !== JSON.stringify(after.items[key]),
    );
  }

  /* What the list and the screen reader say of a lesion. */
  function verdictText(item) {
    const reason = item.verdict === "rejected" && item.reason ? `: ${REASONS[item.reason]}` : "";
    return VERDICTS[item.verdict].text + reason;
  }

  /* Name of another reader, with the round where it is not the first. */
  function readerName({ reader, round }) {
    return round > 1 ? `${reader}, round ${round}` : reader;
  }

  /* What other readers think of a lesion: [name, verdict]; only in sessions on disagreements. */
  function opinions(others, key) {
    return (others || [])
      .filter((other) => other.verdicts[key])
      .map((other) => [readerName(other), VERDICTS[other.verdicts[key]].text]);
  }

  /* Lesions that other readers have added. */
  function addedByOthers(others) {
    return (others || []).flatMap((other) =>
      other.added.map((item) => ({ ...item, name: `${readerName(other)}: ${item.key}` })),
    );
  }

  /* A probability, which is never shown as certain: rounding makes no 1 of 0.9997. */
  function probabilityText(value) {
    if (value === null || value === undefined) return null;
    if (value >= 0.9995) return ">0.999";
    return value < 0.0005 ? "<0.001" : Number(value).toFixed(3);
  }

  Object.assign(cmb, {
    opinions,
    probabilityText,
    addedByOthers,
    VERDICTS,
    REASONS,
    FINDINGS,
    readingOrder,
    neighbour,
    nextOpen,
    isOpen,
    changedKeys,
    verdictText,
  });
})((window.cmb = window.cmb || {}));
