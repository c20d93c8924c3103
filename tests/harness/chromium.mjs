// Opens pages in a headless Chromium and prints what is there as JSON: `node chromium.mjs VISITS.json`, an array of
// {url, width, dark, shot, steps}, from a folder whose node_modules has the browser.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(pathToFileURL(process.cwd() + "/"));
// The two are of both kinds of module, with a default inside of the default where they are of the older kind.
const load = async name => { const found = await import(pathToFileURL(require.resolve(name))); return found.default?.default ?? found.default; };
const chromium = await load("@sparticuz/chromium");
const puppeteer = await load("puppeteer-core");

/** What is asked in the page itself. */
function look() {
  const seen = [...document.querySelectorAll("body *")].filter(element => element.checkVisibility());
  const own = element => [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join("").trim();
  const numbers = colour => colour.match(/[\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = numbers(colour).map(value => value / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const [, , , alpha = 1] = numbers(getComputedStyle(at).backgroundColor);
      if (alpha === 1) return getComputedStyle(at).backgroundColor;
      if (alpha > 0) return null; // what lies below shines through
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  for (const element of seen) {
    if (!own(element) || element.closest("svg")) continue;
    const below = ground(element);
    if (below === null) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(below)].sort((one, other) => other - one);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(own(element).slice(0, 60));
  }
  return {
    width: document.documentElement.scrollWidth,
    inner: innerWidth,
    text: document.body.innerText,
    images: [...document.images].map(image => [image.complete, image.naturalWidth, image.getBoundingClientRect().width]),
    small: [...new Set(seen.filter(own).map(element => parseFloat(getComputedStyle(element).fontSize)))].sort((a, b) => a - b)[0],
    faint,
    scripts: document.scripts.length,
  };
}

const visits = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const browser = await puppeteer.launch({
  executablePath: await chromium.executablePath(),
  args: ["--no-sandbox", "--disable-gpu"],
  headless: "shell",
});
const answers = [];
try {
  for (const visit of visits) {
    const page = await browser.newPage();
    const said = [], requests = [];
    page.on("console", message => said.push(message.text()));
    page.on("pageerror", error => said.push(error.message));
    page.on("dialog", async dialog => { said.push("dialog: " + dialog.message()); await dialog.dismiss(); });
    page.on("request", request => request.url().startsWith("data:") || requests.push(request.url()));
    await page.emulateMediaFeatures([{name: "prefers-color-scheme", value: visit.dark ? "dark" : "light"}]);
    const phone = visit.width < 600;
    await page.setViewport({width: visit.width, height: 900, isMobile: phone, hasTouch: phone, deviceScaleFactor: phone ? 2 : 1});
    await page.goto(visit.url, {waitUntil: "load"});
    if (visit.await) await page.waitForFunction(visit.await, {timeout: 30000});
    const found = await page.evaluate(look);
    if (visit.shot) await page.screenshot({path: visit.shot, fullPage: true});
    const stepped = [];
    for (const step of visit.steps ?? []) stepped.push(await page.evaluate(step));
    answers.push({...found, said, requests, stepped});
    await page.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(answers));
