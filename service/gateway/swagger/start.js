// Starts Swagger UI over the service's OpenAPI document.
"use strict";

const PAGE = "#page";
const LINES = "application/x-ndjson";
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function followColorScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

/** The OpenAPI document as this page shows it. */
async function readDocument() {
  const answer = await fetch("openapi.json");
  if (!answer.ok) {
    throw new Error(`The OpenAPI document was answered with status ${answer.status}.`);
  }
  const spec = await answer.json();
  // a proxy may serve everything under a prefix: requests go to the folder of this page
  spec.servers = [{ url: new URL(".", window.location.href).href.replace(/\/$/, "") }];

  for (const path of Object.values(spec.paths)) {
    for (const operation of Object.values(path)) {
      showLinesAsList(operation.requestBody?.content?.[LINES]);
    }
  }
  return spec;
}

/** Swagger UI takes JSON lines for one JSON value: examples become lists, and `sendListAsLines`
 *  turns them into lines again. */
function showLinesAsList(body) {
  for (const example of Object.values(body?.examples ?? {})) {
    example.value = example.value.trim().split("\n").map((line) => JSON.parse(line));
    example.summary += " (shown as a list, sent as lines)";
  }
}

function sendListAsLines(request) {
  if (request.headers?.["Content-Type"] !== LINES) {
    return request;
  }
  try {
    const entries = [JSON.parse(request.body)].flat();
    request.body = entries.map((entry) => `${JSON.stringify(entry)}\n`).join("");
  } catch {
    // lines that were typed as they are
  }
  return request;
}

async function start() {
  SwaggerUIBundle({
    spec: await readDocument(),
    dom_id: PAGE,
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    persistAuthorization: false, // a key is kept in memory alone
    requestInterceptor: sendListAsLines,
    tryItOutEnabled: true,
    validatorUrl: null, // by default Swagger UI asks another host
  });
}

followColorScheme();
dark.addEventListener("change", followColorScheme);
start().catch((failure) => {
  document.querySelector(PAGE).textContent = `This page could not be shown. ${failure.message}`;
});
