// Follows a running link over server-sent events and shows how it is.

import { Chart } from "/chart.js";
import { by, bytes, clock, count, make, moment, rate, seconds, setHidden, setText, setTone, some, span, words } from "/show.js";

const OPERATIONS = ["insert", "update", "replace", "delete", "ddl"];
const HOUR = 3600000;
const SILENT_MAX = 6000;
/** More news at once is no news of any one record. */
const FLASHES_MAX = 8;
/** An error that the link has survived for so long is no news. */
const OLD_ERROR = 24 * HOUR;
const TONES = {
  running: "good", streaming: "good",
  starting: "warn", initial_sync: "warn", recovering: "warn", waiting: "warn", paused: "warn", outside_window: "idle",
  failed: "bad", stopped: "bad", ended: "idle", never_run: "idle",
};
const KINDS = {
  insert_exists: "both inserted it",
  update_origin_differs: "both updated it",
  update_deleted: "update against delete",
  delete_origin_differs: "delete against update",
  ddl: "change of a collection",
  dead_letter: "dead letter",
};

const page = { samples: [], recent: [], gap: 15000, heardAt: Date.now(), names: {} };

function name(side) {
  return page.names[side] ?? side;
}

const sides = (pipeline) => (pipeline === "a-to-b" ? ["a", "b"] : ["b", "a"]);
const title = (pipeline) => sides(pipeline).map(name).join(" → ");

/* The clusters. */

function clusterCard(side) {
  const card = by(`cluster-${side}`);
  const parts = { name: make("h3"), tag: make("span", "tag"), about: make("p", "quiet"), facts: {} };
  const list = make("dl");
  for (const fact of ["oplog time left", "oplog holds", "clock"]) {
    parts.facts[fact] = make("dd");
    list.append(make("dt", "", fact), parts.facts[fact]);
  }
  card.append(make("div", "row", parts.name, parts.tag), parts.about, list);
  return parts;
}

const cards = { a: clusterCard("a"), b: clusterCard("b") };

function showCluster(side, cluster) {
  const card = cards[side];
  setText(card.name, cluster.name);
  const set = cluster.set_name ? `${cluster.set_name}, MongoDB ${cluster.version ?? "?"}` : "not reached yet";
  setText(card.about, `cluster ${side}: ${set}`);
  const reached = { true: ["reachable", "good"], false: ["unreachable", "bad"] }[cluster.reachable] ?? ["unknown", "idle"];
  setText(card.tag, reached[0]);
  setTone(card.tag, reached[1]);
  const left = cluster.oplog_seconds_left;
  setText(card.facts["oplog time left"], span(left));
  setTone(card.facts["oplog time left"], left != null && left < 3600 ? "bad" : "");
  setText(card.facts["oplog holds"], span(cluster.oplog_window_seconds));
  setText(card.facts.clock, skew(side, cluster.clock_skew_ms));
}

/** The skew is that of b against a; each card tells its own side. */
function skew(side, ms) {
  if (ms == null) return "–";
  const own = side === "b" ? ms : -ms;
  const size = Math.abs(own) >= 1000 ? seconds(Math.abs(own) / 1000) : `${Math.abs(own)} ms`;
  return Math.abs(own) < 50 ? "in step" : `${size} ${own > 0 ? "ahead" : "behind"}`;
}

/* The directions. */

const ways = new Map();

function wayCard(pipeline) {
  const parts = { name: make("h3"), phase: make("span", "tag"), waiting: make("p", "waiting"), figures: {} };
  const figures = make("div", "figures");
  for (const figure of ["lag", "applied/s", "conflicts", "dead letters"]) {
    parts.figures[figure] = make("b", "", "–");
    figures.append(make("div", "", parts.figures[figure], make("span", "", figure)));
  }
  const card = make("article", "card way", make("div", "row", parts.name, parts.waiting, parts.phase), figures);
  card.dataset.way = pipeline;
  by("ways").append(card);
  return parts;
}

function showWay(pipeline, perSecond) {
  if (!ways.has(pipeline.id)) ways.set(pipeline.id, wayCard(pipeline.id));
  const { name: heading, phase, waiting, figures } = ways.get(pipeline.id);
  setText(heading, title(pipeline.id));
  setText(phase, words(pipeline.phase));
  setTone(phase, TONES[pipeline.phase] ?? "idle");
  setText(figures.lag, seconds(pipeline.lag_seconds));
  setText(figures["applied/s"], rate(perSecond));
  setText(figures.conflicts, count(pipeline.conflicts_total));
  setText(figures["dead letters"], count(pipeline.dead_letters_total));
  setTone(figures["dead letters"], pipeline.dead_letters_total > 0 ? "bad" : "");
  const waits = pipeline.waiting_on && (pipeline.phase !== "streaming" || waitsLong(pipeline));
  setText(waiting, waits ? `waits for ${pipeline.waiting_on}` : "");
}

/** Every batch waits for a moment; what goes on over some statuses is worth a word. */
function waitsLong({ id, waiting_on: reason }) {
  const latest = page.recent.slice(-4);
  const same = ({ status }) => status.pipelines.some((one) => one.id === id && one.waiting_on === reason);
  return latest.length === 4 && latest.every(same);
}

