"use strict";

const SVG = "http://www.w3.org/2000/svg";
const LIVE_INTERVAL = 5000; // milliseconds between two looks at a running training
const STROKES_PER_SECOND = 12;
const HEADLINES = 3; // metrics that are shown open beside "return" and its like

/* Small helpers: an element with attributes and children. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function number(value) {
  if (typeof value !== "number") return value ?? "";
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
}

function figure(caption, ...content) {
  return element("figure", {}, element("figcaption", {}, caption), ...content);
}

function table(head, rows) {
  const body = rows.map((row) => element("tr", {}, ...row.map((cell) =>
    element("td", { class: typeof cell === "number" ? "number" : "" }, cell instanceof Node ? cell : String(number(cell))))));
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...body)));
}

/* A slider with its number, and a button that moves it on by itself. */
function player(label, count, perSecond, show, said) {
  const input = element("input", { type: "range", min: 0, max: count, value: count, "aria-label": label });
  const output = element("output");
  const button = element("button", { type: "button" }, "Play");
  let timer = null;
  const set = (value) => {
    input.value = value;
    output.textContent = said(Number(input.value));
    show(Number(input.value));
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(input.value) >= count) set(0);
    button.textContent = "Pause";
    timer = setInterval(() => {
      set(Number(input.value) + 1);
      if (Number(input.value) >= count) stop();
    }, 1000 / perSecond);
  });
  input.addEventListener("input", () => set(Number(input.value)));
  set(count);
  return element("div", { class: "controls" }, button, input, output);
}

/* Curves, by plotly, in the page's own colours. */
function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return { paper: read("--raised"), ink: read("--ink"), line: read("--line"), faint: read("--faint") };
}

const GROUP_COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb"];

function layout(more) {
  const { paper, ink, line } = colours();
  const axis = { gridcolor: line, zerolinecolor: line, automargin: true };
  return {
    paper_bgcolor: paper, plot_bgcolor: paper, font: { color: ink, size: 12 }, margin: { l: 8, r: 8, t: 8, b: 8 },
    xaxis: { ...axis, title: { text: "environment steps", font: { size: 11 } } }, yaxis: axis, showlegend: false,
    hovermode: "x unified", ...more,
  };
}

const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
const plots = []; // [element, traces, layout], drawn again where the colours change

function plot(target, traces, more = {}) {
  plots.push([target, traces, more]);
  Plotly.newPlot(target, traces, layout(more), CONFIG);
}

function faded(colour) {
  return `${colour}33`;
}

function traces(panel, groups) {
  const found = [];
  for (const line of panel.lines) {
    const colour = GROUP_COLOURS[groups.indexOf(line.group) % GROUP_COLOURS.length];
    const shared = { x: line.steps, mode: "lines", legendgroup: line.group, name: line.group };
    if (line.runs > 1) {
      found.push({ ...shared, y: line.low, line: { width: 0, color: colour }, hoverinfo: "skip", showlegend: false });
      found.push({ ...shared, y: line.high, line: { width: 0, color: colour }, fill: "tonexty", fillcolor: faded(colour), hoverinfo: "skip", showlegend: false });
    }
    const marked = line.steps.length < 2 ? "lines+markers" : "lines";
    found.push({ ...shared, mode: marked, y: line.mean, line: { width: 2, color: colour } });
  }
  return found;
}

function curvePanel(panel, groups) {
  const target = element("div", { class: "plot" });
  queueMicrotask(() => plot(target, traces(panel, groups)));
  return figure(panel.name, target);
}

function legend(data) {
  const groups = Object.keys(data.groups);
  if (groups.length < 2) return [];
  const rows = groups.map((group, i) => {
    const swatch = element("span", { "aria-hidden": "true", style: `display:inline-block;width:.75rem;height:.75rem;border-radius:50%;background:${GROUP_COLOURS[i % GROUP_COLOURS.length]}` });
    const count = data.groups[group];
    return [swatch, group, `${count} ${count === 1 ? "run" : "runs"}`];
  });
  return [table(["", "group", ""], rows)];
}

