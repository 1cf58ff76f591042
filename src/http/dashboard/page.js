// The dashboard: reads /api/live and puts what it says on the page. Whatever comes from outside is put in as text.
"use strict";
(() => {
const SVG = "http://www.w3.org/2000/svg";
const KEY = "pointsman.key";
const DRAWN = 96;            // places drawn one by one
const REMEMBERED_S = 300;    // of latency, by this page
const FIRST_PAUSE = 500, LONGEST_PAUSE = 10000;

const $ = (id) => document.getElementById(id);
const sum = (list) => list.reduce((all, one) => all + one, 0);

// ---------------------------------------------------------------- making and filling nodes

function el(tag, name, ...inside) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...inside);
  return node;
}
function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
function set(node, text) {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
  return node;
}
function mood(node, word) { if (node.dataset.mood !== word) node.dataset.mood = word; }
function part(node, name) { return node.querySelector("." + name); }

// Keeps the node of each item, so that focus and reading position stay where they are.
function list(box, items, keyOf, make, fill) {
  const old = new Map();
  for (const child of box.children) old.set(child.dataset.key, child);
  const seen = new Map();
  let place = box.firstElementChild;
  for (const item of items) {
    let key = String(keyOf(item));
    const before = seen.get(key) || 0;
    seen.set(key, before + 1);
    if (before) key += " #" + before;
    let node = old.get(key);
    old.delete(key);
    if (!node) { node = make(item); node.dataset.key = key; }
    fill(node, item);
    if (node === place) place = place.nextElementSibling;
    else box.insertBefore(node, place);
  }
  for (const node of old.values()) node.remove();
}

// ---------------------------------------------------------------- words

function length(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.00005) return "0 ms";
  if (seconds < 1) return (seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0) + " ms";
  if (seconds < 60) return seconds.toFixed(seconds < 10 ? 1 : 0) + " s";
  const rest = Math.floor(seconds % 60);
  if (seconds < 3600) return Math.floor(seconds / 60) + " min" + (rest ? " " + rest + " s" : "");
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h " + Math.floor(seconds % 3600 / 60) + " min";
  return Math.floor(seconds / 86400) + " d " + Math.floor(seconds % 86400 / 3600) + " h";
}
function count(number) { return (number || 0).toLocaleString("en"); }
function plural(number, one, many) { return count(number) + " " + (number === 1 ? one : many); }

// ---------------------------------------------------------------- the parts of the picture

function tile(name, big, of, under, state) { return { name, big, of, under, state: state || "none" }; }

function tiles(shot) {
  const { slots, queue, sessions } = shot.status;
  const oldest = Math.max(0, ...Object.values(queue.classes).map((line) => line.oldest_s));
  const now = slots.global.limit_now === undefined ? slots.global.limit : slots.global.limit_now;
  const hour = ends(shot);
  const failed = hour.timeout + hour.error;
  const all = [
    tile("Calls in flight", count(slots.global.in_use), " / " + now,
      now < slots.global.limit ? "throttled from " + slots.global.limit : "at most " + slots.global.peak + " at once so far",
      now < slots.global.limit ? "slow" : "none"),
    tile("Waiting in line", count(queue.waiting), "",
      queue.waiting ? "the oldest for " + length(oldest) : "nobody waits", queue.pressure ? "slow" : "none"),
    tile("Sessions at work", count(sessions.active), " / " + sessions.limit, plural(sessions.known, "is", "are") + " remembered"),
    tile("Refused, last hour", count(hour.refused), "", "of " + plural(hour.all, "request", "requests"), hour.refused ? "slow" : "none"),
    tile("Failed, last hour", count(failed), "", count(hour.timeout) + " out of time, " + count(hour.error) + " gone wrong", failed ? "stop" : "none"),
  ];
  const total = shot.latency && shot.latency.phases.total;
  if (total) {
    const isSlow = total.count > 0 && total.p95_s > shot.target_s;
    all.push(tile("Latency, 95 of 100", total.count ? length(total.p95_s) : "–", "",
      (isSlow ? "above " : "line at ") + length(shot.target_s), isSlow ? "slow" : "none"));
  }
  const throttle = shot.status.throttle;
  if (throttle) {
    const level = throttle.level;
    all.push(tile("Load of the box", level, "", throttle.enabled ? throttle.why : "throttle is off",
      level === "high" ? "slow" : ["critical", "emergency"].includes(level) ? "stop" : "none"));
  }
  const make = () => el("div", "tile", el("h3"), el("p", "big", el("span"), el("small")), el("p", "under"));
  list($("tiles"), all, (one) => one.name, make, (node, one) => {
    mood(node, one.state);
    set(node.querySelector("h3"), one.name);
    set(node.querySelector(".big span"), one.big);
    set(node.querySelector(".big small"), one.of);
    set(part(node, "under"), one.under);
  });
}

