// The console: fetches the overview, shows it, and fetches it again whenever the cluster says that
// something changed. All addresses are relative to <base>, so it works below any prefix.

const REFRESH_AFTER_EVENT = 250;    // ms; one answer serves a burst of events
const REFRESH_WHEN_LIVE = 15000;    // what no event announces: ages, load
const REFRESH_WHEN_POLLING = 3000;
const ANSWER_WITHIN = 10000;

const element = (id) => document.getElementById(id);

let stream = null;
let timer = null;
let due = 0;
let busy = false;
let again = false;
let lastAnswer = null;

function showLink(state) {
  const words = {
    connecting: "connecting",
    live: "live",
    polling: "no live updates, asking every few seconds",
    lost: "connection lost" + (lastAnswer ? `; this is from ${clock(lastAnswer)}` : ""),
  };
  element("link").dataset.state = state;
  element("link").textContent = words[state];
  element("cluster").classList.toggle("stale", state === "lost");
}

const clock = (when) => new Date(when).toLocaleTimeString();

function ago(when) {
  if (!when) return "never";
  const seconds = Math.max(0, Math.round((Date.now() - new Date(when)) / 1000));
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(when).toLocaleDateString();
}

function bytes(count) {
  const gib = count / 2 ** 30;
  return gib >= 1 ? `${Number(gib.toFixed(1))} GiB` : `${Math.round(count / 2 ** 20)} MiB`;
}