function curvesSection(data) {
  const groups = Object.keys(data.groups);
  const scores = data.panels.filter((panel) => panel.name.startsWith("score/") && !data.first.includes(panel.name));
  const open = data.panels.filter((panel) => data.first.includes(panel.name)).concat(scores.slice(0, HEADLINES));
  const rest = data.panels.filter((panel) => !open.includes(panel));
  const grid = element("div", { class: "grid" }, ...open.map((panel) => curvePanel(panel, groups)));
  const content = [...legend(data), grid];
  const several = Object.values(data.groups).some((count) => count > 1);
  if (several) content.unshift(element("p", { class: "note" }, "A line is the mean of a group's seeds; the band goes from the lowest to the highest."));
  if (rest.length) {
    const more = element("div", { class: "grid" });
    const details = element("details", {}, element("summary", {}, `All other metrics (${rest.length})`), more);
    details.addEventListener("toggle", () => {
      if (details.open && !more.children.length) more.append(...rest.map((panel) => curvePanel(panel, groups)));
    });
    content.push(details);
  }
  return open.length || rest.length ? content : [element("p", {}, "Nothing has been recorded yet.")];
}

/* Runs beside each other. */
function runsTable(data) {
  const metrics = [...new Set([...data.first, ...data.runs.flatMap((run) => Object.keys(run.last)).filter((name) => name.startsWith("score/"))])];
  const head = ["run", "status", "step", "seed", ...data.differing, ...metrics];
  const rows = data.runs.map((run) => [
    run.name, run.status, run.step, run.seed, ...data.differing.map((key) => run.choices[key]), ...metrics.map((name) => run.last[name] ?? null),
  ]);
  let order = { column: -1, down: true };
  const body = element("tbody");
  const fill = () => {
    body.replaceChildren(...rows.map((row) => element("tr", {}, ...row.map((cell, i) =>
      element("td", { class: typeof cell === "number" ? "number" : i === 0 ? "path" : row[1] === "failed" && i === 1 ? "failed" : "" }, String(number(cell)))))));
  };
  const sort = (column) => {
    order = { column, down: order.column === column ? !order.down : true };
    const value = (row) => (row[column] === null || row[column] === "" ? -Infinity : Number.isNaN(Number(row[column])) ? row[column] : Number(row[column]));
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const ahead = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "string" ? 1 : -1;
      return order.down ? -ahead : ahead;
    });
    headers.forEach((header, i) => header.setAttribute("aria-sort", i === column ? (order.down ? "descending" : "ascending") : "none"));
    fill();
  };
  const headers = head.map((name, i) => element("th", { scope: "col", "aria-sort": "none" }, element("button", { type: "button", onclick: () => sort(i) }, name)));
  fill();
  return element("div", { class: "scroll" }, element("table", { id: "runs-table" }, element("thead", {}, element("tr", {}, ...headers)), body));
}

function parallel(data) {
  const metric = data.first.find((name) => data.runs.every((run) => name in run.last));
  if (!metric || data.runs.length < 3 || !data.differing.length) return [];
  const dimension = (name, values) => {
    const numbers = values.map(Number);
    if (numbers.every(Number.isFinite)) return { label: name, values: numbers };
    const kinds = [...new Set(values)];
    return { label: name, values: values.map((value) => kinds.indexOf(value)), tickvals: kinds.map((_, i) => i), ticktext: kinds };
  };
  const keys = data.differing.slice(0, 8);
  const dimensions = [...keys.map((key) => dimension(key, data.runs.map((run) => run.choices[key]))), dimension(metric, data.runs.map((run) => run.last[metric]))];
  const target = element("div", { class: "wide" });
  const line = { color: data.runs.map((run) => run.last[metric]), colorscale: "Viridis", showscale: true };
  queueMicrotask(() => plot(target, [{ type: "parcoords", dimensions, line }], { margin: { l: 80, r: 40, t: 60, b: 30 } }));
  return [figure(`What was set, and ${metric}`, target)];
}

