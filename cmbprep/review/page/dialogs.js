"use strict";
/* Dialogs: keys and their change, the region of a lesion. */
(function (cmb) {
  const { h } = cmb;
  const MOUSE = [
    ["Click or drag", "Move the crosshair in all planes"],
    ["Wheel", "Slices"],
    ["Ctrl + wheel", "Zoom"],
    ["Right button or Ctrl, drag", "Window: up is brighter, right is less contrast"],
    ["Middle button or Shift, drag", "Move the image"],
    ["Tab", "Next plane, button or list"],
    ["Esc", "Leave a text field, a dialog, adding or splitting"],
  ];

  /* Put the present keys on all buttons and texts. */
  function showKeys(keys) {
    for (const mark of document.querySelectorAll("kbd[data-key]")) {
      mark.textContent = keys.hint(mark.getAttribute("data-key"));
    }
  }

  function row(text, what) {
    return h("tr", {}, h("th", { scope: "row" }, text), h("td", {}, what));
  }

  function table(title, rows) {
    return h("table", {}, h("caption", {}, title), h("tbody", {}, ...rows));
  }

  class HelpDialog {
    constructor(dialog, keys) {
      Object.assign(this, { dialog, keys, waiting: null });
      dialog.addEventListener("keydown", (event) => this.take(event), true);
      dialog.addEventListener("close", () => {
        this.waiting = null;
      });
    }

    open() {
      this.build();
      if (!this.dialog.open) this.dialog.showModal();
    }

    build() {
      const groups = {};
      for (const [action, [group]] of Object.entries(cmb.ACTIONS)) {
        (groups[group] ||= []).push(this.line(action));
      }
      const mouse = MOUSE.map(([what, text]) => row(text, what));
      this.message = h("p", { role: "status", class: "message" });
      const explanation =
        "Click a key to change it, then press the new one. Changes are kept in this browser.";
      this.dialog.replaceChildren(
        this.heading(),
        h("p", {}, explanation),
        this.message,
        h(
          "div",
          { class: "key-groups" },
          ...Object.entries({ ...groups, Mouse: mouse }).map(([title, rows]) => table(title, rows)),
        ),
      );
    }

    heading() {
      const close = cmb.button("Close", () => this.dialog.close(), {
        class: "primary",
        autofocus: true,
      });
      const reset = cmb.button("Original keys", () => {
        this.keys.reset();
        this.build();
      });
      return h("div", { class: "row" }, h("h2", { id: "help-title" }, "Keys"), close, reset);
    }

    /* What an action does, and its key as a button that changes it. */
    line(action) {
      const [, text] = cmb.ACTIONS[action];
      const hint = this.keys.hint(action);
      const label = `${text}: ${hint}. Change the key`;
      const attributes = { "data-rebind": action, "aria-label": label };
      return row(
        text,
        cmb.button(h("kbd", {}, hint), () => this.wait(action), attributes),
      );
    }

    wait(action) {
      this.waiting = action;
      this.message.textContent = `Press the new key for “${cmb.ACTIONS[action][1]}”, or Esc to leave it.`;
    }

    take(event) {
      if (!this.waiting) return;
      const key = cmb.keyOf(event);
      if (!key) return;
      event.preventDefault();
      event.stopPropagation();
      const action = this.waiting;
      this.waiting = null;
      let message = "The key was left as it is.";
      if (key === "Tab") message = "Tab moves between the parts of the page and cannot be used.";
      else if (key !== "Escape") {
        const other = this.keys.change(action, key);
        message = other
          ? `${cmb.printed(key)} is the key of “${cmb.ACTIONS[other][1]}” already. Nothing was changed.`
          : `${cmb.printed(key)}: ${cmb.ACTIONS[action][1]}`;
      }
      this.build();
      this.message.textContent = message;
      this.dialog.querySelector(`[data-rebind=${action}]`).focus();
    }
  }

  class ZoneDialog {
    constructor(dialog) {
      this.dialog = dialog;
    }

    /* Ask for a region; `take(name)` is called with the choice. */
    open(scheme, item, take) {
      const zones = [...new Set(scheme.regions.map((region) => region.zone))];
      const options = zones.map((zone) =>
        h(
          "optgroup",
          { label: zone },
          ...scheme.regions
            .filter((region) => region.zone === zone)
            .map((region) => h("option", { value: region.name }, region.name)),
        ),
      );
      const list = h(
        "select",
        {
          size: Math.min(16, scheme.regions.length + zones.length),
          id: "zone-choice",
          "aria-label": "Region",
          on: { dblclick: () => done() },
        },
        ...options,
      );
      list.value = item.region || "";
      if (list.selectedIndex < 0) list.selectedIndex = 0;
      const done = () => {
        this.dialog.close();
        if (list.value) take(list.value);
      };
      const form = h(
        "form",
        {
          on: {
            submit: (event) => {
              event.preventDefault();
              done();
            },
          },
        },
        h("h2", { id: "zones-title" }, `Region of ${item.key}`),
        h("p", { class: "quiet" }, `Scheme: ${scheme.name}`),
        list,
        h(
          "div",
          { class: "buttons" },
          h("button", { type: "submit", class: "primary" }, "Take this region"),
          h("button", { type: "button", on: { click: () => this.dialog.close() } }, "Cancel"),
        ),
      );
      list.addEventListener("keydown", (event) => {
        if (event.key === "Enter") {
          event.preventDefault();
          done();
        }
      });
      this.dialog.replaceChildren(form);
      this.dialog.showModal();
      list.focus();
    }
  }

  Object.assign(cmb, { showKeys, HelpDialog, ZoneDialog });
})((window.cmb = window.cmb || {}));
