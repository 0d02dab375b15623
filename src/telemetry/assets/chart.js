// A chart over time in SVG: lines, or areas on top of each other.

import { clock, make, setText } from "/show.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 40;
const BOTTOM = 18;
const TOP = 6;
const MINUTE = 60000;
const HOUR = 60 * MINUTE;

function draw(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The smallest number that is not below and whose half is round too. */
function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((times) => times * unit).find((round) => round >= value * 0.999);
}

/**
 * series: [{ name, ink, value: sample => number or null }]; of areas each stands on the one before.
 * settings: { title, kind: "lines" or "areas", least: the smallest top of the scale, show: number => text }
 */
export class Chart {
  constructor(settings, series) {
    this.settings = settings;
    this.series = series;
    this.samples = [];
    this.gap = 15000;
    this.svg = draw("svg", { role: "img" });
    this.grid = this.svg.appendChild(draw("g"));
    this.paths = series.map(({ ink }) => {
      const look = settings.kind === "areas" ? "area" : "line";
      return this.svg.appendChild(draw("path", { class: `${look} ink-${ink}` }));
    });
    this.cursor = this.svg.appendChild(draw("line", { class: "cursor", visibility: "hidden" }));
    this.legend = make("p", "legend");
    this.values = series.map(({ name, ink }) => {
      const value = make("b");
      const entry = make("span", `ink-${ink}`, make("i"), `${name} `, value);
      this.legend.append(entry);
      return value;
    });
    this.when = this.legend.appendChild(make("span"));
    this.element = make("article", "card chart", make("h2", "", settings.title), this.legend, this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.redraw()).observe(this.svg);
  }

  show(samples, gap) {
    this.samples = samples;
    this.gap = gap;
    this.redraw();
  }

  point(event) {
    this.pointed = event && event.clientX - this.svg.getBoundingClientRect().left;
    this.tell();
  }

  redraw() {
    this.width = this.svg.clientWidth;
    this.height = this.svg.clientHeight;
    if (!this.width || !this.samples.length) return;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const last = this.samples.at(-1).at_ms;
    const past = Math.min(HOUR, Math.max(2 * MINUTE, last - this.samples[0].at_ms));
    this.shown = this.samples.filter(({ at_ms }) => at_ms >= last - past);
    this.x = (time) => LEFT + ((time - last + past) / past) * (this.width - LEFT - 2);
    const stacked = this.shown.map((sample) => this.stack(sample));
    const highest = Math.max(this.settings.least, ...stacked.flat().map((value) => value ?? 0));
    const top = roundUp(highest);
    this.y = (value) => TOP + (1 - value / top) * (this.height - TOP - BOTTOM);
    this.drawGrid(top, last, past);
    this.drawPaths(stacked);
    this.tell();
  }

  /** What stands above what. */
  stack(sample) {
    let below = 0;
    return this.series.map(({ value }) => {
      const own = value(sample);
      if (this.settings.kind === "lines" || own == null) return own;
      below += own;
      return below;
    });
  }

  drawGrid(top, last, past) {
    const lines = [0, 0.5, 1].flatMap((share) => {
      const y = this.y(top * share);
      const text = draw("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" });
      text.textContent = this.settings.show(top * share);
      return [draw("line", { class: "grid", x1: LEFT, x2: this.width, y1: y, y2: y }), text];
    });
    const times = [1, 0.5, 0].map((share) => {
      const anchor = share === 1 ? "start" : share === 0 ? "end" : "middle";
      const text = draw("text", { x: this.x(last - past * share), y: this.height - 3, "text-anchor": anchor });
      text.textContent = share === 0 ? "now" : `−${Math.round((past * share) / MINUTE * 10) / 10} min`;
      return text;
    });
    this.grid.replaceChildren(...lines, ...times);
  }

  drawPaths(stacked) {
    this.paths.forEach((path, index) => {
      const parts = this.parts(stacked, index);
      const at = ([time, value]) => `${this.x(time).toFixed(1)} ${this.y(value).toFixed(1)}`;
      const shape = parts.map((part) => {
        const line = `M${part.map(at).join("L")}`;
        if (this.settings.kind === "lines") return part.length > 1 ? line : `${line}h1`;
        const under = part.map(([time, , below]) => [time, below]).reverse();
        return `${line}L${under.map(at).join("L")}Z`;
      });
      path.setAttribute("d", shape.join(""));
    });
  }

  /** Stretches without a gap: [time, value, what is below]. */
  parts(stacked, index) {
    const parts = [];
    let before = null;
    this.shown.forEach(({ at_ms }, at) => {
      const value = stacked[at][index];
      if (value == null) {
        before = null;
        return;
      }
      if (before == null || at_ms - before > this.gap) parts.push([]);
      parts.at(-1).push([at_ms, value, index > 0 ? stacked[at][index - 1] ?? 0 : 0]);
      before = at_ms;
    });
    return parts;
  }

  /** The numbers at the pointer, or the newest. */
  tell() {
    if (!this.shown?.length) return;
    const pointed = this.pointed != null;
    const away = ({ at_ms }) => Math.abs(this.x(at_ms) - this.pointed);
    const sample = pointed
      ? this.shown.reduce((best, next) => (away(next) < away(best) ? next : best))
      : this.shown.at(-1);
    const x = this.x(sample.at_ms);
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: TOP, y2: this.height - BOTTOM })) {
      this.cursor.setAttribute(name, value);
    }
    this.cursor.setAttribute("visibility", pointed ? "visible" : "hidden");
    const told = this.series.map(({ value }) => this.settings.show(value(sample)));
    told.forEach((text, index) => setText(this.values[index], text));
    setText(this.when, pointed ? `at ${clock(sample.at_ms)}` : "");
    const summary = this.series.map(({ name }, index) => `${name} ${told[index]}`).join(", ");
    this.svg.setAttribute("aria-label", `${this.settings.title}: ${summary}`);
  }
}
