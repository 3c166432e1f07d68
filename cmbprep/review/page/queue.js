"use strict";
/* Acts on their way to the backend: one after the other, sent again while no server answers. What is
   not answered is kept on the disk, for a browser that is killed meanwhile. */
(function (cmb) {
  const RETRY_MS = 2000;

  class ActQueue {
    /* `onDone(answer, act)`, `onRefused(error, act)` and `onStatus(waiting, error)` are called.
       `last` is the id of the last act that is stored; `kept` holds what is not, or is null. */
    constructor(backend, scan, { onDone, onRefused, onStatus, kept = null, last = null }) {
      Object.assign(this, { backend, scan, onDone, onRefused, onStatus, kept, last });
      this.waiting = [];
      this.running = false;
      this.trouble = null;
    }

    push(act) {
      this.waiting.push({ id: cmb.newId(), ...act });
      this.keep();
      this.onStatus(this.waiting.length, this.trouble);
      this.send();
    }

    keep() {
      this.kept?.write({ last: this.last, waiting: this.waiting });
    }

    /* Send what an earlier page could not. Where reading has gone on since, it no longer fits.
       Returns the numbers of acts that are sent, and that are given up. */
    async resume() {
      const before = await this.kept?.read();
      const waiting = before?.waiting || [];
      const place = waiting.findIndex((act) => act.id === this.last);
      const fits = place >= 0 || before?.last === this.last;
      const left = waiting.slice(place + 1);
      if (fits) left.forEach((act) => this.push(act));
      else if (left.length) this.keep();
      return { sent: fits ? left.length : 0, lost: fits ? 0 : left.length };
    }

    async send() {
      if (this.running) return;
      this.running = true;
      try {
        while (this.waiting.length) await this.sendFirst();
      } finally {
        this.running = false;
      }
      this.onStatus(0, null);
    }

    async sendFirst() {
      const act = this.waiting[0];
      this.onStatus(this.waiting.length, this.trouble);
      let answer = null;
      let refusal = null;
      try {
        answer = await this.backend.act(this.scan, act);
      } catch (error) {
        if ([0, 403].includes(error.status) || error.status >= 500) {
          // Not the act is at fault. Its id keeps a second sending from acting twice.
          this.trouble = error;
          this.onStatus(this.waiting.length, error);
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          return;
        }
        refusal = error;
      }
      this.trouble = null;
      this.waiting.shift();
      if (!refusal) this.last = answer.act.id;
      this.keep();
      if (refusal) this.onRefused(refusal, act);
      else this.onDone(answer, act);
    }
  }

  Object.assign(cmb, { ActQueue });
})((window.cmb = window.cmb || {}));
