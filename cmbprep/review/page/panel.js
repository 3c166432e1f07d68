"use strict";
/* The panel beside the images: list of lesions, the current one, the scan as a whole. */
(function (cmb) {
  const { h } = cmb;
  const LONGEST = 4000;

  class Panel {
    /* `reading` answers `current()`, `select(key)` and `act(act)`. */
    constructor(root, reading, session) {
      this.reading = reading;
      this.session = session;
      this.rows = new Map();
      this.pressed = {};
      root.replaceChildren(this.listSection(), this.currentSection(), this.scanSection());
    }

    listSection() {
      this.summary = h("p", { class: "summary" });
      this.bar = h("progress", { max: 1, value: 0, "aria-label": "Lesions decided" });
      this.list = h("ol", { class: "items" });
      return h(
        "section",
        { class: "lesions", "aria-label": "Lesions" },
        h("div", { class: "row" }, h("h2", {}, "Lesions"), this.bar),
        this.summary,
        h("div", { class: "item-box" }, this.list),
        h(
          "div",
          { class: "buttons" },
          cmb.actionButton("previous", "Previous"),
          cmb.actionButton("next", "Next"),
          cmb.actionButton("nextOpen", "Undecided"),
          this.toggle("candidates", "Candidates"),
        ),
      );
    }

    toggle(action, text) {
      this.pressed[action] = cmb.actionButton(action, text, { "aria-pressed": "false" });
      return this.pressed[action];
    }

    currentSection() {
      this.title = h("h2", {});
      this.facts = h("dl", { class: "facts" });
      this.mode = h("p", { class: "mode", role: "status", hidden: true });
      this.comment = h("input", {
        type: "text",
        maxlength: LONGEST,
        id: "comment",
        on: { change: () => this.saveComment(), keydown: leaveOnEnter },
      });
      const verdict = (action, text) => this.toggle(action, text);
      return h(
        "section",
        { class: "current", "aria-label": "Current lesion" },
        this.title,
        this.facts,
        this.othersAdded(),
        this.otherVisits(),
        h(
          "div",
          { class: "buttons verdicts", role: "group", "aria-label": "Verdict" },
          verdict("definite", "✓ Definite"),
          verdict("possible", "? Possible"),
          verdict("undecided", "· Undecided"),
          verdict("later", "… Later"),
        ),
        h(
          "div",
          { class: "buttons reasons", role: "group", "aria-label": "Reject" },
          h("span", { class: "quiet" }, "✗ Reject:"),
          verdict("vein", "Vein"),
          verdict("calcification", "Calcification"),
          verdict("sulcus", "Flow void"),
          verdict("artefact", "Artefact"),
          verdict("other", "Other"),
          verdict("reject", "None"),
        ),
        h(
          "label",
          { class: "field wide" },
          h("span", {}, "Comment ", h("kbd", { "data-key": "comment" })),
          this.comment,
        ),
        h(
          "div",
          { class: "buttons", role: "group", "aria-label": "Changes" },
          this.toggle("addByClick", "Add by click"),
          cmb.actionButton("add", "Add here"),
          cmb.actionButton("addPossible", "Add possible"),
          cmb.actionButton("move", "Move here"),
          cmb.actionButton("zone", "Region"),
          this.toggle("mark", "Mark"),
          cmb.actionButton("merge", "Merge marked"),
          this.toggle("split", "Split"),
          this.toggle("undo", "Undo"),
          this.toggle("redo", "Redo"),
        ),
        this.mode,
      );
    }

    /* Places of lesions that other readers have added; null where there are none. */
    othersAdded() {
      const added = cmb.addedByOthers(this.reading.scan.others);
      if (!added.length) return null;
      const buttons = added.map((item) =>
        cmb.button(`${item.name} ${cmb.VERDICTS[item.verdict].sign}`, () =>
          this.reading.display.view.goTo(item.centre_ijk, true),
        ),
      );
      return h(
        "div",
        { class: "buttons others", role: "group", "aria-label": "Added by other readers" },
        h("span", { class: "quiet" }, "Added by others:"),
        ...buttons,
      );
    }

    /* Follow-ups with other visits; null where there are none. */
    otherVisits() {
      const { display } = this.reading;
      return cmb.visitsBox(this.reading.scan.followup, {
        goTo: (ijk) => display.view.goTo(ijk, true),
        beside: (image) => display.show(display.other, image),
      });
    }

    scanSection() {
      const change = () => this.saveScan();
      this.siderosis = cmb.select(
        "Siderosis",
        [
          ["", "not stated"],
          ["no", "absent"],
          ["yes", "present"],
        ],
        "",
        change,
      );
      this.quality = cmb.select(
        "Image quality",
        [
          ["", "not stated"],
          ["good", "good"],
          ["usable", "usable"],
          ["unusable", "unusable"],
        ],
        "",
        change,
      );
      this.findings = Object.entries(cmb.FINDINGS).map(([code, text]) => [
        code,
        cmb.check(text, false, change),
      ]);
      this.note = h("textarea", { maxlength: LONGEST, rows: 2, id: "note", on: { change } });
      this.state = h("p", { class: "scan-state" });
      this.finish = cmb.actionButton("finish", "Whole scan read, nothing to add", {
        class: "primary",
      });
      this.reopen = cmb.actionButton("reopen", "Reopen");
      const next = this.reading.backend.isStatic
        ? null
        : cmb.actionButton("nextUnread", "Next scan");
      return h(
        "section",
        { class: "whole", "aria-label": "Whole scan" },
        h(
          "details",
          {},
          h("summary", {}, "Siderosis, image quality, other findings, note"),
          h("div", { class: "row" }, this.siderosis, this.quality),
          h(
            "div",
            { class: "checks", role: "group", "aria-label": "Other findings" },
            ...this.findings.map(([, label]) => label),
          ),
          h(
            "label",
            { class: "field wide" },
            h("span", {}, "Note on the scan ", h("kbd", { "data-key": "note" })),
            this.note,
          ),
        ),
        this.state,
        h("div", { class: "buttons" }, this.finish, this.reopen, next),
      );
    }

    saveComment() {
      const item = this.reading.current();
      if (item && this.comment.value !== (item.comment || "")) {
        this.reading.act({ type: "comment", lesion: item.key, text: this.comment.value });
      }
    }

    saveScan() {
      const siderosis = { "": null, yes: true, no: false }[
        this.siderosis.querySelector("select").value
      ];
      const findings = this.findings
        .filter(([, label]) => label.querySelector("input").checked)
        .map(([code]) => code);
      this.reading.act({
        type: "scan",
        siderosis,
        quality: this.quality.querySelector("select").value || null,
        findings,
        note: this.note.value,
      });
    }

    /* Show a state: all lesions, the current one, the scan. */
    update(items, current, state, extras) {
      this.showList(items, current, extras);
      this.showSummary(items, state);
      this.showCurrent(items.find((item) => item.key === current) || null, extras);
      this.showScan(state, extras);
    }

    showList(items, current, { marked }) {
      const rows = items.map((item) => this.row(item, item.key === current, marked.has(item.key)));
      // Rows that stay keep their place and focus; the list is changed only where it differs.
      if (
        rows.length !== this.list.children.length ||
        rows.some((row, at) => this.list.children[at] !== row)
      ) {
        this.list.replaceChildren(...rows);
      }
      const known = new Set(items.map((item) => item.key));
      for (const key of this.rows.keys()) {
        if (!known.has(key)) this.rows.delete(key);
      }
      this.scrollTo(current);
    }

    row(item, isCurrent, isMarked) {
      let entry = this.rows.get(item.key);
      if (!entry) {
        const parts = {
          sign: h("span", { class: "sign" }),
          key: h("b", {}),
          place: h("span", { class: "place" }),
          verdict: h("span", { class: "verdict" }),
        };
        const button = h(
          "button",
          { type: "button", on: { click: () => this.reading.select(item.key) } },
          parts.sign,
          parts.key,
          parts.place,
          parts.verdict,
        );
        entry = { parts, button, row: h("li", {}, button) };
        this.rows.set(item.key, entry);
      }
      const { parts, button, row } = entry;
      const status = cmb.followupText(this.reading.scan.followup, item.key);
      setText(parts.sign, cmb.VERDICTS[item.verdict].sign);
      setText(parts.key, item.key);
      setText(parts.place, placeText(item) || (item.kind === "added" ? "added" : ""));
      setText(
        parts.verdict,
        [
          ...(isMarked ? ["marked"] : []),
          listText(item),
          ...(status ? [status] : []),
          ...(item.comment ? ["comment"] : []),
        ].join(", "),
      );
      button.setAttribute("aria-current", String(isCurrent));
      // One stop for the Tab key, however long the list is.
      button.tabIndex = isCurrent ? 0 : -1;
      button.className = `item verdict-${item.verdict}`;
      return row;
    }

    scrollTo(key) {
      const row = this.rows.get(key)?.row;
      if (!row || this.scrolled === key) return;
      this.scrolled = key;
      const box = this.list.parentElement;
      const [top, bottom] = [row.offsetTop, row.offsetTop + row.offsetHeight];
      if (top < box.scrollTop) box.scrollTop = top;
      if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
    }

    showSummary(items, state) {
      const counted = items.filter(
        (item) => item.kind !== "candidate" || state.items[item.key]?.verdict,
      );
      const decided = counted.filter((item) => !cmb.isOpen(item)).length;
      const number = (verdict) => counted.filter((item) => item.verdict === verdict).length;
      this.bar.max = Math.max(1, counted.length);
      this.bar.value = decided;
      setText(
        this.summary,
        `${decided} of ${counted.length} decided: ${number("definite")} definite, ` +
          `${number("possible")} possible, ${number("rejected")} rejected`,
      );
    }

    showCurrent(item, { readOnly }) {
      setText(this.title, item ? `${item.key}: ${placeText(item) || "no region"}` : "No lesion");
      this.facts.replaceChildren(...(item ? this.factsOf(item) : []));
      if (document.activeElement !== this.comment || this.commentOf !== item?.key)
        this.comment.value = item?.comment || "";
      this.commentOf = item?.key;
      this.comment.disabled = readOnly || !item;
      const on = item?.verdict === "rejected" ? item.reason || "reject" : item?.verdict;
      for (const action of [
        "definite",
        "possible",
        "undecided",
        "later",
        "reject",
        ...Object.keys(cmb.REASONS),
      ]) {
        this.pressed[action].setAttribute("aria-pressed", String(action === on));
      }
    }

    factsOf(item) {
      const number = (value, digits, unit = "") =>
        value === null || value === undefined ? null : `${Number(value).toFixed(digits)}${unit}`;
      const hidden = this.session.blinded;
      const facts = [
        ["Verdict", cmb.verdictText(item)],
        ...cmb.opinions(this.reading.scan.others, item.key),
        ...cmb.followupFacts(this.reading.scan.followup, item.key),
        ["Diameter", number(item.diameter_mm, 1, " mm")],
        ["Volume", number(item.volume_mm3, 1, " mm³")],
        ["Zone", item.zone],
        ["Contrast", number(item.contrast, 2)],
        ["Susceptibility", item.susceptibility],
        ["Probability", hidden ? null : cmb.probabilityText(item.probability)],
        ["Rating", hidden ? null : item.rating],
        [
          "Outline",
          item.segmented === false
            ? this.reading.backend.isStatic
              ? "follows on import"
              : "none: a point only"
            : null,
        ],
      ];
      return facts
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))));
    }

    showScan(state, { readOnly, toggles, mode }) {
      const { scan } = state;
      this.siderosis.querySelector("select").value =
        scan.siderosis === true ? "yes" : scan.siderosis === false ? "no" : "";
      this.quality.querySelector("select").value = scan.quality || "";
      for (const [code, label] of this.findings)
        label.querySelector("input").checked = scan.findings.includes(code);
      if (document.activeElement !== this.note) this.note.value = scan.note || "";
      setText(
        this.state,
        state.finished ? "● Whole scan read" : "○ Not finished: does not count as read yet",
      );
      this.finish.hidden = state.finished;
      this.reopen.hidden = !state.finished;
      this.pressed.undo.disabled = readOnly || !state.undo_depth;
      this.pressed.redo.disabled = readOnly || !state.redo_depth;
      for (const [action, on] of Object.entries(toggles))
        this.pressed[action].setAttribute("aria-pressed", String(on));
      this.mode.hidden = !mode;
      setText(this.mode, mode || "");
    }
  }

  function placeText(item) {
    return [item.hemisphere, item.region].filter(Boolean).join(" ");
  }

  function listText(item) {
    const untouched = item.kind === "candidate" && item.verdict === "undecided";
    return untouched ? "below the threshold" : cmb.verdictText(item);
  }

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function leaveOnEnter(event) {
    if (event.key === "Enter") event.target.blur();
  }

  Object.assign(cmb, { Panel });
})((window.cmb = window.cmb || {}));