function ends(shot) {
  const of = (index) => sum(shot.hour.map((minute) => minute[index]));
  const [completed, timeout, error, cancelled, refused] = [0, 1, 2, 3, 4].map(of);
  return { completed, timeout, error, cancelled, refused, all: completed + timeout + error + cancelled + refused };
}

const TROUBLE = {
  interrupted: "interrupted, not back yet",
  quarantined: "given up on, not yet reclaimed",
  abandoned: "goes on without its slot",
};

function slots(shot) {
  const limit = shot.status.slots.global.limit;
  const taken = new Map(shot.slots.map((slot) => [slot.slot, slot]));
  const places = [];
  const { in_use: used, limit_now: now } = shot.status.slots.global;
  let free = Math.max(0, (now === undefined ? limit : now) - used);
  for (let index = 0; index < Math.min(limit, DRAWN); index += 1) {
    places.push(taken.get(index) || { slot: index, state: free > 0 ? "free" : "held back" });
    if (!taken.delete(index)) free -= 1;
  }
  // Taken while the limit was higher.
  for (const slot of taken.values()) if (places.length < DRAWN) places.push(slot);
  for (const slot of shot.abandoned) places.push({ ...slot, slot: "without " + slot.slot + "/" + slot.generation });
  const box = $("slots");
  box.classList.toggle("dense", places.length > 18);
  const make = () => el("li", "", el("span", "who"), el("span", "what"), el("span", "words"), el("span", "when", el("span"), el("span")), el("span", "track", el("i")));
  list(box, places, (slot) => slot.slot, make, place);
  const left = limit - Math.min(limit, DRAWN);
  set($("slots-note"), shot.status.slots.global.in_use + " of " + limit + " taken" +
    (left > 0 ? "; the first " + DRAWN + " are drawn" : ""));
}

function place(node, slot) {
  const isFree = slot.state === "free" || slot.state === "held back";
  if (node.dataset.state !== slot.state) node.dataset.state = slot.state;
  const [age, left] = part(node, "when").children;
  set(part(node, "who"), isFree ? slot.state : slot.session_id || slot.request_id || "another key’s");
  set(part(node, "what"), isFree ? "" : [slot.phase, slot.model || slot.provider].filter(Boolean).join(" · "));
  part(node, "who").title = isFree ? "" : slot.request_id || "";
  set(part(node, "words"), TROUBLE[slot.state]);
  set(age, isFree ? "" : length(slot.age_s));
  set(left, isFree ? "" : length(slot.deadline_in_s) + " left");
  const track = part(node, "track");
  track.hidden = isFree;
  if (!isFree) run(track.firstElementChild, slot.deadline_in_s, slot.age_s + slot.deadline_in_s);
}

// A bar that runs down as the deadline comes near.
function run(bar, left, all) {
  const share = all > 0 ? Math.max(0, Math.min(1, left / all)) : 0;
  bar.style.width = (share * 100).toFixed(1) + "%";
  mood(bar, share < 0.1 ? "stop" : share < 0.25 ? "slow" : "none");
}

function lines(shot) {
  const { classes, backing_off, pressure } = shot.status.queue;
  const all = Object.entries(classes);
  const most = Math.max(10, ...all.map(([, line]) => line.waiting));
  const make = () => el("li", "", el("span", "name"), el("span", "track", el("i")), el("span", "figure"));
  list($("lines"), all, ([name]) => name, make, (node, [name, line]) => {
    set(part(node, "name"), name);
    part(node, "track").firstElementChild.style.width = (100 * line.waiting / most) + "%";
    set(part(node, "figure"), count(line.waiting) + (line.waiting ? ", oldest " + length(line.oldest_s) : ""));
  });
  const notes = [];
  if (pressure) notes.push("under pressure: new requests are not welcome");
  if (backing_off) notes.push(plural(backing_off, "backs", "back") + " off before another try");
  set($("lines-note"), notes.join("; "));
}

function signal(provider) {
  if (!provider.available) return ["none", "not set up"];
  if (provider.breaker === "open") return ["stop", "breaker open"];
  if (provider.breaker === "half-open") return ["slow", "breaker half-open: being tried"];
  if (!provider.takes_calls) return ["stop", "gate shut"];
  if (provider.held_back) return ["slow", "clear, held back"];
  return ["go", "clear"];
}

