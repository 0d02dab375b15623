// Looks at the dashboard of a running tandem with a real browser: complains about what is wrong with
// it, and takes its pictures. Speaks with the browser through a pipe, so that nothing is installed.
//
// node browser.mjs BROWSER ADDRESS FOLDER

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [browser, address, folder] = process.argv.slice(2);
const WAIT_MAX = 60000;
const PICTURE_BYTES_MAX = 200000;

const VIEWS = [
  { name: "dashboard-light", width: 1240, height: 1010, scheme: "light", phone: false },
  { name: "dashboard-dark", width: 1240, height: 1010, scheme: "dark", phone: false },
  { name: "dashboard-phone", width: 390, height: 1180, scheme: "dark", phone: true },
];

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function must(holds, what) {
  if (!holds) throw new Error(what);
}

/** A browser and one page of it. */
class Page {
  constructor() {
    this.profile = mkdtempSync(join(tmpdir(), "tandem-browser-"));
    const sandbox = process.getuid() === 0 ? ["--no-sandbox"] : [];
    const options = ["--headless=new", "--remote-debugging-pipe", "--hide-scrollbars", "--disable-gpu",
      "--no-first-run", `--user-data-dir=${this.profile}`, ...sandbox, "about:blank"];
    this.process = spawn(browser, options, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
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
    if (method === "Network.requestWillBeSent" && !params.request.url.startsWith(`http://${address}/`)) {
      if (!params.request.url.startsWith("about:")) this.complaints.push(`asks somebody else: ${params.request.url}`);
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

const TOTAL = "[...document.querySelectorAll('#totals tr')].slice(0, 6).map((row) => row.innerText).join()";

async function check(page, view) {
  await page.view(view);
  await page.say("Page.navigate", { url: `http://${address}/` });
  await page.until("the link runs", "document.querySelector('#state')?.textContent === 'running'");
  await page.until("charts are drawn", "[...document.querySelectorAll('.chart .line')].some((path) => path.getAttribute('d')?.includes('L'))");
  await page.until("conflicts are listed", "document.querySelectorAll('#records tr').length > 0");
  const before = await page.look(TOTAL);
  await page.until("numbers move", `${TOTAL} !== ${JSON.stringify(before)}`);
  const wider = await page.look("document.documentElement.scrollWidth - innerWidth");
  must(wider <= 0, `${view.name} is ${wider} pixels wider than the screen`);
  const unreadable = await page.look(`(${faint})()`);
  must(unreadable.length === 0, `${view.name} has faint texts: ${unreadable.join("; ")}`);
  const unnamed = await page.look("[...document.querySelectorAll('svg[role=img], section, article, [role=region]')].filter((one) => !one.getAttribute('aria-label') && !one.querySelector('h2, h3')).length");
  must(unnamed === 0, `${unnamed} parts have no name for who cannot see them`);
}

async function picture(page, { name, width, height }) {
  await page.say("Page.bringToFront");
  const clip = { x: 0, y: 0, width, height, scale: 1 };
  const { data } = await page.say("Page.captureScreenshot", { format: "png", clip });
  const bytes = Buffer.from(data, "base64");
  const file = join(folder, `${name}.png`);
  writeFileSync(file, bytes);
  console.log(`${file}: ${Math.round(bytes.length / 1000)} kB`);
  must(bytes.length <= PICTURE_BYTES_MAX, `${file} is too large`);
}

const page = new Page();
try {
  await page.open();
  for (const view of VIEWS) {
    await check(page, view);
    await picture(page, view);
  }
  must(page.complaints.length === 0, `the browser complains: ${page.complaints.join("; ")}`);
} catch (error) {
  console.error(`browser.mjs: ${error.message}`);
  page.complaints.forEach((complaint) => console.error(`  ${complaint}`));
  process.exitCode = 1;
} finally {
  await page.close();
}