/* What a run made. */
function sheetsFigure(sheets) {
  const image = element("img", { alt: "Samples at a step of the training" });
  const show = (i) => { image.src = sheets[i].src; };
  return figure("Samples over the training", image, player("Step of the training", sheets.length - 1, 4, show, (i) => number(sheets[i].step)));
}

function drawingFigure(drawing) {
  const canvas = drawn("svg", { viewBox: `0 0 ${drawing.size} ${drawing.size}`, role: "img", "aria-label": `Drawing ${drawing.name}` });
  canvas.append(drawn("rect", { width: drawing.size, height: drawing.size, fill: drawing.paper }));
  const marks = drawing.marks.map((mark) => "d" in mark
    ? drawn("path", { d: mark.d, stroke: mark.stroke, "stroke-width": mark.width, "stroke-opacity": mark.opacity, fill: "none", "stroke-linecap": "round", "stroke-linejoin": "round" })
    : drawn("rect", { x: mark.x, y: mark.y, width: 1, height: 1, fill: mark.fill }));
  canvas.append(...marks);
  const show = (count) => marks.forEach((mark, i) => { mark.style.display = i < count ? "" : "none"; });
  const controls = player(`Strokes of drawing ${drawing.name}`, marks.length, STROKES_PER_SECOND, show, (i) => `${i} / ${marks.length}`);
  const holder = figure(`Drawing ${drawing.name}`, canvas, controls);
  holder.dataset.drawing = drawing.name;
  return holder;
}

/* Sound: a soft triangle wave a note, by the browser itself. */
function schedule(context, melody, begin) {
  const end = Math.max(...melody.notes.map(([start, duration]) => start + duration));
  const volume = context.createGain();
  volume.gain.value = 0.25;
  volume.connect(context.destination);
  for (const [start, duration, pitch, velocity] of melody.notes) {
    const oscillator = context.createOscillator();
    const envelope = context.createGain();
    const [from, to] = [begin + start, begin + start + duration];
    oscillator.type = "triangle";
    oscillator.frequency.value = 440 * 2 ** ((pitch - 69) / 12);
    envelope.gain.setValueAtTime(0, from);
    envelope.gain.linearRampToValueAtTime(velocity / 127, from + 0.01);
    envelope.gain.setValueAtTime(velocity / 127, Math.max(to - 0.04, from + 0.01));
    envelope.gain.linearRampToValueAtTime(0, to);
    oscillator.connect(envelope).connect(volume);
    oscillator.start(from);
    oscillator.stop(to);
  }
  return end;
}

const NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];