function providers(shot) {
  const all = Object.entries(shot.status.slots.providers);
  const make = () => el("li", "",
    el("div", "head", el("span", "name"), el("span", "lamp")), el("div", "places"), el("p", "calls"), el("p", "why"), el("p", "pool"));
  list($("providers"), all, ([name]) => name, make, (node, [name, provider]) => {
    const [state, words] = signal(provider);
    mood(node, state);
    set(part(node, "name"), name);
    mood(part(node, "lamp"), state);
    set(part(node, "lamp"), words);
    placesOf(part(node, "places"), provider);
    for (const name of ["calls", "pool"]) part(node, name).hidden = !provider.available;
    const learned = provider.limit_now < provider.limit ? " (learned; configured " + provider.limit + ")" : "";
    set(part(node, "calls"), provider.in_use + " of " + Math.min(provider.limit_now, provider.limit) + " in flight" + learned + ", " + provider.waiting + " waiting");
    const why = [provider.reason, provider.shut_s === null ? null : "opens in " + length(provider.shut_s), provider.advice];
    set(part(node, "why"), why.filter(Boolean).join("; "));
    part(node, "why").hidden = !part(node, "why").textContent;
    const pool = shot.pools[name];
    const connections = pool ? "connections " + pool.active + " in use, " + pool.idle + " idle, " + pool.max + " kept; " : "";
    set(part(node, "pool"), connections + "retry budget " + provider.retry_tokens);
  });
}

function placesOf(box, provider) {
  const all = Math.min(provider.limit, 48);
  box.hidden = provider.limit > 48 || !provider.available;
  while (box.children.length < all) box.append(el("i"));
  while (box.children.length > all) box.lastElementChild.remove();
  [...box.children].forEach((node, index) => {
    const is = index < provider.in_use ? "used" : index < provider.limit_now ? "free" : "shut";
    if (node.dataset.is !== is) node.dataset.is = is;
  });
}

// ---------------------------------------------------------------- charts

