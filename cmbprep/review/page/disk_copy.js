"use strict";
/* A value that is on the disk when writing it has ended: what goes to localStorage, a browser may
   keep in memory for some seconds, and loses it when it is killed. */
(function (cmb) {
  const DATABASE = "cmbprep-review";
  const STORE = "acts";
  const PATIENCE_MS = 5000;

  class DiskCopy {
    constructor(key, factory = window.indexedDB) {
      this.key = key;
      this.factory = factory;
    }

    /* The value that is kept; null where there is none, or the browser keeps nothing. */
    async read() {
      try {
        const text = await this.use("readonly", (store) => store.get(this.key));
        return text ? JSON.parse(text) : null;
      } catch {
        return null;
      }
    }

    /* Keep a value; returns whether it is on the disk. */
    async write(value) {
      const text = JSON.stringify(value);
      try {
        await this.use("readwrite", (store) => store.put(text, this.key));
        return true;
      } catch {
        return false;
      }
    }

    async use(mode, ask) {
      if (this.broken) throw this.broken;
      this.database ??= inTime(open(this.factory));
      try {
        const database = await this.database;
        // Strict: done means flushed, not only handed on.
        const transaction = database.transaction(STORE, mode, { durability: "strict" });
        const request = ask(transaction.objectStore(STORE));
        return await inTime(
          new Promise((resolve, reject) => {
            transaction.oncomplete = () => resolve(request.result);
            transaction.onerror = transaction.onabort = () => reject(transaction.error);
          }),
        );
      } catch (error) {
        this.broken = error;
        throw error;
      }
    }
  }

  function open(factory) {
    return new Promise((resolve, reject) => {
      const request = factory.open(DATABASE, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  /* Reading must not wait for a store that never answers. */
  function inTime(promise) {
    const late = new Promise((_, reject) => setTimeout(reject, PATIENCE_MS, new Error("too late")));
    return Promise.race([promise, late]);
  }

  Object.assign(cmb, { DiskCopy });
})((window.cmb = window.cmb || {}));
