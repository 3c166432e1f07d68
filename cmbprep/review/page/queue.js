"use strict";
/* Acts on their way to the backend: one after the other, sent again while no server answers. */
(function (cmb) {
  const RETRY_MS = 2000;

  class ActQueue {
    /* `onDone(answer, act)`, `onRefused(error, act)` and `onStatus(waiting, error)` are called. */
    constructor(backend, scan, { onDone, onRefused, onStatus }) {
      Object.assign(this, { backend, scan, onDone, onRefused, onStatus });
      this.waiting = [];
      this.running = false;
      this.trouble = null;
    }

    push(act) {
      this.waiting.push({ id: cmb.newId(), ...act });
      this.onStatus(this.waiting.length, this.trouble);
      this.send();
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
      if (refusal) this.onRefused(refusal, act);
      else this.onDone(answer, act);
    }
  }

  Object.assign(cmb, { ActQueue });
})((window.cmb = window.cmb || {}));
