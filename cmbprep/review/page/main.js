"use strict";
/* Start of the page: backend, keys, theme, and the way between work list and reading. */
(function (cmb) {
  const { h } = cmb;
  const THEME = "cmbprep-review-theme";
  const byId = (id) => document.getElementById(id);

  class App {
    constructor(backend) {
      this.backend = backend;
      this.reading = null;
      this.waiting = 0;
    }

    async start() {
      setTheme(readTheme());
      this.askFor(named());
      this.session = await this.backend.session();
      this.keys = new cmb.Keys(this.session.keys || {});
      this.help = new cmb.HelpDialog(byId("help"), this.keys);
      this.zones = new cmb.ZoneDialog(byId("zones"));
      this.list = new cmb.WorkList(byId("worklist"), (id) => this.openScan(id));
      this.buildTop();
      this.keys.addEventListener("change", () => cmb.showKeys(this.keys));
      document.addEventListener("keydown", (event) => this.onKey(event));
      document.addEventListener("click", (event) => this.onClick(event));
      window.addEventListener("hashchange", () => this.route());
      window.addEventListener("beforeunload", (event) => {
        if (this.waiting || this.backend.unsaved > 0) event.preventDefault();
      });
      await this.route();
    }

    buildTop() {
      const { session, backend } = this;
      const reader = [session.reader, `round ${session.round}`, session.blinded ? "blinded" : null]
        .filter(Boolean)
        .join(" · ");
      this.place = h("span", { class: "place" });
      this.saving = h("span", { class: "saving", role: "status" });
      this.exporting = backend.isStatic
        ? h(
            "button",
            {
              type: "button",
              class: "primary",
              id: "export",
              on: { click: () => this.exportActs() },
            },
            "Export the review",
          )
        : null;
      byId("top").replaceChildren(
        backend.isStatic
          ? h("strong", {}, "Review")
          : h(
              "a",
              { href: "#", class: "home" },
              "Work list ",
              h("kbd", { "data-key": "worklist" }),
            ),
        this.place,
        h("span", { class: "reader" }, reader),
        this.saving,
        this.exporting ?? "",
        cmb.actionButton("theme", "Theme"),
        cmb.actionButton("help", "Keys"),
      );
    }

    async loadList() {
      this.list.setRows(await this.backend.scans(), this.session.blinded);
    }

    /* Show what the address names: a scan or the work list. */
    async route() {
      const id = named();
      if (this.reading && this.reading.scan.id !== id) {
        this.reading.close();
        this.reading = null;
      }
      if (this.backend.isStatic) await this.showScan(this.backend.data.scan.id);
      else if (id) await this.showScan(id);
      else await this.showList();
      cmb.showKeys(this.keys);
    }

    /* Ask for the scan of the address before anything else is known: the answer is on its way
       meanwhile. */
    askFor(id) {
      if (!id || this.backend.isStatic) return;
      this.asked = { id, scan: this.backend.scan(id) };
      this.asked.scan.catch(() => {});
    }

    openScan(id) {
      location.hash = `scan=${encodeURIComponent(id)}`;
    }

    async showList() {
      this.opening = null;
      this.show("worklist", "");
      document.title = "Review of microbleeds";
      this.notice("");
      try {
        await this.loadList();
      } catch (error) {
        this.notice(error.message);
      }
      cmb.showKeys(this.keys);
    }

    async showScan(id) {
      if (this.reading) return;
      this.opening = id;
      try {
        const { asked } = this;
        this.asked = null;
        const scan = await (asked?.id === id ? asked.scan : this.backend.scan(id));
        // The reader may have gone elsewhere while the answer was on its way.
        if (this.opening !== id || this.reading) return;
        this.show("reading", scan.name);
        document.title = `${scan.name}: review of microbleeds`;
        this.notice(scan.locked || "");
        this.reading = new cmb.Reading(byId("reading"), this, scan);
        cmb.showKeys(this.keys);
        await this.reading.start();
        if (this.reading?.scan.id === id) document.body.dataset.ready = id;
      } catch (error) {
        this.notice(error.message);
      }
    }

    show(part, place) {
      for (const id of ["worklist", "reading"]) byId(id).hidden = id !== part;
      this.place.textContent = place;
      delete document.body.dataset.ready;
      byId(part).focus({ preventScroll: true });
    }

    /* A message that stays until the next act; an empty text takes it away. */
    notice(text) {
      byId("notice").textContent = text;
      byId("notice").hidden = !text;
    }

    showSaving(waiting, error) {
      this.waiting = waiting;
      this.saving.classList.toggle("failed", Boolean(error));
      this.saving.textContent = error
        ? `⚠ not saved (${waiting}): ${error.message} Trying again …`
        : waiting
          ? "saving …"
          : this.savedText();
    }

    savedText() {
      const { backend } = this;
      if (!backend.isStatic) return "✓ saved";
      if (backend.problem) return `⚠ ${backend.problem}`;
      return backend.unsaved > 0 ? `⚠ ${backend.unsaved} changes not exported` : "✓ exported";
    }

    onSaved() {
      if (!this.backend.isStatic) return;
      this.exporting.classList.toggle("urgent", this.backend.unsaved > 0);
    }

    onUpdate() {
      cmb.showKeys(this.keys);
      if (this.backend.isStatic && !this.waiting) this.saving.textContent = this.savedText();
    }

    exportActs() {
      const { backend } = this;
      const address = URL.createObjectURL(
        new Blob([backend.exportText()], { type: "application/json" }),
      );
      h("a", { href: address, download: backend.data.export_name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
      backend.markExported();
      this.saving.textContent = this.savedText();
      this.exporting.classList.remove("urgent");
      cmb.announce(
        `Exported to ${backend.data.export_name}. Send this file back to those who run the review.`,
      );
    }

    async nextUnread() {
      if (this.backend.isStatic) return;
      await this.loadList();
      const id = this.list.next(this.reading?.scan.id ?? null);
      if (id) this.openScan(id);
      else cmb.announce("No unread scan among those of the work list");
    }

    run(action) {
      const own = {
        help: () => this.help.open(),
        theme: () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"),
        worklist: () => {
          if (!this.backend.isStatic) location.hash = "";
        },
        nextUnread: () => this.nextUnread(),
      };
      const act = own[action] || this.reading?.actions[action];
      if (act) act();
      return Boolean(act);
    }

    onKey(event) {
      if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
      if (cmb.takesKeys(event.target)) {
        if (event.key === "Escape") event.target.blur();
        return;
      }
      // Enter and space press a button or follow a link that has the focus.
      const presses = event.key === "Enter" || event.key === " ";
      if (presses && event.target.closest("button, a, summary, input")) return;
      const part = this.reading || (byId("worklist").hidden ? null : this.list);
      if (part?.key(event)) event.preventDefault();
      else {
        const action = this.keys.find(event);
        if (action && this.run(action)) event.preventDefault();
      }
    }

    onClick(event) {
      const button = event.target.closest?.("button[data-action]");
      if (button) this.run(button.getAttribute("data-action"));
    }
  }

  /* The scan that the address names; empty for the work list. */
  function named() {
    return decodeURIComponent(location.hash.match(/^#scan=(.+)$/)?.[1] || "");
  }

  function readTheme() {
    try {
      return localStorage.getItem(THEME) || "dark";
    } catch {
      return "dark";
    }
  }

  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(THEME, theme);
    } catch {
      /* the theme holds until the page is closed */
    }
  }

  function chooseBackend() {
    const data = byId("review-data").textContent.trim();
    if (data) return new cmb.StaticBackend(JSON.parse(data));
    return new cmb.HttpBackend(new URLSearchParams(location.search).get("token") || "");
  }

  cmb.app = new App(chooseBackend());
  cmb.app.start().catch((error) => cmb.app.notice(error.message));
})((window.cmb = window.cmb || {}));