function pitchName(pitch) {
  return `${NAMES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;
}

function melodyFigure(melody) {
  const pitches = melody.notes.map((note) => note[2]);
  const [low, high] = [Math.min(...pitches) - 1, Math.max(...pitches) + 1];
  const end = Math.max(...melody.notes.map(([start, duration]) => start + duration));
  const [wide, row, left, top] = [380, Math.max(4, Math.min(10, 180 / (high - low + 1))), 34, 16];
  const tall = top + row * (high - low + 1);
  const x = (seconds) => left + (seconds / end) * (wide - left);
  const y = (pitch) => top + (high - pitch) * row;
  const roll = drawn("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": `Piano roll of melody ${melody.name}` });
  const word = (text, at) => { const made = drawn("text", { ...at, fill: "var(--faint)", "font-size": 10 }); made.textContent = text; roll.append(made); };
  for (let bar = 0; bar * melody.bar < end; bar += 1) {
    roll.append(drawn("line", { x1: x(bar * melody.bar), x2: x(bar * melody.bar), y1: top, y2: tall, stroke: "var(--line)" }));
    word(String(bar + 1), { x: x(bar * melody.bar) + 2, y: 11 });
  }
  for (let pitch = low; pitch <= high; pitch += 1) {
    const far = pitch % 12 > 2 && pitch % 12 < 10; // from the name of an octave's C
    if (pitch % 12 === 0 || (far && (pitch === low + 1 || pitch === high - 1))) word(pitchName(pitch), { x: 0, y: y(pitch) + row * 0.8 });
    if (pitch % 12 === 0) roll.append(drawn("line", { x1: left, x2: wide, y1: y(pitch) + row, y2: y(pitch) + row, stroke: "var(--line)" }));
  }
  for (const [start, duration, pitch, , voice] of melody.notes) {
    roll.append(drawn("rect", { x: x(start), y: y(pitch), width: Math.max(x(start + duration) - x(start) - 1, 1), height: row - 1, rx: 1.5, fill: `var(--note${voice % 4})` }));
  }
  const cursor = drawn("line", { y1: top, y2: tall, stroke: "var(--ink)", "stroke-width": 1.5, visibility: "hidden" });
  roll.append(cursor);

  const button = element("button", { type: "button" }, "Play");
  const output = element("output", {}, `${end.toFixed(1)} s`);
  let context = null;
  const stop = () => {
    if (context) context.close();
    context = null;
    button.textContent = "Play";
    cursor.setAttribute("visibility", "hidden");
    output.textContent = `${end.toFixed(1)} s`;
  };
  button.addEventListener("click", () => {
    if (context) return stop();
    context = new AudioContext();
    const begin = context.currentTime + 0.05;
    schedule(context, melody, begin);
    button.textContent = "Stop";
    cursor.setAttribute("visibility", "visible");
    const playing = context;
    const follow = () => {
      if (context !== playing) return;
      const now = Math.max(playing.currentTime - begin, 0);
      if (now >= end) return stop();
      cursor.setAttribute("x1", x(now));
      cursor.setAttribute("x2", x(now));
      output.textContent = `${now.toFixed(1)} / ${end.toFixed(1)} s`;
      requestAnimationFrame(follow);
    };
    follow();
  });
  const holder = figure(`Melody ${melody.name}`, roll, element("div", { class: "controls" }, button, output));
  holder.dataset.melody = melody.name;
  return holder;
}

/* The sound of a melody as numbers, for whoever wants to look at it. */
async function rendered(melody, rate = 22050) {
  const end = Math.max(...melody.notes.map(([start, duration]) => start + duration));
  const context = new OfflineAudioContext(1, Math.ceil((end + 0.1) * rate), rate);
  schedule(context, melody, 0);
  return (await context.startRendering()).getChannelData(0);
}

function resultsTable(results) {
  const scores = results.scores ?? {};
  const columns = Object.keys(scores);
  const names = [...new Set(columns.flatMap((column) => Object.keys(scores[column] ?? {})))];
  if (!names.length) return [];
  const rows = names.map((name) => [`score/${name}`, ...columns.map((column) => scores[column]?.[name] ?? "")]);
  for (const name of ["diversity", "unique"]) { // which runs of earlier versions have not
    if (results[name]) rows.push([name, ...columns.map((column) => results[name][column] ?? "")]);
  }
  return [element("h3", {}, "Scores of the last samples, and how different they are, beside random actions and real data"), table(["", ...columns], rows)];
}

function madeSection(run, several) {
  const made = run.made;
  const content = [];
  if (several) content.push(element("h3", {}, run.name));
  const pictures = [];
  if (made.sheets.length) pictures.push(sheetsFigure(made.sheets));
  if (made.final) pictures.push(figure("The last samples", element("img", { src: made.final, alt: "The last samples" })));
  if (made.strip) pictures.push(figure("From the first step to the last", element("img", { src: made.strip, alt: "Samples from the first step to the last, a row each" })));
  if (made.nearest) pictures.push(figure("Samples, and at their right the training data nearest to them", element("img", { src: made.nearest, alt: "Samples beside the training data nearest to them" })));
  if (pictures.length) content.push(element("div", { class: "grid" }, ...pictures));
  if (made.drawings.length) content.push(element("h3", {}, "Stroke by stroke"), element("div", { class: "grid small" }, ...made.drawings.map(drawingFigure)));
  if (made.melodies.length) content.push(element("h3", {}, "Melodies"), element("div", { class: "grid" }, ...made.melodies.map(melodyFigure)));
  if (made.texts.length) content.push(element("h3", {}, "Texts"), ...made.texts.map((text) => element("pre", {}, text)));
  content.push(...resultsTable(run.results));
  return content;
}

function configSection(data) {
  const content = [];
  if (data.runs.length > 1) {
    const rows = data.differing.map((key) => [key, ...data.runs.map((run) => run.choices[key])]);
    content.push(element("h3", {}, "What differs"));
    content.push(rows.length ? table(["key", ...data.runs.map((run) => run.name)], rows) : element("p", {}, "Nothing but the seed."));
  }
  for (const run of data.runs) {
    const lines = Object.entries(run.config).map(([key, value]) => `${key}: ${value}`).join("\n");
    content.push(element("details", {}, element("summary", {}, `Config of ${run.name}`), element("pre", {}, lines)));
  }
  return content;
}

function machineSection(data) {
  const keys = [...new Set(data.runs.flatMap((run) => Object.keys(run.facts)))];
  const same = (key) => new Set(data.runs.map((run) => run.facts[key] ?? "")).size === 1;
  if (data.runs.length === 1) return [table(["", ""], keys.map((key) => [key, data.runs[0].facts[key]]))];
  const shared = keys.filter(same).map((key) => [key, data.runs[0].facts[key] ?? ""]);
  const others = keys.filter((key) => !same(key)).map((key) => [key, ...data.runs.map((run) => run.facts[key] ?? "")]);
  return [table(["the same in all runs", ""], shared), ...(others.length ? [table(["", ...data.runs.map((run) => run.name)], others)] : [])];
}

function overview(data) {
  if (data.runs.length > 1) return [runsTable(data), ...parallel(data)];
  const run = data.runs[0];
  const rows = [["status", run.status], ["step", `${number(run.step)} of ${number(run.total_steps)}`]];
  if (run.facts.command) rows.push(["command", element("code", {}, run.facts.command)]);
  if (run.error) rows.push(["error", element("span", { class: "failed" }, run.error)]);
  return [table(["", ""], rows)];
}

function section(id, name, content) {
  return element("section", { id }, element("h2", {}, name), ...content);
}

function render(data) {
  plots.length = 0;
  document.querySelector("h1").textContent = data.title;
  const shown = data.runs.filter((run) => Object.keys(run.made).length);
  const sections = [
    ["overview", data.runs.length > 1 ? "Runs" : "Run", overview(data)],
    ["curves", "Learning curves", curvesSection(data)],
    ["made", "What was made", shown.flatMap((run) => madeSection(run, data.runs.length > 1))],
    ["config", "Config", configSection(data)],
    ["machine", "Machine", machineSection(data)],
  ].filter(([, , content]) => content.length);
  document.querySelector("nav").replaceChildren(...sections.map(([id, name]) => element("a", { href: `#${id}` }, name)));
  document.querySelector("main").replaceChildren(...sections.map((parts) => section(...parts)));
}

/* A live page draws anew what a running training has added, and leaves what someone plays or reads alone. */
async function follow(known) {
  try {
    const answer = await fetch("data.json", { cache: "no-store" });
    const text = await answer.text();
    const busy = document.querySelector("details[open]") || [...document.querySelectorAll("button")].some((button) => ["Pause", "Stop"].includes(button.textContent));
    if (text !== known && !busy) {
      render(JSON.parse(text));
      known = text;
    }
  } catch {
    document.querySelector("footer").textContent = "The training's machine does not answer any more.";
  }
  setTimeout(() => follow(known), LIVE_INTERVAL);
}

const DATA = JSON.parse(document.getElementById("data").textContent);
render(DATA);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  plots.forEach(([target, lines, more]) => Plotly.react(target, lines, layout(more), CONFIG)));
if (LIVE) setTimeout(() => follow(null), LIVE_INTERVAL);
