"use strict";
/* Actions of the page, their keys, and changes of keys by the reader. */
(function (cmb) {
  /* action -> [group, what it does, default key] */
  const ACTIONS = {
    next: ["Lesions", "Next lesion", "n"],
    previous: ["Lesions", "Previous lesion", "b"],
    nextOpen: ["Lesions", "Next undecided lesion", "e"],
    candidates: ["Lesions", "Show or hide candidates below the threshold", "k"],
    centre: ["Lesions", "Back to the lesion", "Enter"],
    definite: ["Verdict", "Definite microbleed", "d"],
    possible: ["Verdict", "Possible microbleed", "p"],
    reject: ["Verdict", "Reject without a reason", "r"],
    vein: ["Verdict", "Reject: vein", "1"],
    calcification: ["Verdict", "Reject: calcification", "2"],
    sulcus: ["Verdict", "Reject: sulcus or flow void", "3"],
    artefact: ["Verdict", "Reject: artefact", "4"],
    other: ["Verdict", "Reject: other", "5"],
    undecided: ["Verdict", "Undecided", "u"],
    later: ["Verdict", "Decide later", "l"],
    add: ["Changes", "Add a definite lesion at the crosshair", "a"],
    addPossible: ["Changes", "Add a possible lesion at the crosshair", "Shift+a"],
    addByClick: ["Changes", "Add a lesion by a click (on or off)", "y"],
    move: ["Changes", "Move the lesion to the crosshair", "m"],
    mark: ["Changes", "Mark the lesion for merging", "t"],
    merge: ["Changes", "Merge the marked lesions", "g"],
    split: ["Changes", "Split the lesion; again: a part at the crosshair", "x"],
    zone: ["Changes", "Change the region", "z"],
    comment: ["Changes", "Comment on the lesion", "c"],
    note: ["Changes", "Note on the scan", "Shift+c"],
    undo: ["Changes", "Undo", "Ctrl+z"],
    redo: ["Changes", "Redo", "Ctrl+y"],
    finish: ["Scan", "Whole scan read, nothing to add", "Shift+f"],
    reopen: ["Scan", "Reopen the scan", "Shift+o"],
    nextUnread: ["Scan", "Next unread scan", "Shift+n"],
    worklist: ["Scan", "Work list", "w"],
    sliceUp: ["Display", "Next slice of the active plane", "ArrowUp"],
    sliceDown: ["Display", "Previous slice of the active plane", "ArrowDown"],
    slicesUp: ["Display", "Five slices on", "PageUp"],
    slicesDown: ["Display", "Five slices back", "PageDown"],
    plane: ["Display", "Next plane", "q"],
    enlarge: ["Display", "Enlarge the active plane (on or off)", "f"],
    crossLeft: ["Display", "Crosshair to the left", "Shift+ArrowLeft"],
    crossRight: ["Display", "Crosshair to the right", "Shift+ArrowRight"],
    crossUp: ["Display", "Crosshair up", "Shift+ArrowUp"],
    crossDown: ["Display", "Crosshair down", "Shift+ArrowDown"],
    panLeft: ["Display", "Move the image to the left", "Ctrl+ArrowLeft"],
    panRight: ["Display", "Move the image to the right", "Ctrl+ArrowRight"],
    panUp: ["Display", "Move the image up", "Ctrl+ArrowUp"],
    panDown: ["Display", "Move the image down", "Ctrl+ArrowDown"],
    zoomIn: ["Display", "Zoom in", "+"],
    zoomOut: ["Display", "Zoom out", "-"],
    fit: ["Display", "Fit the image", "Home"],
    darker: ["Display", "Darker", "6"],
    brighter: ["Display", "Brighter", "7"],
    lessContrast: ["Display", "Less contrast", "8"],
    moreContrast: ["Display", "More contrast", "9"],
    resetWindow: ["Display", "Original window", "0"],
    slab: ["Display", "Minimum-intensity slab (on or off)", "s"],
    thinner: ["Display", "Thinner slab", ","],
    thicker: ["Display", "Thicker slab", "."],
    image: ["Display", "Next image", "i"],
    beside: ["Display", "Next image beside it", "v"],
    outlines: ["Display", "Outlines (on or off)", "o"],
    crosshair: ["Display", "Crosshair (on or off)", "h"],
    smooth: ["Display", "Interpolation (on or off)", "Shift+s"],
    convention: ["Display", "Radiological or neurological display", "Shift+r"],
    theme: ["Display", "Dark or light page", "Shift+t"],
    help: ["Display", "Keys", "?"],
  };
  // Actions that go on while a key is held; all others happen once per press.
  const REPEATED = new Set([
    "next",
    "previous",
    "sliceUp",
    "sliceDown",
    "slicesUp",
    "slicesDown",
    "crossLeft",
    "crossRight",
    "crossUp",
    "crossDown",
    "panLeft",
    "panRight",
    "panUp",
    "panDown",
    "zoomIn",
    "zoomOut",
    "darker",
    "brighter",
    "lessContrast",
    "moreContrast",
  ]);
  const STORED = "cmbprep-review-keys";
  const NAMES = {
    ArrowUp: "↑",
    ArrowDown: "↓",
    ArrowLeft: "←",
    ArrowRight: "→",
    PageUp: "Page↑",
    PageDown: "Page↓",
  };
  const MODIFIERS = ["Control", "Shift", "Alt", "Meta", "AltGraph", "Dead", "CapsLock"];

  /* Key of an event, for instance "d", "Shift+a", "Ctrl+z", "?"; null for a modifier alone. */
  function keyOf(event) {
    if (MODIFIERS.includes(event.key)) return null;
    const isLetter = /^\p{L}$/u.test(event.key);
    const isSign = event.key.length === 1 && !isLetter && event.key !== " ";
    const key = event.key === " " ? "Space" : isLetter ? letter(event) : event.key;
    // AltGr makes signs, and sends Ctrl and Alt along.
    const plain = Boolean(event.getModifierState?.("AltGraph"));
    const modifiers = {
      "Ctrl+": (event.ctrlKey || event.metaKey) && !plain,
      "Alt+": event.altKey && !plain,
      // Shift is part of a sign such as "?".
      "Shift+": event.shiftKey && !isSign,
    };
    return (
      Object.keys(modifiers)
        .filter((name) => modifiers[name])
        .join("") + key
    );
  }

  /* Latin letter of a key; on a keyboard of another script, the letter at its place. */
  function letter(event) {
    const placed = /^Key([A-Z])$/.exec(event.code);
    const isLatin = /^\p{Script=Latin}$/u.test(event.key);
    return (isLatin || !placed ? event.key : placed[1]).toLowerCase();
  }

  /* Key as it is printed on a button. */
  function printed(key) {
    const parts = key === "+" || key.endsWith("++") ? [key] : key.split("+");
    return parts
      .map((part) => NAMES[part] || (part.length === 1 ? part.toUpperCase() : part))
      .join("+");
  }

  class Keys extends EventTarget {
    constructor(given = {}, storage = window.localStorage) {
      super();
      this.storage = storage;
      this.defaults = Object.fromEntries(
        Object.entries(ACTIONS).map(([action, [, , key]]) => [action, given?.[action] || key]),
      );
      this.load();
    }

    load() {
      let stored = {};
      try {
        stored = JSON.parse(this.storage.getItem(STORED) || "{}");
      } catch {
        /* without storage the defaults hold */
      }
      this.changed = {};
      for (const [action, key] of Object.entries(stored)) {
        if (action in ACTIONS && typeof key === "string") this.changed[action] = key;
      }
    }

    of(action) {
      return this.changed[action] || this.defaults[action];
    }

    hint(action) {
      return printed(this.of(action));
    }

    find(event) {
      const key = keyOf(event);
      const action = key && Object.keys(ACTIONS).find((one) => this.of(one) === key);
      return event.repeat && !REPEATED.has(action) ? null : action;
    }

    /* Give an action another key. Returns the action that has the key already, else null. */
    change(action, key) {
      const other = Object.keys(ACTIONS).find((one) => one !== action && this.of(one) === key);
      if (other) return other;
      this.changed[action] = key;
      this.save();
      return null;
    }

    reset() {
      this.changed = {};
      this.save();
    }

    save() {
      try {
        this.storage.setItem(STORED, JSON.stringify(this.changed));
      } catch {
        /* the change holds until the page is closed */
      }
      this.dispatchEvent(new Event("change"));
    }
  }

  Object.assign(cmb, { ACTIONS, Keys, keyOf, printed });
})((window.cmb = window.cmb || {}));
