"use strict";
/* The server of `cmbprep-tools review`, seen from the page. */
(function (cmb) {
  /* An answer other than success; `status` 0 means that no server answered. */
  class BackendError extends Error {
    constructor(message, status, body = {}) {
      super(message);
      this.status = status;
      this.body = body;
    }
  }

  class HttpBackend {
    constructor(token) {
      this.token = token;
      this.isStatic = false;
    }

    session() {
      return this.json("api/session");
    }

    scans() {
      return this.json("api/scans");
    }

    scan(id) {
      return this.json(`api/scans/${encodeURIComponent(id)}`);
    }

    /* An image, slices near `first` first; `seen(volume)` gets it while slices are missing. */
    async image(id, image, first, seen) {
      const path = `api/scans/${encodeURIComponent(id)}/images/${encodeURIComponent(image)}`;
      const answer = await this.fetch(`${path}?first=${first}`);
      return cmb.readVolume(answer.body, seen);
    }

    outlines(id) {
      return this.json(`api/scans/${encodeURIComponent(id)}/outlines`);
    }

    act(id, act) {
      const body = JSON.stringify(act);
      return this.json(`api/scans/${encodeURIComponent(id)}/acts`, { method: "POST", body });
    }

    async next(after) {
      const query = after ? `?after=${encodeURIComponent(after)}` : "";
      return (await this.json(`api/next${query}`)).id;
    }

    async json(path, options) {
      return (await this.fetch(path, options)).json();
    }

    async fetch(path, options = {}) {
      const headers = { "X-Review-Token": this.token };
      if (options.body) headers["Content-Type"] = "application/json";
      let answer;
      try {
        answer = await fetch(path, { ...options, headers, cache: "no-store" });
      } catch {
        throw new BackendError("The review program does not answer. Is it still running?", 0);
      }
      if (answer.ok) return answer;
      if (answer.status === 403) {
        throw new BackendError(
          "The review program was started anew: open the address that it prints.",
          403,
        );
      }
      const body = await answer.json().catch(() => ({}));
      throw new BackendError(
        body.error || `The server answered ${answer.status}`,
        answer.status,
        body,
      );
    }
  }

  Object.assign(cmb, { BackendError, HttpBackend });
})((window.cmb = window.cmb || {}));