function chart(box, label) {
  const svg = shape("svg", { role: "img", "aria-label": label, preserveAspectRatio: "none" });
  const [width, height] = [Math.max(220, box.clientWidth), 144];
  svg.setAttribute("viewBox", "0 0 " + width + " " + height);
  return { svg, width, height };
}
function write(svg, x, y, anchor, text) {
  const node = shape("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  svg.append(node);
}

function hour(shot) {
  const all = ends(shot);
  const words = plural(all.completed, "was", "were") + " answered, " + plural(all.refused, "was", "were") + " refused, " + all.timeout +
    " ran out of time, " + all.error + " went wrong, " + plural(all.cancelled, "was", "were") + " cancelled";
  const { svg, width, height } = chart($("hour"), "Requests by minute over the last hour: " + words);
  const most = Math.max(1, ...shot.hour.map(sum));
  const [floor, top] = [height - 18, 14];
  const step = width / shot.hour.length;
  svg.append(shape("line", { class: "grid", x1: 0, x2: width, y1: floor, y2: floor }));
  shot.hour.forEach(([completed, timeout, error, cancelled, refused], index) => {
    let y = floor;
    for (const [kind, number] of [["well", completed + cancelled], ["no", refused], ["bad", timeout + error]]) {
      if (!number) continue;
      const tall = Math.max(2, number / most * (floor - top));
      y -= tall;
      svg.append(shape("rect", { class: kind, x: (index * step + 1).toFixed(2), y: y.toFixed(2), width: Math.max(1, step - 2).toFixed(2), height: tall.toFixed(2), rx: 1 }));
    }
  });
  write(svg, 0, height - 3, "start", "an hour ago");
  write(svg, width, height - 3, "end", "now");
  write(svg, 0, 10, "start", "at most " + count(most) + " a minute");
  $("hour").replaceChildren(svg);
  set($("hour-note"), all.all ? "from below: answered, refused, failed" : "no request yet");
  counts($("hour-counts"), [["answered", all.completed, "", "well"], ["refused", all.refused, all.refused && "slow", "no"],
    ["out of time", all.timeout, all.timeout && "stop", "bad"], ["gone wrong", all.error, all.error && "stop", "bad"], ["cancelled", all.cancelled, "", "well"]]);
}

const history = [];
const CURVES = ["p50", "p95", "p99"];

function remember(shot) {
  const at = performance.now() / 1000;
  const total = shot.latency && shot.latency.phases.total;
  if (total && total.count) history.push({ at, p50: total.p50_s, p95: total.p95_s, p99: total.p99_s });
  while (history.length && history[0].at < at - REMEMBERED_S) history.shift();
}

// A logarithmic scale: calls take from a millisecond to minutes.
function latency(shot) {
  if (!shot.latency) return;
  const total = shot.latency.phases.total;
  const words = total.count ? CURVES.map((name) => name + " " + length(total[name + "_s"])).join(", ") : "no request ended lately";
  const { svg, width, height } = chart($("latency"), "Time from receipt to end: " + words + "; the line is at " + length(shot.target_s));
  const values = history.flatMap((one) => CURVES.map((name) => one[name])).concat(shot.target_s).map((value) => Math.max(value, 0.0001));
  const low = Math.floor(Math.log10(Math.min(...values))), high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values) * 1.02)));
  const [left, floor, top] = [48, height - 18, 8];
  const y = (value) => floor - (Math.log10(Math.max(value, 0.0001)) - low) / (high - low) * (floor - top);
  for (let power = low; power <= high; power += 1) {
    const at = y(10 ** power).toFixed(1);
    svg.append(shape("line", { class: "grid", x1: left, x2: width, y1: at, y2: at }));
    write(svg, left - 6, Number(at) + 4, "end", power < 0 ? 1000 * 10 ** power + " ms" : 10 ** power + " s");
  }
  const now = performance.now() / 1000;
  const x = (at) => left + (1 - (now - at) / REMEMBERED_S) * (width - left);
  for (const name of CURVES) {
    const points = history.map((one) => x(one.at).toFixed(1) + "," + y(one[name]).toFixed(1));
    if (points.length === 1) points.push(width + "," + points[0].split(",")[1]);
    if (points.length) svg.append(shape("polyline", { class: name, points: points.join(" ") }));
  }
  const goal = y(shot.target_s);
  svg.append(shape("line", { class: "goal", x1: left, x2: width, y1: goal.toFixed(1), y2: goal.toFixed(1) }));
  write(svg, left + 6, Math.max(10, goal - 4), "start", length(shot.target_s).replace(".0 ", " ") + " line");
  write(svg, left, height - 3, "start", "5 min ago");
  write(svg, width, height - 3, "end", "now");
  $("latency").replaceChildren(svg);
  set($("latency-note"), total.count ? words + ", of " + count(total.count) + " in " + length(shot.latency.window_s) : words);
  phases(shot.latency.phases);
}

function phases(all) {
  const shown = Object.entries(all).filter(([, phase]) => phase.count);
  const longest = Math.max(0.001, ...shown.map(([, phase]) => phase.p99_s));
  // So that a millisecond is seen beside a minute.
  const wide = (value) => 100 * Math.log10(1 + value * 1000) / Math.log10(1 + longest * 1000);
  const make = () => el("li", "", el("span", "name"), el("span", "span", el("i"), el("b")), el("span", "figure"));
  list($("phases"), shown, ([name]) => name, make, (node, [name, phase]) => {
    set(part(node, "name"), name.replace("_", " "));
    node.querySelector("i").style.width = wide(phase.p99_s) + "%";
    node.querySelector("b").style.left = "calc(" + wide(phase.p50_s) + "% - 2px)";
    set(part(node, "figure"), length(phase.p50_s) + " · p99 " + length(phase.p99_s));
  });
}

// ---------------------------------------------------------------- lists

function waitsFor(waits) {
  if (!waits) return "";
  if (waits.position) return "place " + waits.position + (waits.expected_s ? ", about " + length(waits.expected_s) : "");
  return waits.left_s ? "in " + length(waits.left_s) : "";
}

