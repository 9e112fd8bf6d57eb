// Starts Swagger UI over the service's OpenAPI document.
"use strict";

const PAGE = "#page";
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function followColorScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

async function start() {
  const answer = await fetch("openapi.json");
  if (!answer.ok) {
    throw new Error(`The OpenAPI document was answered with status ${answer.status}.`);
  }
  const spec = await answer.json();
  // a proxy may serve everything under a prefix: requests go to the folder of this page
  spec.servers = [{ url: new URL(".", window.location.href).href.replace(/\/$/, "") }];

  SwaggerUIBundle({
    spec,
    dom_id: PAGE,
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    persistAuthorization: false, // a key is kept in memory alone
    tryItOutEnabled: true,
    validatorUrl: null, // by default Swagger UI asks another host
  });
}

followColorScheme();
dark.addEventListener("change", followColorScheme);
start().catch((failure) => {
  document.querySelector(PAGE).textContent = `This page could not be shown. ${failure.message}`;
});
