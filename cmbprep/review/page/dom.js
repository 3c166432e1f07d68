"use strict";
/* Elements without HTML text: labels of any content are shown as text. */
(function (cmb) {
  /* Make an element. Attributes: `on` (event -> function), `class`, any other as it is;
     true sets an empty attribute, false, null and undefined leave it out. Children: nodes and texts. */
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") {
        for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
      } else if (value !== false && value !== null && value !== undefined) {
        element.setAttribute(name, value === true ? "" : value);
      }
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function button(text, click, attributes = {}) {
    return h("button", { type: "button", on: { click }, ...attributes }, text);
  }

  /* A labelled selection box; options are [value, text]. */
  function select(label, options, value, change, attributes = {}) {
    const chosen = () => {
      change(box.value);
      // After a choice by mouse the keys belong to the page again.
      if (!box.matches(":focus-visible")) box.blur();
    };
    const box = h(
      "select",
      { ...attributes, on: { change: chosen } },
      ...options.map(([key, text]) => h("option", { value: key }, text)),
    );
    box.value = value;
    return h("label", { class: "field" }, h("span", {}, label), box);
  }

  /* A check box with its text. */
  function check(label, checked, change) {
    const box = h("input", { type: "checkbox", on: { change: () => change(box.checked) } });
    box.checked = checked;
    return h("label", { class: "check" }, box, " ", label);
  }

  /* Whether keys typed at an element belong to it. */
  function takesKeys(element) {
    return (
      element instanceof HTMLElement &&
      (element.matches("textarea, select, input:not([type=checkbox]):not([type=radio])") ||
        element.isContentEditable)
    );
  }

  const announcer = () => document.getElementById("announcer");

  /* Read a text out to screen readers, and show it in the line of messages. */
  function announce(text) {
    announcer().textContent = text;
  }

  function newId() {
    if (crypto.randomUUID) return crypto.randomUUID();
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  }

  Object.assign(cmb, { h, button, select, check, takesKeys, announce, newId });
})((window.cmb = window.cmb || {}));
