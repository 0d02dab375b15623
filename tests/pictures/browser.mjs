// A real browser and what every page of tandem must bear: it complains of nothing, asks nobody else,
// is readable and fits the screen. Speaks with the browser through a pipe: nothing is installed.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const WAIT_MAX = 60000;
/** Of a picture in the documents. */
export const PICTURE_BYTES_MAX = 300000;

/** Light, dark, and as wide as a phone. */
export const views = (name, { high, long }) => [
  { name: `${name}-light`, width: 1240, height: high, scheme: "light", phone: false },
  { name: `${name}-dark`, width: 1240, height: high, scheme: "dark", phone: false },
  { name: `${name}-phone`, width: 390, height: long, scheme: "dark", phone: true },
];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export function must(holds, what) {
  if (!holds) throw new Error(what);
}

/** A browser and one page of it, which may ask only for what `asks` allows. */
class Page {
  constructor(browser, asks) {
    this.profile = mkdtempSync(join(tmpdir(), "tandem-browser-"));
    const sandbox = process.getuid() === 0 ? ["--no-sandbox"] : [];
    const options = ["--headless=new", "--remote-debugging-pipe", "--hide-scrollbars", "--disable-gpu",
      "--no-first-run", `--user-data-dir=${this.profile}`, ...sandbox, "about:blank"];
    this.process = spawn(browser, options, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    this.asks = asks;
    this.waiting = new Map();
    this.complaints = [];
    this.next = 1;
    let heard = "";
    this.process.stdio[4].setEncoding("utf8").on("data", (text) => {
      const messages = (heard + text).split("\0");
      heard = messages.pop();
      messages.forEach((message) => this.hear(JSON.parse(message)));
    });
  }

  async open() {
    const { targetId } = await this.say("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.say("Target.attachToTarget", { targetId, flatten: true });
    this.session = sessionId;
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await this.say(`${domain}.enable`);
  }

  say(method, params = {}) {
    const id = this.next++;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    return new Promise((done, failed) => this.waiting.set(id, { done, failed }));
  }

  hear({ id, result, error, method, params }) {
    if (id) {
      const { done, failed } = this.waiting.get(id);
      this.waiting.delete(id);
      return error ? failed(new Error(error.message)) : done(result);
    }
    if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === "Runtime.consoleAPICalled" && ["error", "warning"].includes(params.type)) {
      this.complaints.push(params.args.map(({ value }) => value).join(" "));
    }
    if (method === "Log.entryAdded" && params.entry.level === "error") this.complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    if (method === "Network.requestWillBeSent" && !params.request.url.startsWith("about:") && !this.asks(params.request.url)) {
      this.complaints.push(`asks somebody else: ${params.request.url}`);
    }
    return undefined;
  }

  async look(expression) {
    const { result, exceptionDetails } = await this.say("Runtime.evaluate", { expression, returnByValue: true });
    must(!exceptionDetails, exceptionDetails?.exception?.description ?? "");
    return result.value;
  }

  async until(what, expression) {
    const start = Date.now();
    while (!(await this.look(expression))) {
      must(Date.now() - start < WAIT_MAX, `waited in vain: ${what}`);
      await pause(200);
    }
  }

  /** Presses what is there for a finger or a mouse. */
  async press(selector) {
    const middle = `(() => {
      const element = document.querySelector(${JSON.stringify(selector)});
      element.scrollIntoView({ block: "center" });
      const { x, y, width, height } = element.getBoundingClientRect();
      return { x: x + width / 2, y: y + height / 2 };
    })()`;
    const at = { ...(await this.look(middle)), button: "left", clickCount: 1 };
    for (const type of ["mousePressed", "mouseReleased"]) await this.say("Input.dispatchMouseEvent", { type, ...at });
  }

  /** Types a text in the place of what a field holds. */
  async type(selector, text) {
    await this.press(selector);
    await this.look(`document.querySelector(${JSON.stringify(selector)}).select()`);
    if (text) await this.say("Input.insertText", { text });
    else await this.say("Input.dispatchKeyEvent", { type: "keyDown", key: "Delete", code: "Delete", windowsVirtualKeyCode: 46 });
  }

  async view({ width, height, scheme, phone }) {
    await this.say("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: phone ? 1.5 : 1, mobile: phone });
    await this.say("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  }

  async close() {
    this.process.kill();
    await pause(300);
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Texts whose contrast is below what WCAG AA asks for, computed in the page. */
function faint() {
  const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = (color) => {
    const [r, g, b] = color.slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] > 0.5) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest("noscript, .visually-hidden, .fresh")) continue;
    const style = getComputedStyle(element);
    const [text, ground] = [light(parse(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
    const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    if (contrast < 4.5) found.push(`${walk.currentNode.textContent.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return found;
}

/** What can be read at all, on any screen, by anybody. */
export async function checkReadable(page, name) {
  const wider = await page.look("document.documentElement.scrollWidth - innerWidth");
  must(wider <= 0, `${name} is ${wider} pixels wider than the screen`);
  const unreadable = await page.look(`(${faint})()`);
  must(unreadable.length === 0, `${name} has faint texts: ${unreadable.slice(0, 20).join("; ")}`);
  const unnamed = await page.look("[...document.querySelectorAll('svg[role=img], section, article, [role=region]')].filter((one) => !one.getAttribute('aria-label') && !one.querySelector('h2, h3')).length");
  must(unnamed === 0, `${name}: ${unnamed} parts have no name for who cannot see them`);
}

export async function picture(page, { name, width, height, top = 0, beyond = false }, folder, bytes_max = Infinity) {
  await page.say("Page.bringToFront");
  const clip = { x: 0, y: top, width, height, scale: 1 };
  const { data } = await page.say("Page.captureScreenshot", { format: "png", clip, captureBeyondViewport: beyond });
  const bytes = Buffer.from(data, "base64");
  const file = join(folder, `${name}.png`);
  writeFileSync(file, bytes);
  console.log(`${file}: ${Math.round(bytes.length / 1000)} kB`);
  must(bytes.length <= bytes_max, `${file} is too large`);
}

/** Does the work with a page, and fails where the browser has anything to complain of. */
export async function withPage(browser, asks, work) {
  const page = new Page(browser, asks);
  try {
    await page.open();
    await work(page);
    must(page.complaints.length === 0, "the browser complains");
  } catch (error) {
    console.error(`${process.argv[1]}: ${error.message}`);
    page.complaints.forEach((complaint) => console.error(`  ${complaint}`));
    process.exitCode = 1;
  } finally {
    await page.close();
  }
}
