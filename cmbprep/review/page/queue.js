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
    }

    push(act) {
      this.waiting.push({ id: cmb.newId(), ...act });
      this.send();
    }

    async send() {
      if (this.running) return;
      this.running = true;
      while (this.waiting.length) {
        const act = this.waiting[0];
        this.onStatus(this.waiting.length, null);
        try {
          const answer = await this.backend.act(this.scan, act);
          this.waiting.shift();
          this.onDone(answer, act);
        } catch (error) {
          if ([0, 403].includes(error.status) || error.status >= 500) {
            // Not the act is at fault. Its id keeps a second sending from acting twice.
            this.onStatus(this.waiting.length, error);
            await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          } else {
            this.waiting.shift();
            this.onRefused(error, act);
          }
        }
      }
      this.running = false;
      this.onStatus(0, null);
    }
  }

  Object.assign(cmb, { ActQueue });
})((window.cmb = window.cmb || {}));