/** Operations a second over the last few statuses. */
function perSecond(id) {
  const of = ({ status }) => status.pipelines.find((pipeline) => pipeline.id === id)?.operations_applied_total;
  const [first, last] = [page.recent[0], page.recent.at(-1)];
  const elapsed = (last.at_ms - first.at_ms) / 1000;
  const more = of(last) - of(first);
  return elapsed > 0 && more >= 0 ? more / elapsed : null;
}

/* The charts. */

const charts = new Map();

function chartsFor(pipelines) {
  const key = pipelines.map(({ id }) => title(id)).join();
  if (charts.key === key) return;
  charts.key = key;
  charts.clear();
  const value = (id, pick) => (sample) => {
    const found = sample.pipelines.find((pipeline) => pipeline.id === id);
    return found ? pick(found) : null;
  };
  const lag = pipelines.map(({ id }) => ({
    name: title(id),
    ink: id === "a-to-b" ? "one" : "two",
    value: value(id, ({ lag_seconds }) => lag_seconds),
  }));
  charts.set("lag", new Chart({ title: "Lag", kind: "lines", least: 1, show: seconds }, lag));
  for (const { id } of pipelines) {
    const series = OPERATIONS.map((operation, at) => ({
      name: operation,
      ink: operation,
      value: value(id, ({ rates }) => rates[at]),
    }));
    const settings = { title: `Operations a second, ${title(id)}`, kind: "areas", least: 10, show: rate };
    charts.set(id, new Chart(settings, series));
  }
  by("charts").replaceChildren(...[...charts.values()].map(({ element }) => element));
  for (const chart of charts.values()) chart.show(page.samples, page.gap);
}

/* What needs somebody. */

function showTrouble({ status, last_error: error, alerts }) {
  const past = status.state !== "failed";
  const old = past && error && Date.now() - new Date(error.at) > OLD_ERROR;
  setHidden(by("error"), !error || old);
  if (error) {
    setTone(by("error"), past ? "past" : "bad");
    setText(by("error-title"), `${past ? "What ended the run before" : "The link has ended"}, ${moment(error.at)} (exit code ${error.exit_code})`);
    setText(by("error-message"), error.message);
    setText(by("error-hint"), error.hint ? `Hint: ${error.hint}` : "");
  }
  const unpaired = status.unpaired_namespaces.map((namespace) => `${namespace} is no longer replicated`);
  const refused = status.index_problems.map(
    ({ cluster, namespace, name: index, reason }) => `${name(cluster)} refuses ${index} of ${namespace}: ${reason}`,
  );
  const firing = (alerts ?? []).map(({ text, since_ms: since }) => `${text}, since ${moment(since)}`);
  const all = [...firing, ...unpaired, ...refused];
  setHidden(by("attention"), all.length === 0);
  if (by("attention-list").dataset.shown !== all.join("\n")) {
    by("attention-list").dataset.shown = all.join("\n");
    by("attention-list").replaceChildren(...all.map((line) => make("li", "", line)));
  }
}

function showSync(sync) {
  const busy = sync && !["done", "failed"].includes(sync.state);
  setHidden(by("sync"), !busy);
  if (!busy) return;
  const building = sync.state === "building_indexes";
  const [done, of] = building ? [sync.indexes_done, sync.indexes_total] : [sync.bytes_done, sync.bytes_total];
  by("sync-bar").value = of > 0 ? Math.min(1000, (done / of) * 1000) : 0;
  const what = { copy: "Initial copy", merge: "Merge of both sides", resync: "Resync" }[sync.mode] ?? "Initial sync";
  setText(by("sync-title"), `${what}: ${words(sync.state)}`);
  setText(by("sync-left"), sync.seconds_left == null ? "" : `${span(sync.seconds_left)} left`);
  const documents = `${count(sync.documents_done)} of ${count(sync.documents_total)} documents`;
  const rest = building
    ? `${count(done)} of ${count(of)} indexes`
    : `${documents}, ${bytes(done)} of ${bytes(of)}, ${rate(sync.documents_per_second)} documents/s`;
  setText(by("sync-text"), rest);
}

/* Totals. */

const TOTALS = [
  ["events read", (pipeline) => pipeline.events_read_total],
  ...OPERATIONS.map((operation) => [`${operation} applied`, (pipeline) => pipeline.operations_applied_by_type[operation]]),
  ["conflicts lost", (pipeline) => pipeline.conflicts_total],
  ["identical writes", (pipeline) => pipeline.identical_total],
  ["dead letters", (pipeline) => pipeline.dead_letters_total],
  ["transactions refused by the fence", (pipeline) => pipeline.fence_conflicts_total],
  ["events passed over", (pipeline) => pipeline.events_passed_over_total],
];

