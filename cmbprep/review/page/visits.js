"use strict";
/* Other visits beside a scan: what a follow-up says of each lesion, and lesions listed there only. */
(function (cmb) {
  const { h } = cmb;
  const QUIET = "matched";

  const because = ({ reason }) => (reason && reason !== QUIET ? ` (${reason})` : "");

  /* What the follow-ups say of a lesion: [name of the visit, text]. */
  function followupFacts(followups, key) {
    return (followups || [])
      .filter((item) => item.lesions[key])
      .map((item) => {
        const found = item.lesions[key];
        const partner = found.there === null ? "" : `, L${found.there} there`;
        const linked = item.source[1] === "automatic" ? partner : "";
        return [
          `Follow-up, ${when(item)}`,
          `${found.status}${linked}${because(found)}`,
        ];
      });
  }

  const when = (item) => (item.when === "other" ? item.title : `${item.when} ${item.title}`);

  /* Words for the list of lesions: each status once. */
  function followupText(followups, key) {
    const found = (followups || []).flatMap((item) => item.lesions[key]?.status ?? []);
    return [...new Set(found)].join(", ");
  }

  /* Lesions that are listed at another visit only, with the place where they would be here. */
  function onlyElsewhere(followups) {
    return (followups || []).flatMap((item) =>
      item.elsewhere.map((lesion) => ({
        ...lesion,
        image: item.image,
        name: `${item.title}: ${lesion.status}`,
      })),
    );
  }

  /* Buttons that show another visit beside the scan, and lesions listed there only. */
  function visitsBox(followups, { goTo, beside }) {
    const rows = (followups || []).map((item) => {
      const show = item.image
        ? [cmb.button(`Show ${item.title} beside`, () => beside(item.image))]
        : [];
      const only = onlyElsewhere([item]).map((lesion) =>
        cmb.button(`${lesion.status}${because(lesion)}`, () => {
          if (lesion.image) beside(lesion.image);
          goTo(lesion.centre_ijk);
        }),
      );
      const text = item.failed
        ? `${item.title}: the scans could not be registered to each other.`
        : only.length
          ? `Listed at ${item.title} only:`
          : `No lesion is listed at ${item.title} only.`;
      const limits = item.limits.length
        ? [h("p", { class: "quiet" }, `Compare with care: ${item.limits.join("; ")}.`)]
        : [];
      return h(
        "div",
        { class: "visit" },
        h(
          "div",
          { class: "buttons others", role: "group", "aria-label": `Follow-up, ${item.title}` },
          ...show,
          h("span", { class: "quiet" }, text),
          ...only,
        ),
        ...limits,
      );
    });
    return rows.length ? h("div", { class: "visits" }, ...rows) : null;
  }

  Object.assign(cmb, { followupFacts, followupText, onlyElsewhere, visitsBox });
})((window.cmb = window.cmb || {}));
