"use strict";
/* The same answers as the server's, from data inside the page; acts go to localStorage
   and to a copy on the disk. */
(function (cmb) {
  class StaticBackend {
    constructor(data, storage = window.localStorage) {
      this.data = data;
      this.storage = storage;
      this.isStatic = true;
      this.key = `cmbprep-review|${data.storage_key}`;
      this.disk = new cmb.DiskCopy(this.key);
      this.acts = this.stored();
      this.exported = Number(this.read(`${this.key}|exported`) || 0);
      this.toVoxel = toVoxel(data.scan.affine);
    }

    async session() {
      await this.recover();
      return this.data.session;
    }

    async scans() {
      return [{ ...this.data.row, id: this.data.scan.id }];
    }

    async scan() {
      this.acts = this.stored();
      return { ...this.data.scan, state: this.state(), acts: this.acts.length };
    }

    async image(_id, image) {
      return cmb.parseVolume(await embedded(`image-${image}`));
    }

    async outlines() {
      return this.data.outlines;
    }

    async next() {
      return null;
    }

    async act(_id, act) {
      this.acts = this.stored();
      const known = this.acts.find((one) => one.id === act.id);
      if (known) return { state: this.state(), act: known };
      this.check(act);
      const entry = this.complete(act);
      this.write([...this.acts, entry]);
      await this.disk.write(this.acts);
      return { state: this.state(), act: entry };
    }

    /* Take over the acts that only the copy on the disk has, after the browser was killed. */
    async recover() {
      const kept = await this.disk.read();
      const here = this.stored();
      const goesOn = kept?.length > here.length && here.every((act, at) => act.id === kept[at].id);
      if (goesOn) this.write(kept);
    }

    /* Refuse what the server would refuse. */
    check(act) {
      const state = this.state();
      const open = act.type === "finish" ? cmb.openKeys(state) : [];
      if (open.length) {
        const error = `Not every listed lesion is decided: ${open.join(", ")}`;
        throw new cmb.BackendError(error, 422, { error, open });
      }
      if (act.type === "undo" && !state.undo_depth) {
        throw new cmb.BackendError("There is nothing to undo", 409);
      }
      if (act.type === "redo" && !state.redo_depth) {
        throw new cmb.BackendError("There is nothing to redo", 409);
      }
      // A key may be pressed before the page has gone on to what a split or merge has made.
      for (const key of act.lesions ?? [act.lesion]) {
        const other = state.items[key]?.deleted_by;
        if (other) throw new cmb.BackendError(`the lesion ${key} was replaced by ${other}`, 409);
      }
    }

    complete(act) {
      const { session, scan, based_on } = this.data;
      const next = cmb.nextNew(this.acts);
      const made =
        act.type === "split"
          ? { lesions: act.centres.map((_, part) => `N${next + part}`) }
          : act.type === "add" || act.type === "merge"
            ? { lesion: `N${next}` }
            : {};
      return {
        time: new Date().toISOString(),
        reader: session.reader,
        round: session.round,
        software: session.version,
        scan: scan.name,
        based_on,
        ...act,
        ...made,
      };
    }

    state() {
      return cmb.replay(this.acts, this.data.scan.items, this.data.scan.scheme, this.toVoxel);
    }

    /* File to send back: `cmbprep-tools review OUT --import FILE` reads it. */
    exportText() {
      const { session, scan, based_on } = this.data;
      const content = {
        format: "cmbprep-review-acts",
        version: 1,
        session,
        scan: scan.name,
        based_on,
        acts: this.acts,
      };
      return JSON.stringify(content, null, 1);
    }

    get unsaved() {
      return this.acts.length - this.exported;
    }

    markExported() {
      this.exported = this.acts.length;
      try {
        this.storage.setItem(`${this.key}|exported`, String(this.exported));
      } catch {
        /* the acts themselves are in the exported file */
      }
    }

    stored() {
      const text = this.read(this.key);
      if (!text) return this.acts || [];
      try {
        return JSON.parse(text);
      } catch {
        return this.acts || [];
      }
    }

    read(key) {
      try {
        return this.storage.getItem(key);
      } catch {
        return null;
      }
    }

    /* Keep the acts in memory even where the browser refuses to store: they can be exported. */
    write(acts) {
      this.acts = acts;
      try {
        this.storage.setItem(this.key, JSON.stringify(acts));
        this.problem = null;
      } catch {
        this.problem = "The browser stores nothing for this page: export before you close it";
      }
    }
  }

  /* Decode a block of the page: base64 of gzip of the bytes that the server would send. */
  async function embedded(id) {
    if (!window.DecompressionStream) {
      throw new cmb.BackendError(
        "This browser is too old to unpack the images: use one from 2023 or later",
        0,
      );
    }
    const block = document.getElementById(id);
    if (!block) throw new cmb.BackendError(`The page does not hold ${id}`, 404);
    const text = atob(block.textContent.trim());
    const bytes = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(plain).arrayBuffer();
  }

  /* Function from mm to the nearest voxel: the inverse of an affine. */
  function toVoxel(affine) {
    const [a, b, c] = affine;
    const minor = (p, q, r, s) => p * s - q * r;
    const cofactors = [
      [minor(b[1], b[2], c[1], c[2]), minor(a[2], a[1], c[2], c[1]), minor(a[1], a[2], b[1], b[2])],
      [minor(b[2], b[0], c[2], c[0]), minor(a[0], a[2], c[0], c[2]), minor(a[2], a[0], b[2], b[0])],
      [minor(b[0], b[1], c[0], c[1]), minor(a[1], a[0], c[1], c[0]), minor(a[0], a[1], b[0], b[1])],
    ];
    const determinant = a[0] * cofactors[0][0] + a[1] * cofactors[1][0] + a[2] * cofactors[2][0];
    return (ras) => {
      const from = [ras[0] - a[3], ras[1] - b[3], ras[2] - c[3]];
      return cofactors.map((row) =>
        Math.round((row[0] * from[0] + row[1] * from[1] + row[2] * from[2]) / determinant),
      );
    };
  }

  Object.assign(cmb, { StaticBackend, toVoxel });
})((window.cmb = window.cmb || {}));