function requests(shot) {
  const all = [...shot.running, ...shot.waiting];
  const cell = (label) => { const node = el("td"); if (label) node.dataset.label = label; return node; };
  const make = () => {
    const row = el("tr", "", cell(), cell("session"), cell("model"), cell("class"), cell("phase"), cell("age"), cell("left"), cell());
    row.children[5].className = row.children[6].className = "num";
    const button = el("button", "end", "Cancel");
    button.type = "button";
    button.addEventListener("click", () => cancel(row, button));
    row.lastElementChild.append(button);
    return row;
  };
  list($("requests"), all, (one) => (one.key || "") + "/" + one.request_id, make, (row, one) => {
    const [id, session, model, priority, phase, age, left, action] = row.children;
    row.request = one.request_id;
    set(id, one.request_id); id.title = one.request_id;
    set(session, one.session_id || "–");
    set(model, [one.provider, one.model].filter(Boolean).join("/") || "–");
    set(priority, one.priority);
    const more = [one.joined ? "shares the call of " + one.joined : "", waitsFor(one.waits), one.attempt > 1 ? "try " + one.attempt : ""];
    set(phase, [one.phase === "queue" ? "in line" : one.phase, ...more].filter(Boolean).join(", "));
    set(age, length(one.age_s));
    set(left, length(one.deadline_in_s));
    action.firstElementChild.setAttribute("aria-label", "Cancel request " + one.request_id + " for good");
  });
  $("requests-none").hidden = all.length > 0;
  document.querySelector(".scroll").hidden = all.length === 0;
  const more = shot.running_more + shot.waiting_more;
  $("requests-more").hidden = more === 0;
  set($("requests-more"), "and " + plural(shot.running_more, "more that runs", "more that run") + ", " + plural(shot.waiting_more, "more that waits", "more that wait"));
  set($("requests-note"), all.length ? "the oldest first, those that run before those that wait; cancelling is for good" : "");
}

async function cancel(row, button) {
  const id = row.request;
  button.disabled = true;
  set(button, "cancelling");
  let trouble = "";
  try {
    const answer = await fetch("api/requests/" + encodeURIComponent(id), { method: "DELETE", headers: headers(), cache: "no-store" });
    // Nothing was there any more: that is what was wanted.
    if (!answer.ok && answer.status !== 404) trouble = await wordsOf(answer);
  } catch {
    trouble = "the gateway did not answer";
  }
  if (trouble) {
    button.disabled = false;
    set(button, "Cancel");
    say("Request " + id + " was not cancelled: " + trouble);
    notice("Request " + id + " was not cancelled: " + trouble);
  } else {
    say("Request " + id + " was cancelled");
  }
}

function sessions(shot) {
  const make = () => el("li", "", el("span", "name"), el("span", "figure"));
  list($("sessions"), shot.sessions, (one) => (one.key || "") + "/" + one.session_id, make, (node, one) => {
    set(part(node, "name"), one.session_id + (one.key ? " (" + one.key + ")" : ""));
    set(part(node, "figure"), one.running + " running, " + one.waiting + " waiting, oldest " + length(one.oldest_s));
  });
  $("sessions-none").hidden = shot.sessions.length > 0;
  set($("sessions-note"), shot.sessions_more ? "and " + count(shot.sessions_more) + " more" : "");
}

function alerts(shot) {
  const all = shot.alerts;
  $("alerts-card").hidden = !all;
  if (!all) return;
  const make = () => el("li", "", el("span", "lamp"), el("span", "figure"));
  list($("alerts"), all, (one) => one.id, make, (node, one) => {
    mood(part(node, "lamp"), one.acknowledged_by ? "slow" : "stop");
    set(part(node, "lamp"), one.summary);
    set(part(node, "figure"), [one.advice, one.acknowledged_by && "looked after by " + one.acknowledged_by].filter(Boolean).join("; "));
  });
  $("alerts-none").hidden = all.length > 0;
  set($("alerts-note"), all.length ? count(all.length) + " active" : "");
}

function counts(box, all) {
  const make = () => el("div", "", el("dt"), el("dd"));
  list(box, all, ([name]) => name, make, (node, [name, value, state, swatch]) => {
    set(node.firstElementChild, name);
    if (swatch) node.firstElementChild.dataset.swatch = swatch;
    set(node.lastElementChild, typeof value === "number" ? count(value) : value);
    mood(node.lastElementChild, state || "none");
  });
}

function works(shot) {
  const { threads, slots } = shot.status;
  counts($("works"), [
    ["workers", threads.workers], ["idle", threads.idle], ["lost", threads.lost, threads.lost && "stop"],
    ["replaced", threads.replaced, threads.replaced && "slow"], ["slots taken", slots.taken], ["given back", slots.given_back],
    ["reclaimed", slots.reclaimed, slots.reclaimed && "slow"], ["recovered", slots.recovered, slots.recovered && "slow"],
    ["late returns", slots.late_returns],
  ]);
  const check = shot.last_check;
  set($("check"), check ? length(check.age_s) + " ago: " + check.message : "No health check was made yet.");
}