function make(tag, content, attributes = {}) {
  const node = document.createElement(tag);
  node.append(...[content].flat());
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

const TONES = {
  online: "good", running: "good",
  unreachable: "bad", failed: "bad", removed: "bad",
  joining: "wait", cordoned: "wait", draining: "wait", drained: "wait",
  requested: "wait", provisioning: "wait", deleting: "wait", paused: "wait",
};

function state(name, detail) {
  const cell = make("td", make("span", name, { "data-tone": TONES[name] ?? "none" }));
  if (detail) cell.append(" ", make("small", detail));
  return cell;
}

function slices(capacity) {
  if (!capacity) return make("td", "unknown");
  const used = capacity.slices - capacity.slices_free;
  const meter = make("meter", [], { min: 0, max: capacity.slices || 1, value: used });
  meter.setAttribute("aria-hidden", "true");
  return make("td", [meter, `${used} of ${capacity.slices}`]);
}

const nodeRow = (node) => make("tr", [
  make("th", node.name, { scope: "row" }),
  state(node.state, node.schedulable || node.state !== "online" ? "" : "no new VMs"),
  slices(node.capacity),
  make("td", String(node.vms)),
  make("td", node.load === null || node.load === undefined ? "" : node.load.toFixed(2)),
  make("td", ago(node.last_seen)),
  make("td", node.local ? "this machine" : node.advertise_address),
]);

const vmRow = (vm) => make("tr", [
  make("th", vm.name, { scope: "row" }),
  state(vm.state, vm.reachable ? vm.reason ?? "" : `last known, ${ago(vm.observed_at)}`),
  make("td", vm.node_name ?? vm.node_sid ?? ""),
  make("td", vm.image),
  make("td", String(vm.slices.length)),
  make("td", bytes(vm.memory)),
  make("td", ago(vm.created_at)),
]);

function fill(id, rows, empty) {
  const columns = element(id).parentElement.querySelectorAll("th[scope=col]").length;
  element(id).replaceChildren(
    ...(rows.length ? rows : [make("tr", make("td", empty, { colspan: columns, class: "empty" }))]),
  );
}

function showNotice(id, text) {
  element(id).textContent = text;
  element(id).hidden = !text;
}

function showOverview(overview) {
  const { cluster, nodes, vms, visitor } = overview;
  const total = (name, value) => make("div", [make("dt", name), make("dd", value)]);
  element("totals").replaceChildren(
    total("Nodes online", `${cluster.nodes_online} of ${cluster.nodes}`),
    total("VMs running", `${cluster.vms_running} of ${cluster.vms}`),
    total("Slices free", `${cluster.slices_free} of ${cluster.slices}`),
  );
  showNotice("notice", cluster.unreachable.length
    ? `Not answering: ${cluster.unreachable.join(", ")}. What is said of their VMs is the last thing known; nothing was stopped or moved.`
    : overview.more ? "There are more VMs than this page shows; hero vm list shows all." : "");
  fill("nodes", nodes.map(nodeRow), "No node has reported yet.");
  fill("vms", vms.map(vmRow), "None yet. Make one: hero vm create NAME");
  element("who").textContent = visitor.user;
  element("leave").hidden = !visitor.session;
  element("cluster").hidden = false;
  element("door").hidden = true;
}

function showDoor(reason) {
  stream?.close();
  stream = null;
  clearTimeout(timer);
  element("cluster").hidden = true;
  element("door").hidden = false;
  element("leave").hidden = true;
  element("who").textContent = "";
  element("link").dataset.state = "connecting";
  element("link").textContent = "not signed in";
  showNotice("refusal", reason ?? "");
}

async function ask(path, options = {}) {
  return fetch(path, {
    credentials: "same-origin",
    cache: "no-store",
    signal: AbortSignal.timeout(ANSWER_WITHIN),
    ...options,
  });
}

async function problem(answer) {
  const fault = await answer.json().catch(() => ({}));
  return [fault.detail ?? `the server answered ${answer.status}`, fault.hint].filter(Boolean).join("; ");
}

async function refresh() {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  clearTimeout(timer);
  try {
    const answer = await ask("overview");
    if (answer.status === 401) {
      showDoor();
      return;
    }
    if (!answer.ok) {
      showLink("lost");
      showNotice("notice", await problem(answer));
      element("cluster").hidden = false;
    } else {
      const overview = await answer.json();
      lastAnswer = Date.now();
      showOverview(overview);
      listen();
      showLink(stream?.readyState === EventSource.OPEN ? "live" : "polling");
    }
  } catch {
    showLink("lost");
  } finally {
    busy = false;
  }
  later(again ? 0 : stream?.readyState === EventSource.OPEN ? REFRESH_WHEN_LIVE : REFRESH_WHEN_POLLING);
  again = false;
}

function later(delay) {
  clearTimeout(timer);
  due = Date.now() + delay;
  timer = setTimeout(refresh, delay);
}

// Never later than what is due already, so that a flood of events cannot hold the page up.
function soon(delay) {
  if (Date.now() + delay < due) later(delay);
}

function listen() {
  if (stream && stream.readyState !== EventSource.CLOSED) return;
  stream = new EventSource("events");
  for (const type of ["open", "vm", "node", "operation", "reset"]) {
    stream.addEventListener(type, () => soon(REFRESH_AFTER_EVENT));
  }
  // The browser tries again by itself, or listen() does after the next answer; until then, ask.
  stream.addEventListener("error", () => soon(REFRESH_WHEN_POLLING));
}

async function login(code) {
  const answer = await ask("login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ code }),
  });
  if (!answer.ok) return problem(answer);
  const check = await ask("overview");
  return check.status === 401
    ? "this browser keeps no cookie for plain HTTP on this machine; open the console by the node's https:// address"
    : null;
}

element("leave").addEventListener("click", async () => {
  await ask("logout", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }).catch(() => {});
  showDoor();
});

async function start() {
  const code = new URLSearchParams(location.hash.slice(1)).get("login");
  if (code) {
    history.replaceState(null, "", location.pathname);
    let refusal;
    try {
      refusal = await login(code);
    } catch {
      refusal = "no answer; open the link again";
    }
    if (refusal) {
      showDoor(refusal);
      return;
    }
  }
  await refresh();
}

window.addEventListener("hashchange", start);
start();
