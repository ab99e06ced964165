// The page around Swagger UI. It fills in what a newcomer would have to think up, signs in with the access token of a
// response, and hands that token to the other role's page.
"use strict";

const { other, otherUrl, otherPort } = document.body.dataset;
// Without a configured address, the other role is assumed to be on this host.
const otherPage = `${otherUrl || `${location.protocol}//${location.hostname}:${otherPort}`}/docs`;
// Messages are sent to this origin and accepted from this origin, and no other.
const otherOrigin = new URL(otherPage).origin;
// The operation that a signed-in newcomer tries next on each role's page.
const nextOperation = { users: "#/users/getCurrentUser", wallet: "#/transactions/creditWallet" };

// Every request may carry these two. The text says so once; in the forms they would only be in the way.
const TRACING = ["x-request-id", "traceparent"];
const KEY = "Idempotency-Key";

const darkMode = matchMedia("(prefers-color-scheme: dark)");
function applyColours() {
  document.documentElement.classList.toggle("dark-mode", darkMode.matches);
}
darkMode.addEventListener("change", applyColours);
applyColours();

const signedIn = document.getElementById("signed-in");
const token = document.getElementById("token");
token.addEventListener("focus", () => token.select());
document.getElementById("copy").addEventListener("click", async () => {
  token.select();
  // The clipboard needs a secure context; elsewhere the selected token can be copied by hand.
  await navigator.clipboard?.writeText(token.value);
});

/** Random characters of base 16. `crypto.randomUUID` would need a secure context. */
function random(length) {
  const bytes = crypto.getRandomValues(new Uint8Array(length / 2));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The document with an unused email address and idempotency key, and without the parameters of tracing. */
function personalized(openapi) {
  const email = `ada-${random(8)}@example.com`;
  for (const operation of Object.values(openapi.paths ?? {}).flatMap((item) => Object.values(item))) {
    const example = operation.requestBody?.content?.["application/json"]?.example;
    if (example?.email) example.email = email;
    if (!operation.parameters) continue;
    const isTracing = ({ name, $ref }) => TRACING.includes(name ?? $ref?.split("/").pop());
    operation.parameters = operation.parameters.filter((parameter) => !isTracing(parameter));
    for (const parameter of operation.parameters) if (parameter.name === KEY) parameter.example = random(32);
  }
  return openapi;
}

/** Sends the token with every request from now on, and shows it for use in a shell. */
function signIn(accessToken) {
  if (typeof accessToken !== "string" || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(accessToken)) return;
  ui.preauthorizeApiKey("bearer", accessToken);
  token.value = accessToken;
  signedIn.hidden = false;
}

const plugin = {
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (original) => (openapi) => original(personalized(openapi)),
        setResponse: (original, system) => (path, method, response) => {
          const result = original(path, method, response);
          signIn(response.body?.accessToken);
          // The next credit or debit is another one.
          const parameters = system.specSelectors.specJson().getIn(["paths", path, method, "parameters"]);
          const key = parameters?.find((parameter) => parameter.get("name") === KEY);
          if (response.status === 201 && key) {
            system.specActions.changeParamByIdentity([path, method], key, random(32));
          }
          return result;
        },
      },
    },
    auth: {
      wrapActions: {
        logout: (original) => (schemes) => {
          token.value = "";
          signedIn.hidden = true;
          return original(schemes);
        },
      },
    },
  },
};

// Tabs with the other role's page that this page has opened.
const openedTabs = new Set();
for (const id of ["other", "next"]) {
  const link = document.getElementById(id);
  link.href = otherPage;
  link.addEventListener("click", (event) => {
    if (!token.value) return;
    // A new tab that knows its opener: it requests the token as soon as it can use it.
    event.preventDefault();
    openedTabs.add(window.open(otherPage + nextOperation[other]));
  });
}

window.addEventListener("message", ({ origin, source, data }) => {
  if (origin !== otherOrigin) return;
  if (data?.type === "purse-token-request" && openedTabs.has(source) && token.value) {
    source.postMessage({ type: "purse-token", accessToken: token.value }, otherOrigin);
  }
  if (data?.type === "purse-token" && source === window.opener) signIn(data.accessToken);
});

const ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#document",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  plugins: [plugin],
  tryItOutEnabled: true,
  validatorUrl: null, // otherwise the page would send the document's address to a third party
  onComplete: () => window.opener?.postMessage({ type: "purse-token-request" }, otherOrigin),
});
window.ui = ui;