function showTotals(pipelines) {
  const heads = ["", ...pipelines.map(({ id }) => title(id))];
  if (by("totals-head").dataset.shown !== heads.join()) {
    by("totals-head").dataset.shown = heads.join();
    const cell = (text) => Object.assign(make("th", "", text || make("span", "visually-hidden", "total")), { scope: "col" });
    by("totals-head").replaceChildren(...heads.map(cell));
    const row = ([text]) => {
      const head = Object.assign(make("th", "", text), { scope: "row" });
      return make("tr", "", head, ...pipelines.map(() => make("td")));
    };
    by("totals").replaceChildren(...TOTALS.map(row));
  }
  TOTALS.forEach(([, value], row) => {
    pipelines.forEach((pipeline, column) => {
      setText(by("totals").rows[row].cells[column + 1], count(value(pipeline)));
    });
  });
}

/* Conflicts. */

function recordRow(record) {
  const time = make("td", "time", moment(record.logged_at));
  time.title = record.logged_at;
  const kind = make("span", "tag", KINDS[record.kind] ?? words(record.kind));
  if (record.kind === "dead_letter") kind.dataset.tone = "bad";
  const document = make("td", "document", `${record.namespace} `, make("code", "", record.key));
  const winner = make("td", "winner", record.winner ?? "–");
  const why = make("td", "", record.reason);
  if (record.status !== "logged") why.append(`, ${record.status}`);
  const row = make("tr", "", time, make("td", "", kind), document, winner, why);
  row.dataset.id = record.id;
  row.dataset.status = record.status;
  return row;
}

function showRecords(records) {
  const body = by("records");
  const known = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  const added = records.filter(({ id }) => !known.has(id)).length;
  const flashes = page.recordsShown === true && added <= FLASHES_MAX;
  page.recordsShown = true;
  const rows = records.map((record) => {
    const before = known.get(record.id);
    if (before?.dataset.status === record.status) return before;
    const row = recordRow(record);
    if (flashes && !before) row.classList.add("fresh");
    return row;
  });
  // A row that stays where it is is not touched, so that nothing jumps under a reader.
  rows.forEach((row, at) => {
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
  });
  while (body.rows.length > rows.length) body.lastElementChild.remove();
  setHidden(by("records-none"), records.length > 0);
  setHidden(body.closest(".scroll"), records.length === 0);
}

/* The whole page. */

function showStatus(told) {
  const { status } = told;
  page.recent = [...page.recent, told].slice(-6);
  page.names = { a: status.clusters.a.name, b: status.clusters.b.name };
  setText(by("link"), status.link);
  const turned = status.direction ? `one-way, ${title(status.direction)}` : "two-way";
  setText(by("mode"), status.since ? `${turned}, ${words(status.state)} since ${moment(status.since)}` : turned);
  setText(by("state"), words(status.state));
  setTone(by("state"), TONES[status.state] ?? "idle");
  for (const side of ["a", "b"]) showCluster(side, status.clusters[side]);
  for (const pipeline of status.pipelines) showWay(pipeline, perSecond(pipeline.id));
  chartsFor(status.pipelines);
  showTrouble(told);
  showSync(status.initial_sync);
  showTotals(status.pipelines);
  const sum = (pick) => status.pipelines.reduce((all, pipeline) => all + pick(pipeline), 0);
  const [conflicts, letters] = [sum((one) => one.conflicts_total), sum((one) => one.dead_letters_total)];
  setText(by("records-total"), `${some(conflicts, "conflict", "conflicts")}, ${some(letters, "dead letter", "dead letters")} in all; the newest are listed`);
  document.title = status.state === "running" ? `${status.link}: tandem` : `${words(status.state)}: ${status.link}`;
}

function takeSamples(samples) {
  const known = page.samples.filter(({ at_ms }) => at_ms < samples[0].at_ms);
  const oldest = samples.at(-1).at_ms - HOUR;
  page.samples = [...known, ...samples].filter(({ at_ms }) => at_ms >= oldest);
  for (const chart of charts.values()) chart.show(page.samples, page.gap);
}

function hello({ version, started_at_ms: startedAt, sample_seconds: interval }) {
  if (page.version && page.version !== version) location.reload();
  if (page.startedAt !== startedAt) page.recent = [];
  Object.assign(page, { version, startedAt, gap: interval * 3000 });
  setText(by("version"), `tandem ${version}, running since ${moment(startedAt)}`);
}

const HEARS = { hello, samples: takeSamples, records: showRecords, status: showStatus };

function listen() {
  const events = new EventSource("/events");
  for (const [event, act] of Object.entries(HEARS)) {
    events.addEventListener(event, ({ data }) => {
      page.heardAt = Date.now();
      act(JSON.parse(data));
    });
  }
  // A browser gives up for good where it got an answer that is no stream, such as "too many pages".
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
}

setInterval(() => {
  const lost = Date.now() - page.heardAt > SILENT_MAX;
  setHidden(by("lost"), !lost);
  by("page").toggleAttribute("data-stale", lost);
  if (!lost) return;
  setText(by("lost"), `No answer from tandem since ${clock(page.heardAt)}. It may be stopped or restarting; trying again.`);
  setText(by("state"), "no answer");
  setTone(by("state"), "idle");
  document.title = "no answer: tandem";
}, 1000);

listen();
