"use strict";
/* Reading one scan: its images and lesions, and what the reader does with them. */
(function (cmb) {
  const { h } = cmb;
  /* What is said of a lesion without an outline; true where no server can segment. */
  const POINT = {
    true: "It is outlined when the exported file is imported.",
    false: "Nothing could be outlined there: it is kept as a point.",
  };
  /* What is said of a lesion outside the brain mask. */
  const OUTSIDE = "It counts all the same: move or reject it if the crosshair was misplaced.";
  const VERDICT_ACTIONS = {
    definite: "definite",
    possible: "possible",
    undecided: "undecided",
    later: "later",
  };

  class Reading {
    /* `app` has the backend, the session, the dialogs and the places of messages. */
    constructor(root, app, scan) {
      Object.assign(this, { root, app, scan, backend: app.backend });
      this.state = scan.state;
      this.currentKey = null;
      this.showCandidates = false;
      this.marked = new Set();
      this.split = null;
      this.readOnly = Boolean(scan.locked);
      const { dataset, reader, round } = app.session;
      this.queue = new cmb.ActQueue(app.backend, scan.id, {
        kept: app.backend.isStatic
          ? null
          : new cmb.DiskCopy(["unsent", dataset, reader, round, scan.id].join("|")),
        last: scan.last_act,
        onDone: (answer, act) => this.take(answer, act),
        onRefused: (error, act) => this.refused(error, act),
        onStatus: (waiting, error) => app.showSaving(waiting, error),
      });
      this.build();
      this.actions = { ...this.display.actions(), ...this.ownActions() };
      this.onShown = () => this.catchUp();
      document.addEventListener("visibilitychange", this.onShown);
    }

    /* Take over what the same reader has done in another tab, when this one is shown again. */
    async catchUp() {
      if (document.hidden || this.readOnly) return;
      const scan = await this.backend.scan(this.scan.id).catch(() => null);
      if (!scan || this.closed || this.queue.waiting.length) return;
      if (JSON.stringify(scan.state) === JSON.stringify(this.state)) return;
      this.state = scan.state;
      this.queue.last = scan.last_act ?? this.queue.last;
      cmb.announce("This scan was changed in another tab: its state is shown.");
      if (this.current()) this.update();
      else this.select(this.items()[0]?.key ?? null);
    }

    build() {
      const display = h("div", { class: "display" });
      const panel = h("aside", { class: "panel", "aria-label": "Review" });
      this.root.replaceChildren(
        h("h1", { class: "hidden" }, `Reading ${this.scan.name}`),
        display,
        panel,
      );
      this.display = new cmb.Display(display, this.scan, {
        loadImage: (image, first, seen) => this.backend.image(this.scan.id, image, first, seen),
        onPick: (ijk) => this.pick(ijk),
      });
      this.panel = new cmb.Panel(panel, this, this.app.session);
    }

    /* Load the first image, then the outlines. */
    async start() {
      if (this.scan.stale && !this.readOnly) {
        this.app.notice(
          "This review was begun on an older result of the program. Its lesions are the same.",
        );
      }
      if (this.scan.left_open) {
        this.app.notice(
          `This scan was opened under the same name and round by ${this.scan.left_open}, and not closed ` +
            "there. If it is still open there, close it first.",
        );
      }
      cmb.announce(this.startText());
      if (!this.readOnly) await this.resume();
      if (this.closed) return;
      const first = this.items().find(cmb.isOpen) || this.items()[0];
      this.select(first?.key ?? null);
      await this.display.show(this.display.main, this.scan.images[0].id);
      try {
        this.display.setRegions(await this.backend.outlines(this.scan.id));
      } catch (error) {
        if (this.closed) return;
        this.app.notice(`Outlines cannot be shown: ${error.message}`);
      }
      if (!this.closed) this.update();
    }

    /* What is to be done on a scan that was just opened. */
    startText() {
      const items = this.items();
      if (this.state.finished) return "The whole scan was read.";
      if (!items.length) {
        return "No lesion is listed: look through the whole scan, add what is missing, then finish.";
      }
      return `${items.filter(cmb.isOpen).length} of ${items.length} lesions are undecided.`;
    }

    async resume() {
      const { sent, lost } = await this.queue.resume();
      if (sent) cmb.announce(`${sent} acts that were not stored before are sent now.`);
      if (lost) {
        this.app.notice(
          `${lost} acts were not stored when this page was closed, and the scan was read on since: ` +
            "they are not used.",
        );
      }
    }

    close() {
      this.closed = true;
      document.removeEventListener("visibilitychange", this.onShown);
      this.display.close();
      this.root.replaceChildren();
    }

    items() {
      return cmb.readingOrder(this.scan, this.state, this.showCandidates);
    }

    current() {
      return this.items().find((item) => item.key === this.currentKey) || null;
    }

    select(key) {
      this.currentKey = key;
      const item = this.current();
      if (item) this.display.view.goTo(item.centre_ijk, true);
      this.update();
    }

    update() {
      const items = this.items();
      this.display.setItems(items, this.currentKey);
      this.panel.update(items, this.currentKey, this.state, {
        marked: this.marked,
        readOnly: this.readOnly,
        mode: this.modeText(),
        toggles: {
          candidates: this.showCandidates,
          addByClick: this.display.view.tool === "add",
          mark: this.marked.has(this.currentKey),
          split: Boolean(this.split),
        },
      });
      this.app.onUpdate();
    }

    modeText() {
      if (this.split) {
        return (
          `Splitting ${this.split.lesion}: ${this.split.points.length} parts set. Click the middle of each part, ` +
          `or set the crosshair there and press ${this.app.keys.hint("split")}. Enter ends, Esc cancels.`
        );
      }
      if (this.display.view.tool === "add") return "A click adds a definite lesion. Esc ends.";
      if (this.marked.size) return `Marked for merging: ${[...this.marked].join(", ")}`;
      return "";
    }

    act(act) {
      if (this.readOnly) {
        this.app.notice(this.scan.locked);
        return;
      }
      this.made = this.currentKey;
      this.queue.push(act);
    }

    /* Take over the state after an act. */
    take({ state, act: saved, outside_brain: outside }, act) {
      const before = this.state;
      this.state = state;
      if (this.closed) return;
      const place = saved.lesion || act.lesion;
      this.app.notice(outside ? `${place} lies outside the brain mask. ${OUTSIDE}` : "");
      this.app.onSaved(state);
      if (act.type === "undo" || act.type === "redo") this.showChange(before, state, act.type);
      else if (["add", "merge"].includes(act.type)) this.showMade([saved.lesion], act.type);
      else if (act.type === "split") this.showMade(saved.lesions, act.type);
      else this.update();
      if (act.type === "finish")
        cmb.announce(
          this.backend.isStatic
            ? "The whole scan is read. Export the review and send the file back."
            : `The whole scan is read. ${this.app.keys.hint("nextUnread")} opens the next one.`,
        );
      if (act.type === "move") cmb.announce(`${act.lesion} was moved.`);
    }

    /* Go to what was made, unless the reader has gone on while it was segmented: a key must
       never judge another lesion than the one that was on the screen. */
    showMade(keys, type) {
      this.marked.clear();
      const stayed = this.currentKey === this.made && !this.queue.waiting.length;
      const item = this.items().find((one) => one.key === keys[0]);
      if (stayed) this.currentKey = keys[0];
      else if (!this.current()) this.currentKey = this.items()[0]?.key ?? null;
      const point = item?.segmented === false ? ` ${POINT[this.backend.isStatic]}` : "";
      cmb.announce(
        `${{ add: "Added", merge: "Merged into", split: "Split into" }[type]} ${keys.join(", ")}.${point}`,
      );
      this.update();
    }

    /* After undo and redo, go to the lesion that has changed. */
    showChange(before, after, type) {
      const items = this.items();
      const changed = cmb.changedKeys(before, after);
      const there = changed.find((key) => items.some((item) => item.key === key));
      cmb.announce(
        `${type === "undo" ? "Undone" : "Done again"}${changed.length ? `: ${changed.join(", ")}` : ""}.`,
      );
      if (there && !this.queue.waiting.length) this.select(there);
      else if (!this.current()) this.select(items[0]?.key ?? null);
      else this.update();
    }

    refused(error, act) {
      this.app.notice(`Not done (${act.type}): ${error.message}`);
      if (this.closed) return;
      const open = error.body?.open?.[0];
      if (act.type === "finish" && open) this.select(open);
      else this.update();
    }

    /* Judge the current lesion and go on to the next one. */
    judge(verdict, reason = null) {
      const item = this.current();
      if (!item) return;
      const act = { type: "verdict", lesion: item.key, verdict };
      if (reason) act.reason = reason;
      this.act(act);
      const items = this.items();
      const next = cmb.neighbour(items, item.key, 1);
      const word = cmb.verdictText({ verdict, reason });
      if (next === item.key) {
        cmb.announce(`${item.key} ${word}. ${this.endText(items)}`);
        this.update();
      } else {
        this.select(next);
        const place = items.findIndex((one) => one.key === next) + 1;
        cmb.announce(`${item.key} ${word}. Now ${next}, ${place} of ${items.length}.`);
      }
    }

    /* What to do at the end of the list. */
    endText(items) {
      const sent = new Set(this.queue.waiting.map((act) => act.lesion));
      const left = items.filter((item) => cmb.isOpen(item) && !sent.has(item.key)).length;
      if (left) {
        return `End of the list; ${left} undecided: ${this.app.keys.hint("nextOpen")} goes to the next.`;
      }
      return "All are decided: look through the whole scan, add what is missing, then finish.";
    }

    world(ijk = this.display.view.cursor) {
      return new cmb.Volume({ ...this.scan, window: [0, 1] }, [])
        .toWorld(ijk)
        .map((value) => Math.round(value * 1000) / 1000);
    }

    add(verdict, ijk = this.display.view.cursor) {
      const there =
        this.backend.isStatic && this.items().find((item) => this.display.regionOf(item)?.has(ijk));
      // A server segments at once and refuses by itself; a static page can look at the outlines.
      if (there) this.app.notice(`${there.key} is at this place already.`);
      else this.act({ type: "add", centre_ras: this.world(ijk), verdict });
    }

    /* A click in a plane while adding or splitting. */
    pick(ijk) {
      this.display.view.goTo(ijk);
      if (this.split) this.addPart(ijk);
      else this.add("definite", ijk);
    }

    addPart(ijk) {
      this.split.points.push(this.world(ijk));
      cmb.announce(`Part ${this.split.points.length} of ${this.split.lesion} set.`);
      this.update();
    }

    toggleSplit() {
      const item = this.current();
      if (this.split) this.addPart(this.display.view.cursor);
      else if (item) {
        this.split = { lesion: item.key, points: [] };
        this.display.view.set({ tool: "split" });
        this.update();
      }
    }

    endSplit() {
      const { lesion, points } = this.split;
      if (points.length < 2) {
        this.app.notice("A lesion is split into two parts or more: set another one, or press Esc.");
        return;
      }
      this.cancelTools();
      this.act({ type: "split", lesion, centres: points });
    }

    cancelTools() {
      this.split = null;
      this.display.view.set({ tool: null });
      this.app.notice("");
      this.update();
    }

    merge() {
      const keys = this.items()
        .map((item) => item.key)
        .filter((key) => this.marked.has(key) || key === this.currentKey);
      if (keys.length < 2)
        this.app.notice(`Mark two lesions or more first (${this.app.keys.hint("mark")}).`);
      else this.act({ type: "merge", lesions: keys });
    }

    mark() {
      if (!this.marked.delete(this.currentKey) && this.currentKey) this.marked.add(this.currentKey);
      this.update();
    }

    chooseZone() {
      const item = this.current();
      if (!item) return;
      this.app.zones.open(this.scan.scheme, item, (region) =>
        this.act({ type: "zone", lesion: item.key, region }),
      );
    }

    toggleCandidates() {
      this.showCandidates = !this.showCandidates;
      const number = this.scan.items.filter((item) => item.kind === "candidate").length;
      cmb.announce(
        this.showCandidates
          ? `${number} candidates below the threshold are shown at the end.`
          : "Candidates are hidden.",
      );
      if (this.current()) this.update();
      else this.select(this.items()[0]?.key ?? null);
    }

    go(key) {
      if (key) {
        this.select(key);
        const item = this.current();
        cmb.announce(`${item.key}: ${cmb.verdictText(item)}`);
      } else cmb.announce("All lesions of the list are decided.");
    }

    moveItem() {
      const item = this.current();
      if (item) this.act({ type: "move", lesion: item.key, centre_ras: this.world() });
    }

    ownActions() {
      const actions = {
        next: () => this.go(cmb.neighbour(this.items(), this.currentKey, 1)),
        previous: () => this.go(cmb.neighbour(this.items(), this.currentKey, -1)),
        nextOpen: () => this.go(cmb.nextOpen(this.items(), this.currentKey)),
        candidates: () => this.toggleCandidates(),
        centre: () => (this.split ? this.endSplit() : this.select(this.currentKey)),
        reject: () => this.judge("rejected"),
        add: () => this.add("definite"),
        addPossible: () => this.add("possible"),
        addByClick: () => {
          this.split = null;
          this.display.view.set({ tool: this.display.view.tool === "add" ? null : "add" });
          this.update();
        },
        move: () => this.moveItem(),
        mark: () => this.mark(),
        merge: () => this.merge(),
        split: () => this.toggleSplit(),
        zone: () => this.chooseZone(),
        comment: () => this.panel.comment.focus(),
        note: () => {
          this.panel.note.closest("details").open = true;
          this.panel.note.focus();
        },
        undo: () => this.act({ type: "undo" }),
        redo: () => this.act({ type: "redo" }),
        finish: () => this.act({ type: "finish" }),
        reopen: () => this.state.finished && this.act({ type: "reopen" }),
      };
      for (const [action, verdict] of Object.entries(VERDICT_ACTIONS))
        actions[action] = () => this.judge(verdict);
      for (const reason of Object.keys(cmb.REASONS))
        actions[reason] = () => this.judge("rejected", reason);
      return actions;
    }

    /* Keys with a meaning of their own while a tool is on. Returns whether the key was taken. */
    key(event) {
      if (event.key === "Escape" && (this.split || this.display.view.tool)) this.cancelTools();
      else if (event.key === "Enter" && this.split) this.endSplit();
      else return false;
      return true;
    }
  }

  Object.assign(cmb, { Reading });
})((window.cmb = window.cmb || {}));
