/** Thresholds and operating points: sliders, and the options of the command line that do the same. */

/**
 * @param {Object<string, HTMLElement>} page elements by id.
 * @param {string} model name of its file.
 * @param {import("./manifest.js").Manifest} manifest
 * @param {(decision: import("./manifest.js").Decision) => void} chosen told now and at each change.
 */
export function showSettings(page, model, manifest, chosen) {
  const points = Object.keys(manifest.operating_points);
  page.point.replaceChildren(new Option("default", ""), ...points.map((name) => new Option(name)));
  page.points.hidden = points.length === 0;
  let base = manifest.decision, thresholds = { ...base.thresholds };
  const rows = manifest.keywords.map((keyword) => slider(keyword, (value) => {
    thresholds = { ...thresholds, [keyword]: value };
    apply();
  }));
  page.sliders.replaceChildren(...rows.map(({ element }) => element));

  function apply() {
    rows.forEach(({ keyword, show }) => show(thresholds[keyword]));
    const changed = manifest.keywords.filter((word) => thresholds[word] !== base.thresholds[word]);
    page.reset.disabled = changed.length === 0;
    page.command.textContent = [`earmark listen --model ${quoted(model)}`,
      ...(page.point.value ? [`--operating-point ${quoted(page.point.value)}`] : []),
      ...changed.map((word) => `--threshold ${quoted(`${word}=${thresholds[word]}`)}`)].join(" ");
    chosen({ ...base, thresholds });
  }

  function choose() {
    const name = page.point.value;
    base = name ? manifest.operating_points[name] : manifest.decision;
    thresholds = { ...base.thresholds };
    const summary = manifest.metrics?.operating_points?.points?.[name]?.summary;
    page["point-note"].textContent = typeof summary === "string" ? summary : "";
    apply();
  }

  page.point.onchange = choose;
  page.reset.onclick = choose;
  choose();
}

function slider(keyword, moved) {
  const element = document.createElement("label"), name = document.createElement("span");
  const input = document.createElement("input"), output = document.createElement("output");
  name.textContent = keyword;
  Object.assign(input, { type: "range", min: 0.01, max: 1, step: 0.01 });
  input.oninput = () => moved(Number(input.value));
  element.append(name, input, output);
  const show = (value) => {
    // The slider stands at the nearest of its places; what counts is the value itself.
    if (Number(input.value) !== value) input.value = value;
    output.textContent = value.toFixed(2);
  };
  return { keyword, element, show };
}

/** For a POSIX shell. */
function quoted(text) {
  return /^[\w.=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
