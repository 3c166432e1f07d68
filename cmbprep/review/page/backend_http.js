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

    async image(id, image) {
      return this.volume(`api/scans/${encodeURIComponent(id)}/images/${encodeURIComponent(image)}`);
    }

    async labels(id) {
      return this.volume(`api/scans/${encodeURIComponent(id)}/labels`);
    }

    act(id, act) {
      const body = JSON.stringify(act);
      return this.json(`api/scans/${encodeURIComponent(id)}/acts`, { method: "POST", body });
    }

    async next(after) {
      const query = after ? `?after=${encodeURIComponent(after)}` : "";
      return (await this.json(`api/next${query}`)).id;
    }

    async volume(path) {
      const answer = await this.fetch(path);
      return cmb.parseVolume(await answer.arrayBuffer());
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
