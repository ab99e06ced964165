// The page around Swagger UI: the way to the other role's page, and the token that this one hands out.
"use strict";

const { otherUrl, otherPort } = document.body.dataset;
// Where the settings do not name the other role's address, it is looked for on this host.
const otherOrigin = otherUrl || `${location.protocol}//${location.hostname}:${otherPort}`;
for (const id of ["other", "next"]) {
  document.getElementById(id).href = `${otherOrigin}/docs`;
}

const token = document.getElementById("token");
token.addEventListener("focus", () => token.select());
document.getElementById("copy").addEventListener("click", async () => {
  token.select();
  // Only a secure context has the clipboard; elsewhere the token is selected, to be copied by hand.
  await navigator.clipboard?.writeText(token.value);
});

/** Shows a token that an answer holds, so that nobody has to pick it out of the JSON. */
function showToken(response) {
  const handedOut = response.body?.accessToken ?? response.obj?.accessToken;
  if (handedOut) {
    token.value = handedOut;
    document.getElementById("handed-out").hidden = false;
  }
  return response;
}

window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#document",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  responseInterceptor: showToken,
  tryItOutEnabled: true,
  validatorUrl: null, // or it would send the document's address to somebody else's server
});