function about(shot) {
  const { status, viewer } = shot;
  set($("profile"), "profile " + status.profile);
  $("profile").hidden = false;
  set($("about"), "version " + status.version + ", up " + length(status.uptime_s));
  const isStopping = status.state === "stopping";
  mood($("link"), isStopping ? "slow" : "go");
  set($("link"), isStopping ? "stopping" : "live");
  set($("viewer"), viewer.key ? "You look with the key " + viewer.key + (viewer.admin ? ", an admin’s." : ": of requests you see its own.") : "");
  document.title = (status.queue.waiting ? "(" + status.queue.waiting + ") " : "") + "pointsman";
}

// ---------------------------------------------------------------- what a listener is told: changes, not figures

let known = null;
function tell(shot) {
  const states = {};
  for (const [name, provider] of Object.entries(shot.status.slots.providers)) states["provider " + name] = signal(provider)[1];
  states.gateway = shot.status.state;
  if (shot.alerts) for (const one of shot.alerts) states["alert " + one.id] = one.summary;
  if (known) {
    const news = Object.entries(states).filter(([name, state]) => known[name] !== state).map(([name, state]) => name + ": " + state);
    if (news.length) say(news.join(". "));
  }
  known = states;
}
function say(text) { set($("spoken"), text); }

let noticed = 0;
function notice(text) {
  clearTimeout(noticed);
  banner(text, "slow");
  noticed = setTimeout(() => banner(null), 8000);
}
function banner(text, state) {
  const box = $("banner");
  box.hidden = !text;
  if (text) { mood(box, state); set(box, text); }
}

function show(shot) {
  remember(shot);
  retry = FIRST_PAUSE;
  $("door").hidden = true;
  $("main").hidden = false;
  about(shot);
  for (const draw of [tiles, slots, lines, hour, latency, providers, requests, sessions, alerts, works]) draw(shot);
  $("latency").parentElement.hidden = !shot.latency;
  tell(shot);
  if (document.body.dataset.stale === "yes") { say("The gateway is back"); banner(null); }
  document.body.dataset.stale = "no";
  document.body.dataset.pictures = Number(document.body.dataset.pictures || 0) + 1;
}

// ---------------------------------------------------------------- the way to the gateway

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: "Bearer " + key } : {};
}

async function wordsOf(answer) {
  try { return (await answer.json()).error.message; } catch { return "status " + answer.status; }
}

// How long to wait before the next try; short again after each picture.
let retry = FIRST_PAUSE;
let wake = null;
function pause(millis) {
  return new Promise((done) => { wake = done; setTimeout(done, millis); });
}
addEventListener("online", () => wake && wake());
document.addEventListener("visibilitychange", () => document.hidden || (wake && wake()));

function lost(why) {
  if (document.body.dataset.stale !== "yes") say("The gateway is gone: " + why);
  document.body.dataset.stale = "yes";
  mood($("link"), "stop");
  set($("link"), "gone");
  banner("The gateway does not answer: " + why + ". " + ($("main").hidden ? "" : "What you see is old. ") + "Trying again.", "stop");
}

function askForKey(why) {
  $("main").hidden = true;
  $("door").hidden = false;
  banner(null);
  mood($("link"), "slow");
  set($("link"), "needs a key");
  if (sessionStorage.getItem(KEY)) { banner(why, "stop"); sessionStorage.removeItem(KEY); }
  $("key").focus();
  return new Promise((done) => {
    $("door").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, $("key").value.trim());
      $("key").value = "";
      banner(null);
      $("door").hidden = true;
      done();
    };
  });
}

// Reads the stream to its end; any sign of life, comments too, puts off giving up.
async function follow(answer, giveUp) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let patience = 30000;
  for (;;) {
    const timer = setTimeout(giveUp, patience);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      const shot = JSON.parse(event.slice(6));
      patience = Math.max(30000, 5000 * shot.interval_s);
      show(shot);
    }
  }
}

async function watch() {
  for (;;) {
    const abort = new AbortController();
    try {
      const answer = await fetch("api/live", { headers: headers(), cache: "no-store", signal: abort.signal });
      if (answer.status === 401) {
        await askForKey(await wordsOf(answer));
        continue;
      }
      if (!answer.ok) throw new Error(await wordsOf(answer));
      await follow(answer, () => abort.abort());
      lost("it closed the stream");
    } catch (error) {
      lost(error instanceof TypeError || error.name === "AbortError" ? "no connection" : error.message);
    }
    await pause(retry * (0.8 + 0.4 * Math.random()));
    retry = Math.min(retry * 2, LONGEST_PAUSE);
  }
}

watch();
})();
