/** The model card: what the manifest says, as rows of a description list. */

/**
 * @param {HTMLElement} list a dl, filled anew.
 * @param {import("./manifest.js").Manifest} manifest
 */
export function showCard(list, manifest) {
  const rate = manifest.geometry.sample_rate, { chunk, step } = manifest.geometry;
  const ms = (samples) => `${Number((1000 * samples / rate).toPrecision(4))} ms`;
  const others = manifest.labels.filter((label) => !manifest.keywords.includes(label));
  const measured = manifest.metrics?.[`${manifest.precision}_streaming`];
  const rows = [
    ["Keywords", manifest.keywords.join(", ")],
    ["Other labels", others.join(", ")],
    ["Network", `${Number(manifest.parameters).toLocaleString("en")} weights, `
      + `${manifest.precision}, ${manifest.activation}`],
    ["Audio", `${rate / 1000} kHz in chunks of ${ms(chunk)}, decides every ${ms(step)}`],
    ["Licence of the model", manifest.licence || "not given by its maker"],
    ...manifest.sources.map((source) => [
      capital(source.role ?? "source"), credit(source)]),
    ["Teacher", manifest.teacher],
    ["Measured", measured && figures(measured, [manifest.metrics.split, manifest.metrics.protocol])],
    ["Everything in the file", whole(manifest)],
  ];
  list.replaceChildren(...rows.filter(([, value]) => value).map(([name, value]) => {
    const row = document.createElement("div");
    row.append(made("dt", name), made("dd", value));
    return row;
  }));
}

/** A source with its licence and attribution; its address is a link. */
function credit({ name, licence, attribution, url }) {
  const text = [licence, attribution].filter(Boolean).join("; ");
  const part = document.createElement("span");
  part.append(`${name} (${text}) `);
  const host = hostOf(url);
  if (host) {
    const link = made("a", host);
    link.href = url;
    link.rel = "noreferrer noopener";
    link.target = "_blank";
    part.append(link);
  }
  return part;
}

/** Of an address on the web; empty for anything else. */
function hostOf(url) {
  try {
    const { protocol, host } = new URL(url);
    return ["http:", "https:"].includes(protocol) ? host : "";
  } catch {
    return "";
  }
}

/** The single figures of a measurement as a table, and how it was made. */
function figures(measured, notes) {
  const part = document.createElement("div"), table = document.createElement("table");
  for (const [name, value] of Object.entries(measured)) {
    if (typeof value === "object" && !Array.isArray(value)) continue;
    const row = table.insertRow();
    const head = made("th", name.replaceAll("_", " "));
    head.scope = "row";
    row.append(head);
    row.insertCell().textContent = Array.isArray(value) ? value.join(" to ") : value;
  }
  part.append(made("p", notes.filter((note) => typeof note === "string").join("; ")), table);
  part.firstChild.className = "note";
  return part;
}

function whole(manifest) {
  const part = document.createElement("details");
  const { keywords: _, ...file } = manifest;
  part.append(made("summary", "the manifest as JSON"), made("pre", JSON.stringify(file, null, 1)));
  return part;
}

function made(name, content) {
  const element = document.createElement(name);
  element.append(content);
  return element;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
