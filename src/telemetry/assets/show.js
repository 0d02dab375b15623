// Words and numbers for people, and changes to the page that do not flicker.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value) => (value == null ? "–" : whole.format(value));

export function rate(value) {
  if (value == null) return "–";
  if (value >= 10000) return short.format(value);
  return value >= 0.05 && value < 10 ? value.toFixed(1) : whole.format(value);
}

export function seconds(value) {
  if (value == null) return "–";
  if (value < 0.05) return "0 s";
  if (value < 10) return `${value.toFixed(1)} s`;
  return value < 120 ? `${Math.round(value)} s` : span(value);
}

export function span(value) {
  if (value == null) return "–";
  const [days, hours, minutes] = [value / 86400, (value / 3600) % 24, (value / 60) % 60].map(Math.floor);
  if (days >= 10) return `${count(days)} d`;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(value)} s`;
}

export function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 1000 && at < units.length - 1; at += 1) value /= 1000;
  return `${at > 0 && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

/** How many of what. */
export const some = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

export function moment(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return today ? clock(date) : `${day} ${clock(date)}`;
}

export const words = (name) => (name ?? "").replaceAll("_", " ");

export const by = (id) => document.getElementById(id);

/** An element with a class and children, which are elements or texts. */
export function make(tag, look, ...children) {
  const element = document.createElement(tag);
  if (look) element.className = look;
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setTone(element, tone) {
  if (element.dataset.tone !== tone) element.dataset.tone = tone;
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}
