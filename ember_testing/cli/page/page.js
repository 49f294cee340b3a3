"use strict";

// All text of a recording reaches the page through text nodes: nothing here writes HTML.

const PAGE = 100; // calls in the list at once
const FIRST_MODELS = 8; // rows of the chart, until the others are asked for
const LARGEST_DIFF = 4000000; // cells of the table that a word diff fills
const $ = (id) => document.getElementById(id);

/** An element: attributes, handlers (functions) and children (texts and elements). */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  return fill(element, attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** Put children into an element in place of what it holds. */
function put(element, ...children) {
  element.replaceChildren();
  return fill(element, {}, children);
}

function drawn(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/** One of the page's compressed lists; its element is emptied, so that it takes memory once. */
async function read(name) {
  const element = $(`data-${name}`);
  const packed = Uint8Array.from(atob(element.textContent.trim()), (c) => c.charCodeAt(0));
  element.textContent = "";
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// --- words for figures ---

const count = (number) => number.toLocaleString("en-US");
const several = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const seconds = (value) => (value === null ? "?" : value >= 100 ? `${count(Math.round(value))} s` : `${value.toFixed(2)} s`);

function dollars(amount) {
  if (amount === null) return "?";
  if (amount >= 1) return `$${amount.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  return amount >= 0.0001 || amount === 0 ? `$${amount.toFixed(4)}` : "<$0.0001";
}

const moment = (iso) => iso.slice(0, 19).replace("T", " ");
const nameOf = (call) => (call.provider ? `${call.provider}/${call.model}` : "no known provider");
const tokensOf = (call) => (call.prompt_tokens || 0) + (call.completion_tokens || 0);
const isError = (call) => call.status !== null && call.status >= 400;
const isBroken = (call) => call.status === null || call.outcome !== "complete";

function outcomeOf(call) {
  const status = call.status === null ? "no answer" : String(call.status);
  const rest = call.outcome === "complete" ? "" : ` ${call.outcome}`;
  return status + rest + (call.error ? ` (${call.error})` : "");
}

// --- the program ---

Promise.all(["cassettes", "calls", "turns", "texts"].map(read)).then(start, (error) => {
  $("about").textContent = `The data of this page cannot be read: ${error}`;
});

function start([cassettes, calls, packedTurns, texts]) {
  const turns = packedTurns.map(([role, parts]) => ({ role, parts }));
  const found = { calls, page: 0, terms: [] };
  let pinned = null; // the number of the call that the next one is compared with
  let current = null;

  calls.forEach((call, number) => {
    call.number = number;
    call.title = titleOf(call);
    call.request_id = `${call.asked || call.url} ${call.turns.join(",")} ${call.parameters}`;
    if (!call.turns.length) call.request_id += ` ${call.request}`;
  });
  const sameRequest = Map.groupBy ? Map.groupBy(calls, (call) => call.request_id) : grouped(calls);

  function grouped(list) {
    const groups = new Map();
    for (const call of list) groups.set(call.request_id, [...(groups.get(call.request_id) || []), call]);
    return groups;
  }

  function titleOf(call) {
    for (const index of [...call.turns].reverse()) {
      const part = turns[index].parts.find(([kind]) => kind === "text");
      if (turns[index].role === "user" && part) return texts[part[1]].slice(0, 160).trim() || "(blank)";
    }
    return `${call.method} ${call.url}`;
  }

  // --- theme ---

  function setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    $("theme").value = theme;
    try { localStorage.setItem("ember-theme", theme); } catch { /* not kept where files have no storage */ }
  }
  try { setTheme(localStorage.getItem("ember-theme") || ""); } catch { setTheme(""); }
  $("theme").addEventListener("change", () => setTheme($("theme").value));

  // --- sums and charts ---

  function sumUp(list) {
    const sum = { calls: list.length, in: 0, out: 0, cost: 0, unpriced: 0, seconds: 0, errors: 0 };
    for (const call of list) {
      sum.in += call.prompt_tokens || 0;
      sum.out += call.completion_tokens || 0;
      sum.cost += call.cost || 0;
      sum.unpriced += call.cost === null;
      sum.seconds += call.seconds || 0;
      sum.errors += isError(call) || isBroken(call);
    }
    return sum;
  }

  const priced = (sum) => (sum.unpriced && sum.unpriced === sum.calls ? null : sum.cost);
  const unpriced = (sum) => (sum.unpriced ? `${count(sum.unpriced)} of unknown cost` : "");

  function showSums() {
    const sum = sumUp(calls);
    const tiles = [
      ["calls", count(sum.calls), several(cassettes.length, "cassette")],
      ["tokens of input", count(sum.in), ""],
      ["tokens of output", count(sum.out), ""],
      ["cost", dollars(priced(sum)), unpriced(sum)],
      ["provider time", seconds(sum.seconds), ""],
      ["errors and broken answers", count(sum.errors), ""],
    ];
    put($("sums"), tiles.map(([name, value, note]) =>
      make("div", {}, note && make("dd", { class: "note" }, note), make("dd", {}, value), make("dt", {}, name))));
    const bad = cassettes.filter((each) => each.error);
    if (bad.length) put($("unreadable"), 
      make("h3", { class: "bad" }, `${several(bad.length, "file")} could not be read`),
      make("ul", {}, bad.map((each) => make("li", {}, each.error))));
    $("about").textContent = `${several(calls.length, "call")} of ${several(cassettes.length, "cassette")}, page made ${moment($("about").dataset.made)} UTC`;
  }

  function bars(...parts) {
    if (parts.every(([, share]) => !share)) return "";
    return make("div", { class: "bars", "aria-hidden": "true" }, parts.map(([name, share]) => {
      const bar = make("i", { class: name });
      bar.style.width = `${100 * share}%`;
      return bar;
    }));
  }

  function showModels() {
    const names = new Map();
    for (const call of calls) names.set(nameOf(call), [...(names.get(nameOf(call)) || []), call]);
    const rows = [...names].map(([name, list]) => [name, sumUp(list)]).sort((a, b) => b[1].cost - a[1].cost || b[1].calls - a[1].calls);
    const most = (value) => Math.max(1e-12, ...rows.map(([, sum]) => value(sum)));
    const [tokens, cost, time] = [most((s) => s.in + s.out), most((s) => s.cost), most((s) => s.seconds)];
    const head = ["Model", "Calls", "Tokens, in + out", "Cost", "Provider time", "Errors"];
    put($("models"), 
      make("table", {},
        make("caption", { hidden: true }, "Calls, tokens, cost and time by model"),
        make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col", class: text === "Calls" || text === "Errors" ? "number" : null }, text)))),
        make("tbody", {}, rows.map(([name, sum], index) => make("tr", { hidden: index >= FIRST_MODELS },
          make("th", { scope: "row" }, make("button", { type: "button", title: "Show only calls to this model", click: () => onlyModel(name) }, name)),
          make("td", { class: "number" }, count(sum.calls)),
          make("td", { class: "chart" }, `${count(sum.in)} + ${count(sum.out)}`, bars(["in", sum.in / tokens], ["out", sum.out / tokens])),
          make("td", { class: "chart" }, dollars(priced(sum)), sum.unpriced && priced(sum) !== null ? make("span", { class: "faint" }, ` (${unpriced(sum)})`) : "", bars(["cost", sum.cost / cost])),
          make("td", { class: "chart" }, seconds(sum.seconds), bars(["time", sum.seconds / time])),
          make("td", { class: sum.errors ? "number bad" : "number" }, count(sum.errors)))))),
      make("p", { class: "key", "aria-hidden": "true" },
        make("span", {}, make("i", { class: "in" }), "input"), make("span", {}, make("i", { class: "out" }), "output")));
    if (rows.length <= FIRST_MODELS) return;
    const more = make("button", { type: "button", click: () => {
      $("models").querySelectorAll("tr[hidden]").forEach((row) => { row.hidden = false; });
      more.remove();
    } }, `Show all ${rows.length} models`);
    $("models").append(make("p", { class: "key" }, more));
  }

  function onlyModel(name) {
    $("filter").reset();
    $("model").value = name;
    filter();
    $("calls-title").scrollIntoView();
    $("calls-title").focus();
  }

  // --- search and filter ---

  const lowered = new Map();
  function holds(index, term) {
    if (!lowered.has(index)) lowered.set(index, texts[index].toLowerCase());
    return lowered.get(index).includes(term);
  }

  function matcher(term) {
    const known = new Map();
    const inTurn = (index) => {
      if (!known.has(index)) known.set(index, turns[index].parts.some(([, ...rest]) => rest.some((text) => holds(text, term))));
      return known.get(index);
    };
    return (call) => call.turns.some(inTurn) || (call.answer !== null && inTurn(call.answer))
      || [call.test, call.url, cassettes[call.cassette].path, nameOf(call), call.error].some((text) => text && text.toLowerCase().includes(term))
      || (!call.turns.length && call.request !== null && holds(call.request, term))
      || (call.answer === null && call.response !== null && holds(call.response, term));
  }

  const outcomes = {
    ok: (call) => !isError(call) && !isBroken(call),
    error: isError,
    broken: isBroken,
    streamed: (call) => call.pieces.length > 0,
    tools: (call) => [...call.turns, ...(call.answer === null ? [] : [call.answer])].some((index) => turns[index].parts.some(([kind]) => kind === "call")),
  };
  const orders = { cost: (call) => call.cost || 0, tokens: tokensOf, seconds: (call) => call.seconds || 0 };

  function filter() {
    found.terms = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = found.terms.map(matcher);
    const [model, cassette, outcome, order] = ["model", "cassette", "outcome", "order"].map((id) => $(id).value);
    if (model) tests.push((call) => nameOf(call) === model);
    if (cassette) tests.push((call) => call.cassette === Number(cassette));
    if (outcome) tests.push(outcomes[outcome]);
    found.calls = calls.filter((call) => tests.every((test) => test(call)));
    if (order) found.calls.sort((a, b) => orders[order](b) - orders[order](a));
    found.page = 0;
    showList();
  }

  function showList() {
    const sum = sumUp(found.calls);
    $("found").textContent = found.calls.length
      ? `${several(found.calls.length, "call")}, ${several(sum.in + sum.out, "token")}, ${dollars(priced(sum))}${sum.unpriced && priced(sum) !== null ? ` (${unpriced(sum)})` : ""}, ${seconds(sum.seconds)}`
      : "No call matches.";
    const pages = Math.max(1, Math.ceil(found.calls.length / PAGE));
    found.page = Math.min(found.page, pages - 1);
    const first = found.page * PAGE;
    const shown = found.calls.slice(first, first + PAGE);
    $("list").hidden = !shown.length;
    $("list").start = first + 1;
    put($("list"), shown.map((call) => make("li", {}, make("a", { href: `#call=${call.number + 1}`, "data-number": call.number, "aria-current": call === current ? "true" : null },
      make("b", {}, call.title),
      make("span", {}, make("span", {}, nameOf(call)), make("span", {}, `${count(tokensOf(call))} tokens`), make("span", {}, dollars(call.cost)), make("span", {}, seconds(call.seconds)),
        isError(call) || isBroken(call) ? make("em", {}, outcomeOf(call)) : "", call.pieces.length ? make("span", {}, several(call.pieces.length, "piece")) : "")))));
    $("paging").hidden = pages === 1;
    $("where").textContent = `Page ${found.page + 1} of ${pages}`;
    $("before").disabled = found.page === 0;
    $("after").disabled = found.page === pages - 1;
  }

  function turnPage(step) {
    found.page += step;
    showList();
    $("list").scrollTop = 0;
    $("list").querySelector("a").focus();
  }

  // --- one call ---

  function shownPart([kind, ...rest]) {
    const [first, second] = rest.map((index) => texts[index]);
    if (kind === "image") return make("img", { src: first, alt: `Image in the conversation, ${count(Math.round(first.length * 0.75))} bytes` });
    if (kind === "call") return [make("p", {}, "calls the tool ", make("b", {}, first)), make("pre", { class: "code" }, second)];
    if (kind === "result") return [make("p", {}, "result of the tool ", make("b", {}, first)), make("pre", { class: "code" }, second)];
    if (kind === "reasoning") return make("details", { open: true }, make("summary", {}, "reasoning"), make("pre", { class: "faint" }, first));
    if (kind === "other") return make("pre", { class: "code" }, first);
    return make("pre", {}, kind === "refusal" ? `(refused) ${first}` : first);
  }

  function shownTurn(index, label) {
    const { role, parts } = turns[index];
    return make("div", { class: `turn ${role}` }, make("h5", {}, label || role), parts.length ? parts.map(shownPart) : make("p", { class: "faint" }, "(nothing)"));
  }

  function shownAnswer(call) {
    const ended = call.ended && !["stop", "tool_calls"].includes(call.ended) ? `, ended by ${call.ended}` : "";
    if (call.answer !== null) return shownTurn(call.answer, `assistant, the answer${isBroken(call) ? " as far as it came" : ""}${ended}`);
    if (call.status === null) return make("p", { class: "bad" }, outcomeOf(call));
    return make("div", { class: "turn assistant" }, make("h5", {}, isError(call) ? `error ${call.status}` : "answer"),
      call.response === null ? make("p", { class: "faint" }, "(nothing)") : make("pre", { class: "code" }, pretty(texts[call.response])));
  }

  function pretty(text) {
    try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
  }

  function factsOf(call) {
    return [
      ["model", nameOf(call)],
      ["outcome", outcomeOf(call)],
      ["tokens", call.prompt_tokens === null ? "?" : `${count(call.prompt_tokens)} + ${count(call.completion_tokens || 0)}`],
      ["cost", dollars(call.cost)],
      ["time", seconds(call.seconds)],
      ["recorded", `${moment(call.recorded_at)} UTC`],
      ["cassette", `${cassettes[call.cassette].path}, call ${call.id}${call.n > 1 ? `, repetition ${call.n}` : ""}`],
      ["test", call.test || ""],
      ["address", `${call.method} ${call.url}`],
    ].filter(([, value]) => value);
  }

  function wire(title, headers, body) {
    if (headers === null && body === null) return "";
    const details = make("details", { toggle: () => {
      if (details.open && details.childElementCount === 1) details.append(
        ...[headers === null ? "" : texts[headers], body === null ? "" : pretty(texts[body])].filter(Boolean).map((text) => make("pre", { class: "code", tabindex: "0" }, text)));
    } }, make("summary", {}, title));
    return details;
  }

  function timeline(call) {
    if (!call.pieces.length) return "";
    const pieces = call.pieces;
    const last = Math.max(pieces[pieces.length - 1][0], (call.seconds || 0) * 1000, 1);
    const largest = Math.max(...pieces.map(([, size]) => size), 1);
    const [width, height] = [1000, 60];
    const marks = pieces.map(([at, size], index) => drawn("rect", { x: (at / last) * (width - 3), width: 3, y: height - 6 - (size / largest) * (height - 8), height: 6 + (size / largest) * (height - 8), "data-piece": index },
      drawn("title", {}, `piece ${index + 1}: ${at} ms, ${several(size, "byte")}`)));
    const label = `${several(pieces.length, "piece")}: the first after ${Math.round(pieces[0][0])} ms, the last after ${Math.round(pieces[pieces.length - 1][0])} ms`;
    const svg = drawn("svg", { viewBox: `0 0 ${width} 76`, preserveAspectRatio: "none", role: "img", "aria-label": label },
      drawn("line", { x1: 0, x2: width, y1: height, y2: height }), marks);
    const said = make("pre", { class: "code", "aria-live": "off" });
    const where = make("p", { class: "faint", role: "status" });
    const slider = make("input", { type: "range", min: 1, max: pieces.length, value: pieces.length, "aria-label": "Show the answer as far as it had come with this piece", input: () => show() });
    const wholeText = pieces.map(([, , text]) => text);
    function show() {
      const upTo = Number(slider.value);
      const [at, size] = pieces[upTo - 1];
      where.textContent = `Piece ${upTo} of ${pieces.length}: after ${at} ms, ${several(size, "byte")}`;
      slider.setAttribute("aria-valuetext", where.textContent);
      said.textContent = wholeText.slice(0, upTo).join("");
      said.hidden = !said.textContent;
      marks.forEach((mark, index) => mark.setAttribute("class", index < upTo ? "" : "later"));
    }
    show();
    const table = make("details", { toggle: () => {
      if (table.open && table.childElementCount === 1) table.append(make("table", {},
        make("thead", {}, make("tr", {}, ["Piece", "After", "Gap", "Bytes"].map((text) => make("th", { scope: "col", class: "number" }, text)), make("th", { scope: "col" }, "Text"))),
        make("tbody", {}, pieces.map(([at, size, text], index) => make("tr", {}, [index + 1, `${at} ms`, `${(at - (index ? pieces[index - 1][0] : 0)).toFixed(1)} ms`, count(size)].map((value) => make("td", { class: "number" }, String(value))), make("td", {}, text))))));
    } }, make("summary", {}, "All pieces as a table"));
    return make("div", { class: "timeline" }, make("h4", {}, "The answer as it streamed"), make("p", {}, label), svg, slider, where, said, table);
  }

  function others(call) {
    const rest = sameRequest.get(call.request_id).filter((each) => each !== call);
    if (!rest.length) return "";
    return make("div", {}, make("h4", {}, "The same request, recorded elsewhere too"),
      make("ul", {}, rest.slice(0, 20).map((each) => make("li", {}, make("a", { href: `#compare=${call.number + 1},${each.number + 1}` }, `${cassettes[each.cassette].path}, call ${each.id}`), `, ${outcomeOf(each)}`))),
      rest.length > 20 ? make("p", { class: "faint" }, `and ${count(rest.length - 20)} more`) : "");
  }

  function facts(call) {
    return make("dl", { class: "facts" }, factsOf(call).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", { class: name === "outcome" && (isError(call) || isBroken(call)) ? "bad" : null }, value))));
  }

  function showCall(call) {
    current = call;
    const at = found.calls.indexOf(call);
    const step = (to, text) => make("button", { type: "button", disabled: at < 0 || !found.calls[at + to], click: () => { move(to); } }, text);
    const compared = pinned !== null && pinned !== call.number;
    $("detail").setAttribute("aria-label", `Call ${call.number + 1}`);
    put($("detail"), 
      make("h3", {}, `${call.number + 1}. ${call.title}`),
      make("div", { class: "tools" }, step(-1, "Previous call"), step(1, "Next call"),
        compared
          ? make("button", { type: "button", click: () => { location.hash = `compare=${pinned + 1},${call.number + 1}`; } }, `Compare with call ${pinned + 1}`)
          : make("button", { type: "button", click: pin }, pinned === call.number ? "Now choose the call to compare with" : "Compare this call")),
      facts(call),
      make("h4", {}, "Conversation"),
      call.turns.length ? call.turns.map((index) => shownTurn(index)) : call.request === null ? "" : make("pre", { class: "code" }, pretty(texts[call.request])),
      shownAnswer(call),
      timeline(call),
      call.parameters === null ? "" : [make("h4", {}, "Parameters"), make("pre", { class: "code" }, texts[call.parameters])],
      others(call),
      make("h4", {}, "On the wire"),
      wire("Request", call.request_headers, call.request),
      wire("Response", call.response_headers, call.response));
    $("detail").scrollTop = 0;
  }

  function pin() {
    if (current === null) return;
    if (pinned !== null && pinned !== current.number) { location.hash = `compare=${pinned + 1},${current.number + 1}`; return; }
    pinned = current.number;
    showCall(current);
    $("found").textContent = `Call ${pinned + 1} is kept for the comparison: choose the other one.`;
  }

  /** Show the page of the list that has this call. */
  function turnTo(call) {
    const page = Math.floor(found.calls.indexOf(call) / PAGE);
    if (page >= 0 && page !== found.page) { found.page = page; showList(); }
  }

  function move(step) {
    const at = current ? found.calls.indexOf(current) : -1;
    const next = found.calls[current ? at + step : 0];
    if (!next) return;
    current = next; // at once: the address changes later, and the next key may come before
    location.hash = `call=${next.number + 1}`;
  }

  // --- two calls side by side ---

  const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];

  /** Two texts as lists of [text, differs], by the longest common subsequence of their words. */
  function difference(left, right) {
    let [a, b] = [words(left), words(right)];
    if (a.length * b.length > LARGEST_DIFF) [a, b] = [left.split(/(?<=\n)/), right.split(/(?<=\n)/)];
    if (a.length * b.length > LARGEST_DIFF) return [[[left, true]], [[right, true]]];
    let start = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
    let end = 0;
    while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
    const [x, y] = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
    const wide = y.length + 1;
    const longest = new Uint32Array((x.length + 1) * wide);
    for (let i = x.length - 1; i >= 0; i -= 1) for (let j = y.length - 1; j >= 0; j -= 1)
      longest[i * wide + j] = x[i] === y[j] ? longest[(i + 1) * wide + j + 1] + 1 : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    const head = a.slice(0, start).join("");
    const tail = end ? a.slice(a.length - end).join("") : "";
    const sides = [[[head, false]], [[head, false]]];
    let [i, j] = [0, 0];
    while (i < x.length || j < y.length) {
      if (i < x.length && j < y.length && x[i] === y[j]) { sides[0].push([x[i], false]); sides[1].push([y[j], false]); i += 1; j += 1; }
      else if (j >= y.length || (i < x.length && longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])) { sides[0].push([x[i], true]); i += 1; }
      else { sides[1].push([y[j], true]); j += 1; }
    }
    sides.forEach((side) => side.push([tail, false]));
    return sides;
  }

  function marked(pieces, name) {
    const joined = [];
    pieces.forEach(([text, changed], index) => {
      // A space between two words that differ joins them.
      const between = /^\s+$/.test(text) && pieces[index - 1]?.[1] && pieces[index + 1]?.[1];
      const differs = changed || Boolean(between);
      const last = joined[joined.length - 1];
      if (last && last[1] === differs) last[0] += text;
      else joined.push([text, differs]);
    });
    return joined.map(([text, differs]) => (differs ? make(name, {}, text) : text));
  }

  const plain = (index) => turns[index].parts.map(([kind, ...rest]) => (kind === "image" ? "(image)" : `${kind === "text" ? "" : `${kind}: `}${rest.map((text) => texts[text]).join(" ")}`)).join("\n");
  const answerText = (call) => (call.answer !== null ? plain(call.answer) : call.response === null ? outcomeOf(call) : pretty(texts[call.response]));

  function sides(label, left, right) {
    if (left === right) return make("details", {}, make("summary", {}, `${label}: the same`), make("pre", {}, left));
    const [a, b] = difference(left || "", right || "");
    return make("div", {}, make("h4", {}, `${label}: differs`), make("div", { class: "sides" },
      make("pre", { "aria-label": `${label}, first call` }, left === null ? make("span", { class: "faint" }, "(not there)") : marked(a, "del")),
      make("pre", { "aria-label": `${label}, second call` }, right === null ? make("span", { class: "faint" }, "(not there)") : marked(b, "ins"))));
  }

  function showComparison(left, right) {
    const [a, b] = [new Map(factsOf(left)), new Map(factsOf(right))];
    const names = [...new Set([...a.keys(), ...b.keys()])];
    const turnsOf = (call, index) => (index < call.turns.length ? plain(call.turns[index]) : null);
    const rows = Math.max(left.turns.length, right.turns.length);
    const role = (index) => turns[(left.turns[index] ?? right.turns[index])].role;
    const link = (call) => make("a", { href: `#call=${call.number + 1}` }, `Call ${call.number + 1}: ${call.title}`);
    const parameters = (call) => (call.parameters === null ? null : texts[call.parameters]);
    $("detail").setAttribute("aria-label", "Two calls side by side");
    put($("detail"), 
      make("h3", {}, `Calls ${left.number + 1} and ${right.number + 1} side by side`),
      make("div", { class: "tools" },
        make("button", { type: "button", click: () => { pinned = null; location.hash = `call=${right.number + 1}`; } }, "Back to the list"),
        make("button", { type: "button", click: () => { location.hash = `compare=${right.number + 1},${left.number + 1}`; } }, "Exchange the sides")),
      make("table", { class: "compared" },
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Fact"), make("th", { scope: "col" }, link(left)), make("th", { scope: "col" }, link(right)))),
        make("tbody", {}, names.map((name) => make("tr", { class: a.get(name) === b.get(name) ? null : "differs" },
          make("th", { scope: "row" }, name, a.get(name) === b.get(name) ? "" : make("span", { class: "faint" }, " (differs)")), make("td", {}, a.get(name) || ""), make("td", {}, b.get(name) || ""))))),
      Array.from({ length: rows }, (_, index) => sides(`${index + 1}. ${role(index)}`, turnsOf(left, index), turnsOf(right, index))),
      rows ? "" : sides("Request", left.request === null ? null : pretty(texts[left.request]), right.request === null ? null : pretty(texts[right.request])),
      sides("Parameters", parameters(left), parameters(right)),
      sides("Answer", answerText(left), answerText(right)),
      make("div", { class: "sides" }, make("div", {}, timeline(left)), make("div", {}, timeline(right))));
  }

  // --- addresses and keys ---

  function route() {
    const [kind, numbers] = location.hash.slice(1).split("=");
    const chosen = (numbers || "").split(",").map((number) => calls[Number(number) - 1]);
    const comparing = kind === "compare" && chosen.length === 2 && chosen.every(Boolean);
    document.querySelector(".split").classList.toggle("comparing", comparing);
    if (comparing) {
      showComparison(...chosen);
      $("detail").focus();
    } else if (kind === "call" && chosen[0]) {
      showCall(chosen[0]);
      turnTo(chosen[0]);
    } else if (current === null && calls.length) {
      showCall(calls[0]);
    }
    for (const link of $("list").querySelectorAll("a")) {
      if (current && Number(link.dataset.number) === current.number) { link.setAttribute("aria-current", "true"); reveal(link); }
      else link.removeAttribute("aria-current");
    }
  }

  /** Scroll the list, and not the page, to an entry. */
  function reveal(link) {
    const [box, entry] = [$("list").getBoundingClientRect(), link.getBoundingClientRect()];
    if (entry.top < box.top) $("list").scrollTop -= box.top - entry.top;
    else if (entry.bottom > box.bottom) $("list").scrollTop += entry.bottom - box.bottom;
  }

  $("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const next = step && event.target.closest("li")?.[step];
    if (next) { event.preventDefault(); next.firstElementChild.focus(); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && event.target === $("search")) { $("search").value = ""; filter(); $("search").blur(); return; }
    if (event.target.matches("input, select, textarea")) return;
    const action = { "/": () => $("search").focus(), j: () => move(1), k: () => move(-1), c: pin, d: () => $("detail").focus() }[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  let waiting;
  $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 120); });
  for (const id of ["model", "cassette", "outcome", "order"]) $(id).addEventListener("change", filter);
  $("filter").addEventListener("submit", (event) => { event.preventDefault(); filter(); });
  $("filter").addEventListener("reset", () => setTimeout(filter));
  $("before").addEventListener("click", () => turnPage(-1));
  $("after").addEventListener("click", () => turnPage(1));
  $("skip").addEventListener("click", () => $("calls-title").focus());
  addEventListener("hashchange", () => {
    route();
    $("announced").textContent = $("detail").querySelector("h3")?.textContent || "";
    if (matchMedia("(max-width: 60rem)").matches) $("detail").scrollIntoView();
  });

  const choices = (id, all, list) => put($(id), make("option", { value: "" }, all), ...list.map(([value, text]) => make("option", { value }, text)));
  choices("model", "all", [...new Set(calls.map(nameOf))].sort().map((name) => [name, name]));
  choices("cassette", "all", cassettes.map((each, index) => [index, each.path]));
  showSums();
  showModels();
  showList();
  route();
  if (location.hash) $("calls-title").scrollIntoView();
  document.documentElement.dataset.ready = "true";
}
